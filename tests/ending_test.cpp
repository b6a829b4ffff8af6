// ending_test.cpp - stop, close and destruction: three verbs, three meanings
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "support/running.hpp"
#include "support/stage.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::overflow;
using hybridloop::post_result;
using order = std::vector<int>;

namespace {

// Ends a loop, out of every kind of callback and from another thread. `end` is told where from.
struct origin {
  std::string name;
  void (*arrange)(loop&, const socket_pair&, const std::function<void()>& end);
};
const origin origins[] = {
    {"a task", [](loop& l, const socket_pair&, const auto& end) { must_post(l, end); }},
    {"a timer", [](loop& l, const socket_pair&, const auto& end) { l.after(0ns, end); }},
    {"a repeating timer",
     [](loop& l, const socket_pair&, const auto& end) {
       const auto id = std::make_shared<hybridloop::timer_id>();
       *id = l.every(1ms, [&l, id, end] {
         l.cancel(*id);
         end();
       });
     }},
    {"a watch",
     [](loop& l, const socket_pair& wire, const auto& end) {
       wire.write_right();
       l.watch(wire.left(), interest::readable | interest::oneshot, end);
     }},
    {"a deferred task",
     [](loop& l, const socket_pair&, const auto& end) { must_post(l, [&l, end] { l.defer(end); }); }},
    {"a microtask",
     [](loop& l, const socket_pair&, const auto& end) { must_post(l, [&l, end] { l.microtask(end); }); }},
};

// Whether nothing of an earlier stop is left.
bool runs_on(loop& l) {
  bool ran = false;
  must_post(l, [&] { ran = true; });
  l.poll();
  return ran;
}

}  // namespace

// ---- stop ----

TEST_SUITE_BEGIN("ending");

TEST_CASE("stop ends run from wherever it comes, and only that run") {
  for (const place& where : everywhere) {
    for (const origin& from : origins) {
      CAPTURE(where.name);
      CAPTURE(from.name);
      socket_pair wire;
      loop_in<> l(where);

      from.arrange(*l, wire, [&] { l->stop(); });
      const std::size_t ran = l->run();

      CHECK(ran >= 1);
      CHECK_FALSE(l->closed());
      CHECK(runs_on(*l));
    }
  }
}

TEST_CASE("stop from another thread ends a sleep, anywhere, behind a far timer too") {
  for (const place& where : everywhere) {
    for (const bool has_timer : {false, true}) {
      CAPTURE(where.name);
      loop_in<> l(where);
      if (has_timer) l->after(1h, [] {});

      scoped_thread stopper([&] {
        await_parks(*l, 1);
        l->stop();
      });
      l->run();
      stopper.join();

      CHECK(runs_on(*l));
    }
  }
}

TEST_CASE("run returns after the task that stopped it, and keeps what was behind it") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.microtask([&] { ran.push_back(2); });
    l.defer([&] { ran.push_back(4); });
    l.stop();
    ran.push_back(1);
  });
  must_post(l, [&] { ran.push_back(3); });

  CHECK(l.run() == 1);
  CHECK(ran == order{1, 2});
  CHECK(l.run_until_idle() == 2);
  CHECK(ran == order{1, 2, 4, 3});
}

TEST_CASE("a stop keeps the timers and ready descriptors that it came before") {
  for (const place& where : {in_channel, in_bare_poller, in_mini}) {
    CAPTURE(where.name);
    loop_in<> l(where);
    socket_pair one;
    socket_pair two;
    int heard = 0;
    int fired = 0;
    one.write_right();
    two.write_right();

    must_post(*l, [&] {
      for (int i = 0; i < 2; ++i) {
        l->after(0ns, [&] {
          ++fired;
          l->stop();
        });
      }
    });
    l->poll();
    CHECK(l->run() == 1);
    CHECK(l->run() == 1);
    CHECK(fired == 2);

    for (const socket_pair* wire : {&one, &two}) {
      l->watch(wire->left(), interest::readable | interest::edge | interest::oneshot, [&] {
        ++heard;
        l->stop();
      });
    }
    CHECK(l->run() == 1);
    CHECK(l->run() == 1);
    CHECK(heard == 2);
  }
}

