// condvar_test.cpp - threads that wait for what a lock protects: each notification is heard, once, by one who waits
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>

#include <hybridloop.hpp>

#include "support/race.hpp"
#include "support/support.hpp"
#include "support/waits.hpp"

using namespace support;
using hybridloop::basic_condvar;
using hybridloop::basic_semaphore;
using hybridloop::loop;

namespace {

// Has what a lock must have, and no more.
class spin_lock {
 public:
  void lock() {
    while (taken_.exchange(true)) std::this_thread::yield();
    mine_ = std::this_thread::get_id();
  }
  void unlock() {
    mine_ = std::thread::id();
    taken_ = false;
  }
  bool is_mine() const { return mine_ == std::this_thread::get_id(); }

 private:
  std::atomic<bool> taken_{false};
  std::atomic<std::thread::id> mine_{std::thread::id()};
};

// Stands still, until it is set.
struct set_clock {
  using duration = std::chrono::microseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<set_clock>;
  [[maybe_unused]] static constexpr bool is_steady = false;
  static inline std::atomic<rep> time{0};
  static time_point now() { return time_point(duration(time)); }
};

// Something happens each time that it is taken again.
template <class F>
struct eventful_lock {
  std::mutex& real;
  F& taken;
  void lock() {
    real.lock();
    taken();
  }
  void unlock() { real.unlock(); }
};

// So many threads wait: each has entered its wait before it gave the lock back.
template <class Lock>
void await_waiters(Lock& lock, const int& waiting, int count) {
  await([&] {
    lock.lock();
    const bool all = waiting == count;
    lock.unlock();
    return all;
  });
}

}  // namespace

TEST_SUITE_BEGIN("condvar");

TEST_CASE_TEMPLATE("any lock will do, is given back while waiting, and held afterwards", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  spin_lock lock;
  bool go = false;
  int waiting = 0;
  bool mine = false;
  scoped_thread waiter([&] {
    lock.lock();
    ++waiting;
    c.wait(lock, [&] { return go; });
    mine = lock.is_mine();
    lock.unlock();
  });
  await_waiters(lock, waiting, 1);

  lock.lock();
  go = true;
  lock.unlock();
  c.notify_one();
  waiter.join();
  CHECK(mine);

  std::mutex plain;
  std::unique_lock<std::mutex> held(plain);
  CHECK(c.wait_for(held, 1ms) == std::cv_status::timeout);
  CHECK(held.owns_lock());
  std::recursive_mutex recursive;
  const std::lock_guard<std::recursive_mutex> once(recursive);
  CHECK_FALSE(c.wait_for(recursive, 1ms, [] { return false; }));
}

TEST_CASE_TEMPLATE("notify_one wakes one, and the one that has waited longest", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  std::mutex m;
  int waiting = 0;
  std::vector<int> order;
  std::atomic<int> woken{0};
  std::vector<scoped_thread> all;
  for (int i = 0; i < 5; ++i) {
    all.emplace_back([&, i] {
      std::unique_lock<std::mutex> lock(m);
      ++waiting;
      c.wait(lock);
      order.push_back(i);
      ++woken;
    });
    await_waiters(m, waiting, i + 1);
  }

  for (int i = 0; i < 5; ++i) {
    CHECK(woken == i);
    c.notify_one();
    await([&] { return woken == i + 1; });
  }

  CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
}

TEST_CASE_TEMPLATE("notify_all wakes all who wait, and nobody who waits again", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  std::mutex m;
  int waiting = 0;
  std::atomic<int> woken{0};
  std::atomic<int> twice{0};
  std::vector<scoped_thread> all;
  for (int i = 0; i < 6; ++i) {
    all.emplace_back([&] {
      std::unique_lock<std::mutex> lock(m);
      ++waiting;
      c.wait(lock);
      ++woken;
      ++waiting;
      c.wait(lock);
      ++twice;
    });
  }
  await_waiters(m, waiting, 6);

  c.notify_all();
  await_waiters(m, waiting, 12);
  CHECK(woken == 6);
  CHECK(twice == 0);
  c.notify_all();
  all.clear();

  CHECK(twice == 6);
}

