// loop_test.cpp - giving work to a loop, the ways to run it, and what it tells about itself
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <functional>
#include <iterator>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <thread>
#include <vector>

#include <hybridloop.hpp>

#include "support/running.hpp"
#include "support/stage.hpp"
#include "support/support.hpp"

#include <pthread.h>

using namespace support;
using hybridloop::fast_path;
using hybridloop::loop;
using hybridloop::overflow;
using hybridloop::post_result;
using order = std::vector<int>;

TEST_SUITE_BEGIN("loop");

// ---- post, try_post, post_range, dispatch ----

TEST_CASE("tasks run in the order of their posts, once each") {
  loop l;
  order ran;

  for (int i = 0; i < 5; ++i) must_post(l, [&ran, i] { ran.push_back(i); });
  const std::size_t count = l.run_until_idle();

  CHECK(count == 5);
  CHECK(ran == order{0, 1, 2, 3, 4});
  CHECK(l.run_until_idle() == 0);
}

TEST_CASE("what several threads post runs once each, in the order of its thread") {
  constexpr std::size_t posters = 4;
  const std::size_t each = scaled(20000);
  loop l(tiny(8, 64));
  std::array<std::size_t, posters> next{};
  std::size_t out_of_order = 0;
  std::size_t left = posters * each;

  gate start;
  std::vector<scoped_thread> threads;
  for (std::size_t p = 0; p < posters; ++p) {
    threads.emplace_back([&, p] {
      start.pass();
      for (std::size_t i = 0; i < each; ++i) {
        must_post(l, [&, p, i] {
          if (next[p]++ != i) ++out_of_order;
          if (--left == 0) l.stop();
        });
      }
    });
  }
  start.open();
  const std::size_t ran = l.run();

  CHECK(ran == posters * each);
  CHECK(out_of_order == 0);
}

TEST_CASE("a refused post leaves the closure to its owner") {
  loop l(tiny(2, 0, overflow::fail));
  fate fate_of_refused;
  witness<> small(fate_of_refused);
  witness<500> large(fate_of_refused);

  must_post(l, [] {});
  must_post(l, [] {});
  CHECK(l.post(std::move(small)) == post_result::full);
  CHECK(l.try_post(std::move(large)) == post_result::full);
  l.close();
  CHECK(l.post(std::move(small)) == post_result::closed);
  CHECK(l.post(std::move(large)) == post_result::closed);
  CHECK(l.try_post(std::move(small)) == post_result::closed);
  CHECK(l.dispatch(std::move(small)) == post_result::closed);

  CHECK(small.intact());
  CHECK(large.intact());
  CHECK(l.run() == 2);
  CHECK(fate_of_refused.ran == 0);
}

TEST_CASE("try_post answers full as soon as the ring is, and accepted after a turn") {
  loop l(tiny(4, 64));
  const auto nothing = [] {};

  for (int i = 0; i < 4; ++i) CHECK(l.try_post(nothing) == post_result::accepted);
  CHECK(l.try_post(nothing) == post_result::full);
  CHECK(l.poll() == 4);

  CHECK(l.try_post(nothing) == post_result::accepted);
  CHECK(l.stats().spilled == 0);
}

TEST_CASE("try_post on the loop thread has the room of what has run, not of what is running") {
  loop l(tiny(4, 64));
  std::vector<post_result> answers;
  const auto ask = [&] { answers.push_back(l.try_post([] {})); };

  must_post(l, ask);
  must_post(l, ask);
  must_post(l, ask);
  must_post(l, ask);
  const std::size_t ran = l.run_until_idle();

  CHECK(answers == std::vector<post_result>{post_result::full, post_result::accepted,
                                            post_result::accepted, post_result::accepted});
  CHECK(ran == 7);
}