TEST_CASE("every form of run heeds a stop that came before it, and runs nothing") {
  const std::function<void(loop&)> forms[] = {
      [](loop& l) { l.run(); },          [](loop& l) { l.run_until_idle(); },
      [](loop& l) { l.run_once(); },     [](loop& l) { l.poll(); },
      [](loop& l) { l.run_for(1h); },    [](loop& l) { l.run_until(loop::clock::now() + 1h); },
  };
  for (const auto& form : forms) {
    loop l;
    int ran = 0;
    must_post(l, [&] { ++ran; });

    l.stop();
    l.stop();
    form(l);
    CHECK(ran == 0);
    CHECK(l.run_until_idle() == 1);
    CHECK(ran == 1);
  }
}

TEST_CASE("ten threads that stop a loop at once stop it once or twice, never less") {
  for (std::size_t round = 0; round < scaled(60); ++round) {
    loop_in<> l(everywhere[round % 4]);
    gate start;
    {
      std::vector<scoped_thread> stoppers;
      for (int i = 0; i < 10; ++i) {
        stoppers.emplace_back([&] {
          start.pass();
          l->stop();
        });
      }
      start.open();
      l->run();
    }

    must_post(*l, [&] { l->stop(); });
    std::size_t ran = l->run();
    if (ran == 0) ran = l->run();
    CHECK(ran >= 1);
    CHECK(runs_on(*l));
  }
}

TEST_CASE("stop ends every level of nested runs, and the outermost one has heeded it") {
  constexpr int deep = 5;
  for (const bool from_outside : {false, true}) {
    CAPTURE(from_outside);
    loop l;
    int depth = 0;
    int behind = 0;
    std::vector<std::size_t> counts;
    std::function<void()> dive = [&] {
      if (++depth <= deep) {
        must_post(l, dive);
        counts.push_back(l.run());
        must_post(l, [&] { ++behind; });
      } else if (!from_outside) {
        l.stop();
      }
    };

    must_post(l, dive);
    scoped_thread stopper([&] {
      if (!from_outside) return;
      await_parks(l, 1);
      l.stop();
    });
    counts.push_back(l.run());
    stopper.join();

    CHECK(depth == deep + 1);
    CHECK(counts.size() == deep + 1);
    CHECK(std::count(counts.begin(), counts.end(), 1) == deep + 1);
    CHECK(l.run_until_idle() == deep);
    CHECK(behind == deep);
  }
}

TEST_CASE("stop of an inner loop leaves the outer one running") {
  loop outer;
  loop inner;
  order ran;

  must_post(outer, [&] {
    must_post(inner, [&] {
      ran.push_back(1);
      inner.stop();
    });
    inner.run();
    ran.push_back(2);
  });
  must_post(outer, [&] { ran.push_back(3); });

  CHECK(outer.run_until_idle() == 2);
  CHECK(ran == order{1, 2, 3});
}

// ---- close ----

TEST_CASE("close refuses what is new, runs what was accepted, and ends run, from wherever it comes") {
  for (const place& where : everywhere) {
    for (const origin& from : origins) {
      CAPTURE(where.name);
      CAPTURE(from.name);
      socket_pair wire;
      loop_in<> l(where, tiny(4, 4));
      int ran = 0;
      post_result refused{};

      from.arrange(*l, wire, [&] {
        for (int i = 0; i < 12; ++i) must_post(*l, [&] { ++ran; });
        l->close();
        refused = l->post([] {});
      });
      l->run();

      CHECK(l->closed());
      CHECK(ran == 12);
      CHECK(refused == post_result::closed);
      CHECK(l->try_post([] {}) == post_result::closed);
      CHECK(l->run() == 0);
      CHECK(l->run_once() == 0);
    }
  }
}

