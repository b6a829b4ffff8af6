// price_test.cpp - what a wait costs in each phase: locks, and memory
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>
#include <type_traits>
#include <vector>

#include <hybridloop.hpp>

#include "support/proc.hpp"
#include "support/queues.hpp"
#include "support/race.hpp"
#include "support/scarcity.hpp"
#include "support/support.hpp"
#include "support/waits.hpp"

#if SUPPORT_COUNTS_ALLOCATIONS
#include <dlfcn.h>
#include <pthread.h>
#endif

using namespace support;
using hybridloop::basic_semaphore;
using hybridloop::loop;
using hybridloop::wait_status;

namespace {

// Of the calling thread: locks taken, of any kind.
thread_local std::size_t locks = 0;

struct locking_kernel : hybridloop::detail::system_kernel {
  using real = hybridloop::detail::system_kernel;
  struct mutex : real::mutex {
    void lock() noexcept {
      ++locks;
      real::mutex::lock();
    }
  };
  struct hold : real::hold {
    explicit hold(mutex& m) noexcept : real::hold(m) { ++locks; }
  };
};
// Threads lose their CPU in the windows, so that the others meet what they were about to change.
struct priced_traits : stuttering_traits {
  using kernel = locking_kernel;
};

}  // namespace

template <>
class hybridloop::detail::small_lock<priced_traits> {
 public:
  void lock() noexcept {
    ++locks;
    real_.lock();
  }
  void unlock() noexcept { real_.unlock(); }

 private:
  small_lock<default_traits> real_;
};