TEST_CASE("post_range wakes a parked loop once for all") {
  constexpr std::size_t many = 1000;
  for (const place& where : {in_channel, in_bare_poller}) {
    CAPTURE(where.name);
    loop_in<> l(where);
    std::size_t ran = 0;
    const std::vector<std::function<void()>> tasks(many, [&] {
      if (++ran == many) l->stop();
    });

    std::optional<loop::range_result> answer;
    scoped_thread poster([&] {
      await_parks(*l, 1);
      answer = l->post_range(tasks.begin(), tasks.end());
    });
    l->run();
    poster.join();

    CHECK(ran == many);
    CHECK(answer->result == post_result::accepted);
    CHECK(answer->accepted == many);
    CHECK(l->stats().wakes_channel + l->stats().wakes_poller == 1);
  }
}

TEST_CASE("post_range stops at the first refusal, and what it did not take stays with its owner") {
  loop l(tiny(4, 0, overflow::fail));
  fate fates;
  std::vector<witness<>> tasks;
  for (int i = 0; i < 6; ++i) tasks.emplace_back(fates);

  const auto answer = l.post_range(std::make_move_iterator(tasks.begin()),
                                   std::make_move_iterator(tasks.end()));

  CHECK(answer.result == post_result::full);
  CHECK(answer.accepted == 4);
  CHECK_FALSE(tasks[3].intact());
  CHECK(tasks[4].intact());
  CHECK(tasks[5].intact());
  CHECK(l.run_until_idle() == 4);

  l.close();
  const auto refused = l.post_range(std::make_move_iterator(tasks.begin() + 4),
                                    std::make_move_iterator(tasks.end()));
  CHECK(refused.result == post_result::closed);
  CHECK(refused.accepted == 0);
  CHECK(tasks[4].intact());
}

TEST_CASE("post_range wakes the loop before it waits for room") {
  constexpr int many = 100;
  loop l(tiny(4, 0, overflow::block));
  order ran;
  std::vector<std::function<void()>> tasks;
  for (int i = 0; i < many; ++i) tasks.emplace_back([&ran, i] { ran.push_back(i); });
  tasks.emplace_back([&l] { l.stop(); });

  const scoped_thread poster([&] {
    await_parks(l, 1);
    if (l.post_range(tasks.begin(), tasks.end()).accepted != tasks.size()) std::abort();
  });
  l.run();

  CHECK(ran.size() == many);
  CHECK(std::is_sorted(ran.begin(), ran.end()));
}

#if defined(__cpp_exceptions)
TEST_CASE("what post_range posted before its iterator threw wakes the loop and runs") {
  struct breaks_at_three {
    int at;
    std::function<void()> task;
    std::function<void()>& operator*() {
      if (at == 3) throw std::runtime_error("the end of the line");
      return task;
    }
    breaks_at_three& operator++() { return ++at, *this; }
    bool operator!=(const breaks_at_three& other) const { return at != other.at; }
  };
  loop l;
  int ran = 0;
  bool thrown = false;

  scoped_thread poster([&] {
    await_parks(l, 1);
    try {
      l.post_range(breaks_at_three{0, [&] { if (++ran == 3) l.stop(); }}, breaks_at_three{9, {}});
    } catch (const std::runtime_error&) {
      thrown = true;
    }
  });
  l.run();
  poster.join();

  CHECK(ran == 3);
  CHECK(thrown);
}
#endif

TEST_CASE("dispatch runs at once on the loop thread and posts elsewhere") {
  loop l;
  order ran;

  CHECK(l.dispatch([&] {
    ran.push_back(1);
    must_post(l, [&] { ran.push_back(4); });
    CHECK(l.dispatch([&] { ran.push_back(2); }) == post_result::accepted);
    ran.push_back(3);
  }) == post_result::accepted);
  CHECK(ran.empty());
  const std::size_t count = l.run_until_idle();

  CHECK(ran == order{1, 2, 3, 4});
  CHECK(count == 2);
}

// ---- defer and microtask ----

TEST_CASE("what a turn defers runs in the next turn, in order") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.defer([&] {
      ran.push_back(2);
      l.defer([&] { ran.push_back(4); });
    });
    l.defer([&] { ran.push_back(3); });
    ran.push_back(1);
  });

  CHECK(l.poll() == 1);
  CHECK(ran == order{1});
  CHECK(l.poll() == 2);
  CHECK(ran == order{1, 2, 3});
  CHECK(l.poll() == 1);
  CHECK(ran == order{1, 2, 3, 4});
  CHECK(l.poll() == 0);
}

