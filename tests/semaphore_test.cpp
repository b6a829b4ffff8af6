// semaphore_test.cpp - threads that wait for permits: none lost, none twice, in order, and in time
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <ratio>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "support/race.hpp"
#include "support/support.hpp"
#include "support/waits.hpp"

using namespace support;
using hybridloop::basic_semaphore;
using hybridloop::loop;
using hybridloop::wait_status;

namespace {

// A clock of the test's own, behind the others and coarser.
struct slow_clock {
  using duration = std::chrono::duration<std::int32_t, std::milli>;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<slow_clock, duration>;
  [[maybe_unused]] static constexpr bool is_steady = false;
  static time_point now() {
    const auto real = std::chrono::steady_clock::now().time_since_epoch();
    return time_point(duration(static_cast<rep>(std::chrono::duration_cast<std::chrono::milliseconds>(real).count() % 1000000)));
  }
};

// A permit is taken from those there and is owed: whoever was to wait is in the account by then.
template <class Semaphore>
void let_wait(Semaphore& s, const std::atomic<int>& entered, int count) {
  await([&] { return entered == count; });
  await([&] { return s.available() == 0; });
  std::this_thread::sleep_for(1ms);  // more often asleep than not; the promise holds either way
}

}  // namespace

TEST_SUITE_BEGIN("semaphore");

TEST_CASE_TEMPLATE("permits are taken and released, some at a time, and none of them is granted at once", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(5);

  CHECK(s.acquire(3) == wait_status::granted);
  CHECK(s.available() == 2);
  CHECK_FALSE(s.try_acquire(3));
  CHECK(s.try_acquire(2));
  CHECK_FALSE(s.try_acquire());
  CHECK(s.acquire(0) == wait_status::granted);
  CHECK(s.try_acquire(0));
  CHECK(s.available() == 0);
  s.release(0);
  CHECK(s.available() == 0);
  s.release(4);
  s.release();

  CHECK(s.available() == 5);
}

TEST_CASE_TEMPLATE("a semaphore may begin with no permit, and with as many as there can be", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore none(0);
  semaphore full(semaphore::max());

  CHECK(none.available() == 0);
  CHECK_FALSE(none.try_acquire());
  CHECK(full.available() == semaphore::max());
  CHECK(full.acquire(semaphore::max()) == wait_status::granted);
  CHECK(full.available() == 0);
  full.release(semaphore::max());
  CHECK(full.available() == semaphore::max());
}

TEST_CASE_TEMPLATE("fewer than no permits, more than max() and an overflow are broken contracts", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;

  CHECK(aborts([] { semaphore(-1); }));
  CHECK(aborts([] { semaphore(semaphore::max() + 1); }));
  CHECK(aborts([] { semaphore(1).acquire(-1) == wait_status::granted ? void() : void(); }));
  CHECK(aborts([] { static_cast<void>(semaphore(1).try_acquire(semaphore::max() + 1)); }));
  CHECK(aborts([] { semaphore(1).release(-1); }));
  CHECK(aborts([] { semaphore(1).forget(-1); }));
  CHECK(aborts([] { semaphore(semaphore::max()).release(); }));
  CHECK(aborts([] { semaphore(1).release(semaphore::max()); }));
  CHECK_FALSE(aborts([] { semaphore(0).release(semaphore::max()); }));
}

TEST_CASE_TEMPLATE("a thread that runs a loop may not block, and may try", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  CHECK(aborts([&] {
    loop l;
    must_post(l, [&] { s.acquire() == wait_status::granted ? void() : void(); });
    l.poll();
  }));
  CHECK(aborts([&] {
    loop l;
    must_post(l, [&] { static_cast<void>(s.try_acquire_for(1h, 2)); });
    l.poll();
  }));

  loop l;
  bool had = false;
  must_post(l, [&] { had = s.try_acquire() && !s.try_acquire_for(0s); });
  l.poll();

  CHECK(had);
}

