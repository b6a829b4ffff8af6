// lend_test.cpp - a caller of invoke() is the loop itself while the loop thread sleeps
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <hybridloop.hpp>

#include "support/proc.hpp"
#include "support/race.hpp"
#include "support/running.hpp"
#include "support/stage.hpp"
#include "support/support.hpp"
#include "support/visible_parker.hpp"

using namespace support;
using hybridloop::fence_policy;
using hybridloop::interest;
using order = std::vector<int>;

namespace {

using parker = visible_parker;
using symmetric = visible_traits<fence_policy::symmetric>;
using asymmetric = visible_traits<fence_policy::asymmetric>;
using adaptive = visible_traits<fence_policy::adaptive>;
using every_fence = std::tuple<symmetric, asymmetric, adaptive>;
using visible_loop = hybridloop::basic_loop<adaptive>;

hybridloop::loop_options lending(hybridloop::loop_options options = {}) {
  options.caller_runs = true;
  options.spin = 0ns;
  return options;
}

std::thread::id me() { return std::this_thread::get_id(); }

template <class Loop>
std::thread::id asked_where(Loop& l) {
  return l.invoke([] { return me(); });
}

// A loop that lends itself, runs on a thread of its own, and sleeps there.
template <class Traits = adaptive>
class sleeping_loop {
 public:
  using type = hybridloop::basic_loop<Traits>;

  explicit sleeping_loop(const place& where = in_channel, hybridloop::loop_options options = {})
      : loop_(where, lending(options)) {
    virtual_clock::reset();
  }
  ~sleeping_loop() { end(); }

  void run(std::function<void(type&)> run = [](type& l) { l.run(); }) {
    runner_.emplace([this, run] {
      thread_ = me();
      run(*loop_);
    });
    parker::await_sleepers(1);
  }
  void end() {
    if (!runner_) return;
    loop_->stop();
    runner_.reset();
  }
  void await_end() { runner_.reset(); }

  type& operator*() { return *loop_; }
  type* operator->() { return &*loop_; }
  std::thread::id thread() const { return thread_; }

 private:
  loop_in<type> loop_;
  std::thread::id thread_;
  std::optional<scoped_thread> runner_;
};

// Has another thread post a task and stop there, before its look at the loop.
template <class Loop>
class stalled_poster {
 public:
  template <class F>
  stalled_poster(Loop& l, const std::string& point, F&& f)
      : stage_(point, [this] {
          there_.open();
          go_on_.pass();
        }),
        thread_([&l, task = std::forward<F>(f)] { must_post(l, task); }) {
    there_.pass();
  }
  ~stalled_poster() { go_on(); }
  void go_on() { go_on_.open(); }

 private:
  gate there_;
  gate go_on_;
  const stage stage_;
  scoped_thread thread_;
};

}  // namespace

TYPE_TO_STRING(symmetric);
TYPE_TO_STRING(asymmetric);
TYPE_TO_STRING(adaptive);

TEST_SUITE_BEGIN("lend");

// ---- Who runs it ----

TEST_CASE("a caller that finds the loop asleep runs its closure itself, as the loop, and wakes nobody") {
  sleeping_loop<> l;
  l.run();
  const std::size_t wakes = parker::wakes();
  std::size_t ran = 0;

  for (std::size_t i = 1; i <= 1000; ++i) {
    CHECK(l->invoke([&] {
      CHECK(l->running_in_this_thread());
      CHECK(me() != l.thread());
      return ++ran;
    }) == i);
    CHECK_FALSE(l->running_in_this_thread());
  }

  CHECK(parker::wakes() == wakes);
  CHECK(l->stats().loans == 1000);
  CHECK(l->stats().tasks == 1000);
  CHECK(l->stats().posts == 1000);
  CHECK(l->stats().parks == 1);
  CHECK(l->stats().wakes_channel == 0);
}

TEST_CASE("what a lent loop returns is a value, a reference or nothing") {
  sleeping_loop<> l;
  l.run();
  int number = 7;
  bool ran = false;

  CHECK(l->invoke([] { return std::string(100, 'x'); }) == std::string(100, 'x'));
  CHECK(&l->invoke([&]() -> int& { return number; }) == &number);
  CHECK(*l->invoke([] { return std::make_unique<int>(42); }) == 42);
  l->invoke([&] { ran = true; });

  CHECK(ran);
  CHECK(l->stats().loans == 4);
}

TEST_CASE("a loop that was not made to lend runs what is invoked on its own thread") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    hybridloop::loop_options options;
    options.spin = 0ns;
    loop_in<> l(where, options);
    const running<hybridloop::loop> runner(*l);
    for (std::size_t i = 1; i <= 20; ++i) {
      await_parks(*l, i);
      CHECK(asked_where(*l) != me());
    }
    CHECK(l->stats().loans == 0);
  }
}