TEST_CASE("a deferred task may run the loop, which then runs what was deferred behind it") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.defer([&] {
      ran.push_back(1);
      CHECK(l.poll() == 2);
      ran.push_back(4);
    });
    l.defer([&] {
      ran.push_back(2);
      l.defer([&] { ran.push_back(5); });
    });
    l.defer([&] { ran.push_back(3); });
  });
  l.run_until_idle();

  CHECK(ran == order{1, 2, 3, 4, 5});
}

TEST_CASE("a microtask runs after its task and before the next one, and is not counted") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.microtask([&] {
      ran.push_back(2);
      l.microtask([&] { ran.push_back(4); });
    });
    l.microtask([&] { ran.push_back(3); });
    ran.push_back(1);
  });
  must_post(l, [&] { ran.push_back(5); });
  const std::size_t count = l.poll();

  CHECK(count == 2);
  CHECK(ran == order{1, 2, 3, 4, 5});
}

TEST_CASE("timers, watch callbacks and deferred tasks are followed by their microtasks too") {
  loop l;
  order ran;
  const auto add = [&](int i) { return [&ran, i] { ran.push_back(i); }; };
  const auto both = [&](int i) {
    return [&, i] {
      l.microtask(add(i + 1));
      ran.push_back(i);
    };
  };
  socket_pair wire;
  wire.write_right();

  l.watch(wire.left(), hybridloop::interest::readable | hybridloop::interest::oneshot, both(1));
  must_post(l, [&] {
    l.after(0ns, both(5));
    l.after(0ns, both(7));
    l.defer(both(9));
    l.defer(both(11));
  });
  l.poll();
  CHECK(ran == order{1, 2});
  l.poll();

  CHECK(ran == order{1, 2, 5, 6, 7, 8, 9, 10, 11, 12});
}

TEST_CASE("microtasks beyond a turn's share wait for the next turn, counted, and forbid sleep") {
  constexpr int share = 1024;
  loop l;
  int ran = 0;
  int ran_before_next_task = 0;
  std::function<void()> chain = [&] {
    if (++ran < 2 * share + 1) l.microtask(chain);
  };

  must_post(l, [&] { l.microtask(chain); });
  must_post(l, [&] { ran_before_next_task = ran; });

  CHECK(l.run_once() == 2);
  CHECK(ran == share);
  CHECK(ran_before_next_task == share);
  CHECK(l.stats().microtasks_deferred == 1);
  CHECK(l.run_once() == 0);
  CHECK(ran == 2 * share);
  CHECK(l.stats().microtasks_deferred == 2);
  CHECK(l.run_until_idle() == 0);
  CHECK(ran == 2 * share + 1);
  CHECK(l.stats().microtasks_deferred == 2);
  CHECK(l.stats().parks == 0);
}

TEST_CASE("what a microtask left over from the turn before sets in motion is not slept over") {
  socket_pair wire;
  wire.write_right();
  const std::function<void(loop&)> motions[] = {
      [](loop& l) { must_post(l, [&l] { l.stop(); }); },
      [](loop& l) { l.defer([&l] { l.stop(); }); },
      [](loop& l) { l.after(1ms, [&l] { l.stop(); }); },
      [&](loop& l) { l.watch(wire.left(), hybridloop::interest::readable, [&l] { l.stop(); }); },
      [](loop& l) { l.stop(); },
      [](loop& l) { l.close(); },
  };
  for (const place& where : everywhere) {
    for (const auto& motion : motions) {
      CAPTURE(where.name);
      loop_in<> l(where);
      int left = 1024 + 1;
      std::function<void()> chain = [&] {
        --left == 0 ? motion(*l) : l->microtask(chain);
      };

      must_post(*l, [&] { l->microtask(chain); });
      l->run();

      CHECK(left == 0);
    }
  }
}

// ---- The forms of run ----

