// sync/mutex.hpp - a lock for threads, callbacks and coroutines alike
#pragma once

#include <chrono>
#include <utility>

#include "base/contract.hpp"
#include "sync/semaphore.hpp"

HYBRIDLOOP_OPEN

// Not recursive. Any thread, everything: it belongs to whoever was told that it is locked, not to a thread, so it may
// be unlocked elsewhere. Works with std::lock_guard, std::unique_lock and basic_condvar.
template <class Queue, class Fairness = sync::fifo>
class basic_mutex {
  using semaphore_type = basic_semaphore<Queue, Fairness>;
  using loop_type = basic_loop<typename Queue::traits>;

 public:
  using clock = typename semaphore_type::clock;
  using ticket = typename semaphore_type::ticket;
  using options = typename semaphore_type::options;

  basic_mutex() noexcept : turn_(1) {}

  // Blocks; not on a thread that is running a loop: that is a broken contract.
  void lock() noexcept { static_cast<void>(turn_.acquire()); }
  [[nodiscard]] bool try_lock() noexcept { return turn_.try_acquire(); }
  template <class Rep, class Period>
  [[nodiscard]] bool try_lock_for(std::chrono::duration<Rep, Period> span) noexcept {
    return turn_.try_acquire_for(span);
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_lock_until(std::chrono::time_point<Clock, Duration> deadline) noexcept {
    return turn_.try_acquire_until(deadline);
  }
  // What nobody has locked: a broken contract.
  void unlock() noexcept {
    HYBRIDLOOP_CONTRACT(turn_.available() == 0, "a mutex is unlocked that is not locked");
    turn_.release();
  }

  // As basic_semaphore::async_acquire(), acquire_on() and cancel(). Told `granted`, it is locked, until somebody
  // calls unlock().
  template <class F, class Build = detail::build_tag>
  ticket async_lock(loop_type& l, F&& f, options how = {}) {
    how.n = 1;
    return turn_.template async_acquire<F, Build>(l, std::forward<F>(f), how);
  }
  template <class Build = detail::build_tag>
  auto lock_on(loop_type& l, options how = {}) noexcept {
    how.n = 1;
    return turn_.template acquire_on<Build>(l, how);
  }
  bool cancel(const ticket& wait) noexcept { return turn_.cancel(wait); }

 private:
  semaphore_type turn_;
};

HYBRIDLOOP_CLOSE