TEST_CASE("close from another thread ends a sleep, anywhere, behind a far timer too") {
  for (const place& where : everywhere) {
    for (const bool has_timer : {false, true}) {
      CAPTURE(where.name);
      loop_in<> l(where);
      if (has_timer) l->after(1h, [] {});

      const scoped_thread closer([&] {
        await_parks(*l, 1);
        l->close();
        l->close();
      });
      l->run();

      CHECK(l->closed());
    }
  }
}

TEST_CASE("a loop that was closed before it ran runs what it had accepted") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where, tiny(4, 4));
    int ran = 0;

    for (int i = 0; i < 20; ++i) must_post(*l, [&] { ++ran; });
    l->close();
    CHECK(l->run() == 20);

    CHECK(ran == 20);
    CHECK(l->run() == 0);
  }
}

TEST_CASE("what running tasks defer after the close still runs") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.close();
    l.defer([&] {
      ran.push_back(3);
      l.defer([&] { ran.push_back(4); });
    });
    l.microtask([&] { ran.push_back(2); });
    ran.push_back(1);
  });

  CHECK(l.run() == 3);
  CHECK(ran == order{1, 2, 3, 4});
}

TEST_CASE("timers and watches end with the close without running, and their closures with them") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    socket_pair wire;
    fate fates;

    l->after(1h, witness<>(fates));
    l->every(1h, witness<100>(fates));
    l->watch(wire.left(), interest::readable, witness<500>(fates));
    l->poll();
    elsewhere([&] { l->after(0ns, witness<>(fates)); });
    l->close();
    l->run();

    CHECK(fates.ran == 0);
    CHECK(fates.destroyed == 4);
    CHECK_FALSE(l->after(0ns, witness<>(fates)));
    std::error_code code;
    CHECK_FALSE(l->watch(wire.left(), interest::readable, witness<>(fates), code));
    CHECK(code == hybridloop::errc::closed);
    CHECK(l->stats().timers == 0);
    CHECK(l->stats().watches == 0);
  }
}

TEST_CASE("every task that several threads had accepted before the close runs, and no other") {
  constexpr std::size_t posters = 4;
  for (const auto when_full : {overflow::spill, overflow::block, overflow::fail}) {
    for (std::size_t round = 0; round < scaled(12); ++round) {
      loop_in<> l(everywhere[round % 4], tiny(4, 16, when_full));
      std::atomic<std::size_t> accepted{0};
      std::size_t ran = 0;
      {
        std::vector<scoped_thread> threads;
        for (std::size_t p = 0; p < posters; ++p) {
          threads.emplace_back([&] {
            for (std::size_t i = 1;; ++i) {
              const post_result answer = l->post([&] { ++ran; });
              if (answer == post_result::closed) return;
              if (answer == post_result::accepted) ++accepted;
              if (i % 16 == 0) std::this_thread::yield();
            }
          });
        }
        threads.emplace_back([&] {
          while (accepted < round * 20) std::this_thread::yield();
          l->close();
        });
        l->run();
      }

      CHECK(ran == accepted);
      CHECK(l->stats().posts == ran);
    }
  }
}

TEST_CASE("a claim that stalls before it is published holds up the end of a closing loop") {
  for (const std::string window : {"claimed", "published"}) {
    CAPTURE(window);
    staged_loop l;
    bool ran = false;
    gate claimed;
    const stage stall(window, [&] {
      claimed.open();
      std::this_thread::sleep_for(5ms);
    });

    const scoped_thread poster([&] { must_post(l, [&] { ran = true; }); });
    claimed.pass();
    l.close();
    l.run();

    CHECK(ran);
  }
}

TEST_CASE("a close that stalls between its two steps loses nothing that came between them") {
  staged_loop l;
  int ran = 0;
  std::optional<post_result> answer;
  const stage stall("closing", [&] {
    answer = l.post([&] { ++ran; });
    await_parks(l, 2);
  });

  const scoped_thread closer([&] {
    await_parks(l, 1);
    must_post(l, [&] { ++ran; });
    l.close();
  });
  l.run();

  CHECK(answer == post_result::closed);
  CHECK(ran == 1);
}

