// embed_test.cpp - a loop inside another loop: the handle it shows, the timeout it tells, its hooks
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/interrupt.hpp"
#include "support/pollers.hpp"
#include "support/proc.hpp"
#include "support/race.hpp"
#include "support/running.hpp"
#include "support/support.hpp"
#include "support/virtual_clock.hpp"
#if SUPPORT_POSIX
#include <poll.h>
#endif


namespace {

using namespace support;
using hybridloop::errc;
using hybridloop::fence_policy;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::loop_options;
using hybridloop::watch_id;
using clock_type = loop::clock;

constexpr bool edges = hybridloop::default_traits::poller::edges;

// Where a system needs a moment to notice that a socket is ready, with that moment.
bool readable(descriptor handle) {
  return becomes_readable(handle, 0) || (readiness_takes != 0 && becomes_readable(handle, static_cast<int>(readiness_takes / 4000000)));
}

// Without a limit: what should have made it readable and did not, hangs.
void await_readable(descriptor handle) {
  while (!becomes_readable(handle, -1)) {
  }
}

// A loop that lives inside a foreign one, which has polled it once and waits for its handle.
template <class Loop = loop>
class guest {
 public:
  explicit guest(const loop_options& options = {}) : loop_(options), handle_(loop_.backend_handle()) {
    loop_.poll();
  }

  Loop& operator*() { return loop_; }
  Loop* operator->() { return &loop_; }
  descriptor handle() const { return handle_; }
  bool calls() const { return readable(handle_); }

  template <class Done>
  void serve_until(const Done& done) {
    while (!done()) {
      await_readable(handle_);
      loop_.poll();
    }
  }
  // How often the foreign loop has to come back until there is peace, at most `most` times.
  std::size_t serve(std::size_t most) {
    std::size_t returns = 0;
    for (; returns != most && becomes_readable(handle_, 0); ++returns) loop_.poll();
    return returns;
  }

 private:
  Loop loop_;
  const descriptor handle_;
};

// The steps of race.hpp, on the way from poll() to the wait of the foreign loop.
template <fence_policy Fence>
struct leaving_traits : hybridloop::default_traits {
  static constexpr fence_policy fence = Fence;
  static void schedule_point(const char* name) noexcept {
    if (std::strcmp(name, "before-away") == 0) reached = before_park;
    if (std::strcmp(name, "away-published") == 0) reached = park_published;
  }
};
using leaving_loop = hybridloop::basic_loop<leaving_traits<fence_policy::adaptive>>;

// Rounds of a foreign loop that waits without a limit. `served` says how many rounds are over.
template <class Loop, class Served>
void wait_and_poll(guest<Loop>& l, std::size_t rounds, const Served& served) {
  while (served() != rounds) {
    reached = before_sleep;
    await_readable(l.handle());
    reached = up;
    l->poll();
  }
}

// Where the system sleeps whole milliseconds, cut off, they are rounded up first.
void nap(loop::duration span) {
  std::this_thread::sleep_for(SUPPORT_POSIX ? span : std::chrono::ceil<std::chrono::milliseconds>(span));
}

// What a test does in one way after the other.
template <class Act>
struct deed {
  std::string name;
  Act act;
};

#if SUPPORT_POSIX
loop* to_wake = nullptr;
void wake_it(int) { to_wake->wake(); }
#endif

bool has_handle() {
  loop l;
  std::error_code code;
  l.backend_handle(code);
  return !code;
}

loop_options sleepy() {
  loop_options options;
  options.spin = 0ns;
  return options;
}

}  // namespace

// ---- For every poller ----

TEST_SUITE_BEGIN("embed");

TEST_CASE("a loop that has no handle for others says so, and a loop with a companion never has one") {
  loop_options mini;
  mini.path = hybridloop::fast_path::mini;
  loop with_companion(mini);
  std::error_code code;

  CHECK(with_companion.backend_handle(code) == -1);
  CHECK(code == errc::unsupported);
  if (has_handle()) return;

  loop l;
  CHECK(l.backend_handle(code) == -1);
  CHECK(code == errc::unsupported);
}

TEST_CASE("without anything scheduled there is no timeout, with something queued it is zero") {
  loop l;
  CHECK_FALSE(l.next_timeout().has_value());

  must_post(l, [] {});
  CHECK(l.next_timeout() == 0ns);
  l.poll();

  CHECK_FALSE(l.next_timeout().has_value());
}

TEST_CASE("the timeout is never later than the earliest deadline, and zero for a past one") {
  loop l;
  const auto near = clock_type::now() + 500ms;
  l.at(clock_type::now() + 1h, [] {});
  l.at(near, [] {});
  l.poll();

  const auto left = l.next_timeout();
  CHECK(left.has_value());
  if (left) {
    CHECK(*left > 0ns);
    CHECK(*left <= 500ms);
  }
  while (clock_type::now() < near) std::this_thread::sleep_until(near);

  CHECK(l.next_timeout() == 0ns);
  CHECK(l.poll() == 1);
  CHECK(l.next_timeout().value_or(0ns) > 1min);
}

TEST_CASE("a foreign loop that obeys the timeout is late for no deadline, among many timers") {
  loop l;
  dice chance(11);
  const std::size_t timers = scaled(1000, 100);
  std::size_t fired = 0;
  std::size_t early = 0;
  for (std::size_t i = 0; i < timers; ++i) {
    const auto deadline = clock_type::now() + std::chrono::microseconds(chance.roll(100000));
    l.at(deadline, [&, deadline] {
      ++fired;
      if (clock_type::now() < deadline) ++early;
    });
  }

  std::size_t asked = 0;
  for (l.poll(); const auto left = l.next_timeout(); l.poll()) {
    nap(*left);
    ++asked;
  }

  CHECK(fired == timers);
  CHECK(early == 0);
  CHECK(asked <= 2 * timers);
}

TEST_CASE("a timeout may be asked for inside a task") {
  loop l;
  l.after(1h, [] {});
  std::optional<loop::duration> alone;
  std::optional<loop::duration> followed;

  must_post(l, [&] {
    alone = l.next_timeout();
    l.defer([] {});
    followed = l.next_timeout();
  });
  l.poll();

  CHECK(alone.value_or(0ns) > 59min);
  CHECK(followed == 0ns);
}

TEST_CASE("the timeout of a loop that was closed waits for nothing that was given up") {
  loop l;
  l.after(1h, [] {});
  l.poll();
  l.close();

  l.poll();

  CHECK_FALSE(l.next_timeout().has_value());
}

