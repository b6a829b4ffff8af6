// semaphores.hpp - counting semaphores of one shape: ours, and what a user would otherwise take
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#if defined(__has_include)
#if __has_include(<version>)
#include <version>
#endif
#endif
#if defined(__cpp_lib_semaphore)
#include <semaphore>
#endif

#include <semaphore.h>
#include <time.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <hybridloop.hpp>

#include "bench.hpp"
#include "monitors.hpp"
#include "queues.hpp"

#if defined(HAVE_LIGHTWEIGHTSEMAPHORE)
#if __has_include(<concurrentqueue/moodycamel/lightweightsemaphore.h>)
#include <concurrentqueue/moodycamel/concurrentqueue.h>
#include <concurrentqueue/moodycamel/lightweightsemaphore.h>
#else
#include <concurrentqueue/concurrentqueue.h>
#include <concurrentqueue/lightweightsemaphore.h>
#endif
#endif

namespace semaphores {

using rivals_absent = rivals::absent;
using nanoseconds = std::chrono::nanoseconds;

// Each has: a constructor that takes permits, acquire(), release(n), try_acquire() and try_acquire_for(span). Those
// that take several permits at once say so, and have acquire(n).
struct one_at_a_time {
  static constexpr bool takes_several = false;
  static constexpr bool may_hang = false;
};
struct several_at_once {
  static constexpr bool takes_several = true;
  static constexpr bool may_hang = false;
};

template <class Queue, class Fairness>
class ours : public several_at_once {
 public:
  explicit ours(std::ptrdiff_t permits) : semaphore_(permits) {}
  void acquire(std::ptrdiff_t n = 1) { static_cast<void>(semaphore_.acquire(n)); }
  void release(std::ptrdiff_t n = 1) { semaphore_.release(n); }
  bool try_acquire() { return semaphore_.try_acquire(); }
  bool try_acquire_for(nanoseconds span) { return semaphore_.try_acquire_for(span); }

 private:
  hybridloop::basic_semaphore<Queue, Fairness> semaphore_;
};

// The textbook's: a lock, a count, a condition. A release of one wakes one, unless somebody waits for several,
// whom it might not help.
template <class Monitor>
class monitored : public several_at_once {
 public:
  explicit monitored(std::ptrdiff_t permits) : permits_(permits) {}
  void acquire(std::ptrdiff_t n = 1) {
    const std::lock_guard<typename Monitor::mutex> hold(mutex_);
    if (n > 1) ++wide_;
    while (permits_ < n) released_.wait(mutex_);
    if (n > 1) --wide_;
    permits_ -= n;
  }
  void release(std::ptrdiff_t n = 1) {
    bool all = n > 1;
    {
      const std::lock_guard<typename Monitor::mutex> hold(mutex_);
      permits_ += n;
      all = all || wide_ != 0;
    }
    all ? released_.notify_all() : released_.notify_one();
  }
  bool try_acquire() {
    const std::lock_guard<typename Monitor::mutex> hold(mutex_);
    return take();
  }
  bool try_acquire_for(nanoseconds span) {
    const auto end = monitors::steady::now() + span;
    const std::lock_guard<typename Monitor::mutex> hold(mutex_);
    while (!take()) {
      if (monitors::steady::now() >= end) return false;
      released_.wait_until(mutex_, end);
    }
    return true;
  }

 private:
  bool take() {
    if (permits_ == 0) return false;
    --permits_;
    return true;
  }
  typename Monitor::mutex mutex_;
  typename Monitor::condition released_;
  std::ptrdiff_t permits_;
  std::ptrdiff_t wide_ = 0;
};

class textbook : public monitored<monitors::standard> {
 public:
  static constexpr const char* name = "std::mutex + condvar";
  using monitored::monitored;
};

template <class Monitor, bool here>
class from_library : public monitored<Monitor> {
 public:
  static constexpr const char* name = Monitor::name;
  using monitored<Monitor>::monitored;
};
template <class Monitor>
class from_library<Monitor, false> : public rivals_absent {
 public:
  static constexpr const char* name = Monitor::name;
};
template <class Monitor>
using monitor_of = from_library<Monitor, !std::is_base_of_v<rivals_absent, Monitor>>;
using nsync_pair = monitor_of<monitors::nsync_pair>;
using abseil = monitor_of<monitors::abseil>;

// First come, first served, as one would write it: each who waits has a condition of its own, and a released permit
// is given to the first of them, so that nobody can take it before.
class first_come : public several_at_once {
 public:
  static constexpr const char* name = "std::mutex + deque, first come";