TEST_CASE("a poster that waits for room is told of the close") {
  loop l(tiny(2, 0, overflow::block));
  must_post(l, [] {});
  must_post(l, [] {});
  gate on_its_way;
  std::optional<post_result> answer;
  fate fates;

  scoped_thread poster([&] {
    witness<500> large(fates);
    on_its_way.open();
    answer = l.post(std::move(large));
  });
  on_its_way.pass();
  std::this_thread::sleep_for(2ms);
  l.close();
  poster.join();

  CHECK(answer == post_result::closed);
  CHECK(l.run() == 2);
  CHECK(fates.ran == 0);
  CHECK(fates.destroyed == 1);
}

TEST_CASE("close and stop at once: run returns, and a later run finishes what was accepted") {
  for (std::size_t round = 0; round < scaled(200); ++round) {
    loop_in<> l(everywhere[round % 4]);
    std::size_t ran = 0;
    for (int i = 0; i < 100; ++i) must_post(*l, [&] { ++ran; });
    {
      const scoped_thread closer([&] { l->close(); });
      const scoped_thread stopper([&] { l->stop(); });
      l->run();
    }

    l->run();
    l->run();

    CHECK(ran == 100);
    CHECK(l->closed());
  }
}

TEST_CASE("close in a nested run ends every level when all is done") {
  loop l;
  order ran;

  must_post(l, [&] {
    must_post(l, [&] {
      l.close();
      ran.push_back(1);
    });
    must_post(l, [&] { ran.push_back(2); });
    CHECK(l.run() == 2);
    ran.push_back(3);
    l.defer([&] { ran.push_back(4); });
  });

  CHECK(l.run() == 2);
  CHECK(ran == order{1, 2, 3, 4});
}

// ---- Destruction ----

TEST_CASE("a destroyed loop runs nothing and destroys everything once") {
  fate fates;
  int made = 0;
  const auto small = [&] { return ++made, witness<>(fates); };
  const auto large = [&] { return ++made, witness<100>(fates); };
  const auto huge = [&] { return ++made, witness<500>(fates); };
  {
    socket_pair wire;
    socket_pair ready;
    ready.write_right();
    loop l(tiny(4, 4));
    must_post(l, [&] {
      for (int i = 0; i < 2000; ++i) l.microtask(small());
      l.microtask(large());
      l.defer(small());
      l.defer(huge());
      l.after(1h, small());
      l.every(1h, huge());
    });
    CHECK(l.poll() == 1);
    const int ran_by_then = fates.ran;
    CHECK(ran_by_then == 1024);

    l.watch(wire.left(), interest::readable, large());
    l.watch(ready.left(), interest::readable, huge());
    for (int i = 0; i < 8; ++i) must_post(l, small());
    for (int i = 0; i < 8; ++i) must_post(l, large());
    for (int i = 0; i < 8; ++i) must_post(l, huge());
    elsewhere([&] { l.after(0ns, small()); });
    elsewhere([&] { l.every(1ms, huge()); });
  }

  CHECK(fates.ran == 1024);
  CHECK(fates.destroyed == made);
}

TEST_CASE("a loop that was stopped, closed or both is destroyed with what it had left") {
  for (const place& where : everywhere) {
    for (const int how : {0, 1, 2, 3}) {
      CAPTURE(where.name);
      CAPTURE(how);
      fate fates;
      {
        loop_in<> l(where);
        l->poll();
        if ((how & 1) != 0) l->stop();
        l->after(1h, witness<>(fates));
        must_post(*l, witness<>(fates));
        if ((how & 2) != 0) l->close();
      }
      CHECK(fates.ran == 0);
      CHECK(fates.destroyed == 2);
    }
  }
}