TEST_CASE("every form of run returns how many tasks, timers and callbacks it ran") {
  constexpr std::size_t all = 4;
  socket_pair wire;
  wire.write_right();
  loop l;
  int left = 0;  // of those that end the run when they are through
  const auto through = [&] {
    if (--left == 0) l.stop();
  };
  must_post(l, [&] {
    l.microtask([] {});
    l.after(0ns, through);
    l.defer(through);
  });
  l.watch(wire.left(), hybridloop::interest::readable | hybridloop::interest::oneshot, through);

  SUBCASE("run") {
    left = 3;
    CHECK(l.run() == all);
  }
  SUBCASE("run_until_idle") {
    left = 3;
    CHECK(l.run_until_idle() == all);
  }
  SUBCASE("run_for") {
    left = 3;
    CHECK(l.run_for(1h) == all);
  }
  SUBCASE("run_until") {
    left = 3;
    CHECK(l.run_until(loop::clock::now() + 1h) == all);
  }
  SUBCASE("run_once, poll") {
    CHECK(l.run_once() == 2);
    CHECK(l.poll() == 2);
    CHECK(l.poll() == 0);
  }
}

TEST_CASE("run_once sleeps until there is something to do, and does it") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    l->poll();
    bool ran = false;

    const scoped_thread poster([&] {
      await_parks(*l, 1);
      must_post(*l, [&] { ran = true; });
    });
    const std::size_t count = l->run_once();

    CHECK(ran);
    CHECK(count == 1);
    CHECK(l->stats().parks == 1);
  }
}

TEST_CASE("poll never sleeps") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    const auto far = l->after(1h, [] {});

    for (int i = 0; i < 100; ++i) CHECK(l->poll() == 0);

    CHECK(l->stats().parks == 0);
    CHECK(l->cancel(far));
  }
}

TEST_CASE("run_for and run_until sleep to their deadline and not less, whatever wakes them") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    const auto ticking = l->every(1ms, [] {});
    const auto begin = loop::clock::now();

    const std::size_t first = l->run_for(3ms);
    const auto between = loop::clock::now();
    l->run_until(begin + 6ms);
    const auto end = loop::clock::now();

    CHECK(first >= 1);
    CHECK(between - begin >= 3ms);
    CHECK(end - begin >= 6ms);
    CHECK(l->cancel(ticking));
  }
}

TEST_CASE("a deadline that has passed is worth one turn") {
  loop l;
  must_post(l, [] {});
  must_post(l, [] {});

  CHECK(l.run_until(loop::clock::now() - 1s) == 2);
  must_post(l, [] {});
  CHECK(l.run_for(-1s) == 1);
  CHECK(l.run_for(0s) == 0);
  CHECK(l.stats().parks == 0);
}

TEST_CASE("a deadline of max() is none") {
  loop l;

  const scoped_thread stopper([&] {
    await_parks(l, 2);
    l.stop();
  });
  const scoped_thread poster([&] {
    await_parks(l, 1);
    must_post(l, [] {});
  });
  const std::size_t ran = l.run_for((std::chrono::hours::max)());

  CHECK(ran == 1);
  CHECK(l.stats().parks >= 2);
}

TEST_CASE("a nested run goes on with the next task, and its count is its own") {
  loop l;
  order ran;
  std::size_t inner = 0;

  must_post(l, [&] {
    ran.push_back(1);
    inner = l.run_until_idle();
    ran.push_back(4);
  });
  must_post(l, [&] { ran.push_back(2); });
  must_post(l, [&] { ran.push_back(3); });
  const std::size_t outer = l.run_until_idle();

  CHECK(ran == order{1, 2, 3, 4});
  CHECK(inner == 2);
  CHECK(outer == 1);
  CHECK(l.stats().tasks == 3);
}

TEST_CASE("a nested run sleeps and is woken like any other") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    std::size_t inner = 0;
    bool ran = false;

    const scoped_thread poster([&] {
      await_parks(*l, 1);
      must_post(*l, [&] { ran = true; });
    });
    must_post(*l, [&] {
      while (inner == 0) inner = l->run_once();
    });
    while (!ran) l->poll();

    CHECK(inner == 1);
  }
}