  explicit first_come(std::ptrdiff_t permits) : permits_(permits) {}
  void acquire(std::ptrdiff_t n = 1) {
    std::unique_lock<std::mutex> hold(mutex_);
    if (take(n)) return;
    place mine{n};
    line_.push_back(&mine);
    mine.changed.wait(hold, [&] { return mine.served; });
  }
  void release(std::ptrdiff_t n = 1) {
    const std::lock_guard<std::mutex> hold(mutex_);
    permits_ += n;
    serve();
  }
  bool try_acquire() {
    const std::lock_guard<std::mutex> hold(mutex_);
    return take(1);
  }
  bool try_acquire_for(nanoseconds span) {
    std::unique_lock<std::mutex> hold(mutex_);
    if (take(1)) return true;
    place mine{1};
    line_.push_back(&mine);
    if (mine.changed.wait_for(hold, span, [&] { return mine.served; })) return true;
    for (auto i = line_.begin(); i != line_.end(); ++i) {
      if (*i != &mine) continue;
      line_.erase(i);
      break;
    }
    serve();
    return false;
  }

 private:
  struct place {
    explicit place(std::ptrdiff_t wanted) : n(wanted) {}
    std::ptrdiff_t n;
    bool served = false;
    std::condition_variable changed;
  };
  bool take(std::ptrdiff_t n) {
    if (!line_.empty() || permits_ < n) return false;
    permits_ -= n;
    return true;
  }
  // Under the lock: who is served may be gone once it is given back.
  void serve() {
    while (!line_.empty() && permits_ >= line_.front()->n) {
      place& first = *line_.front();
      line_.pop_front();
      permits_ -= first.n;
      first.served = true;
      first.changed.notify_one();
    }
  }
  std::mutex mutex_;
  std::ptrdiff_t permits_;
  std::deque<place*> line_;
};

#if defined(__APPLE__)
struct posix : rivals_absent {
  static constexpr const char* name = "sem_t";
};
#else
class posix : public one_at_a_time {
 public:
  static constexpr const char* name = "sem_t";

  explicit posix(std::ptrdiff_t permits) {
    ::sem_init(&semaphore_, 0, static_cast<unsigned>(permits));
  }
  posix(const posix&) = delete;
  ~posix() { ::sem_destroy(&semaphore_); }
  void acquire() {
    while (::sem_wait(&semaphore_) != 0) {
    }
  }
  void release(std::ptrdiff_t n = 1) {
    for (; n != 0; --n) ::sem_post(&semaphore_);
  }
  bool try_acquire() { return ::sem_trywait(&semaphore_) == 0; }
  bool try_acquire_for(nanoseconds span) {
    timespec end{};
    ::clock_gettime(CLOCK_REALTIME, &end);
    const nanoseconds late = std::chrono::seconds(end.tv_sec) + nanoseconds(end.tv_nsec) + span;
    end.tv_sec = static_cast<time_t>(late.count() / 1000000000);
    end.tv_nsec = static_cast<decltype(end.tv_nsec)>(late.count() % 1000000000);
    int answer = 0;
    while ((answer = ::sem_timedwait(&semaphore_, &end)) != 0 && errno == EINTR) {
    }
    return answer == 0;
  }

 private:
  sem_t semaphore_;
};
#endif

// Where wakes get lost, a thread waits forever: libstdc++ bug 104928.
#if defined(__cpp_lib_semaphore)
class standard : public one_at_a_time {
 public:
  static constexpr const char* name = "std::counting_semaphore";
  static constexpr bool may_hang = true;

  explicit standard(std::ptrdiff_t permits) : semaphore_(permits) {}
  void acquire() { semaphore_.acquire(); }
  void release(std::ptrdiff_t n = 1) { semaphore_.release(n); }
  bool try_acquire() { return semaphore_.try_acquire(); }
  bool try_acquire_for(nanoseconds span) { return semaphore_.try_acquire_for(span); }

 private:
  std::counting_semaphore<> semaphore_;
};
#else
struct standard : rivals_absent {
  static constexpr const char* name = "std::counting_semaphore";
};
#endif

#if defined(HAVE_LIGHTWEIGHTSEMAPHORE)
class lightweight : public one_at_a_time {
 public:
  static constexpr const char* name = "LightweightSemaphore";

  explicit lightweight(std::ptrdiff_t permits) : semaphore_(permits) {}
  void acquire() {
    while (!semaphore_.wait()) {
    }
  }
  void release(std::ptrdiff_t n = 1) { semaphore_.signal(n); }
  bool try_acquire() { return semaphore_.tryWait(); }
  bool try_acquire_for(nanoseconds span) { return semaphore_.wait(span.count() / 1000); }