TEST_CASE("closures may use their loop while it destroys them, and are refused") {
  struct meddler {
    loop* l;
    int* refused;
    meddler(loop& lp, int& count) : l(&lp), refused(&count) {}
    meddler(meddler&& other) noexcept : l(std::exchange(other.l, nullptr)), refused(other.refused) {}
    meddler& operator=(meddler&&) = delete;
    ~meddler() {
      if (l == nullptr) return;
      l->stop();
      l->wake();
      if (l->post([] {}) == post_result::closed) ++*refused;
      if (!l->after(0ns, [] {})) ++*refused;
    }
    void operator()() {}
  };
  int refused = 0;
  {
    loop l;
    must_post(l, [&] {
      l.defer(meddler(l, refused));
      l.after(1h, meddler(l, refused));
    });
    l.poll();
    l.after(1h, meddler(l, refused));
    must_post(l, meddler(l, refused));
  }

  CHECK(refused == 2 * 4);
}

// ---- Who is still inside a call when the loop goes ----

TEST_CASE("a poster may still be inside post when its own task has ended and destroyed the loop") {
  for (std::size_t round = 0; round < scaled(3000); ++round) {
    hybridloop::loop_options options = tiny(2, 2);
    options.path = round % 2 == 0 ? hybridloop::fast_path::full : hybridloop::fast_path::off;
    options.spin = round % 3 == 0 ? 10us : 0us;
    auto* l = new loop(options);
    const scoped_thread runner([l] {
      l->run();
      delete l;
    });
    if (round % 4 < 2) await_parks(*l, 1);

    must_post(*l, [l] { l->stop(); });
  }
}

TEST_CASE("a stop or close may still be inside the call when the loop it ended is destroyed") {
  for (std::size_t round = 0; round < scaled(3000); ++round) {
    hybridloop::loop_options options = tiny(2, 2);
    options.path = round % 2 == 0 ? hybridloop::fast_path::full : hybridloop::fast_path::off;
    options.spin = round % 3 == 0 ? 10us : 0us;
    auto* l = new loop(options);
    const scoped_thread runner([l] {
      l->run();
      delete l;
    });
    if (round % 4 < 2) await_parks(*l, 1);

    round % 8 < 4 ? l->stop() : l->close();
  }
}

#if SUPPORT_POSIX
namespace {
// Rings slowly, and looks whether the bell is still there.
struct slow_ringer : hybridloop::detail::system_kernel {
  using kernel = hybridloop::detail::system_kernel;
  static inline std::atomic<bool> slow{false};
  static inline std::atomic<int> rung{0};
  static inline std::atomic<int> gone{0};
  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    return ring(fd, [=] { return kernel::write(fd, bytes, size); });
  }
  template <class Real = kernel>
  static int kevent_trigger(int queue) noexcept {
    return ring(queue, [queue] { return Real::kevent_trigger(queue); });
  }

 private:
  template <class Call>
  static int ring(int bell, const Call& call) noexcept {
    if (slow.exchange(false)) {
      call();
      std::this_thread::sleep_for(10ms);
      if (::fcntl(bell, F_GETFD) < 0) ++gone;
    }
    ++rung;
    return call();
  }
};
struct slow_traits : hybridloop::default_traits {
  using kernel = slow_ringer;
  using poller = hybridloop::detail::system_poller<kernel>;
};
}  // namespace

TEST_CASE("the bell stays where it is until the last ringer has let go of it") {
  hybridloop::loop_options options;
  options.path = hybridloop::fast_path::off;
  using slow_loop = hybridloop::basic_loop<slow_traits>;
  const std::function<void(slow_loop&)> endings[] = {
      [](slow_loop& l) { must_post(l, [&l] { l.stop(); }); },
      [](slow_loop& l) { l.stop(); },
      [](slow_loop& l) { l.close(); },
  };
  slow_loop(options).poll();  // tries the bell, where there is a choice
  slow_ringer::rung = 0;
  for (const auto& end : endings) {
    auto* l = new slow_loop(options);
    const scoped_thread runner([l] {
      l->run();
      delete l;
    });
    await_parks(*l, 1);
    slow_ringer::slow = true;

    end(*l);
  }

  CHECK(slow_ringer::rung == 3);
  CHECK(slow_ringer::gone == 0);
}
#endif

TEST_SUITE_END();