TEST_CASE_TEMPLATE("a notification that nobody waits for is nobody's", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  std::mutex m;
  std::unique_lock<std::mutex> lock(m);
  for (int i = 0; i < 10; ++i) c.notify_one();
  c.notify_all();

  CHECK(c.wait_for(lock, 1ms) == std::cv_status::timeout);
}

TEST_CASE_TEMPLATE("what a predicate throws leaves the wait with the lock held, at first and later", Queue, SUPPORT_QUEUES) {
#if defined(__cpp_exceptions)
  basic_condvar<Queue> c;
  spin_lock lock;
  int waiting = 0;
  bool mine = false;
  scoped_thread waiter([&] {
    lock.lock();
    int asked = 0;
    CHECK_THROWS_AS(c.wait(lock, []() -> bool { throw std::runtime_error("at first"); }), std::runtime_error);
    ++waiting;
    const auto throws = [&]() -> bool {
      if (++asked == 2) throw std::runtime_error("later");
      return false;
    };
    CHECK_THROWS_AS(c.wait(lock, throws), std::runtime_error);
    mine = lock.is_mine();
    lock.unlock();
  });
  await_waiters(lock, waiting, 1);

  c.notify_one();
  waiter.join();

  CHECK(mine);
#endif
}

TEST_CASE_TEMPLATE("a wait lasts until its deadline by every clock, and answers what the predicate says in the end", Queue, SUPPORT_QUEUES) {
  using std::chrono::steady_clock;
  using std::chrono::system_clock;
  basic_condvar<Queue> c;
  std::mutex m;
  std::unique_lock<std::mutex> lock(m);
  const auto begin = steady_clock::now();

  CHECK(c.wait_for(lock, 2ms) == std::cv_status::timeout);
  CHECK(c.wait_for(lock, std::chrono::duration<float>(0.002f)) == std::cv_status::timeout);
  CHECK(c.wait_until(lock, steady_clock::now() + 2ms) == std::cv_status::timeout);
  const auto end = system_clock::now() + 2ms;
  while (c.wait_until(lock, end) == std::cv_status::no_timeout) continue;
  CHECK(system_clock::now() >= end);
  CHECK_FALSE(c.wait_for(lock, 1ms, [] { return false; }));
  CHECK_FALSE(c.wait_until(lock, system_clock::now() + 1ms, [] { return false; }));
  CHECK(steady_clock::now() - begin >= 9ms);
  CHECK(c.wait_until(lock, (system_clock::time_point::min)()) == std::cv_status::timeout);
  CHECK(c.wait_until(lock, (steady_clock::time_point::min)()) == std::cv_status::timeout);
  CHECK(c.wait_for(lock, (std::chrono::hours::min)()) == std::cv_status::timeout);
  CHECK(c.wait_for(lock, -1s, [] { return true; }));
  CHECK(c.wait_for(lock, (std::chrono::hours::max)(), [] { return true; }));
  CHECK(c.wait_until(lock, (system_clock::time_point::max)(), [] { return true; }));
  int asked = 0;
  CHECK(c.wait_for(lock, 1ms, [&asked] { return ++asked == 2; }));
}

TEST_CASE_TEMPLATE("a deadline that never comes does not overflow, and the notification does come", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  std::mutex m;
  std::unique_lock<std::mutex> lock(m);
  const auto notified = [&](const auto& wait) {
    const scoped_thread notifier([&] {
      { const std::lock_guard<std::mutex> hold(m); }
      c.notify_one();
    });
    const bool heard = wait() == std::cv_status::no_timeout;
    lock.unlock();
    lock.lock();
    return heard;
  };

  CHECK(notified([&] { return c.wait_for(lock, (std::chrono::hours::max)()); }));
  CHECK(notified([&] { return c.wait_until(lock, (std::chrono::system_clock::time_point::max)()); }));
  CHECK(notified([&] { return c.wait_until(lock, (std::chrono::steady_clock::time_point::max)()); }));
}