#if SUPPORT_COUNTS_ALLOCATIONS
// Whoever locks by another name ends here.
extern "C" int pthread_mutex_lock(pthread_mutex_t* m) noexcept {
  static const auto next = reinterpret_cast<int (*)(pthread_mutex_t*)>(::dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  ++locks;
  return next(m);
}
#endif

namespace {

// The caller's, of a condvar.
class spinning {
 public:
  void lock() noexcept {
    while (taken_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() noexcept { taken_.clear(std::memory_order_release); }

 private:
  std::atomic_flag taken_ = ATOMIC_FLAG_INIT;
};

struct price {
  std::size_t locks = 0;
  std::size_t allocations = 0;
};

// What four threads pay, each for `body(its number)`. They are at it at the same time.
template <class F>
price paid_by_four(const F& body) {
  std::atomic<std::size_t> all_locks{0}, all_allocations{0};
  rendezvous start(4);
  {
    std::vector<scoped_thread> threads;
    for (std::size_t k = 0; k < 4; ++k) {
      threads.emplace_back([&, k] {
        start.meet();
        const std::size_t locks_before = locks;
        const std::size_t allocations_before = allocations;
        body(k);
        all_locks += locks - locks_before;
        all_allocations += allocations - allocations_before;
      });
    }
  }
  return {all_locks, all_allocations};
}

// Two permits for four, with deadlines and without, and in lots.
template <class Queue>
price of_semaphores(std::size_t rounds) {
  basic_semaphore<Queue> s(2);
  const price paid = paid_by_four([&](std::size_t k) {
    dice chance(k + 1);
    for (std::size_t i = 0; i < rounds; ++i) {
      const auto n = static_cast<std::ptrdiff_t>(1 + chance.roll(2));
      const bool had = chance.roll(2) == 0 ? s.acquire(n) == wait_status::granted
                                           : s.try_acquire_for(std::chrono::nanoseconds(chance.roll(20000)), n);
      if (!had) continue;
      std::this_thread::yield();
      s.release(n);
    }
  });
  CHECK(s.available() == 2);
  return paid;
}

// A ring of four that have their turn one after the other.
template <class Queue>
price of_condvars(std::size_t rounds) {
  hybridloop::basic_condvar<Queue> changed;
  spinning lock;
  std::size_t turn = 0;
  return paid_by_four([&](std::size_t k) {
    for (std::size_t i = 0; i < rounds; ++i) {
      lock.lock();
      while (turn % 4 != k) {
        if (i % 2 == 0) changed.wait(lock);
        else static_cast<void>(changed.wait_for(lock, std::chrono::microseconds(20)));
      }
      ++turn;
      lock.unlock();
      changed.notify_all();
    }
  });
}

}  // namespace

TEST_SUITE_BEGIN("price");

TEST_CASE_TEMPLATE("phases 2 and 3 take no lock, where others do", Queue, SUPPORT_QUEUES) {
  using queue = rebind_queue<Queue, priced_traits>;
  constexpr bool lock_free = std::is_same_v<Queue, hybridloop::sync::queue2> || std::is_same_v<Queue, hybridloop::sync::queue3>;
  if (!handlers_may_wake()) return;  // who sleeps in the parking lot takes its lock

  const std::size_t by_semaphores = of_semaphores<queue>(scaled(2000, 50)).locks;
  const std::size_t by_condvars = of_condvars<queue>(scaled(500, 20)).locks;

  CHECK((by_semaphores == 0) == lock_free);
  CHECK((by_condvars == 0) == lock_free);
}

#if SUPPORT_COUNTS_ALLOCATIONS

namespace {

template <class F>
std::size_t allocations_in(const F& f) {
  const std::size_t before = allocations;
  f();
  return allocations - before;
}

// What a coroutine's handle has to have, without the coroutine.
struct frame {
  void* address() const noexcept { return resumed; }
  static frame from_address(void* at) noexcept { return {static_cast<std::size_t*>(at)}; }
  void resume() const { ++*resumed; }
  std::size_t* resumed;
};

}  // namespace

TEST_CASE_TEMPLATE("threads that wait allocate nothing where waiters are linked through their frames", Queue, hybridloop::sync::queue1,
                   hybridloop::sync::queue3, hybridloop::sync::queue_locked) {
  CHECK(of_semaphores<Queue>(scaled(2000, 50)).allocations == 0);
  CHECK(of_condvars<Queue>(scaled(500, 20)).allocations == 0);
}

TEST_CASE("what phase 0 has for those who wait is allocated, and counted here") {
  CHECK(of_semaphores<hybridloop::sync::queue0>(scaled(2000, 50)).allocations > 0);
}

TEST_CASE_TEMPLATE("a coroutine that waits allocates nothing", Queue, hybridloop::sync::queue1, hybridloop::sync::queue3,
                   hybridloop::sync::queue_locked) {
  basic_semaphore<Queue> s(0);
  std::size_t resumed = 0;
  loop l;
  l.poll();

  const std::size_t taken = allocations_in([&] {
    for (int i = 0; i < 1000; ++i) {
      auto wait = s.acquire_on(l);
      REQUIRE_UNARY(wait.await_suspend(frame{&resumed}));
      s.release();
      turn(l, 2);
    }
  });

  CHECK(resumed == 1000);
  CHECK(taken == 0);
}

TEST_CASE_TEMPLATE("callbacks that wait, with a deadline and without, allocate nothing once their loop has records for them", Queue,
                   hybridloop::sync::queue1, hybridloop::sync::queue3, hybridloop::sync::queue_locked) {
  basic_semaphore<Queue> s(0);
  std::size_t granted = 0, cancelled = 0;
  loop l;
  const auto some = [&] {
    for (int i = 0; i < 20; ++i) {
      hybridloop::wait_options how;
      if (i % 2 == 0) how.deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
      const auto wait = s.async_acquire(
          l, [&](wait_status end) { ++(end == wait_status::granted ? granted : cancelled); }, how);
      if (i % 5 == 0) s.cancel(wait);
      else s.release();
    }
    turn(l);
  };
  for (int i = 0; i < 10; ++i) some();

  const std::size_t taken = allocations_in([&] {
    for (int i = 0; i < 100; ++i) some();
  });

  CHECK(granted == 110 * 16);
  CHECK(cancelled == 110 * 4);
  CHECK(taken == 0);
}

TEST_CASE_TEMPLATE("a storm of cancels behind one that waits leaves no memory behind", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report first, rest;
  const std::size_t rounds = scaled(10000, 20);
  std::size_t heard = 0;
  loop l;
  const auto waiting = s.async_acquire(l, listener<>(first));
  std::vector<typename basic_semaphore<Queue>::ticket> all(100);
  const auto some = [&] {
    for (auto& wait : all) wait = s.async_acquire(l, listener<>(rest));
    for (std::size_t i = 0; i < all.size(); i += 2) heard += s.cancel(all[i]);
    for (std::size_t i = all.size() - 1; i < all.size(); i -= 2) heard += s.cancel(all[i]);
    turn(l, 2);
  };
  for (int i = 0; i < 20; ++i) some();
  const std::size_t before = memory_used().resident;

  for (std::size_t i = 0; i < rounds; ++i) some();

  CHECK((memory_used().resident < before + 500000 || emulated()));  // half a byte for each of a million
  CHECK(heard == (rounds + 20) * all.size());
  CHECK(static_cast<std::size_t>(rest.cancelled) == heard);
  CHECK(first.ran() == 0);
  s.release();
  turn(l);
  CHECK(first.granted == 1);
}

TEST_CASE_TEMPLATE("a storm of timeouts behind one that waits leaves no memory behind", Queue, SUPPORT_QUEUES) {
  virtual_clock::reset();
  semaphore_on<Queue, wait_traits> s(0);
  report first, rest;
  const std::size_t rounds = scaled(5000, 20);
  wait_loop l;
  s.async_acquire(l, listener<>(first));
  const auto some = [&] {
    for (int i = 0; i < 200; ++i) {
      typename decltype(s)::options in_time;
      in_time.deadline = virtual_clock::now() + std::chrono::microseconds(i * 7 % 100);
      s.async_acquire(l, listener<>(rest), in_time);
    }
    virtual_clock::advance(1ms);
    turn(l, 2);
  };
  for (int i = 0; i < 20; ++i) some();
  const std::size_t before = memory_used().resident;

  for (std::size_t i = 0; i < rounds; ++i) some();

  CHECK((memory_used().resident < before + 500000 || emulated()));  // half a byte for each of a million
  CHECK(static_cast<std::size_t>(rest.timed_out) == (rounds + 20) * 200);
  CHECK(first.ran() == 0);
  s.release();
  turn(l);
  CHECK(first.granted == 1);
}

#endif

TEST_SUITE_END();