// ---- Hooks ----

TEST_CASE("hooks are called in pairs, before and after each sleep") {
  loop l(sleepy());
  std::string calls;
  std::uint64_t parks = 0;
  std::uint64_t sleeps = 0;
  l.on_prepare([&] {
    calls += 'p';
    parks = l.stats().parks;
  });
  l.on_check([&] {
    calls += 'c';
    sleeps += l.stats().parks - parks;
  });
  for (int i = 1; i <= 5; ++i) l.after(i * 2ms, [&calls] { calls += '.'; });

  CHECK(l.run_until_idle() == 5);

  std::string pairs = calls;
  for (auto at = pairs.find('.'); at != std::string::npos; at = pairs.find('.')) pairs.erase(at, 1);
  for (auto at = pairs.find("pc"); at != std::string::npos; at = pairs.find("pc")) pairs.erase(at, 2);
  CHECK(pairs.empty());
  CHECK(sleeps == l.stats().parks);
  CHECK(sleeps >= 1);
}

TEST_CASE("every call that may sleep calls the hooks") {
  virtual_loop l;
  std::size_t prepared = 0;
  std::size_t checked = 0;
  l.on_prepare([&] { ++prepared; });
  l.on_check([&] { ++checked; });
  const auto called = [&] {
    const bool both = prepared == checked && prepared != 0;
    prepared = checked = 0;
    return both;
  };

  l.run_for(30ms);
  CHECK(called());
  l.run_until(virtual_clock::now() + 30ms);
  CHECK(called());
  l.after(30ms, [] {});
  l.run_until_idle();
  CHECK(called());
  l.after(30ms, [&l] { l.stop(); });
  l.run();
  CHECK(called());
  l.wake();
  l.run_once();
  CHECK(called());
}

TEST_CASE("poll() and run_budget() never sleep, and call no hook") {
  loop l;
  std::size_t called = 0;
  l.on_prepare([&called] { ++called; });
  l.on_check([&called] { ++called; });

  for (int i = 0; i < 3; ++i) {
    l.poll();
    l.run_budget(1ms);
    must_post(l, [] {});
    l.poll();
    must_post(l, [] {});
    l.run_budget(1ms);
  }

  CHECK(called == 0);
}

TEST_CASE("a loop that does not sleep calls no hook") {
  loop l;
  std::size_t called = 0;
  l.on_prepare([&called] { ++called; });
  l.on_check([&called] { ++called; });
  std::size_t left = 1000;
  std::function<void()> again = [&] {
    if (--left != 0) must_post(l, again);
  };
  must_post(l, again);

  l.run_until_idle();

  CHECK(called == 0);
}

TEST_CASE("what on_prepare gives the loop is done without a sleep over it") {
  using act = std::function<void(loop&, const socket_pair&)>;
  const deed<act> deeds[] = {
      {"post", [](loop& l, const socket_pair&) { must_post(l, [&l] { l.stop(); }); }},
      {"defer", [](loop& l, const socket_pair&) { l.defer([&l] { l.stop(); }); }},
      {"microtask", [](loop& l, const socket_pair&) { l.microtask([&l] { l.stop(); }); }},
      {"timer", [](loop& l, const socket_pair&) { l.after(0s, [&l] { l.stop(); }); }},
      {"watch",
       [](loop& l, const socket_pair& wire) {
         l.watch(wire.left(), interest::readable, [&l] { l.stop(); });
       }},
      {"stop", [](loop& l, const socket_pair&) { l.stop(); }},
      {"close", [](loop& l, const socket_pair&) { l.close(); }}};
  for (const auto& one : deeds) {
    for (const place& where : everywhere) {
      CAPTURE(one.name);
      CAPTURE(where.name);
      const socket_pair wire;
      wire.write_right();
      loop_in<loop> l(where, sleepy());
      l->after(1h, [] {});
      bool done = false;
      l->on_prepare([&] {
        if (!std::exchange(done, true)) one.act(*l, wire);
      });
      const auto begin = clock_type::now();

      l->run();

      CHECK(done);
      CHECK(clock_type::now() - begin < 1h);
      if (one.name != "timer" && one.name != "watch") CHECK(l->stats().parks == 0);
    }
  }
}

TEST_CASE("a wake in on_prepare ends the sleep that would have been") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<loop> l(where, sleepy());
    l->on_prepare([&l] { l->wake(); });

    CHECK(l->run_once() == 0);

    CHECK(l->stats().parks == 0);
  }
}

TEST_CASE("a timer that on_prepare arms, moves or cancels is what the loop sleeps for") {
  loop l(sleepy());
  bool late = false;
  const auto far = l.after(1h, [&l, &late] {
    late = true;
    l.stop();
  });
  int call = 0;
  l.on_prepare([&] {
    if (++call == 1) l.reschedule(far, clock_type::now() + 2ms);
  });
  l.run();
  CHECK(late);

  int ran = 0;
  const auto near = l.after(1h, [&ran] { ran += 100; });
  l.on_prepare([&] {
    if (!l.cancel(near)) return;
    l.after(2ms, [&] {
      ++ran;
      l.stop();
    });
  });
  l.run();

  CHECK(ran == 1);
}

TEST_CASE("a closed loop's handle falls silent, also where a descriptor was closed behind its back") {
  loop l;
  std::error_code refused;
  const descriptor handle = l.backend_handle(refused);
  if (refused) return;  // poll(2) has none
  if (ghosts_stay) return;
  const socket_pair wire;
  const descriptor gone = duplicate(wire.left());
  const auto id = l.watch(gone, interest::readable, [] {});
  l.poll();
  close_file(gone);
  CHECK_FALSE(l.modify(id, interest::readable));
  wire.write_right();
  l.close();

  std::size_t polls = 0;
  while (readable(handle) && polls < 1000) l.poll(), ++polls;

  CHECK(polls < 1000);
}

TEST_CASE("a run inside a hook sleeps without hooks, so that they stay in pairs") {
  loop l(sleepy());
  std::string called;
  l.after(60ms, [] {});
  l.on_prepare([&] {
    called += '<';
    l.run_for(1ms);
  });
  l.on_check([&] {
    called += '>';
    l.run_for(1ms);
    l.stop();
  });

  l.run();

  CHECK(called == "<>");
}