TEST_CASE("runs nest inside timers and callbacks, and what is running keeps no inner run going") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.after(0ns, [&] {
      l.defer([&] { ran.push_back(1); });
      CHECK(l.run_until_idle() == 1);
      ran.push_back(2);
    });
  });
  l.run_until_idle();

  CHECK(ran == order{1, 2});
}

TEST_CASE("runs nest deeper than the ring has slots") {
  constexpr int deep = 20;
  loop l(tiny(4, 8));
  int depth = 0;
  int deepest = 0;
  std::function<void()> dive = [&] {
    deepest = ++depth;
    if (depth < deep) {
      must_post(l, dive);
      must_post(l, [] {});
      l.run_until_idle();
    }
    --depth;
  };

  must_post(l, dive);
  const std::size_t ran = l.run_until_idle();

  CHECK(deepest == deep);
  CHECK(ran == 1);
  CHECK(l.stats().tasks == 2 * deep - 1);
}

TEST_CASE("a thread that nests loops runs all of them, and no other thread does") {
  loop outer;
  loop inner;
  bool seen_inside = false;
  bool seen_elsewhere = true;
  bool seen_outside = true;

  must_post(outer, [&] {
    seen_outside = inner.running_in_this_thread();
    must_post(inner, [&] {
      seen_inside = outer.running_in_this_thread() && inner.running_in_this_thread();
      elsewhere([&] {
        seen_elsewhere = outer.running_in_this_thread() || inner.running_in_this_thread();
      });
      outer.defer([] {});
    });
    inner.run_until_idle();
    CHECK(outer.running_in_this_thread());
    CHECK_FALSE(inner.running_in_this_thread());
  });
  const std::size_t ran = outer.run_until_idle();

  CHECK(seen_inside);
  CHECK_FALSE(seen_elsewhere);
  CHECK_FALSE(seen_outside);
  CHECK_FALSE(outer.running_in_this_thread());
  CHECK(ran == 2);
}

TEST_CASE("one loop may be run by one thread after another") {
  loop l;
  int ran = 0;

  for (int round = 0; round < 20; ++round) {
    must_post(l, [&] { l.defer([&] { ++ran; }); });
    elsewhere([&] { l.poll(); });
    elsewhere([&] { l.run_until_idle(); });
  }

  CHECK(ran == 20);
}

// ---- What keeps run_until_idle() ----

TEST_CASE("run_until_idle waits for the last guard, which any thread may drop") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    std::optional<hybridloop::keep_alive> first(l->hold());
    std::optional<hybridloop::keep_alive> second(std::move(*first));
    std::optional<hybridloop::keep_alive> third(l->hold());
    bool dropped = false;

    const scoped_thread dropper([&] {
      await_parks(*l, 1);
      first.reset();
      second.reset();
      must_post(*l, [&] { dropped = true; });
      await([&] { return l->stats().parks >= 2; });
      third.reset();
    });
    l->run_until_idle();

    CHECK(dropped);
    CHECK(l->run_until_idle() == 0);
  }
}

TEST_CASE("a guard given another one's place lets go of its own") {
  loop one;
  loop other;
  hybridloop::keep_alive guard = one.hold();

  guard = other.hold();

  CHECK(one.run_until_idle() == 0);
  CHECK(other.run_for(1ms) == 0);
}

TEST_CASE("a guard may outlive its loop") {
  std::optional<loop> l(std::in_place);
  const hybridloop::keep_alive guard = l->hold();

  l.reset();
}

TEST_CASE("a loop whose last guard ended run_until_idle may be destroyed at once") {
  for (std::size_t round = 0; round < scaled(1000); ++round) {
    loop_in<> l(everywhere[round % 4]);
    std::optional<hybridloop::keep_alive> guard(l->hold());
    std::optional<scoped_thread> dropper(std::in_place, [&, mine = std::move(*guard)]() mutable {
      const hybridloop::keep_alive last(std::move(mine));
    });
    guard.reset();
    l->run_until_idle();
    dropper.reset();
  }
}