TEST_CASE("a loop that sleeps in the poller is not lent, nor is a call of run_once()") {
  for (const place& where : {in_poller, in_bare_poller}) {
    CAPTURE(where.name);
    loop_in<> l(where, lending());
    const running<hybridloop::loop> runner(*l);
    await_parks(*l, 1);
    CHECK(asked_where(*l) != me());
    CHECK(l->stats().loans == 0);
  }
  sleeping_loop<> l;
  bool done = false;
  l.run([&done](visible_loop& it) {
    while (!done) it.run_once();
  });

  CHECK(l->invoke([&done] {
    done = true;
    return me();
  }) == l.thread());
  l.await_end();

  CHECK(l->stats().loans == 0);
}

TEST_CASE("with a companion, and in run_for() and run_until_idle(), a loop is lent as in run()") {
  sleeping_loop<> beside(in_mini);
  beside.run();
  CHECK(asked_where(*beside) == me());
  beside.end();

  sleeping_loop<> for_a_while;
  const auto deadline = parker::from_now(1h);
  scoped_thread runner([&] { for_a_while->run_for(1h); });
  parker::await_sleepers(1, deadline);
  CHECK(asked_where(*for_a_while) == me());
  parker::advance(1h);
  runner.join();

  sleeping_loop<> until_idle;
  auto guard = std::make_optional(until_idle->hold());
  until_idle.run([](visible_loop& l) { l.run_until_idle(); });
  CHECK(asked_where(*until_idle) == me());
  guard.reset();
  until_idle.await_end();
}

TEST_CASE("what callers run counts in what run() returns") {
  sleeping_loop<> l;
  std::size_t ran = 0;
  l.run([&ran](visible_loop& it) { ran = it.run(); });

  for (int i = 0; i < 3; ++i) l->invoke([] {});
  l.end();

  CHECK(ran == 3);
  CHECK(l->stats().tasks == 3);
}

// ---- What comes first ----

TEST_CASE_TEMPLATE_DEFINE("what was accepted before the loan runs before the closure, by the caller", traits,
                          accepted_before) {
  using loop_type = hybridloop::basic_loop<traits>;
  sleeping_loop<traits> l;
  l.run();
  order ran;
  std::thread::id by;
  {
    stalled_poster<loop_type> poster(*l, "published", [&] {
      by = me();
      ran.push_back(1);
    });

    l->invoke([&] { ran.push_back(2); });

    CHECK(ran == order{1, 2});
    CHECK(by == me());
    CHECK(l->stats().loans == 1);
  }
  CHECK(l->invoke([] { return 3; }) == 3);
}
TEST_CASE_TEMPLATE_APPLY(accepted_before, every_fence);

TEST_CASE("what spilled before the loan keeps its order") {
  for (const char* window : {"published", "spilled"}) {
    CAPTURE(window);
    sleeping_loop<> l(in_channel, tiny(2));
    order ran;
    gate busy;
    gate go_on;
    l.run();
    must_post(*l, [&] {
      busy.open();
      go_on.pass();
    });
    busy.pass();
    for (int i = 1; i <= 5; ++i) must_post(*l, [&ran, i] { ran.push_back(i); });
    go_on.open();
    parker::await_sleepers(1);

    l->invoke([&] { ran.push_back(6); });

    CHECK(ran == order{1, 2, 3, 4, 5, 6});
  }
}

TEST_CASE("behind a claim that is not yet published the closure waits, and the loop thread runs it") {
  sleeping_loop<> l;
  l.run();
  order ran;
  stalled_poster<visible_loop> poster(*l, "claimed", [&] { ran.push_back(1); });

  const scoped_thread publisher([&] {
    await([&] { return l->stats().posts == 2; });
    poster.go_on();
  });
  const auto by = l->invoke([&] {
    ran.push_back(2);
    return me();
  });

  CHECK(by == l.thread());
  CHECK(ran == order{1, 2});
  CHECK(l->stats().loans == 0);
}

TEST_CASE("a task before the closure that stops the loop is the last one") {
  sleeping_loop<> l;
  l.run();
  order ran;
  stalled_poster<visible_loop> poster(*l, "published", [&] {
    ran.push_back(1);
    l->stop();
  });

  scoped_thread caller([&] { l->invoke([&] { ran.push_back(2); }); });
  l.await_end();
  CHECK(ran == order{1});
  CHECK(l->run_until_idle() == 1);
  caller.join();

  CHECK(ran == order{1, 2});
}

// ---- What comes meanwhile ----

TEST_CASE_TEMPLATE_DEFINE("a post to a lent loop makes no system call, and runs on the loop thread behind", traits,
                          posted_meanwhile) {
  sleeping_loop<traits> l;
  l.run();
  gate ran;
  std::thread::id by;
  bool before = false;
  const auto post = [&] {
    const std::size_t wakes = parker::wakes();
    for (int i = 0; i < 3; ++i) must_post(*l, [] {});
    must_post(*l, [&] {
      by = me();
      ran.open();
    });
    CHECK(parker::wakes() == wakes);
  };

  l->invoke([&] {
    elsewhere(post);
    before = by == std::thread::id();
  });
  ran.pass();
  CHECK(before);
  CHECK(by == l.thread());
  parker::await_sleepers(1);

  by = {};
  gate again;
  l->invoke([&] {
    must_post(*l, [&] {
      by = me();
      again.open();
    });
  });
  again.pass();
  CHECK(by == l.thread());
}
TEST_CASE_TEMPLATE_APPLY(posted_meanwhile, every_fence);