TEST_CASE_TEMPLATE("forget takes what is there and says how many that was", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(10);
  CHECK(s.forget(4) == 4);
  CHECK(s.available() == 6);
  CHECK(s.forget(10) == 6);
  CHECK(s.forget(1) == 0);
  s.release(2);
  s.close();
  CHECK(s.forget(1) == 1);
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("seven of five are granted when five more come, and three are left to forget", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(5);
  std::atomic<int> entered{0};
  scoped_thread waiter([&] {
    ++entered;
    CHECK(s.acquire(7) == wait_status::granted);
  });
  let_wait(s, entered, 1);
  CHECK(s.forget(1) == 0);

  s.release(5);
  waiter.join();

  CHECK(s.available() == 3);
  CHECK(s.forget(3) == 3);
}

// ---- Permits ----

TEST_CASE_TEMPLATE("a permit is released with its scope, on every way out, and once however it was moved", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(3);
  {
    auto one = s.hold();
    CHECK(one);
    auto two = s.hold(2);
    CHECK(two.count() == 2);
    CHECK(s.available() == 0);
    auto moved = std::move(two);
    CHECK_FALSE(two);  // NOLINT: what was moved from is empty
    one = std::move(moved);
    CHECK(s.available() == 1);
    CHECK(one.count() == 2);
    const auto& same = one;
    one = std::move(const_cast<typename semaphore::permit&>(same));
    CHECK(one.count() == 2);
  }
  CHECK(s.available() == 3);
  const auto early = [&](bool leave) {
    const auto held = s.hold(3);
    if (leave) return 1;
    return 2;
  };
  CHECK(early(true) + early(false) == 3);

  CHECK(s.available() == 3);
}

TEST_CASE_TEMPLATE("permits are split, merged, forgotten and released by hand", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(5);
  auto all = s.hold(5);

  auto some = all.split(2);
  CHECK(some.count() == 2);
  CHECK(all.count() == 3);
  CHECK_FALSE(all.split(4));
  CHECK_FALSE(all.split(-1));
  CHECK(all.count() == 3);
  some.merge(all.split(3));
  CHECK(some.count() == 5);
  CHECK_FALSE(all);
  typename semaphore::permit none;
  some.merge(std::move(none));
  auto& itself = some;
  some.merge(std::move(itself));
  none.merge(some.split(1));
  CHECK(none.forget() == 1);
  CHECK_FALSE(none);
  some.release();
  some.release();

  CHECK(s.available() == 4);
}

TEST_CASE_TEMPLATE("permits of two semaphores are not merged", Queue, SUPPORT_QUEUES) {
  CHECK(aborts([] {
    basic_semaphore<Queue> one(1);
    basic_semaphore<Queue> two(1);
    auto held = one.hold();
    held.merge(two.hold());
  }));
}

// ---- Time ----

TEST_CASE_TEMPLATE("a wait lasts until its deadline and takes nothing, by every clock", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  const auto begin = std::chrono::steady_clock::now();

  CHECK_FALSE(s.try_acquire_for(2ms, 2));
  CHECK_FALSE(s.try_acquire_for(std::chrono::duration<double, std::milli>(1.5), 2));
  CHECK_FALSE(s.try_acquire_for(std::chrono::duration<float>(0.001f), 2));
  CHECK_FALSE(s.try_acquire_until(std::chrono::steady_clock::now() + 2ms, 2));
  CHECK_FALSE(s.try_acquire_until(std::chrono::system_clock::now() + 2ms, 2));
  CHECK_FALSE(s.try_acquire_until(slow_clock::now() + 3ms, 2));
  CHECK(slow_clock::now() > slow_clock::time_point());

  CHECK(std::chrono::steady_clock::now() - begin >= 10ms);
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("a deadline that has passed takes what is there, and never waits, however long ago it was", Queue, SUPPORT_QUEUES) {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  basic_semaphore<Queue> s(1);

  CHECK_FALSE(s.try_acquire_for(0s, 2));
  CHECK_FALSE(s.try_acquire_for(-1h, 2));
  CHECK_FALSE(s.try_acquire_for((std::chrono::nanoseconds::min)(), 2));
  CHECK_FALSE(s.try_acquire_for((std::chrono::hours::min)(), 2));
  CHECK_FALSE(s.try_acquire_until((steady_clock::time_point::min)(), 2));
  CHECK_FALSE(s.try_acquire_until((system_clock::time_point::min)(), 2));
  CHECK_FALSE(s.try_acquire_until(std::chrono::time_point<system_clock, std::chrono::hours>(std::chrono::hours::min()), 2));
  CHECK_FALSE(s.try_acquire_until((slow_clock::time_point::min)(), 2));
  CHECK(s.try_acquire_until((system_clock::time_point::min)()));

  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a deadline that never comes does not overflow, and the permit does come", Queue, SUPPORT_QUEUES) {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  basic_semaphore<Queue> s(0);
  const auto granted = [&](const auto& wait) {
    const scoped_thread giver([&] { s.release(); });
    return wait();
  };

  CHECK(granted([&] { return s.try_acquire_for((std::chrono::nanoseconds::max)()); }));
  CHECK(granted([&] { return s.try_acquire_for((std::chrono::hours::max)()); }));
  CHECK(granted([&] { return s.try_acquire_for(std::chrono::duration<double>(1e300)); }));
  CHECK(granted([&] { return s.try_acquire_until((steady_clock::time_point::max)()); }));
  CHECK(granted([&] { return s.try_acquire_until((steady_clock::time_point::max)() - steady_clock::duration(1)); }));
  CHECK(granted([&] { return s.try_acquire_until((system_clock::time_point::max)()); }));
  CHECK(granted([&] { return s.try_acquire_until((system_clock::time_point::max)() - system_clock::duration(1)); }));
  CHECK(granted([&] {
    return s.try_acquire_until(std::chrono::time_point<system_clock, std::chrono::hours>(std::chrono::hours::max()));
  }));
  CHECK(granted([&] { return s.try_acquire_until((slow_clock::time_point::max)()); }));

  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("time is never said to have run out by who took a permit", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(5000);
  basic_semaphore<Queue> s(0);
  std::size_t lost = 0;
  rendezvous start(2);
  scoped_thread giver([&] {
    dice chance(1);
    for (std::size_t i = 0; i < rounds; ++i) {
      start.meet();
      dawdle(chance.roll(20000));
      s.release();
      start.meet();
    }
  });

  for (std::size_t i = 0; i < rounds; ++i) {
    start.meet();
    const bool had = s.try_acquire_for(std::chrono::microseconds(i % 20));
    start.meet();
    if (s.available() != (had ? 0 : 1)) ++lost;
    s.forget(1);
  }
  giver.join();

  CHECK(lost == 0);
}

TEST_CASE_TEMPLATE("who leaves a queue for many at its deadline lets those behind it run with what it had", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(4);
  bool many = true;
  scoped_thread first([&] { many = s.try_acquire_for(20ms, 8); });
  await([&] { return s.available() == 0; });

  CHECK(s.acquire() == wait_status::granted);
  first.join();

  CHECK_FALSE(many);
  CHECK(s.available() == 3);
}

// ---- Order ----

TEST_CASE_TEMPLATE("permits are handed out in the order of the waits, many at the head holding up one behind it", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  std::atomic<int> entered{0};
  std::atomic<int> step{0};
  int many = 0;
  int one = 0;
  std::ptrdiff_t after_many = -1;
  scoped_thread first([&] {
    ++entered;
    CHECK(s.acquire(3) == wait_status::granted);
    many = ++step;
    after_many = s.available();
    s.release();
  });
  let_wait(s, entered, 1);
  scoped_thread second([&] {
    ++entered;
    CHECK(s.acquire() == wait_status::granted);
    one = ++step;
  });
  await([&] { return entered == 2; });

  s.release();
  CHECK(step == 0);
  CHECK_FALSE(s.try_acquire());
  s.release();
  first.join();
  second.join();

  CHECK(many == 1);
  CHECK(one == 2);
  CHECK(after_many == 0);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("nobody overtakes who waits, with try_acquire or by being busy", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  std::atomic<bool> had{false};
  std::atomic<int> entered{0};
  scoped_thread waiter([&] {
    ++entered;
    CHECK(s.acquire(2) == wait_status::granted);
    had = true;
  });
  let_wait(s, entered, 1);

  for (int i = 0; i < 1000; ++i) CHECK_FALSE(s.try_acquire());
  CHECK_FALSE(had);
  s.release();
  waiter.join();

  CHECK(s.available() == 0);
}

// ---- Close ----

TEST_CASE_TEMPLATE("close ends every wait, and permits are still counted exactly", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(2);
  std::atomic<int> closed{0};
  std::atomic<int> entered{0};
  {
    const auto wait = [&](std::ptrdiff_t n) {
      ++entered;
      if (s.acquire(n) == wait_status::closed) ++closed;
    };
    const scoped_thread one([&] { wait(5); });
    const scoped_thread two([&] { wait(6); });
    const scoped_thread three([&] {
      ++entered;
      if (!s.try_acquire_for(1h, 7)) ++closed;
    });
    let_wait(s, entered, 3);
    CHECK_FALSE(s.closed());
    s.close();
  }

  CHECK(closed == 3);
  CHECK(s.closed());
  CHECK(s.available() == 2);
  CHECK(s.acquire() == wait_status::closed);
  CHECK_FALSE(s.try_acquire());
  CHECK_FALSE(s.try_acquire_for(1h));
  CHECK_FALSE(s.hold());
  CHECK_FALSE(s.try_acquire_until(std::chrono::system_clock::now() + 20ms));
  s.release(3);
  s.close();
  CHECK(s.available() == 5);
}

TEST_CASE_TEMPLATE("close races with waits, releases and deadlines: nobody is left behind and no permit", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(2000);
  dice chance(3);
  std::size_t wrong = 0;
  rendezvous start(4);
  std::optional<basic_semaphore<Queue>> s;
  std::atomic<std::ptrdiff_t> held{0};
  const auto wait = [&](std::ptrdiff_t n, bool timed) {
    for (std::size_t i = 0; i < rounds; ++i) {
      start.meet();
      const bool had = timed ? s->try_acquire_for(std::chrono::microseconds(i % 30), n) : s->acquire(n) == wait_status::granted;
      if (had) held += n;
      start.meet();
    }
  };
  const scoped_thread one([&] { wait(1, false); });
  const scoped_thread two([&] { wait(3, true); });
  const scoped_thread giver([&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      start.meet();
      s->release(2);
      s->release(1);
      start.meet();
    }
  });

  for (std::size_t i = 0; i < rounds; ++i) {
    held = 0;
    s.emplace(0);
    start.meet();
    dawdle(chance.roll(3000));
    s->close();
    start.meet();
    if (held + s->available() != 3) ++wrong;
  }

  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("close, a release and a try, coming while a thread enters its wait, are not missed", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, staged_traits<>>;
  semaphore s(0);
  {
    const stage here("joining", [&] { s.release(); });
    CHECK(s.acquire() == wait_status::granted);
  }
  {
    const stage here("joining", [&] { s.release(5); });
    CHECK(s.acquire(2) == wait_status::granted);
    CHECK(s.available() == 3);
    CHECK(s.forget(3) == 3);
  }
  {
    // H1, H4: the permit that comes while it enters is not to be had by another.
    bool robbed = true;
    const stage here("joining", [&] {
      s.release();
      robbed = s.try_acquire();
    });
    CHECK(s.acquire() == wait_status::granted);
    CHECK_FALSE(robbed);
  }
  {
    const stage here("joining", [&] {
      s.release();
      s.close();
    });
    CHECK(s.acquire(2) == wait_status::closed);
  }

  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("a permit that is on its way to a thread when its deadline comes is its, or there", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, staged_traits<>>;
  semaphore s(0);
  std::atomic<int> entered{0};
  std::atomic<bool> over{false};
  bool had = false;
  scoped_thread waiter([&] {
    ++entered;
    had = s.try_acquire_for(5ms);
    over = true;
  });
  await([&] { return entered == 1; });
  {
    const stage here("sending", [&] {
      std::this_thread::sleep_for(10ms);
      CHECK_FALSE(over);
    });
    s.release();
    waiter.join();
  }

  CHECK(s.available() == (had ? 0 : 1));
}

TEST_CASE_TEMPLATE("one permit never has two holders: a release, a deadline and others meet in any window", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, staged_traits<>>;
  for (const char* where : {"joining", "sending", "slot-seen", "cells-claimed", "cell-seen", "token-in-hand", "reserving", "leaving",
                            "withdrawn", "promised", "owner", "served", "entered", "asked"}) {
    CAPTURE(where);
    semaphore s(1);
    std::atomic<int> holders{0};
    std::atomic<bool> two{false};
    std::atomic<bool> released{false};
    std::atomic<int> robbers{0};
    const auto hold = [&] {
      if (++holders > 1) two = true;
    };
    const auto let_go = [&] {
      --holders;
      s.release();
    };
    REQUIRE(s.acquire() == wait_status::granted);
    hold();
    {
      const stage here(where, [&] {
        if (!released.exchange(true)) let_go();
        for (int i = 0; i < 2; ++i) {
          if (!s.try_acquire()) continue;
          ++robbers;
          hold();
        }
        std::this_thread::sleep_for(3ms);  // past the deadline, wherever this is
      });
      const scoped_thread waiter([&] {
        if (!s.try_acquire_for(2ms)) return;
        hold();
        let_go();
      });
      std::this_thread::sleep_for(1ms);
      if (!released.exchange(true)) let_go();
    }
    while (robbers-- > 0) let_go();

    CHECK_FALSE(two);
    CHECK(s.available() == 1);
  }
}

// ---- Many threads ----

TEST_CASE_TEMPLATE("two releases before anybody runs wake two", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  std::atomic<int> entered{0};
  std::atomic<int> granted{0};
  {
    const auto wait = [&] {
      ++entered;
      if (s.acquire() == wait_status::granted) ++granted;
    };
    const scoped_thread one(wait);
    const scoped_thread two(wait);
    let_wait(s, entered, 2);
    s.release();
    s.release();
  }

  CHECK(granted == 2);
}

TEST_CASE_TEMPLATE("a semaphore of one permit is a lock", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(20000);
  basic_semaphore<Queue> s(1);
  std::size_t count = 0;
  {
    std::vector<scoped_thread> all;
    for (int k = 0; k < 4; ++k) {
      all.emplace_back([&] {
        for (std::size_t i = 0; i < rounds; ++i) {
          const auto held = s.hold();
          ++count;
        }
      });
    }
  }

  CHECK(count == 4 * rounds);
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("eight threads that acquire are all woken by eight releases, round after round", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(1000);
  basic_semaphore<Queue> s(0);
  rendezvous start(9);
  std::vector<scoped_thread> all;
  std::atomic<std::size_t> granted{0};
  for (int k = 0; k < 8; ++k) {
    all.emplace_back([&, k] {
      for (std::size_t i = 0; i < rounds; ++i) {
        start.meet();
        const bool had = k % 2 == 0 ? s.acquire() == wait_status::granted : s.try_acquire_for(1h);
        if (had) ++granted;
      }
    });
  }

  for (std::size_t i = 0; i < rounds; ++i) {
    start.meet();
    for (int k = 0; k < 8; ++k) s.release();
  }
  all.clear();

  CHECK(granted == 8 * rounds);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("ten threads acquire in every way what ten others release", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(2000);
  basic_semaphore<Queue> s(0);
  {
    std::vector<scoped_thread> all;
    for (std::size_t k = 0; k < 10; ++k) {
      all.emplace_back([&] {
        for (std::size_t i = 0; i < rounds; ++i) s.release();
      });
      all.emplace_back([&, k] {
        for (std::size_t i = 0; i < rounds; ++i) {
          switch ((i + k) % 4) {
            case 0:
              while (!s.try_acquire()) std::this_thread::yield();
              break;
            case 1:
              while (!s.try_acquire_for(50us)) continue;
              break;
            case 2:
              while (!s.try_acquire_until(std::chrono::system_clock::now() + 50us)) continue;
              break;
            default: static_cast<void>(s.acquire());
          }
        }
      });
    }
  }

  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("no more are held than there are, in lots of any size, and all of them come back", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(5000);
  basic_semaphore<Queue> s(6);
  std::atomic<int> held{0};
  std::atomic<bool> too_many{false};
  {
    std::vector<scoped_thread> all;
    for (std::size_t k = 0; k < 6; ++k) {
      all.emplace_back([&, k] {
        dice chance(k);
        for (std::size_t i = 0; i < rounds; ++i) {
          const int n = static_cast<int>(chance.roll(5));
          const bool had = chance.roll(2) == 0 ? s.acquire(n) == wait_status::granted
                                               : s.try_acquire_for(std::chrono::microseconds(chance.roll(100)), n);
          if (!had) continue;
          if (held.fetch_add(n) + n > 6) too_many = true;
          held -= n;
          s.release(n);
        }
      });
    }
  }

  CHECK_FALSE(too_many);
  CHECK(s.available() == 6);
}

TEST_CASE_TEMPLATE("who was granted may destroy the semaphore at once", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(100000);
  std::atomic<basic_semaphore<Queue>*> offered{nullptr};
  std::atomic<bool> over{false};
  const scoped_thread giver([&] {
    while (!over) {
      if (auto* const s = offered.exchange(nullptr)) s->release();
    }
  });

  for (std::size_t i = 0; i < rounds; ++i) {
    basic_semaphore<Queue> done(0);
    offered = &done;
    REQUIRE(done.acquire() == wait_status::granted);
  }
  over = true;
}

TEST_CASE_TEMPLATE("a thread that waits uses no CPU", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  std::chrono::microseconds used{0};
  std::atomic<int> entered{0};
  scoped_thread waiter([&] {
    const auto before = thread_usage();
    ++entered;
    static_cast<void>(s.acquire());
    used = thread_usage().cpu - before.cpu;
  });
  await([&] { return entered == 1; });
  std::this_thread::sleep_for(100ms);

  s.release();
  waiter.join();

  CHECK(used < 50ms);
}

TEST_SUITE_END();

// The other way to hand permits out.
TEST_SUITE_BEGIN("barging");

TEST_CASE_TEMPLATE("permits that are put back reach whoever waits, in lots of any size, and close ends it", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(5000);
  basic_semaphore<Queue, hybridloop::sync::barging> s(4);
  std::atomic<int> held{0};
  std::atomic<bool> too_many{false};
  std::atomic<int> closed{0};
  {
    std::vector<scoped_thread> all;
    for (std::size_t k = 0; k < 6; ++k) {
      all.emplace_back([&, k] {
        dice chance(k);
        for (std::size_t i = 0; i < rounds; ++i) {
          const int n = static_cast<int>(chance.roll(5));
          const bool had = chance.roll(2) == 0 ? s.acquire(n) == wait_status::granted
                                               : s.try_acquire_for(std::chrono::microseconds(chance.roll(100)), n);
          if (!had) continue;
          if (held.fetch_add(n) + n > 4) too_many = true;
          held -= n;
          s.release(n);
        }
      });
    }
  }
  CHECK_FALSE(too_many);
  CHECK(s.available() == 4);
  {
    const auto wait = [&] {
      if (s.acquire(5) == wait_status::closed) ++closed;
    };
    const scoped_thread one(wait);
    const scoped_thread two(wait);
    s.close();
  }

  CHECK(closed == 2);
  CHECK(s.available() == 4);
}

TEST_SUITE_END();