TEST_CASE("timers and watches keep run_until_idle as long as they are referenced") {
  loop l;
  socket_pair wire;
  int fired = 0;

  const auto far = l.every(1h, [] {});
  const auto silent = l.watch(wire.left(), hybridloop::interest::readable, [] {});
  const auto near = l.after(1ms, [&] { ++fired; });
  l.unref(far);
  l.unref(silent);
  l.run_until_idle();
  CHECK(fired == 1);

  l.ref(far);
  l.run_for(0s);
  l.after(1ms, [&] {
    ++fired;
    l.unref(far);
  });
  l.run_until_idle();

  CHECK(fired == 2);
  CHECK(l.cancel(far));
  CHECK(l.unwatch(silent));
  CHECK_FALSE(l.cancel(near));
}

TEST_CASE("another thread's unref, cancel or unwatch ends a sleeping run_until_idle") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    socket_pair wire;
    const auto unreferenced = l->after(1h, [] {});
    const auto cancelled = l->after(1h, [] {});
    const auto watched = l->watch(wire.left(), hybridloop::interest::readable, [] {});

    const scoped_thread other([&] {
      await_parks(*l, 1);
      l->unref(unreferenced);
      l->cancel(cancelled);
      await_parks(*l, 2);
      l->unwatch(watched);
    });
    const std::size_t ran = l->run_until_idle();

    CHECK(ran == 0);
    CHECK(l->stats().timers == 1);
  }
}

TEST_CASE("a slot that is claimed and not yet published keeps run_until_idle") {
  staged_loop l;
  bool ran = false;
  gate claimed;
  const stage stalled("claimed", [&] {
    claimed.open();
    await_parks(l, 1);
  });

  const scoped_thread poster([&] { must_post(l, [&] { ran = true; }); });
  claimed.pass();
  const std::size_t count = l.run_until_idle();

  CHECK(ran);
  CHECK(count == 1);
}

TEST_CASE("what is posted while run_until_idle makes up its mind runs now or next time") {
  const std::size_t rounds = scaled(2000);
  loop l;
  std::atomic<std::size_t> posted{0};
  std::size_t ran = 0;

  const scoped_thread poster([&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      must_post(l, [&] { ++ran; });
      ++posted;
      std::this_thread::yield();
    }
  });
  std::size_t counted = 0;
  while (posted < rounds) counted += l.run_until_idle();
  counted += l.run_until_idle();

  CHECK(ran == rounds);
  CHECK(counted == rounds);
}

// ---- wake ----

TEST_CASE("wake ends one sleep without a task") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    l->poll();
    std::size_t ran = 0;

    scoped_thread runner([&] {
      ran += l->run_once();
      ran += l->run_once();
    });
    await_parks(*l, 1);
    l->wake();
    await_parks(*l, 2);
    l->wake();
    runner.join();

    CHECK(ran == 0);
    CHECK(l->stats().parks == 2);
  }
}

TEST_CASE("a wake of a loop that is awake or idle ends the next sleep, and only that") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    l->poll();

    l->wake();
    CHECK(l->run_once() == 0);
    CHECK(l->stats().parks == 0);
    must_post(*l, [&] {
      l->wake();
      l->wake();
    });
    CHECK(l->run_once() == 1);
    CHECK(l->run_once() == 0);
    CHECK(l->stats().parks == 0);

    const scoped_thread waker([&] {
      await_parks(*l, 1);
      l->wake();
    });
    l->run_once();
    CHECK(l->stats().parks == 1);
  }
}

#if SUPPORT_POSIX
namespace {
std::atomic<loop*> told_by_signal{nullptr};

struct on_signal {
  on_signal(loop& l, void (*handler)(int)) {
    told_by_signal = &l;
    std::signal(SIGUSR1, handler);
  }
  ~on_signal() { std::signal(SIGUSR1, SIG_DFL); }
};
}  // namespace

TEST_CASE("a signal handler may wake a loop that another thread runs") {
  if (!handlers_may_wake()) return;
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    l->poll();
    const on_signal handler(*l, [](int) { told_by_signal.load()->wake(); });

    scoped_thread runner([&] { l->run_once(); });
    await_parks(*l, 1);
    std::raise(SIGUSR1);
    runner.join();

    CHECK(l->stats().parks == 1);
  }
}