TEST_CASE_TEMPLATE_DEFINE("what comes as a loan begins, or ends, is not lost", traits, as_it_ends) {
  using loop_type = hybridloop::basic_loop<traits>;
  for (const std::string window : {"lent", "before-give-back"}) {
    CAPTURE(window);
    const auto meddle = [&](const std::function<void(loop_type&)>& act, const auto& awaited) {
      sleeping_loop<traits> l;
      l.run();
      {
        const stage meddling(window, [&] { elsewhere([&] { act(*l); }); });
        l->invoke([] {});
        CHECK(meddling.entered());
      }
      awaited(l);
    };
    gate ran;
    meddle([&](loop_type& l) { must_post(l, [&] { ran.open(); }); }, [&](auto&) { ran.pass(); });
    meddle([&](loop_type& l) { l.stop(); }, [](auto& l) { l.await_end(); });
    meddle([&](loop_type& l) { l.close(); }, [](auto& l) { l.await_end(); });
    meddle([&](loop_type& l) { l.wake(); }, [](auto& l) { await_parks(*l, 2); });
    std::optional<scoped_thread> caller;
    std::thread::id by;
    meddle(
        [&](loop_type& l) {
          caller.emplace([&l, &by] { by = asked_where(l); });
          await([&l] { return l.stats().posts == (l.stats().loans + 1); });
          std::this_thread::sleep_for(10ms);  // that was the claim
        },
        [&](auto& l) {
          caller.reset();
          CHECK((by == l.thread()) == (window == "before-give-back"));
        });
  }
}
TEST_CASE_TEMPLATE_APPLY(as_it_ends, every_fence);

TEST_CASE("a stop or a close by the closure ends run()") {
  sleeping_loop<> stopped;
  stopped.run();
  stopped->invoke([&] { stopped->stop(); });
  stopped.await_end();

  sleeping_loop<> closed;
  closed.run();
  closed->invoke([&] { closed->close(); });
  closed.await_end();
  CHECK(closed->closed());
}

TEST_CASE("microtasks of the closure run before invoke returns, what it defers runs on the loop thread") {
  sleeping_loop<> l;
  l.run();
  order ran;
  std::thread::id deferred_by;
  gate deferred;

  l->invoke([&] {
    l->microtask([&] {
      l->microtask([&] { ran.push_back(2); });
      ran.push_back(1);
    });
  });
  ran.push_back(3);
  CHECK(l->stats().parks == 1);
  l->invoke([&] {
    l->defer([&] {
      deferred_by = me();
      deferred.open();
    });
  });
  deferred.pass();

  CHECK(ran == order{1, 2, 3});
  CHECK(deferred_by == l.thread());
}

TEST_CASE("microtasks without an end do not hold the caller of invoke()") {
  sleeping_loop<> l;
  l.run();
  std::atomic<bool> enough{false};
  std::function<void()> again = [&] {
    if (!enough) l->microtask([&] { again(); });
  };

  l->invoke([&] { again(); });
  enough = true;
  CHECK(l->invoke([] { return 1; }) == 1);
}

// ---- Time ----

TEST_CASE("a deadline that the closure arms ahead of the sleeper's is not slept past, a later one wakes nobody") {
  sleeping_loop<> l;
  std::thread::id by;
  gate fired;
  const auto in_an_hour = parker::from_now(1h);
  const auto in_a_second = parker::from_now(1s);
  l->after(1h, [] {});
  scoped_thread runner([&] { l->run(); });
  parker::await_sleepers(1, in_an_hour);

  const std::size_t wakes = parker::wakes();
  l->invoke([&] { l->after(2h, [] {}); });
  CHECK(parker::wakes() == wakes);
  const auto id = l->invoke([&] {
    return l->after(1s, [&] {
      by = me();
      fired.open();
    });
  });
  CHECK(id);
  parker::await_sleepers(1, in_a_second);
  parker::advance(1s);
  fired.pass();

  CHECK(by != me());
  l->stop();
}

TEST_CASE("a timer that falls due while the loop is lent fires on the loop thread, when it is given back") {
  sleeping_loop<> l;
  gate fired;
  bool early = true;
  std::thread::id by;
  const auto deadline = parker::from_now(1s);
  l->after(1s, [&] {
    by = me();
    fired.open();
  });
  scoped_thread runner([&] { l->run(); });
  parker::await_sleepers(1, deadline);

  l->invoke([&] {
    parker::advance(1s);
    parker::await_sleepers(1, hybridloop::detail::never);  // the loop thread, which waits for us
    early = by != std::thread::id();
  });
  fired.pass();

  CHECK_FALSE(early);
  CHECK(by != me());
  l->stop();
}

TEST_CASE("run_for() returns at its deadline, however often the loop was lent") {
  sleeping_loop<> l;
  const auto deadline = parker::from_now(1s);
  scoped_thread runner([&] { l->run_for(1s); });
  parker::await_sleepers(1, deadline);

  l->invoke([] {});
  l->invoke([] {
    parker::advance(1s);
    parker::await_sleepers(1);
  });

  runner.join();
  CHECK(l->stats().loans == 2);
}