TEST_CASE_TEMPLATE("a wait by a clock that was set back does not sleep again before its caller has looked", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  std::mutex m;
  bool changed = false;
  // Somebody who had the lock before the waiter gets it back changes something, and notifies.
  const auto change = [&] {
    changed = true;
    c.notify_one();
  };
  eventful_lock<const decltype(change)> lock{m, change};
  m.lock();

  const auto how = c.wait_until(lock, set_clock::now() + 1ms);

  CHECK(how == std::cv_status::no_timeout);
  CHECK(changed);
  m.unlock();
}

TEST_CASE_TEMPLATE("a notification in the window of the wait is heard, with the lock and without it", Queue, SUPPORT_QUEUES) {
  using condvar = condvar_on<Queue, staged_traits<>>;
  condvar c;
  std::mutex m;
  std::unique_lock<std::mutex> lock(m);
  for (const bool all : {false, true}) {
    const stage here("joining", [&] { all ? c.notify_all() : c.notify_one(); });
    CHECK(c.wait_for(lock, 1h) == std::cv_status::no_timeout);
  }
  CHECK(c.wait_for(lock, 1ms) == std::cv_status::timeout);
}

TEST_CASE_TEMPLATE("a timeout and a notification meet: one is answered, and nothing is left for the next", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(5000);
  basic_condvar<Queue> c;
  std::mutex m;
  rendezvous start(2);
  std::size_t wrong = 0;
  const scoped_thread waiter([&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      start.meet();
      std::unique_lock<std::mutex> lock(m);
      static_cast<void>(c.wait_for(lock, std::chrono::microseconds(i % 40)));
      lock.unlock();
      start.meet();
    }
  });

  dice chance(5);
  for (std::size_t i = 0; i < rounds; ++i) {
    start.meet();
    dawdle(chance.roll(20000));
    c.notify_one();
    start.meet();
    std::unique_lock<std::mutex> lock(m);
    if (c.wait_for(lock, 1us) != std::cv_status::timeout) ++wrong;
  }

  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("a notification that is on its way when its waiter's time runs out is the waiter's, or the next one's", Queue, SUPPORT_QUEUES) {
  condvar_on<Queue, staged_traits<>> c;
  std::mutex m;
  std::atomic<int> entered{0};
  std::atomic<bool> next_over{false};
  std::cv_status first = std::cv_status::timeout;
  std::unique_lock<std::mutex> out(m);
  scoped_thread in_time([&] {
    std::unique_lock<std::mutex> lock(m);
    ++entered;
    first = c.wait_for(lock, 5ms);
  });
  out.unlock();
  await([&] { return entered == 1; });
  scoped_thread next([&] {
    std::unique_lock<std::mutex> lock(m);
    ++entered;
    c.wait(lock);
    next_over = true;
  });
  await([&] { return entered == 2; });
  {
    const stage here("sending", [] { std::this_thread::sleep_for(10ms); });
    out.lock();  // both wait
    out.unlock();
    c.notify_one();
  }
  in_time.join();

  // By the time of the notification the first may have gone already: it is the next one's then.
  if (first == std::cv_status::no_timeout) c.notify_one();
  await([&] { return next_over.load(); });
}

TEST_CASE_TEMPLATE("who was told may end its thread at once, and its stack with it", Queue, SUPPORT_QUEUES) {
  struct meeting {
    basic_condvar<Queue> c;
    basic_semaphore<Queue> s{0};
    std::mutex m;
    bool go = false;
    std::atomic<std::size_t> over{0};
  };
  const std::size_t rounds = scaled(300, 20);
  meeting all;
  ::pthread_attr_t unkept;  // a stack that the C library gives back as soon as its thread ends
  ::pthread_attr_init(&unkept);
  ::pthread_attr_setstacksize(&unkept, std::size_t{64} << 20);
  ::pthread_attr_setdetachstate(&unkept, PTHREAD_CREATE_DETACHED);
  const auto wait = [](void* where) -> void* {
    auto& at = *static_cast<meeting*>(where);
    static_cast<void>(at.s.acquire());
    std::unique_lock<std::mutex> lock(at.m);
    at.c.wait(lock, [&at] { return std::exchange(at.go, false); });
    lock.unlock();
    ++at.over;
    return nullptr;
  };

  for (std::size_t i = 0; i < rounds; ++i) {
    ::pthread_t waiter;
    REQUIRE(::pthread_create(&waiter, &unkept, wait, &all) == 0);
    dawdle(i % 100 * 200);
    all.s.release();
    {
      const std::lock_guard<std::mutex> lock(all.m);
      all.go = true;
    }
    all.c.notify_one();
    await([&] { return all.over == i + 1; });
  }
  ::pthread_attr_destroy(&unkept);

  CHECK(all.s.available() == 0);
}

