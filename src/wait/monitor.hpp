// wait/monitor.hpp - a mutex and a condition whose deadlines are those of the steady clock
#pragma once

#include <chrono>

#include "base/clock.hpp"
#include "wait/kernel_posix.hpp"

#if HYBRIDLOOP_OS(POSIX)
HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(MACOS)
// Its conditions know the wall clock, which jumps, and spans of time.
struct condition_clock {
  static void set(pthread_cond_t& condition) noexcept { ::pthread_cond_init(&condition, nullptr); }
  static int wait(pthread_cond_t& condition, pthread_mutex_t& mutex, nanos deadline) noexcept {
    const timespec span = posix_kernel::to_timespec(time_between(read_clock<std::chrono::steady_clock>(), deadline));
    return ::pthread_cond_timedwait_relative_np(&condition, &mutex, &span);
  }
};
#else
struct condition_clock {
  static void set(pthread_cond_t& condition) noexcept {
    pthread_condattr_t how;
    ::pthread_condattr_init(&how);
    ::pthread_condattr_setclock(&how, CLOCK_MONOTONIC);
    ::pthread_cond_init(&condition, &how);
    ::pthread_condattr_destroy(&how);
  }
  static int wait(pthread_cond_t& condition, pthread_mutex_t& mutex, nanos deadline) noexcept {
    const timespec at = posix_kernel::to_timespec(deadline);
    return ::pthread_cond_timedwait(&condition, &mutex, &at);
  }
};
#endif

// Is never destroyed: who waits in it may be the last thread of a program that ends.
class monitor {
 public:
  monitor() noexcept { condition_clock::set(changed_); }
  monitor(const monitor&) = delete;
  monitor& operator=(const monitor&) = delete;

  void lock() noexcept { ::pthread_mutex_lock(&mutex_); }
  void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }

  // Locked: lets go of the lock until somebody tells, or for no reason. False: the deadline has passed.
  bool wait(nanos deadline) noexcept {
    if (deadline == never) return ::pthread_cond_wait(&changed_, &mutex_) == 0;
    return condition_clock::wait(changed_, mutex_, deadline) == 0;
  }
  void tell_all() noexcept { ::pthread_cond_broadcast(&changed_); }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