TEST_CASE("when on_prepare takes away the last thing to wait for, run_until_idle() returns") {
  using act = std::function<void(loop&, hybridloop::timer_id, watch_id)>;
  const deed<act> deeds[] = {
      {"end",
       [](loop& l, hybridloop::timer_id timer, watch_id watch) {
         l.cancel(timer);
         l.unwatch(watch);
       }},
      {"unref",
       [](loop& l, hybridloop::timer_id timer, watch_id watch) {
         l.unref(timer);
         l.unref(watch);
       }}};
  for (const auto& one : deeds) {
    CAPTURE(one.name);
    const socket_pair wire;
    loop l(sleepy());
    const auto timer = l.after(1h, [] {});
    const auto watch = l.watch(wire.left(), interest::readable, [] {});
    l.on_prepare([&] { one.act(l, timer, watch); });

    CHECK(l.run_until_idle() == 0);
  }
}

TEST_CASE("what on_check gives the loop runs in the same turn or without a sleep before it") {
  loop l(sleepy());
  std::string ran;
  l.on_check([&] {
    l.on_check(nullptr);
    must_post(l, [&ran] { ran += 'p'; });
    l.after(0s, [&ran] { ran += 't'; });
    l.microtask([&ran] { ran += 'm'; });
    l.defer([&] {
      ran += 'd';
      l.stop();
    });
  });
  l.after(30ms, [] {});

  l.run();

  CHECK(ran.size() == 4);
  CHECK(ran[0] == 'm');
  CHECK(l.stats().parks == 1);
}

TEST_CASE("a post during on_prepare from another thread is not slept over") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<loop> l(where, sleepy());
    l->on_prepare([&] { elsewhere([&] { must_post(*l, [&l] { l->stop(); }); }); });

    CHECK(l->run() == 1);

    CHECK(l->stats().parks == 0);
  }
}

TEST_CASE("microtasks of a hook run before the sleep, and before the tasks after it") {
  loop l(sleepy());
  std::string ran;
  l.on_prepare([&] {
    ran += 'p';
    l.on_prepare(nullptr);
    l.microtask([&] {
      ran += 'm';
      l.after(30ms, [&] {
        ran += 't';
        l.stop();
      });
    });
  });
  l.on_check([&] {
    if (ran.back() == 'm' && l.stats().parks == 0) return;
    ran += 'c';
    l.on_check(nullptr);
    l.microtask([&ran] { ran += 'n'; });
  });

  l.run();

  CHECK(ran == "pmcnt");
}

TEST_CASE("the last hook given counts, and nullptr takes it away") {
  loop l;
  std::string called;
  for (const char name : {'a', 'b'}) {
    l.on_prepare([&called, name] { called += name; });
    l.on_check([&called, name] { called += static_cast<char>(name - 'a' + 'A'); });
  }
  l.run_for(1ms);
  CHECK(called.substr(0, 2) == "bB");
  CHECK(called.find('a') == std::string::npos);
  called.clear();

  l.on_prepare(nullptr);
  l.run_for(1ms);
  CHECK(called.find('b') == std::string::npos);
  CHECK(called.find('B') == 0);
  called.clear();
  l.on_check(nullptr);
  l.run_for(1ms);

  CHECK(called.empty());
}

TEST_CASE("a hook that replaces or removes itself lives on until it returns") {
  loop l(sleepy());
  const std::string long_enough(100, 'x');
  std::vector<std::string> said;
  const auto held = std::make_shared<int>(0);
  l.on_prepare([&, text = long_enough + "1", held] {
    l.on_prepare([&, text = long_enough + "2", held] {
      l.on_prepare(nullptr);
      said.push_back(text);
    });
    said.push_back(text);
  });

  for (int i = 0; i < 5; ++i) l.run_for(1ms);

  CHECK(said == std::vector<std::string>{long_enough + "1", long_enough + "2"});
  CHECK(held.use_count() == 1);
}

TEST_CASE("a hook takes a closure that can only be moved") {
  loop l;
  int called = 0;
  l.on_prepare([&called, one = std::make_unique<int>(1)] { called += *one; });

  l.run_for(1ms);

  CHECK(called >= 1);
}

TEST_CASE("a hook goes with its loop, without being called") {
  fate prepare;
  fate check;
  {
    loop l;
    l.on_prepare(witness<>(prepare));
    l.on_check(witness<100>(check));
    l.poll();
    CHECK(prepare.destroyed + check.destroyed == 0);
  }

  CHECK(prepare.destroyed == 1);
  CHECK(check.destroyed == 1);
  CHECK(prepare.ran + check.ran == 0);
}

TEST_CASE("a hook is not called again by a loop that runs inside of it") {
  loop l;
  std::size_t depth = 0;
  std::size_t deepest = 0;
  l.on_prepare([&] {
    deepest = (std::max)(deepest, ++depth);
    l.run_for(1ms);
    --depth;
  });

  l.run_for(1ms);

  CHECK(deepest == 1);
}

#if defined(__cpp_exceptions)
TEST_CASE("an exception out of a hook leaves run(), and the hook is called the next time") {
  for (const bool prepares : {true, false}) {
    CAPTURE(prepares);
    loop l(sleepy());
    int called = 0;
    const auto throws = [&called] {
      if (++called == 1) throw std::runtime_error("hook");
    };
    prepares ? l.on_prepare(throws) : l.on_check(throws);
    l.after(30ms, [] {});
    l.after(60ms, [&l] { l.stop(); });

    CHECK_THROWS_AS(l.run(), std::runtime_error);
    l.run();

    CHECK(called >= 2);
    CHECK(l.stats().timers == 0);
  }
}

namespace {
int caught = 0;
}

TEST_CASE("an exception out of a hook goes to the one who takes exceptions") {
  loop_options options = sleepy();
  options.on_exception = [](std::exception_ptr) { ++caught; };
  loop l(options);
  caught = 0;
  l.on_prepare([] { throw std::runtime_error("prepare"); });
  l.on_check([] { throw std::runtime_error("check"); });
  l.after(30ms, [&l] { l.stop(); });

  CHECK(l.run() == 1);

  CHECK(caught >= 2);
  CHECK(caught % 2 == 0);
}
#endif

TEST_SUITE_END();

// ---- The handle, where the poller has one ----

TEST_SUITE_BEGIN("embed" * doctest::skip(!has_handle()));

TEST_CASE("the handle is silent while nothing is there, however often the loop is asked") {
  guest<> l;
  CHECK_FALSE(l.calls());

  for (int i = 0; i < 100; ++i) {
    CHECK(l->poll() == 0);
    CHECK_FALSE(l->next_timeout().has_value());
    l->run_budget(1ms);
  }

  CHECK_FALSE(l.calls());
}