 private:
  moodycamel::LightweightSemaphore semaphore_;
};
#else
struct lightweight : rivals_absent {
  static constexpr const char* name = "LightweightSemaphore";
};
#endif

// What is left of a semaphore that nobody has to wait for.
class bare : public one_at_a_time {
 public:
  static constexpr const char* name = "two bare read-modify-writes";

  explicit bare(std::ptrdiff_t permits) : permits_(permits) {}
  void acquire() { permits_.fetch_sub(1, std::memory_order_acquire); }
  void release(std::ptrdiff_t n = 1) { permits_.fetch_add(n, std::memory_order_release); }
  bool try_acquire() {
    acquire();
    return true;
  }

 private:
  std::atomic<std::ptrdiff_t> permits_;
};

// Of two threads, one permit at a time: a cache line that goes to a spinning thread.
class bare_line : public one_at_a_time {
 public:
  static constexpr const char* name = "a bare cache line";

  explicit bare_line(std::ptrdiff_t permits) : word_(static_cast<std::uint32_t>(permits)) {}
  void acquire() {
    while (word_.load(std::memory_order_acquire) == 0) hybridloop::detail::cpu_pause();
    word_.store(0, std::memory_order_relaxed);
  }
  void release() { word_.store(1, std::memory_order_release); }

 private:
  alignas(128) std::atomic<std::uint32_t> word_;
};

#if defined(__linux__)
class bare_futex : public one_at_a_time {
 public:
  static constexpr const char* name = "a bare futex wake";

  explicit bare_futex(std::ptrdiff_t permits) : word_(static_cast<std::uint32_t>(permits)) {}
  void acquire() {
    while (word_.load(std::memory_order_acquire) == 0)
      ::syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
    word_.store(0, std::memory_order_relaxed);
  }
  void release() {
    word_.store(1, std::memory_order_release);
    ::syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }

 private:
  alignas(128) std::atomic<std::uint32_t> word_;
};
#else
struct bare_futex : rivals_absent {
  static constexpr const char* name = "a bare futex wake";
};
#endif

// ---- Rows of them ----

// measure(pick<Semaphore>()) is one repetition.
template <class Semaphore>
struct pick {
  using type = Semaphore;
};

template <class Semaphore, class Measure>
void add(bench::family& table, bench::kind role, const std::string& name, const Measure& measure) {
  if constexpr (std::is_base_of_v<rivals_absent, Semaphore>) {
    table.skip(name);
  } else {
    const auto repeat = [measure] { return measure(pick<Semaphore>()); };
    if constexpr (Semaphore::may_hang) {
      table.add_watched(role, name, repeat);
    } else {
      table.add(role, name, repeat);
    }
  }
}

template <class Measure>
void add_ours(bench::family& table, const Measure& measure, const std::string& suffix = {}) {
  namespace sync = hybridloop::sync;
  queues::for_each([&](auto queue, const std::string& name) {
    using type = typename decltype(queue)::type;
    add<ours<type, sync::fifo>>(table, bench::kind::ours, name + suffix, measure);
  });
  queues::for_barging([&](auto queue, const std::string& name) {
    using type = typename decltype(queue)::type;
    add<ours<type, sync::barging>>(table, bench::kind::ours, name + ", barging" + suffix, measure);
  });
}

template <class Measure>
void add_rivals_of_several(bench::family& table, const Measure& measure,
                           const std::string& suffix = {}) {
  add<textbook>(table, bench::kind::rival, textbook::name + suffix, measure);
  add<first_come>(table, bench::kind::rival, first_come::name + suffix, measure);
  add<nsync_pair>(table, bench::kind::rival, nsync_pair::name + suffix, measure);
  add<abseil>(table, bench::kind::rival, abseil::name + suffix, measure);
}

template <class Measure>
void add_rivals(bench::family& table, const Measure& measure, const std::string& suffix = {}) {
  add<standard>(table, bench::kind::rival, standard::name + suffix, measure);
  add<posix>(table, bench::kind::rival, posix::name + suffix, measure);
  add<lightweight>(table, bench::kind::rival, lightweight::name + suffix, measure);
  add_rivals_of_several(table, measure, suffix);
}

template <class Measure>
void add_all(bench::family& table, const Measure& measure, const std::string& suffix = {}) {
  add_ours(table, measure, suffix);
  add_rivals(table, measure, suffix);
}

}  // namespace semaphores