TEST_CASE("what a closure ends may be the last that run_until_idle() waited for") {
  const auto ends_it = [](auto& l, const auto& act) {
    l->invoke([&] { act(); });
    l.await_end();
  };
  const auto until_idle = [](visible_loop& l) { l.run_until_idle(); };
  {
    sleeping_loop<> l;
    auto guard = std::make_optional(l->hold());
    l.run(until_idle);
    ends_it(l, [&] { guard.reset(); });
  }
  {
    sleeping_loop<> l(in_mini);
    const socket_pair wire;
    const auto id = l->watch(wire.left(), interest::readable, [] {});
    l.run(until_idle);
    l->invoke([] {});
    ends_it(l, [&] { CHECK(l->unwatch(id)); });
    CHECK(l->stats().loans == 2);
  }
  {
    sleeping_loop<> l;
    const auto deadline = parker::from_now(1h);
    const auto id = l->after(1h, [] {});
    scoped_thread runner([&] { until_idle(*l); });
    parker::await_sleepers(1, deadline);
    l->invoke([&] { CHECK(l->cancel(id)); });
    runner.join();
  }
}

// ---- Descriptors ----

TEST_CASE("a watch that the closure adds is heard: the loop thread sleeps in the poller from then on") {
  for (const place& where : {in_channel, in_mini}) {
    CAPTURE(where.name);
    sleeping_loop<> l(where);
    const socket_pair wire;
    gate told;
    std::thread::id by;
    l.run();

    const auto id = l->invoke([&] {
      return l->watch(wire.left(), interest::readable, [&] {
        by = me();
        wire.drain_left();
        told.open();
      });
    });
    wire.write_right();
    told.pass();
    CHECK(by == l.thread());
    CHECK(l->unwatch(id));
    parker::await_sleepers(1);

    CHECK(asked_where(*l) == me());
  }
}

TEST_CASE("a watch that another thread adds while the loop is lent is heard") {
  sleeping_loop<> l;
  const socket_pair wire;
  gate told;
  l.run();

  l->invoke([&] {
    elsewhere([&] {
      l->watch(wire.left(), interest::readable, [&] {
        wire.drain_left();
        told.open();
      });
    });
  });
  wire.write_right();
  told.pass();
}

TEST_CASE("a watch that comes and goes within the closure wakes nobody, a file that is always ready does") {
  sleeping_loop<> l;
  const socket_pair wire;
  l.run();

  const std::size_t wakes = parker::wakes();
  l->invoke([&] { CHECK(l->unwatch(l->watch(wire.left(), interest::readable, [] {}))); });
  CHECK(parker::wakes() == wakes);

  gate told;
  const descriptor null = open_file();
  l->invoke([&] {
    l->watch(null, interest::readable | interest::oneshot, [&] { told.open(); });
  });
  told.pass();
  close_file(null);
}

TEST_CASE("what needs the loop at rest is refused at once while it is lent, not waited for") {
  sleeping_loop<> l;
  l.run();
  std::error_code code;

  l->invoke([&] {
    elsewhere([&] { l->backend_handle(code); });
  });

  CHECK(code == hybridloop::errc::wrong_thread);
}

TEST_CASE("a handle for a foreign loop, asked for by the closure, sends the loop thread to the poller") {
  sleeping_loop<> l;
  l.run();
  std::error_code code;
  l->invoke([&] { l->backend_handle(code); });

  if (!code) {
    CHECK(asked_where(*l) == l.thread());
  } else {
    CHECK(code == hybridloop::errc::unsupported);
  }
}

// ---- Loops in loops ----

TEST_CASE("an invoke back into a lent loop runs at once, at any depth") {
  sleeping_loop<> one;
  sleeping_loop<> two;
  one.run();
  scoped_thread second([&] { two->run(); });
  parker::await_sleepers(2);

  const int got = one->invoke([&] {
    return two->invoke([&] {
      CHECK(one->running_in_this_thread());
      return one->invoke([&] { return two->invoke([] { return 5; }); });
    });
  });

  CHECK(got == 5);
  CHECK(one->stats().loans == 1);
  CHECK(two->stats().loans == 1);
  two->stop();
}

TEST_CASE("who borrows a loop stands in for its thread in the loops that this one runs besides") {
  sleeping_loop<> outer;
  sleeping_loop<> inner;
  must_post(*outer, [&] { inner->run(); });
  outer.run();
  order ran;

  CHECK(inner->invoke([&] {
    CHECK(outer->running_in_this_thread());
    outer->defer([&ran] { ran.push_back(2); });
    must_post(*outer, [&ran] { ran.push_back(3); });
    ran.push_back(1);
    return outer->invoke([] { return me(); });
  }) == me());
  CHECK_FALSE(outer->running_in_this_thread());
  CHECK(inner->stats().loans == 1);
  inner->stop();
  parker::await_sleepers(1);

  CHECK(outer->invoke([&ran] { return ran; }) == order{1, 3, 2});
}