TEST_CASE("a post of another thread makes the handle readable until the next poll()") {
  guest<> l;
  bool ran = false;
  for (int i = 0; i < 3; ++i) {
    ran = false;
    elsewhere([&] { must_post(*l, [&ran] { ran = true; }); });
    CHECK(l.calls());
    CHECK(l.calls());

    CHECK(l->poll() == 1);

    CHECK(ran);
    CHECK_FALSE(l.calls());
  }
}

TEST_CASE("every way to give work makes the handle readable") {
  guest<> l;
  std::size_t ran = 0;
  const auto count = [&ran] { ++ran; };
  const std::vector<std::function<void()>> tasks(3, count);
  const std::function<void()> ways[] = {
      [&] { must_post(*l, count); },
      [&] { CHECK(l->try_post(count) == hybridloop::post_result::accepted); },
      [&] { CHECK(l->post_range(tasks.begin(), tasks.end()).accepted == 3); },
      [&] { CHECK(l->dispatch(count) == hybridloop::post_result::accepted); },
      [&] { CHECK(l->handle().post(count) == hybridloop::post_result::accepted); },
      [&] { l->after(0s, count); }};

  for (const auto& give : ways) {
    give();
    CHECK(l.calls());
    CHECK(l.serve(10) < 3);
  }
  l->poll();

  CHECK(ran == 8);
}

TEST_CASE("a call that waits for the loop is answered by one that lives in another") {
  guest<> l;
  bool asked = false;
  int answer = 0;
  scoped_thread caller([&] {
    answer = l->invoke([&asked] {
      asked = true;
      return 7;
    });
  });

  l.serve_until([&asked] { return asked; });
  caller.join();

  CHECK(answer == 7);
}

TEST_CASE("a descriptor that is ready makes the handle readable until it is read") {
  guest<> l;
  const socket_pair wire;
  std::size_t told = 0;
  l->watch(wire.left(), interest::readable, [&told] { ++told; });
  CHECK(l.serve(10) == 0);

  wire.write_right();
  for (int i = 0; i < 3; ++i) {
    CHECK(l.calls());
    l->poll();
  }
  CHECK(told == 3);
  CHECK(wire.drain_left() == 1);

  // A port holds the answer of before that already.
  if (!SUPPORT_POSIX) l->poll();
  CHECK_FALSE(l.calls());
}

TEST_CASE("an edge is told once, and the handle is silent then") {
  if (!edges) return;
  guest<> l;
  const socket_pair wire;
  std::size_t told = 0;
  l->watch(wire.left(), interest::readable | interest::edge, [&told] { ++told; });

  for (std::size_t i = 1; i <= 3; ++i) {
    wire.write_right();
    CHECK(l.calls());
    l->poll();
    CHECK(told == i);
    CHECK_FALSE(l.calls());
  }
}

TEST_CASE("tasks beyond one turn's share keep the handle readable until the last has run") {
  guest<> l(tiny(64, 64));
  std::size_t ran = 0;
  for (int i = 0; i < 10000; ++i) must_post(*l, [&ran] { ++ran; });

  std::size_t turns = 0;
  for (; ran != 10000 && l.calls(); ++turns) l->poll();

  CHECK(ran == 10000);
  CHECK(turns > 1);
  CHECK_FALSE(l.calls());
}

TEST_CASE("deferred tasks keep the handle readable, turn after turn") {
  guest<> l;
  int left = 5;
  std::function<void()> again = [&] {
    if (--left != 0) l->defer(again);
  };
  must_post(*l, again);

  for (int turn = 0; turn < 5; ++turn) {
    CHECK(l.calls());
    CHECK(l->poll() == 1);
  }

  CHECK(left == 0);
  CHECK_FALSE(l.calls());
}

TEST_CASE("microtasks left over keep the handle readable") {
  guest<> l;
  std::size_t ran = 0;
  must_post(*l, [&] {
    for (int i = 0; i < 3000; ++i) l->microtask([&ran] { ++ran; });
  });

  CHECK(l.serve(10) == 3);

  CHECK(ran == 3000);
}

TEST_CASE("a task that posts makes the handle readable again") {
  guest<> l;
  std::size_t left = 5000;
  std::function<void()> again = [&] {
    if (--left != 0) must_post(*l, again);
  };
  must_post(*l, again);

  l.serve_until([&left] { return left == 0; });

  CHECK_FALSE(l.calls());
}

TEST_CASE("a file that is always ready keeps the handle readable until it is unwatched") {
  const descriptor file = open_file();
  guest<> l;
  std::size_t told = 0;

  const auto id = l->watch(file, interest::readable, [&told] { ++told; });
  for (std::size_t i = 1; i <= 3; ++i) {
    CHECK(l.calls());
    CHECK(l->next_timeout() == 0ns);
    l->poll();
    CHECK(told == i);
  }
  CHECK(l->unwatch(id));

  CHECK(l.serve(10) < 3);
  CHECK(told == 3);
  close_file(file);
}

TEST_CASE("what a budget leaves behind keeps the handle readable") {
  guest<> l;
  std::size_t ran = 0;
  for (int i = 0; i < 100; ++i) {
    must_post(*l, [&ran] {
      ++ran;
      std::this_thread::sleep_for(SUPPORT_POSIX ? 50us : 1000us);
    });
  }

  std::size_t frames = 0;
  for (; ran != 100 && l.calls(); ++frames) l->run_budget(1ms);

  CHECK(ran == 100);
  CHECK(frames > 1);
}

TEST_CASE("what a stop or an exception leaves behind keeps the handle readable") {
  guest<> l;
  const socket_pair wires[2];
  std::size_t told = 0;
  for (const socket_pair& wire : wires) {
    l->watch(wire.left(), interest::readable | interest::edge, [&] {
      ++told;
      if (!edges) wire.drain_left();
      l->stop();
    });
    wire.write_right();
  }
  std::size_t ran = 0;
  for (int i = 0; i < 3; ++i) {
    must_post(*l, [&] {
      ++ran;
      l->stop();
    });
  }

  CHECK(l.serve(20) < 20);

  CHECK(ran == 3);
  CHECK(told == 2);
}

