// monitors.hpp - a lock and condition variables for it: ours, and what a user would otherwise take
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include <hybridloop.hpp>

#include "libraries.hpp"

#if defined(HAVE_NSYNC)
#include <nsync.h>
#endif
#if defined(HAVE_ABSL)
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>
#endif

namespace monitors {

using rivals::absent;
using steady = std::chrono::steady_clock;

// Each has: a mutex with lock() and unlock(), and a condition with wait(mutex), wait_until(mutex, time),
// notify_one() and notify_all().

// The lock may be anybody's.
template <class Queue, class Mutex = std::mutex>
struct ours {
  using mutex = Mutex;
  class condition {
   public:
    void wait(mutex& m) { condvar_.wait(m); }
    void wait_until(mutex& m, steady::time_point end) { condvar_.wait_until(m, end); }
    void notify_one() { condvar_.notify_one(); }
    void notify_all() { condvar_.notify_all(); }

   private:
    hybridloop::basic_condvar<Queue> condvar_;
  };
};

struct standard {
  static constexpr const char* name = "std::condition_variable";
  using mutex = std::mutex;
  class condition {
   public:
    void wait(mutex& m) {
      std::unique_lock<std::mutex> hold(m, std::adopt_lock);
      condvar_.wait(hold);
      hold.release();
    }
    void wait_until(mutex& m, steady::time_point end) {
      std::unique_lock<std::mutex> hold(m, std::adopt_lock);
      condvar_.wait_until(hold, end);
      hold.release();
    }
    void notify_one() { condvar_.notify_one(); }
    void notify_all() { condvar_.notify_all(); }

   private:
    std::condition_variable condvar_;
  };
};

#if defined(HAVE_NSYNC)
struct nsync_pair {
  static constexpr const char* name = "nsync";
  class mutex {
   public:
    mutex() { nsync::nsync_mu_init(&mu_); }
    void lock() { nsync::nsync_mu_lock(&mu_); }
    void unlock() { nsync::nsync_mu_unlock(&mu_); }

   private:
    friend struct nsync_pair;
    nsync::nsync_mu mu_;
  };
  class condition {
   public:
    condition() { nsync::nsync_cv_init(&cv_); }
    void wait(mutex& m) { nsync::nsync_cv_wait(&cv_, &m.mu_); }
    // Its deadlines are by the clock on the wall.
    void wait_until(mutex& m, steady::time_point end) {
      const auto left = std::chrono::duration_cast<std::chrono::microseconds>(end - steady::now());
      const auto span =
          nsync::nsync_time_us(left.count() > 0 ? static_cast<unsigned>(left.count()) : 0);
      const auto late = nsync::nsync_time_add(nsync::nsync_time_now(), span);
      nsync::nsync_cv_wait_with_deadline(&cv_, &m.mu_, late, nullptr);
    }
    void notify_one() { nsync::nsync_cv_signal(&cv_); }
    void notify_all() { nsync::nsync_cv_broadcast(&cv_); }

   private:
    nsync::nsync_cv cv_;
  };
};
#else
struct nsync_pair : absent {
  static constexpr const char* name = "nsync";
};
#endif

#if defined(HAVE_ABSL)
struct abseil {
  static constexpr const char* name = "Abseil";
  class mutex {
   public:
    void lock() { mutex_.Lock(); }
    void unlock() { mutex_.Unlock(); }

   private:
    friend struct abseil;
    absl::Mutex mutex_;
  };
  class condition {
   public:
    void wait(mutex& m) { condvar_.Wait(&m.mutex_); }
    void wait_until(mutex& m, steady::time_point end) {
      condvar_.WaitWithTimeout(&m.mutex_, absl::FromChrono(end - steady::now()));
    }
    void notify_one() { condvar_.Signal(); }
    void notify_all() { condvar_.SignalAll(); }

   private:
    absl::CondVar condvar_;
  };
};
#else
struct abseil : absent {
  static constexpr const char* name = "Abseil";
};
#endif

}  // namespace monitors