TEST_CASE("a closure may run the loop, sleep in it and be woken, while the loop thread stays away") {
  for (const place& where : {in_channel, in_mini}) {
    for (const bool in_poller_then : {false, true}) {
      CAPTURE(where.name);
      CAPTURE(in_poller_then);
      sleeping_loop<> l(where);
      const socket_pair wire;
      l.run();
      std::vector<std::thread::id> by;
      std::size_t left = 3;
      const bool watches = in_poller_then && where.path == hybridloop::fast_path::full;
      const scoped_thread other([&] {
        for (int i = 0; i < 3; ++i) {
          if (watches) {
            await_parks(*l, 2 + static_cast<std::uint64_t>(i));
          } else {
            parker::await_sleepers(2);
          }
          must_post(*l, [&] {
            by.push_back(me());
            --left;
          });
        }
      });

      l->invoke([&] {
        const auto id = in_poller_then ? l->watch(wire.left(), interest::readable, [] {}) : hybridloop::watch_id();
        while (left != 0) l->run_once();
        if (in_poller_then) CHECK(l->unwatch(id));
      });

      for (const auto id : by) CHECK(id == me());
      parker::await_sleepers(1);
      CHECK(asked_where(*l) == me());
    }
  }
}

TEST_CASE("a deadline of the sleeper that comes while the closure runs the loop fires there, once") {
  sleeping_loop<> l;
  std::vector<std::thread::id> by;
  const auto deadline = parker::from_now(1s);
  l->after(1s, [&] { by.push_back(me()); });
  scoped_thread runner([&] { l->run(); });
  parker::await_sleepers(1, deadline);

  const scoped_thread clock([&] {
    parker::await_sleepers(2, deadline);
    parker::advance(1s);
  });
  l->invoke([&] {
    while (by.empty()) l->run_once();
  });
  CHECK(asked_where(*l) != std::thread::id());

  CHECK(by.size() == 1);
  CHECK(by.front() == me());
  l->stop();
}

TEST_CASE("a stop or a close while the closure runs the loop ends both runs") {
  for (const bool closes : {false, true}) {
    CAPTURE(closes);
    sleeping_loop<> l;
    l.run();
    const scoped_thread other([&] {
      parker::await_sleepers(2);
      closes ? l->close() : l->stop();
    });

    l->invoke([&] { l->run(); });
    l.await_end();
  }
}

TEST_CASE("microtasks that a loan left over run on the loop thread, before its next task") {
  sleeping_loop<> l;
  l.run();
  const std::size_t many = hybridloop::detail::microtasks_per_turn * 3 / 2;
  std::size_t ran = 0;
  std::size_t seen = 0;
  std::size_t by_caller = 0;
  gate done;

  l->invoke([&] {
    for (std::size_t i = 0; i < many; ++i) {
      l->microtask([&, caller = me()] {
        ++ran;
        if (me() == caller) ++by_caller;
      });
    }
    must_post(*l, [&] {
      seen = ran;
      done.open();
    });
  });
  done.pass();

  CHECK(seen == many);
  CHECK(by_caller == hybridloop::detail::microtasks_per_turn);
}

TEST_CASE("a loop that sleeps in a nested run is lent too, and runs nothing twice") {
  sleeping_loop<> l(in_channel, tiny(2));
  std::size_t ran = 0;
  bool done = false;
  must_post(*l, [&] {
    const auto guard = l->hold();
    l->run_until_idle();
    done = true;
  });
  l.run();

  for (std::size_t i = 1; i <= 10; ++i) {
    CHECK(asked_where(*l) == me());
    for (int n = 0; n < 5; ++n) must_post(*l, [&] { ++ran; });
    await([&] { return l->stats().tasks == 6 * i; });
    parker::await_sleepers(1);
  }
  l->invoke([&] { l->stop(); });
  l.await_end();

  CHECK(ran == 50);
  CHECK(done);
}

// ---- What tasks throw ----

#if defined(__cpp_exceptions)