TEST_CASE("a signal handler may stop the loop it interrupts, asleep or busy") {
  if (!handlers_may_wake()) return;
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    const on_signal handler(*l, [](int) { told_by_signal.load()->stop(); });
    const pthread_t self = ::pthread_self();

    scoped_thread signaller([&] {
      await_parks(*l, 1);
      ::pthread_kill(self, SIGUSR1);
    });
    l->run();
    signaller.join();
    CHECK(l->stats().parks >= 1);

    must_post(*l, [] { std::raise(SIGUSR1); });
    must_post(*l, [] {});
    CHECK(l->run() == 1);
  }
}
#endif

// ---- handle ----

TEST_CASE("a handle does what its loop does") {
  loop l;
  const hybridloop::loop_handle handle = l.handle();
  order ran;

  CHECK(handle.post([&] { ran.push_back(1); }) == post_result::accepted);
  CHECK(handle.try_post([&] { ran.push_back(2); }) == post_result::accepted);
  CHECK(l.run_until_idle() == 2);
  handle.wake();
  CHECK(l.run_once() == 0);
  handle.stop();
  CHECK(l.run() == 0);
  CHECK_FALSE(handle.closed());
  handle.close();

  CHECK(l.closed());
  CHECK(handle.closed());
  CHECK(l.run() == 0);
  CHECK(ran == order{1, 2});
}

TEST_CASE("a handle that outlived its loop answers closed, and the rest does nothing") {
  std::optional<loop> l(std::in_place);
  hybridloop::loop_handle handle = l->handle();
  const hybridloop::loop_handle copy = handle;
  fate refused;
  witness<> task(refused);

  l.reset();
  handle.stop();
  handle.close();
  handle.wake();
  CHECK(handle.closed());
  CHECK(handle.post(std::move(task)) == post_result::closed);
  CHECK(handle.try_post(std::move(task)) == post_result::closed);
  CHECK(task.intact());

  const hybridloop::loop_handle moved = std::move(handle);
  CHECK(moved.post([] {}) == post_result::closed);
  CHECK(handle.post([] {}) == post_result::closed);
  CHECK(handle.closed());
  handle.wake();
  CHECK(copy.closed());
}

TEST_CASE("a handle may post while its loop is destroyed, and each task has one fate") {
  std::atomic<int> given{0};
  fate fates;

  for (std::size_t round = 0; round < scaled(300); ++round) {
    std::optional<loop> l(std::in_place, tiny(4, 8, overflow::block));
    const auto flood = [&, handle = l->handle()] {
      do ++given;
      while (handle.post(witness<64>(fates)) == post_result::accepted);
    };
    const scoped_thread one(flood);
    const scoped_thread two(flood);
    if (round % 2 == 0) l->poll();
    l.reset();
  }

  CHECK(fates.destroyed == given);
  CHECK(fates.ran < given);
}

// ---- stats and options ----

TEST_CASE("the counters tell what waits in the arena and on the heap") {
  fate fates;
  loop l(tiny(4, 4));

  for (int i = 0; i < 7; ++i) must_post(l, [] {});
  must_post(l, witness<500>(fates));

  CHECK(l.stats().arena_in_use == 4);
  CHECK(l.stats().heap_tasks == 1);
  CHECK(l.stats().turns == 0);
  CHECK(l.stats().tasks == 0);
}

