// sync/semaphore.hpp - permits: taken by threads, callbacks and coroutines, never lost
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>

#include "base/clock.hpp"
#include "base/contract.hpp"
#include "sync/callback.hpp"
#include "sync/awaiter.hpp"
#include "sync/barging.hpp"
#include "sync/permits.hpp"
#include "sync/thread_waiter.hpp"

HYBRIDLOOP_OPEN
// What hold() answers: permits that are released with it. False in a condition: it has none. One thread
// at a time; the semaphore outlives it.
template <class Semaphore>
class [[nodiscard]] basic_permit {
 public:
  basic_permit() noexcept = default;
  basic_permit(Semaphore& from, std::ptrdiff_t n) noexcept : from_(&from), count_(n) {}  // had already
  basic_permit(basic_permit&& other) noexcept
      : from_(std::exchange(other.from_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  basic_permit& operator=(basic_permit&& other) noexcept {
    basic_permit moved(std::move(other));
    std::swap(from_, moved.from_);
    std::swap(count_, moved.count_);
    return *this;
  }
  ~basic_permit() { release(); }

  explicit operator bool() const noexcept { return count_ != 0; }
  std::ptrdiff_t count() const noexcept { return count_; }

  void release() noexcept {
    if (from_ != nullptr) std::exchange(from_, nullptr)->release(std::exchange(count_, 0));
  }
  // The permits are not released; says how many they were.
  std::ptrdiff_t forget() noexcept {
    from_ = nullptr;
    return std::exchange(count_, 0);
  }
  // n of its permits, or none when it has fewer.
  basic_permit split(std::ptrdiff_t n) noexcept {
    if (n <= 0 || n > count_) return {};
    count_ -= n;
    return basic_permit(*from_, n);
  }
  // Takes over the other's. Of another semaphore: a broken contract.
  void merge(basic_permit&& other) noexcept {
    HYBRIDLOOP_CONTRACT(from_ == nullptr || other.from_ == nullptr || from_ == other.from_,
                        "permits of two semaphores cannot be merged");
    const std::ptrdiff_t more = std::exchange(other.count_, 0);
    if (auto* const from = std::exchange(other.from_, nullptr)) from_ = from;
    count_ += more;
  }

 private:
  Semaphore* from_ = nullptr;
  std::ptrdiff_t count_ = 0;
};

// A counting semaphore. Any thread, everything, unless it says otherwise; the destructor while nobody
// waits. Whoever was told last may destroy it at once, also while the release() that told it is still
// on its way out, or others who were told are, whose deadline came then. A wait on a loop is over when its callback
// has run or its coroutine has gone on; one of a semaphore that barges, when its call has returned.
//
// n is from 0 to max(), else it is a broken contract; so it is when those who wait need more than twice max()
// together. A wait for several permits is served whole, in its turn: those behind it wait until it has all of them.
template <class Queue, class Fairness = sync::fifo>
class basic_semaphore {
  using Traits = typename Queue::traits;
  using core = detail::permits<Queue, Fairness>;
  using thread_waiter = detail::thread_waiter<core>;
  using awaiter = detail::wait_awaiter<core>;
  using nanos = detail::nanos;

 public:
  using clock = typename Traits::clock;
  using time_point = typename clock::time_point;
  using permit = basic_permit<basic_semaphore>;
  using ticket = basic_wait_ticket<Traits>;
  using options = basic_wait_options<clock>;

  // More than max() or fewer than 0 permits are a broken contract.
  explicit basic_semaphore(std::ptrdiff_t permits) noexcept : core_(checked(permits)) {}
  basic_semaphore(const basic_semaphore&) = delete;
  basic_semaphore& operator=(const basic_semaphore&) = delete;

  static constexpr std::ptrdiff_t (max)() noexcept { return core::most; }

  // Blocks. `closed` if it was, or is while this waits; else `granted`. Not on a thread that is running a
  // loop: that is a broken contract.
  wait_status acquire(std::ptrdiff_t n = 1) noexcept {
    detail::must_not_run_a_loop();
    const std::ptrdiff_t had = core_.take(checked(n));
    return had == n ? wait_status::granted : block(n, had, detail::never);
  }

  // Never blocks, never overtakes who waits. It may fail while another thread is about to wait.
  [[nodiscard]] bool try_acquire(std::ptrdiff_t n = 1) noexcept { return core_.try_take(checked(n)); }

  // False: the time ran out, or it is closed. A permit is never taken by a call that answers false.
  template <class Rep, class Period>
  [[nodiscard]] bool try_acquire_for(std::chrono::duration<Rep, Period> span, std::ptrdiff_t n = 1) noexcept {
    return try_until(detail::deadline_in<clock>(span), n);
  }
  template <class Clock, class Duration>
  [[nodiscard]] bool try_acquire_until(std::chrono::time_point<Clock, Duration> deadline, std::ptrdiff_t n = 1) noexcept {
    return detail::wait_by_clock<clock>(deadline, [this, n](nanos end) { return try_until(end, n); });
  }

  // Calls f(wait_status) once, in a task of that loop (so not before this returns, where it is called on
  // that loop's thread), when the wait is over: granted, timed out at options.deadline, cancelled, or closed.
  // Throws without memory for f, and then nothing has happened. A closed loop: f is destroyed, the ticket is empty. A loop that closes, or is destroyed,
  // ends the wait: f is destroyed there without being called, and permits that it was granted go to others.
  // run_until_idle() waits for a deadline, as for a timer, and for nothing else of this.
  template <class F, class Build = detail::build_tag>
  ticket async_acquire(basic_loop<Traits>& l, F&& f, options how = {}) {
    return detail::wait_on_loop<Build>(core_, l, std::forward<F>(f), checked(how.n), how.end());
  }
  // `wait_status s = co_await semaphore.acquire_on(loop);` The coroutine goes on in a task of that loop, or at
  // once where this is its thread and the permits are there; then they are the coroutine's. What is
  // awaited is this very object, once. A loop that closes: it hears `closed`, or stays suspended. The frame may
  // not be destroyed while it waits, but with the loop.
  template <class Build = detail::build_tag>
  awaiter acquire_on(basic_loop<Traits>& l, options how = {}) noexcept {
    return awaiter(Build(), l, core_, checked(how.n), how.end());
  }

  // True, for one call of those that meet: it is not granted any more, and hears `cancelled`. False: it
  // was told something else, is about to be, or is unknown here.
  bool cancel(const ticket& wait) noexcept { return detail::cancel_wait(core_, wait); }

  // Never fails. Allocates nothing, but for a segment now and then in phase 2, where it tries again until there is
  // memory. More than max() permits are a broken contract.
  void release(std::ptrdiff_t n = 1) noexcept { core_.give(checked(n)); }

  // Whoever waits is told `closed`, and so is whoever comes. Permits may still be released, and forgotten.
  void close() noexcept { core_.close(); }
  bool closed() const noexcept { return core_.account.closed(); }

  std::ptrdiff_t available() const noexcept { return core_.account.available(); }
  // Takes up to n permits that are there for good; how many it took.
  std::ptrdiff_t forget(std::ptrdiff_t n) noexcept { return core_.account.forget(checked(n)); }

  // acquire(), and the permits are released with what this answers; none of it when closed.
  permit hold(std::ptrdiff_t n = 1) noexcept {
    return acquire(n) == wait_status::granted ? permit(*this, n) : permit();
  }

 private:
  static std::ptrdiff_t checked(std::ptrdiff_t n) noexcept {
    HYBRIDLOOP_CONTRACT(n >= 0 && n <= (max)(), "a number of permits is from 0 to max()");
    return n;
  }

  bool try_until(nanos deadline, std::ptrdiff_t n) noexcept {
    if (try_acquire(n)) return true;
    if (deadline <= detail::read_clock<clock>()) return false;
    detail::must_not_run_a_loop();
    const std::ptrdiff_t had = core_.take(n);
    return had == n || block(n, had, deadline) == wait_status::granted;
  }

  HYBRIDLOOP_OUT_OF_LINE wait_status block(std::ptrdiff_t n, std::ptrdiff_t had, nanos deadline) noexcept {
    if (core_.look_for(n)) return wait_status::granted;
    thread_waiter w(core_, core_.is_next(n));
    return core_.queue_up(w, n, had) ? w.status : detail::wait_until_told(core_, w, deadline);
  }

  template <class, class>
  friend class basic_channel;
  core core_;
};

HYBRIDLOOP_CLOSE