TEST_CASE("deadlines do not make the handle readable, the timeout tells them") {
  guest<> l;
  bool fired = false;
  l->after(1ms, [&fired] { fired = true; });
  CHECK(l.calls());
  CHECK(l.serve(10) < 3);
  CHECK_FALSE(fired);

  while (l->next_timeout().value_or(0ns) != 0ns) std::this_thread::sleep_for(100us);

  CHECK_FALSE(l.calls());
  CHECK(l->next_timeout() == 0ns);
  CHECK(l->poll() == 1);
  CHECK(fired);
}

TEST_CASE("asking for the timeout or the handle never makes the handle readable") {
  guest<> l;
  l->after(1h, [] {});
  const socket_pair wire;
  const auto id = l->watch(wire.left(), interest::readable, [] {});
  l.serve(10);

  for (int i = 0; i < 100; ++i) {
    CHECK(l->next_timeout().value_or(0ns) > 59min);
    CHECK(l->backend_handle() == l.handle());
    CHECK(l->modify(id, interest::readable));
    l->on_prepare([] {});
  }

  CHECK_FALSE(l.calls());
}

TEST_CASE("a timer that another thread arms, moves or cancels makes the handle readable") {
  guest<> l;
  bool fired = false;
  hybridloop::timer_id id;
  elsewhere([&] { id = l->after(1h, [&fired] { fired = true; }); });
  CHECK(l.calls());
  l->poll();
  CHECK(l->next_timeout().value_or(0ns) > 59min);

  elsewhere([&] { CHECK(l->reschedule(id, clock_type::now())); });
  CHECK(l.calls());
  l->poll();
  if (!fired) l->poll();

  CHECK(fired);
  CHECK_FALSE(l->next_timeout().has_value());
}

TEST_CASE("a stop and a wake make the handle readable, and are over soon") {
  guest<> l;
  for (int i = 0; i < 3; ++i) {
    elsewhere([&l] { l->wake(); });
    CHECK(l.calls());
    CHECK(l.serve(10) < 3);

    elsewhere([&l] { l->stop(); });
    CHECK(l.calls());
    CHECK(l.serve(10) < 3);
  }

  must_post(*l, [] {});
  CHECK(l->poll() == 1);
}

TEST_CASE("a stop that the foreign loop was told of holds back one poll() and no more") {
  guest<> l;
  std::size_t ran = 0;
  must_post(*l, [&ran] { ++ran; });
  l->stop();

  CHECK(l->poll() == 0);
  CHECK(l.calls());
  CHECK(l->poll() == 1);

  CHECK(ran == 1);
}

TEST_CASE("a close makes the handle readable, and a loop that is drained is silent for ever") {
  for (const bool busy : {false, true}) {
    CAPTURE(busy);
    guest<> l;
    const socket_pair wire;
    wire.write_right();
    std::size_t told = 0;
    std::size_t ran = 0;
    if (busy) {
      l->watch(wire.left(), interest::readable, [&told] { ++told; });
      l->after(1h, [] {});
      must_post(*l, [&] {
        ++ran;
        l->defer([&ran] { ++ran; });
      });
    }

    elsewhere([&l] { l->close(); });
    CHECK(l.calls());
    CHECK(l.serve(20) < 20);

    CHECK_FALSE(l.calls());
    CHECK_FALSE(l->next_timeout().has_value());
    CHECK(ran == (busy ? 2 : 0));
    CHECK(told == 0);
    l->wake();
    CHECK(l.serve(20) < 20);
  }
}

TEST_CASE("a loop that its own task closes or stops leaves no readable handle behind") {
  guest<> stopped;
  must_post(*stopped, [&stopped] { stopped->stop(); });
  CHECK(stopped.serve(20) < 4);

  guest<> closed;
  must_post(*closed, [&closed] { closed->close(); });
  CHECK(closed.serve(20) < 4);
}

#if SUPPORT_POSIX
TEST_CASE("a wake from a signal handler makes the handle readable") {
  guest<> l;
  to_wake = &*l;
  struct sigaction before {};
  struct sigaction handler {};
  handler.sa_handler = wake_it;
  ::sigaction(SIGUSR2, &handler, &before);

  ::raise(SIGUSR2);

  CHECK(l.calls());
  CHECK(l.serve(10) < 3);
  ::sigaction(SIGUSR2, &before, nullptr);
}
#endif

TEST_CASE("what came before the first backend_handle() is not missed") {
  using act = void (*)(loop&, bool&);
  const deed<act> deeds[] = {
      {"post", [](loop& l, bool& done) { must_post(l, [&done] { done = true; }); }},
      {"timer", [](loop& l, bool& done) { l.after(0s, [&done] { done = true; }); }},
      {"wake",
       [](loop& l, bool& done) {
         l.wake();
         done = true;
       }},
      {"stop",
       [](loop& l, bool& done) {
         l.stop();
         done = true;
       }},
      {"close",
       [](loop& l, bool& done) {
         l.close();
         done = true;
       }}};
  for (const auto& one : deeds) {
    CAPTURE(one.name);
    loop l;
    bool done = false;
    one.act(l, done);

    const descriptor handle = l.backend_handle();

    CHECK(readable(handle));
    l.poll();
    if (!done) l.poll();
    CHECK(done);
  }
}

TEST_CASE("watches made before the first backend_handle() are heard") {
  const socket_pair wire;
  loop l;
  std::size_t told = 0;
  l.watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });
  const descriptor handle = l.backend_handle();
  l.poll();
  CHECK_FALSE(readable(handle));

  wire.write_right();

  CHECK(readable(handle));
  l.poll();
  CHECK(told == 1);
}

TEST_CASE("the handle is the same for the life of the loop, whatever happens to the poller") {
  guest<> l;
  const descriptor handle = l.handle();
  l->run_for(1ms);
  CHECK(l->backend_handle() == handle);

  std::vector<socket_pair> wires(50);
  std::vector<watch_id> ids;
  for (const auto& wire : wires) ids.push_back(l->watch(wire.left(), interest::readable, [] {}));
  l->poll();
  for (const auto id : ids) CHECK(l->unwatch(id));
  l->poll();
  CHECK(l->backend_handle() == handle);

  descriptor inside = -1;
  must_post(*l, [&] { inside = l->backend_handle(); });
  l->poll();
  CHECK(inside == handle);

  l->close();
  l.serve(20);
  std::error_code code;
  CHECK(l->backend_handle(code) == handle);
  CHECK_FALSE(code);
}