TEST_CASE_TEMPLATE("who was notified last may destroy the condvar at once", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(20000);
  struct place {
    basic_condvar<Queue> c;
    bool go = false;
  };
  std::mutex m;
  place* offered = nullptr;
  std::atomic<bool> over{false};
  const scoped_thread notifier([&] {
    while (!over) {
      m.lock();
      place* const p = std::exchange(offered, nullptr);
      if (p != nullptr) p->go = true;
      if (p != nullptr) p->c.notify_all();
      m.unlock();
    }
  });

  for (std::size_t i = 0; i < rounds; ++i) {
    auto p = std::make_unique<place>();
    std::unique_lock<std::mutex> lock(m);
    offered = p.get();
    p->c.wait(lock, [&p] { return p->go; });
    p.reset();
  }
  over = true;
}

TEST_CASE_TEMPLATE("a condvar that is destroyed by who was notified last stays until those are out of it who gave up", Queue,
                   SUPPORT_QUEUES) {
  auto c = std::make_unique<condvar_on<Queue, staged_traits<>>>();
  auto& changed = *c;
  std::mutex m;
  bool waits = false;
  std::atomic<bool> destroying{false};
  std::atomic<bool> gone{false};
  bool too_early = false;
  scoped_thread last([&] {
    std::unique_lock<std::mutex> lock(m);
    waits = true;
    changed.wait(lock, [&] { return !waits; });
    lock.unlock();
    destroying = true;
    c.reset();
    gone = true;
  });
  {
    const stage here("giving-up", [&] {
      {
        const std::lock_guard<std::mutex> lock(m);
        waits = false;
        changed.notify_all();
      }
      while (!destroying) std::this_thread::yield();
      std::this_thread::sleep_for(5ms);
      too_early = gone;
    });
    std::unique_lock<std::mutex> lock(m);
    while (!waits) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
    static_cast<void>(changed.wait_for(lock, 1ms));
  }
  last.join();
  CHECK_FALSE(too_early);
  CHECK(gone);
}

TEST_CASE_TEMPLATE("producers and consumers of a bounded buffer pass everything on, in order, once", Queue, SUPPORT_QUEUES) {
  const std::size_t each = scaled(5000);
  basic_condvar<Queue> room;
  basic_condvar<Queue> some;
  std::mutex m;
  std::deque<std::size_t> buffer;
  std::atomic<std::size_t> sum{0};
  std::size_t disorder = 0;
  {
    std::vector<scoped_thread> all;
    for (std::size_t k = 0; k < 3; ++k) {
      all.emplace_back([&, k] {
        for (std::size_t i = 1; i <= each; ++i) {
          std::unique_lock<std::mutex> lock(m);
          room.wait(lock, [&] { return buffer.size() < 2; });
          buffer.push_back(k + 3 * i);
          lock.unlock();
          some.notify_one();
        }
      });
      all.emplace_back([&] {
        std::size_t last[3] = {};
        for (std::size_t i = 1; i <= each; ++i) {
          std::unique_lock<std::mutex> lock(m);
          while (!some.wait_for(lock, 100us, [&] { return !buffer.empty(); })) continue;
          const std::size_t value = buffer.front();
          buffer.pop_front();
          if (value <= last[value % 3]) ++disorder;
          last[value % 3] = value;
          room.notify_one();
          lock.unlock();
          sum += value;
        }
      });
    }
  }

  CHECK(sum == 3 * 3 * each * (each + 1) / 2 + 3 * each);
  CHECK(disorder == 0);
}

TEST_SUITE_END();