TEST_CASE("the counters tell what was run, and where the loop slept") {
  loop l(tiny(4, 4));
  socket_pair wire;

  for (int i = 0; i < 9; ++i) must_post(l, [] {});
  CHECK(l.stats().heap_tasks == 1);
  l.poll();
  CHECK(l.stats().turns == 1);
  CHECK(l.stats().posts == 9);
  CHECK(l.stats().tasks == 9);
  CHECK(l.stats().spilled == 5);
  CHECK(l.stats().ring_high == 4);
  CHECK(l.stats().arena_in_use == 0);
  CHECK(l.stats().arena_high == 4);

  const auto far = l.after(1h, [] {});
  const auto silent = l.watch(wire.left(), hybridloop::interest::readable, [] {});
  l.poll();
  CHECK(l.stats().turns == 2);
  CHECK(l.stats().posts == 9);
  CHECK(l.stats().tasks == 9);
  CHECK(l.stats().timers == 1);
  CHECK(l.stats().watches == 1);

  CHECK(l.unwatch(silent));
  scoped_thread waker([&] {
    await_parks(l, 1);
    must_post(l, [] {});
  });
  CHECK(l.run_once() == 1);
  waker.join();
  CHECK(l.cancel(far));
  CHECK(l.poll() == 0);

  const hybridloop::loop_stats s = l.stats();
  CHECK(s.posts == 10);
  CHECK(s.tasks == 10);
  CHECK(s.turns == 4);
  CHECK(s.timers == 0);
  CHECK(s.watches == 0);
  CHECK(s.parks == 1);
  CHECK(s.in_channel == 1);
  CHECK(s.in_poller == 0);
  CHECK(s.wakes_channel == 1);
  CHECK(s.wakes_poller == 0);
  CHECK(s.wakes_saved == 9);
  CHECK(s.parked_ns > 0);
  CHECK(s.rescued == 0);
  CHECK(s.stale_events == 0);
  CHECK(s.path == fast_path::full);
}

TEST_CASE("a ring of n takes n, rounded up to a power of two and to two at least") {
  struct sizes {
    std::size_t asked, got;
  };
  for (const sizes size : {sizes{0, 2}, sizes{1, 2}, sizes{2, 2}, sizes{3, 4}, sizes{4, 4}, sizes{5, 8}}) {
    CAPTURE(size.asked);
    loop l(tiny(size.asked, 0, overflow::fail));

    std::size_t accepted = 0;
    while (l.post([] {}) == post_result::accepted) ++accepted;

    CHECK(accepted == size.got);
    CHECK(l.run_until_idle() == size.got);
  }
}

TEST_CASE("options out of range are refused, by code") {
  std::vector<hybridloop::loop_options> wrong(3);
  wrong[0].ring_capacity = (std::size_t{1} << 24) + 1;
  wrong[1].arena_capacity = (std::size_t{1} << 24) + 1;
  wrong[2].spin = -1ns;

  for (const auto& options : wrong) {
    std::error_code code;
    const loop refused(options, code);
    CHECK(code == hybridloop::errc::invalid_argument);
  }
  std::error_code code = make_error_code(hybridloop::errc::closed);
  loop accepted(hybridloop::loop_options{}, code);
  CHECK_FALSE(code);
  CHECK(accepted.poll() == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("options out of range are refused, by exception") {
  hybridloop::loop_options wrong;
  wrong.spin = -1ns;
  std::error_code code;

  try {
    const loop refused(wrong);
  } catch (const std::system_error& error) {
    code = error.code();
  }

  CHECK(code == hybridloop::errc::invalid_argument);
}
#endif

namespace {
struct out_of_descriptors : hybridloop::detail::system_kernel {
  static int epoll_create() noexcept { return -EMFILE; }
  static int pipe(int (&)[2]) noexcept { return -EMFILE; }
  static int kqueue() noexcept { return -EMFILE; }
  static int port_open(hybridloop::native_handle&) noexcept { return -EMFILE; }
};
struct pollerless_traits : hybridloop::default_traits {
  using kernel = out_of_descriptors;
  using poller = hybridloop::detail::system_poller<kernel>;
};
}  // namespace

TEST_CASE("a loop that always polls refuses in its constructor, the others at their first watch") {
  using pollerless_loop = hybridloop::basic_loop<pollerless_traits>;
  const socket_pair wire;
  const auto before = open_descriptors();
  hybridloop::loop_options options;
  std::error_code code;

  options.path = fast_path::off;
  const pollerless_loop refused(options, code);
  CHECK(code == std::errc::too_many_files_open);

  options.path = fast_path::full;
  pollerless_loop l(options, code);
  CHECK_FALSE(code);
  CHECK_FALSE(l.watch(wire.left(), hybridloop::interest::readable, [] {}, code));
  CHECK(code == std::errc::too_many_files_open);
  must_post(l, [] {});
  CHECK(l.run_until_idle() == 1);
  CHECK(open_descriptors() == before);
}

TEST_SUITE_END();