TEST_CASE("a poller that renewed itself for a ghost still speaks through the handle, and the ghost does not") {
  if (ghosts_stay) return;
  guest<> l;
  socket_pair ghost;
  const socket_pair alive;
  std::size_t told = 0;
  const auto id = l->watch(ghost.left(), interest::readable, [] {});
  l->watch(alive.left(), interest::readable, [&] { told += alive.drain_left(); });
  const descriptor other_name = duplicate(ghost.left());
  ghost.close_left();
  ghost.write_right();
  CHECK(l->unwatch(id));

  CHECK(l.serve(1000) < 1000);

  CHECK(l->backend_handle() == l.handle());
  CHECK_FALSE(l.calls());
  elsewhere([&] { must_post(*l, [&told] { told += 100; }); });
  CHECK(l.calls());
  CHECK(l.serve(10) < 3);
  alive.write_right();
  CHECK(l.calls());
  CHECK(l.serve(10) < 3);
  CHECK(told == 101);
  close_file(other_name);
}

#if SUPPORT_POSIX
TEST_CASE("what a handle costs is closed on exec, opened once, and goes with the loop") {
  const auto before = open_descriptors();
  {
    guest<> l;
    const auto with = open_descriptors();
    const std::set<std::string> old(before.begin(), before.end());
    for (const std::string& number : with) {
      if (old.count(number) != 0) continue;
      CAPTURE(number);
      CHECK((::fcntl(std::atoi(number.c_str()), F_GETFD) & FD_CLOEXEC) != 0);
    }
    CHECK((::fcntl(l.handle(), F_GETFD) & FD_CLOEXEC) != 0);

    const socket_pair wire;
    for (int i = 0; i < 10; ++i) {
      l->backend_handle();
      l->unwatch(l->watch(wire.left(), interest::readable, [] {}));
      l->poll();
    }
    CHECK(open_descriptors().size() == with.size() + 2);
  }

  CHECK(open_descriptors() == before);
}
#endif

TEST_CASE("the handle is no descriptor that the loop would watch") {
  guest<> l;
  std::error_code code;

  CHECK_FALSE(l->watch(l.handle(), interest::readable, [] {}, code));

  CHECK(code == std::errc::bad_file_descriptor);
}

TEST_CASE("while another thread runs the loop, the handle is refused") {
  loop l;
  std::error_code code;
  {
    const running<loop> it(l);
    await_parks(l, 1);

    CHECK(l.backend_handle(code) == -1);
    CHECK(code == errc::wrong_thread);
  }

  CHECK(l.backend_handle(code) >= 0);
  CHECK_FALSE(code);
}

#if defined(__cpp_exceptions)
TEST_CASE("a refused handle throws, and names the call") {
  loop_options mini;
  mini.path = hybridloop::fast_path::mini;
  loop l(mini);
  std::string what;

  try {
    l.backend_handle();
  } catch (const std::system_error& refused) {
    CHECK(refused.code() == errc::unsupported);
    what = refused.what();
  }

  CHECK(what.find("backend_handle") != std::string::npos);
}

TEST_CASE("what an exception leaves behind keeps the handle readable") {
  guest<> l;
  std::size_t ran = 0;
  for (int i = 0; i < 3; ++i) {
    must_post(*l, [&ran] {
      ++ran;
      throw std::runtime_error("task");
    });
  }

  for (std::size_t i = 1; i <= 3; ++i) {
    CHECK(l.calls());
    CHECK_THROWS_AS(l->poll(), std::runtime_error);
    CHECK(ran == i);
  }

  CHECK(l.serve(10) < 3);
}
#endif

TEST_CASE("from the first call on the loop sleeps in the poller, in run() too") {
  loop l(sleepy());
  l.run_for(1ms);
  CHECK(l.stats().in_channel > 0);
  CHECK(l.stats().in_poller == 0);
  const auto before = l.stats().in_channel;

  l.backend_handle();
  l.run_for(1ms);

  CHECK(l.stats().in_poller > 0);
  CHECK(l.stats().in_channel == before);
}

TEST_CASE("a loop may be run by a thread, and live in a foreign loop again") {
  guest<> l;
  for (int i = 0; i < 20; ++i) {
    {
      const running<loop> it(*l);
      CHECK(l->invoke([] { return 7; }) == 7);
    }
    CHECK(l.serve(10) < 10);
    bool ran = false;
    elsewhere([&] { must_post(*l, [&ran] { ran = true; }); });
    l.serve_until([&ran] { return ran; });
  }
}

TEST_CASE("a watch that another thread makes while the foreign loop waits is heard") {
  guest<> l;
  for (int i = 0; i < 100; ++i) {
    const socket_pair wire;
    std::size_t told = 0;
    watch_id id;
    elsewhere([&] { id = l->watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); }); });
    l.serve(10);
    CHECK_FALSE(l.calls());

    wire.write_right();
    l.serve_until([&told] { return told == 1; });
    elsewhere([&] { CHECK(l->unwatch(id)); });
    wire.write_right();
    CHECK(l.serve(10) < 3);
    CHECK(told == 1);
  }
}

TEST_CASE("a claim that its poster has not filled yet does not keep the foreign loop busy") {
  guest<> l;
  std::vector<int> ran;
  gate begun;
  gate go;
  const slow_closure task(ran, 1, begun, go);
  const scoped_thread slow([&] { must_post(*l, task); });
  begun.pass();

  l->wake();
  const std::size_t returns = l.serve(1000);
  const auto left = l->next_timeout();
  go.open();
  l.serve_until([&ran] { return ran.size() == 1; });

  CHECK(returns < 5);
  CHECK_FALSE(left.has_value());
}

TEST_CASE("a foreign loop may ask while other threads watch and unwatch") {
  guest<> l;
  const std::size_t rounds = scaled(20000);
  std::atomic<bool> over{false};
  std::size_t refused = 0;
  const scoped_thread other([&] {
    const socket_pair wire;
    for (std::size_t i = 0; i < rounds; ++i) {
      const auto id = l->watch(wire.left(), interest::readable, [] {});
      if (!l->unwatch(id)) std::abort();
    }
    gate unwatched;  // before that the loop may still name the descriptor to its kernel
    must_post(*l, [&unwatched] { unwatched.open(); });
    unwatched.pass();
    over = true;
  });

  while (!over) {
    std::error_code code;
    l->next_timeout();
    l->on_prepare([] {});
    l->on_check(nullptr);
    refused += l->backend_handle(code) != l.handle() || code;
    if (l.calls()) l->poll();
  }

  CHECK(refused == 0);
  CHECK(l.serve(1000) < 1000);
}