namespace {

template <class F>
std::string thrown_by(F&& f) {
  try {
    f();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return {};
}
[[noreturn]] void fail_with(const char* what) { throw std::runtime_error(what); }

std::atomic<int> handled{0};
hybridloop::loop_options with_handler(bool has_one) {
  handled = 0;
  hybridloop::loop_options options;
  if (has_one) options.on_exception = [](std::exception_ptr) { ++handled; };
  return options;
}

}  // namespace

TEST_CASE("what a closure throws that its caller runs goes to the caller, and the loop thread sleeps on") {
  for (const bool has_handler : {false, true}) {
    CAPTURE(has_handler);
    sleeping_loop<> l(in_channel, with_handler(has_handler));
    l.run();
    const std::size_t wakes = parker::wakes();

    CHECK(thrown_by([&] { l->invoke([] { fail_with("mine"); }); }) == "mine");
    CHECK_FALSE(l->running_in_this_thread());

    CHECK(parker::wakes() == wakes);
    CHECK(handled == 0);
    CHECK(l->stats().loans == 1);
    CHECK(asked_where(*l) == me());
  }
}

TEST_CASE("what a task before the closure throws leaves run() on the loop thread, and the closure waits its turn") {
  sleeping_loop<> l;
  std::string left_run;
  order ran;
  l.run([&](visible_loop& it) { left_run = thrown_by([&] { it.run(); }); });
  stalled_poster<visible_loop> poster(*l, "published", [&] {
    ran.push_back(1);
    fail_with("theirs");
  });

  std::thread::id by;
  scoped_thread caller([&] {
    by = l->invoke([&] {
      ran.push_back(2);
      return me();
    });
  });
  l.await_end();
  CHECK(left_run == "theirs");
  CHECK(ran == order{1});
  CHECK(l->run_until_idle() == 1);
  caller.join();

  CHECK(ran == order{1, 2});
  CHECK(by == me());
}

TEST_CASE("a handler takes at once what a task before the closure throws, and the caller goes on") {
  sleeping_loop<> l(in_channel, with_handler(true));
  l.run();
  const stalled_poster<visible_loop> poster(*l, "published", [] { fail_with("theirs"); });

  CHECK(asked_where(*l) == me());

  CHECK(handled == 1);
}

TEST_CASE("what a microtask of the closure throws leaves run() on the loop thread, not invoke()") {
  sleeping_loop<> l;
  std::string left_run;
  l.run([&](visible_loop& it) { left_run = thrown_by([&] { it.run(); }); });

  CHECK(l->invoke([&] {
    l->microtask([] { fail_with("later"); });
    return 7;
  }) == 7);
  l.await_end();

  CHECK(left_run == "later");
}

TEST_CASE("a closed loop refuses an invoke, whether it lends itself or not") {
  sleeping_loop<> l;
  l->close();
  CHECK_THROWS_AS(l->invoke([] {}), std::system_error);
}

TEST_CASE("a closure may throw while it runs the loop") {
  sleeping_loop<> l;
  l.run();
  const scoped_thread other([&] {
    parker::await_sleepers(2);
    must_post(*l, [] { fail_with("in there"); });
  });

  CHECK(thrown_by([&] { l->invoke([&] { l->run(); }); }) == "in there");

  parker::await_sleepers(1);
  CHECK(asked_where(*l) == me());
}

#endif  // __cpp_exceptions

// ---- What a second reading of the protocol constructed ----

TEST_CASE("a wake that comes while the loop is lent ends the sleep of a run inside the closure") {
  hybridloop::loop l(lending());
  const running<hybridloop::loop> runner(l);
  await_parks(l, 1);
  while (l.stats().loans == 0) {
    l.invoke([&l] {
      elsewhere([&l] { l.wake(); });
      l.run_once();
    });
  }
}

TEST_CASE("run_until_idle returns though a lane joins during the loan that ends the last work") {
  for (const bool elsewhere_made : {false, true}) {
    CAPTURE(elsewhere_made);
    for (bool lent = false; !lent;) {
      hybridloop::loop l(lending());
      std::optional<hybridloop::producer> p;
      const auto last = l.after(1h, [] {});
      const scoped_thread runner([&l] { l.run_until_idle(); });
      await_parks(l, 1);
      const auto make = [&] { p.emplace(l.make_producer(16)); };
      l.invoke([&] {
        if (elsewhere_made) {
          elsewhere(make);
        } else {
          make();
        }
        l.cancel(last);
      });
      lent = l.stats().loans == 1;
    }
  }
}

TEST_CASE("a closure does not overtake its caller's own posts, however busy a lane is meanwhile") {
  staged_loop l(lending());
  auto lane = l.make_producer(16);
  const running<staged_loop> runner(l);
  await_parks(l, 1);
  gate claimed;
  gate go;
  order ran;
  std::optional<stage> stalled;
  stalled.emplace("claimed", [&] {
    claimed.open();
    go.pass();
  });
  scoped_thread in_front([&l] { must_post(l, [] {}); });
  claimed.pass();
  stalled.reset();
  const auto parks = l.stats().parks;
  must_post(l, [&ran] { ran.push_back(1); });  // behind a slot that is claimed and not published
  await_parks(l, parks + 1);

  struct again {
    decltype(lane)& to;
    std::atomic<int>& left;
    void operator()() const {
      if (--left > 0) must_post(to, again{to, left});
    }
  };
  std::atomic<int> left{3};
  const stage lent("lent", [&] { elsewhere([&] { must_post(lane, again{lane, left}); }); });
  scoped_thread releasing([&] {
    while (left > 0) std::this_thread::yield();
    go.open();
  });
  l.invoke([&ran] { ran.push_back(2); });
  left = 0;
  releasing.join();
  in_front.join();
  l.invoke([] {});

  CHECK(ran == order{1, 2});
}

namespace {
// Holds the second thread in the compare-and-swap that gives an idle loop back, until that is destroyed.
struct late_lender {
  static inline thread_local bool is_me = false;
  static inline std::atomic<bool> has_borrowed{false};
  static inline std::atomic<bool> loop_is_gone{false};
};
template <class T>
struct cas_hooked : std::atomic<T> {
  using std::atomic<T>::atomic;
  bool compare_exchange_weak(T& expected, T wanted, std::memory_order order) noexcept {
    return std::atomic<T>::compare_exchange_weak(expected, wanted, order);
  }
  bool compare_exchange_weak(T& expected, T wanted, std::memory_order order, std::memory_order failed) noexcept {
    namespace status = hybridloop::detail::status;
    const T was = expected;
    const bool done = std::atomic<T>::compare_exchange_weak(expected, wanted, order, failed);
    if constexpr (std::is_same_v<T, std::uint32_t>) {
      if (!done || !late_lender::is_me) return done;
      if (wanted == status::lent) {
        late_lender::has_borrowed = true;
        while ((this->load() & status::wanted) == 0) std::this_thread::yield();
      } else if (was == (status::lent | status::wanted)) {
        hybridloop::default_traits::parker::wake_all(*this);  // sleeps may end for no reason
        while (!late_lender::loop_is_gone) std::this_thread::yield();
      }
    }
    return done;
  }
};
struct cas_hooked_traits : hybridloop::default_traits {
  template <class T>
  using atomic = cas_hooked<T>;
};
}  // namespace

TEST_CASE("a loop may be destroyed while the watch that ended it is being given back") {
  std::optional<hybridloop::basic_loop<cas_hooked_traits>> l;
  l.emplace();
  const socket_pair wire;
  wire.write_right();
  scoped_thread other([&] {
    late_lender::is_me = true;
    l->watch(wire.left(), interest::readable, [&l] { l->stop(); });
  });
  while (!late_lender::has_borrowed) std::this_thread::yield();
  l->run();
  l.reset();
  late_lender::loop_is_gone = true;
}

// ---- After a fork ----

#if SUPPORT_POSIX
TEST_CASE("a closure may fork: the parent's loop goes on, the child's is at rest, to be destroyed or used") {
  for (const bool goes_on : {false, true}) {
    CAPTURE(goes_on);
    auto l = std::make_unique<hybridloop::loop>(lending());
    scoped_thread runner([&] { l->run(); });
    pid_t child = -1;
    bool forked = false;
    while (!forked) {
      const auto caller = me();
      l->invoke([&] {
        if (me() != caller) return;
        forked = true;
        child = ::fork();
        if (child == 0 && goes_on) l->after_fork_child();
      });
    }
    if (child == 0) {
      bool ran = false;
      if (goes_on) {
        must_post(*l, [&] { ran = true; });
        if (l->run_until_idle() != 1) ::_exit(2);
      }
      l.reset();
      ::_exit(ran == goes_on ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(l->invoke([] { return 3; }) == 3);
    l->stop();
  }
}

namespace {
// Forks inside a closure that runs on a loan: child() there. What the child ended with.
template <class Loop, class Child>
int end_of_child_forked_on_loan(Loop& l, const Child& child) {
  pid_t forked = -1;
  while (forked < 0) {
    const auto caller = me();
    l.invoke([&] {
      if (me() != caller) return;
      forked = ::fork();
      if (forked == 0) child();
    });
  }
  if (forked == 0) return -1;
  int status = -1;
  ::waitpid(forked, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}
}  // namespace

// TSan takes a thread of the child for one of the parent's that has its address.
TEST_CASE("the child that a closure forked may use the loop there with other threads, and destroy it" *
          doctest::skip(thread_sanitized || forked_threads_die())) {
  auto l = std::make_unique<hybridloop::loop>(lending());
  scoped_thread runner([&] { l->run(); });
  std::optional<std::thread> other;

  const int end = end_of_child_forked_on_loan(*l, [&] {
    l->after_fork_child();
    std::size_t ran = 0;
    other.emplace([&] {
      for (int i = 0; i < 100; ++i) must_post(*l, [&ran] { ++ran; });
    });
    while (ran != 100) l->run_once();
  });
  if (end < 0) {
    other->join();
    l.reset();
    ::_exit(0);
  }

  CHECK(end == 0);
  l->stop();
}

TEST_CASE("a loop that was parked inside a task when a closure forked cannot go on in the child") {
  hybridloop::loop l(lending());
  must_post(l, [&l] {
    const auto until_stopped = l.hold();
    l.run_until_idle();
  });
  scoped_thread runner([&] { l.run(); });
  await_parks(l, 1);

  const int end = end_of_child_forked_on_loan(l, [] {});
  if (end < 0) {
    hybridloop::set_failure_handler([](const char*) { ::_exit(42); });
    l.after_fork_child();
    ::_exit(0);
  }

  CHECK(end == 42);
  l.stop();
}
#endif

// ---- All at once ----

namespace {

template <fence_policy Fence>
using aimed_loop = hybridloop::basic_loop<watched_traits<staged_traits<Fence>>>;
struct stuttering_asymmetric : stuttering_traits {
  static constexpr fence_policy fence = fence_policy::asymmetric;
};

// Posts and invokes, each checked to run once, in order, and alone.
template <class Loop>
class caller {
 public:
  caller(Loop& l, std::size_t& inside, std::uint64_t seed) : loop_(l), inside_(inside), chance_(seed) {}

  void post() {
    must_post(loop_, [this, number = ++sent_] { arrive(number); });
  }
  void invoke() {
    const auto here = me();
    if (!loop_.invoke([&, number = ++sent_] {
          arrive(number);
          if (me() != here) return true;
          if (chance_.roll(16) == 0) loop_.defer([] {});
          if (chance_.roll(64) == 0) loop_.poll();
          if (chance_.roll(16) == 0) loop_.after(10us, [] {});
          return loop_.running_in_this_thread();
        })) {
      ++wrong_;
    }
    if (ran_ != sent_) ++wrong_;
  }
  void something() { chance_.roll(3) == 0 ? invoke() : post(); }
  void pause() { dawdle(chance_.roll(2000)); }

  std::size_t sent() const { return sent_; }
  std::size_t wrong() const { return wrong_ + (ran_ == sent_ ? 0u : 1u); }

 private:
  void arrive(std::size_t number) {
    if (inside_++ != 0) ++wrong_;
    if (++ran_ != number) ++wrong_;
    --inside_;
  }

  Loop& loop_;
  std::size_t& inside_;  // the loop's, as the counters here that tasks write
  dice chance_;
  std::size_t sent_ = 0;
  std::size_t ran_ = 0;
  std::size_t wrong_ = 0;
};

// Callers and posters until so many loans were made.
template <class Loop>
void storm(std::size_t loans, hybridloop::loop_options options, const place& where) {
  CAPTURE(where.name);
  loop_in<Loop> l(where, lending(options));
  std::size_t inside = 0;
  std::deque<caller<Loop>> callers;
  for (std::uint64_t i = 1; i <= 3; ++i) callers.emplace_back(*l, inside, i);
  std::atomic<bool> enough{false};
  {
    const running<Loop> runner(*l);
    std::deque<scoped_thread> threads;
    for (auto& c : callers) {
      threads.emplace_back([&c, &enough] {
        while (!enough) {
          for (int i = 0; i < 8; ++i) c.something();
          c.invoke();
          c.pause();
        }
        c.invoke();
      });
    }
    await([&] { return l->stats().loans >= loans; });
    enough = true;
  }
  std::size_t sent = 0;
  for (const auto& c : callers) {
    CHECK(c.wrong() == 0);
    sent += c.sent();
  }
  CHECK(l->stats().posts == sent);
  CHECK(l->stats().rescued == 0);
}

// One caller that aims at the moments in which the loop goes to sleep, and one poster.
template <fence_policy Fence>
void calls_at_the_moment_of_parking() {
  aimed_loop<Fence> l(lending());
  std::size_t inside = 0;
  caller<aimed_loop<Fence>> one(l, inside, 1);
  caller<aimed_loop<Fence>> other(l, inside, 2);
  std::atomic<bool> enough{false};
  reached = up;
  {
    const running<aimed_loop<Fence>> runner(l);
    const scoped_thread poster([&] {
      while (!enough) {
        other.post();
        other.invoke();
        other.pause();
      }
    });
    dice chance(3);
    // How often it is lent is chance, and seldom where threads take turns on one CPU.
    for (std::size_t tries = 0; l.stats().loans < scaled(20000) && tries != scaled(200000); ++tries) {
      if (reached != before_sleep) take_aim(chance);
      one.something();
      one.invoke();
      reached = up;
    }
    enough = true;
  }
  CHECK(one.wrong() == 0);
  CHECK(other.wrong() == 0);
}

}  // namespace

TEST_CASE("several callers and posters share a lent loop: each task runs once, alone and in order") {
  for (const place& where : {in_channel, in_mini}) {
    storm<aimed_loop<fence_policy::symmetric>>(scaled(4000), {}, where);
    storm<aimed_loop<fence_policy::asymmetric>>(scaled(4000), {}, where);
    storm<aimed_loop<fence_policy::adaptive>>(scaled(4000), {}, where);
  }
}

TEST_CASE("so they do in a ring of two slots, whose threads lose their cpu in the race windows") {
  storm<stuttering_loop>(scaled(5000), tiny(2), in_channel);
  storm<hybridloop::basic_loop<stuttering_asymmetric>>(scaled(5000), tiny(2, 4), in_channel);
  storm<stuttering_loop>(scaled(5000), tiny(2, 0, hybridloop::overflow::block), in_channel);
}

TEST_CASE("callers at the moment of parking lose nothing, with either fence") {
  calls_at_the_moment_of_parking<fence_policy::symmetric>();
  calls_at_the_moment_of_parking<fence_policy::asymmetric>();
  calls_at_the_moment_of_parking<fence_policy::adaptive>();
}

TEST_CASE("a loop that is lent, stopped and run again at any moment loses nothing") {
  using loop_type = hybridloop::basic_loop<stuttering_traits>;
  loop_type l(lending());
  std::size_t inside = 0;
  caller<loop_type> one(l, inside, 1);
  caller<loop_type> two(l, inside, 2);
  std::atomic<bool> done{false};
  std::atomic<std::size_t> runs{0};
  {
    const scoped_thread runner([&] {
      while (!done) {
        l.run();
        ++runs;
      }
      l.run_until_idle();
    });
    const auto call = [&](caller<loop_type>& c) {
      while (l.stats().loans < scaled(5000)) {
        c.something();
        c.invoke();
        if (c.sent() % 16 == 0) l.stop();
      }
    };
    {
      const scoped_thread first([&] { call(one); });
      const scoped_thread second([&] { call(two); });
    }
    done = true;
    l.stop();
  }
  CHECK(one.wrong() == 0);
  CHECK(two.wrong() == 0);
  CHECK(runs > 1);
}

TEST_SUITE_END();