TEST_CASE("while nothing happens the foreign loop sleeps") {
  guest<> l;
  const socket_pair wire;
  l->watch(wire.left(), interest::readable, [] {});
  l->after(1h, [] {});
  l.serve(10);
  const auto end = clock_type::now() + 200ms;
  std::size_t returns = 0;

  for (auto left = end - clock_type::now(); left > 0ns; left = end - clock_type::now()) {
    const auto wanted = (std::min)(left, l->next_timeout().value_or(left));
    becomes_readable(l.handle(), static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(wanted).count()));
    l->poll();
    ++returns;
  }

  CHECK(returns < 5);
}

TEST_CASE("a loop lives inside a loop that lives inside another") {
  loop inner;
  guest<> outer;
  outer->watch(inner.backend_handle(), interest::readable, [&inner] { inner.poll(); });
  CHECK(outer.serve(20) < 20);

  for (int i = 0; i < 3; ++i) {
    bool ran = false;
    elsewhere([&] { must_post(inner, [&ran] { ran = true; }); });
    CHECK(outer.calls());
    CHECK(outer.serve(20) < 20);
    CHECK(ran);
  }
}

// ---- At the moment of leaving ----

TEST_CASE("whatever comes between the last look of poll() and the wait makes the handle readable") {
  using act = std::function<void(interrupted_loop&, const socket_pair&)>;
  const deed<act> deeds[] = {
      {"post", [](interrupted_loop& l, const socket_pair&) { must_post(l, [] {}); }},
      {"stop", [](interrupted_loop& l, const socket_pair&) { l.stop(); }},
      {"wake", [](interrupted_loop& l, const socket_pair&) { l.wake(); }},
      {"close", [](interrupted_loop& l, const socket_pair&) { l.close(); }},
      {"timer", [](interrupted_loop& l, const socket_pair&) { l.after(1h, [] {}); }},
      {"watch", [](interrupted_loop& l, const socket_pair& wire) {
         l.watch(wire.left(), interest::readable, [] {});
       }}};
  for (const auto& one : deeds) {
    for (const char* const point : {"before-away", "away-published"}) {
      CAPTURE(one.name);
      CAPTURE(point);
      const socket_pair wire;
      wire.write_right();
      guest<interrupted_loop> l;
      CHECK_FALSE(l.calls());

      interruption others(point, [&] { elsewhere([&] { one.act(*l, wire); }); });
      l->poll();

      CHECK(others.happened());
      CHECK(l.calls());
    }
  }
}

TEST_CASE("a post at any moment of poll() runs in it, or makes the handle readable") {
  at_every_place([](int place) {
    guest<interrupted_loop> l;
    std::size_t ran = 0;
    interruption others(place, [&] { elsewhere([&] { must_post(*l, [&ran] { ++ran; }); }); });
    l->poll();
    const bool again = others.over();

    if (others.happened()) l.serve_until([&ran] { return ran == 1; });
    if (l.serve(10) >= 3) FAIL_CHECK("not silent after a post at place ", place);
    return again;
  });
}

TEST_CASE("a stop at any moment of poll() is heeded by it, or makes the handle readable") {
  at_every_place([](int place) {
    guest<interrupted_loop> l;
    interruption others(place, [&] { elsewhere([&] { l->stop(); }); });
    l->poll();
    const bool again = others.over();

    const bool told = l.calls();
    must_post(*l, [] {});
    const bool pending = l->poll() == 0;
    if (pending && !told) FAIL_CHECK("a stop nobody is told of, at place ", place);
    return again;
  });
}

TEST_CASE("a close at any moment of poll() ends the loop, and it is silent then") {
  at_every_place([](int place) {
    fate timer;
    guest<interrupted_loop> l;
    l->after(1h, witness<>(timer));
    l.serve(10);
    interruption others(place, [&] { elsewhere([&] { l->close(); }); });
    l->poll();
    const bool again = others.over();

    if (others.happened()) {
      const auto ended = [&] {
        l->poll();
        return timer.destroyed == 1;
      };
      if (!ended()) FAIL_CHECK("not ended, at place ", place);
      if (l.serve(20) == 20) FAIL_CHECK("not silent, at place ", place);
    }
    return again;
  });
}

TEST_CASE("a watch at any moment of poll() is heard") {
  at_every_place([](int place) {
    const socket_pair wire;
    guest<interrupted_loop> l;
    std::size_t told = 0;
    interruption others(place, [&] {
      wire.write_right();
      elsewhere([&] {
        l->watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });
      });
    });
    l->poll();
    const bool again = others.over();

    if (others.happened()) l.serve_until([&told] { return told == 1; });
    return again;
  });
}

TEST_CASE("a post at any moment in which another thread is the loop makes the handle readable") {
  using act = std::function<void(guest<interrupted_loop>&, const socket_pair&)>;
  const deed<act> deeds[] = {
      {"watch", [](guest<interrupted_loop>& l, const socket_pair& wire) {
         l->watch(wire.left(), interest::readable, [] {});
       }},
      {"next_timeout", [](guest<interrupted_loop>& l, const socket_pair&) { l->next_timeout(); }},
      {"on_prepare", [](guest<interrupted_loop>& l, const socket_pair&) { l->on_prepare([] {}); }},
      {"backend_handle", [](guest<interrupted_loop>& l, const socket_pair&) { l->backend_handle(); }}};
  for (const auto& one : deeds) {
    CAPTURE(one.name);
    at_every_place([&](int place) {
      const socket_pair wire;
      guest<interrupted_loop> l;
      std::size_t ran = 0;
      interruption others(place, [&] { elsewhere([&] { must_post(*l, [&ran] { ++ran; }); }); });
      one.act(l, wire);
      const bool again = others.over();

      if (others.happened()) l.serve_until([&ran] { return ran == 1; });
      return again;
    });
  }
}

TEST_CASE("a post at any moment of the first backend_handle() is not missed") {
  at_every_place([](int place) {
    interrupted_loop l;
    std::size_t ran = 0;
    interruption others(place, [&] { elsewhere([&] { must_post(l, [&ran] { ++ran; }); }); });
    const descriptor handle = l.backend_handle();
    const bool again = others.over();

    while (others.happened() && ran == 0) {
      await_readable(handle);
      l.poll();
    }
    return again;
  });
}

TEST_CASE("a watch of another thread that meets poll() at any moment is heard") {
  at_every_place([](int place) {
    const socket_pair wire;
    wire.write_right();
    guest<interrupted_loop> l;
    std::size_t told = 0;
    elsewhere([&] {
      interruption others(place, [&] { l->wake(); });
      l->watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });
    });

    l.serve_until([&told] { return told == 1; });
    return place < 100;
  });
}

namespace {

template <fence_policy Fence>
void post_at_the_moment_of_leaving() {
  const std::size_t rounds = scaled(100000);
  guest<hybridloop::basic_loop<leaving_traits<Fence>>> l;
  std::atomic<std::size_t> ran{0};
  reached = up;

  const scoped_thread poster([&] {
    dice chance(1);
    for (std::size_t i = 0; i < rounds; ++i) {
      take_aim(chance);
      must_post(*l, [&ran] {
        reached = up;
        ++ran;
      });
      while (ran == i) std::this_thread::yield();
    }
  });
  wait_and_poll(l, rounds, [&ran] { return ran.load(); });

  CHECK(ran == rounds);
  CHECK(l->stats().parks == 0);
}

}  // namespace

TEST_CASE("a post at the moment of leaving makes the handle readable, where the poster pays") {
  post_at_the_moment_of_leaving<fence_policy::symmetric>();
}

TEST_CASE("a post at the moment of leaving makes the handle readable, where the loop pays") {
  post_at_the_moment_of_leaving<fence_policy::asymmetric>();
}

namespace {

// A thread does it in each round, after poll() has looked for work for the last time: it must end the
// wait, and then there must be peace.
template <class Act>
void tell_at_the_moment_of_leaving(Act act) {
  const std::size_t rounds = scaled(50000);
  guest<leaving_loop> l;
  std::atomic<std::size_t> round{0};
  std::size_t restless = 0;
  reached = up;

  const scoped_thread other([&] {
    dice chance(2);
    for (std::size_t i = 1; i <= rounds; ++i) {
      while (round < i) std::this_thread::yield();
      const std::size_t target = before_park + chance.roll(steps - before_park);
      while (reached < target) dawdle(1);
      dawdle(chance.roll(400));
      act(*l);
    }
  });
  for (std::size_t i = 1; i <= rounds; ++i) {
    reached = up;
    round = i;
    l->poll();
    reached = before_sleep;
    await_readable(l.handle());
    if (l.serve(20) == 20) ++restless;
  }

  CHECK(restless == 0);
}

}  // namespace

TEST_CASE("a stop at the moment of leaving ends the wait") {
  tell_at_the_moment_of_leaving([](leaving_loop& l) { l.stop(); });
}

TEST_CASE("a wake at the moment of leaving ends the wait") {
  tell_at_the_moment_of_leaving([](leaving_loop& l) { l.wake(); });
}

TEST_CASE("a timer that is moved at the moment of leaving ends the wait") {
  tell_at_the_moment_of_leaving([id = hybridloop::timer_id()](leaving_loop& l) mutable {
    if (!l.reschedule(id, clock_type::now() + 1h)) id = l.after(1h, [] {});
  });
}

TEST_CASE("watches that come and go at the moment of leaving are all heard") {
  const std::size_t rounds = scaled(10000);
  guest<leaving_loop> l;
  std::atomic<std::size_t> over{0};
  reached = up;

  const scoped_thread watcher([&] {
    const socket_pair wire;
    wire.write_right();
    dice chance(4);
    for (std::size_t i = 0; i < rounds; ++i) {
      std::atomic<bool> heard{false};
      std::atomic<bool> gone{false};
      take_aim(chance);
      const auto id = l->watch(wire.left(), interest::readable | interest::oneshot, [&] { heard = true; });
      while (!heard) std::this_thread::yield();
      take_aim(chance);
      if (!l->unwatch(id, [&] { gone = true; })) std::abort();
      while (!gone) std::this_thread::yield();
      ++over;
    }
    l->wake();
  });
  wait_and_poll(l, rounds, [&over] { return over.load(); });

  CHECK(over == rounds);
}

// ---- Everything at once ----

#if SUPPORT_POSIX
TEST_CASE("a foreign loop serves posts, timers and watches, each once and in order, and does not spin") {
  constexpr std::size_t producers = 4;
  const std::size_t each = scaled(100000);
  guest<> l;
  std::array<std::size_t, producers> next{};
  std::size_t surprises = 0;
  std::size_t ran = 0;
  std::size_t ticks = 0;
  std::size_t foreign_events = 0;
  std::atomic<std::size_t> events{0};
  std::atomic<std::size_t> finished{0};
  const socket_pair own;
  l->every(1ms, [&ticks] { ++ticks; });

  std::deque<scoped_thread> crowd;
  for (std::size_t p = 0; p < producers; ++p) {
    crowd.emplace_back([&, p] {
      for (std::size_t n = 0; n < each; ++n) {
        must_post(*l, [&, p, n] {
          surprises += next[p]++ != n;
          ++ran;
        });
        if (n % 1000 == 999) std::this_thread::sleep_for(100us);
      }
      ++finished;
      l->wake();
    });
  }
  crowd.emplace_back([&] {
    const socket_pair wire;
    for (std::size_t i = 0; i < scaled(300); ++i) {
      std::atomic<bool> heard{false};
      std::atomic<bool> gone{false};
      const auto id = l->watch(wire.left(), interest::readable, [&] {
        events += wire.drain_left();
        heard = true;
      });
      wire.write_right();
      while (!heard) std::this_thread::yield();
      if (!l->unwatch(id, [&] { gone = true; })) std::abort();
      while (!gone) std::this_thread::yield();
      own.write_right();
    }
    ++finished;
    l->wake();
  });

  std::size_t returns = 0;
  while (finished != producers + 1 || ran != producers * each) {
    const auto left = l->next_timeout();
    const int span = left ? static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(*left).count()) : -1;
    pollfd both[] = {{l.handle(), POLLIN, 0}, {own.left(), POLLIN, 0}};
    ::poll(both, 2, span);
    ++returns;
    if ((both[1].revents & POLLIN) != 0) foreign_events += own.drain_left();
    l->poll();
  }
  foreign_events += own.drain_left();

  CHECK(surprises == 0);
  CHECK(ran == producers * each);
  CHECK(next == std::array<std::size_t, producers>{each, each, each, each});
  CHECK(events == scaled(300));
  CHECK(foreign_events == scaled(300));
  CHECK(returns <= ran + 2 * ticks + 6 * events + 100);
  CHECK(l->stats().parks == 0);
  CHECK(l->stats().watches == 0);
}
#endif

TEST_SUITE_END();
