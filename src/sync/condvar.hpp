// sync/condvar.hpp - waiting for what a lock protects
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <utility>

#include "base/clock.hpp"
#include "sync/awaiter.hpp"
#include "sync/callback.hpp"
#include "sync/primitive.hpp"
#include "sync/thread_waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// GCC 12 for Windows with threads of its own making has none.
#if defined(__GLIBCXX__) && !defined(_GLIBCXX_HAS_GTHREADS)
enum class cv_status { no_timeout, timeout };
#else
using std::cv_status;
#endif

template <class Queue>
class notices : public primitive<Queue, notice_account<typename Queue::traits>> {
 public:
  using typename primitive<Queue, notice_account<typename Queue::traits>>::node;

  bool enter(node& w, std::ptrdiff_t, bool may_wait) noexcept {
    w.begin(1, 0);
    if (!may_wait) {
      w.status = wait_status::timed_out;
      return true;
    }
    this->account.enter();
    this->join(w);
    return false;
  }
  static bool enter_at_once(node&, std::ptrdiff_t) noexcept { return false; }
};

}  // namespace detail

// A condition variable for any lock that has lock() and unlock(). Any thread, everything; the destructor
// when all who waited have been told, though they may not have returned. Whoever was told last may destroy it at once.
//
// A wait is entered before the lock is given back, so whoever changes what the lock protects and then
// notifies, with the lock or without it, is heard. Blocking forms not on a thread that is running a loop: that
// is a broken contract. What a predicate throws leaves the call, with the lock held; and so does what unlock() throws,
// and then nothing has happened.
template <class Queue>
class basic_condvar {
  using Traits = typename Queue::traits;
  using core = detail::notices<Queue>;
  using thread_waiter = detail::thread_waiter<core>;
  using awaiter = detail::wait_awaiter<core>;
  using nanos = detail::nanos;

 public:
  using clock = typename Traits::clock;
  using time_point = typename clock::time_point;
  using ticket = basic_wait_ticket<Traits>;
  using options = basic_wait_options<clock>;

  basic_condvar() noexcept = default;
  basic_condvar(const basic_condvar&) = delete;
  basic_condvar& operator=(const basic_condvar&) = delete;

  // Returns when it is notified, and at times for no reason.
  template <class Lock>
  void wait(Lock& lock) {
    static_cast<void>(block(lock, detail::never));
  }
  template <class Lock, class Predicate>
  void wait(Lock& lock, Predicate holds) {
    while (!holds()) wait(lock);
  }

  // `timeout` is answered only by who was not notified.
  template <class Lock, class Rep, class Period>
  detail::cv_status wait_for(Lock& lock, std::chrono::duration<Rep, Period> span) {
    return block(lock, detail::deadline_in<clock>(span)) ? detail::cv_status::no_timeout : detail::cv_status::timeout;
  }
  template <class Lock, class Clock, class Duration>
  detail::cv_status wait_until(Lock& lock, std::chrono::time_point<Clock, Duration> deadline) {
    bool notified = false;
    // Not again, if that clock says that it is too early: the caller looks first at what it waits for.
    detail::wait_by_clock<clock>(deadline, [&](nanos end) {
      notified = block(lock, end);
      return true;
    });
    const bool over = !notified && detail::to_nanos(Clock::now()) >= detail::to_nanos(deadline);
    return over ? detail::cv_status::timeout : detail::cv_status::no_timeout;
  }
  // What the predicate says in the end.
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::chrono::duration<Rep, Period> span, Predicate holds) {
    return wait_while(lock, detail::deadline_in<clock>(span), holds);
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, std::chrono::time_point<Clock, Duration> deadline, Predicate holds) {
    return detail::wait_by_clock<clock>(deadline, [&](nanos end) { return wait_while(lock, end, holds); });
  }

  // Calls f(wait_status) once, in a task of that loop, when it was notified, timed out at options.deadline or
  // was cancelled. Entered before this returns: who notifies after that is heard. Otherwise as
  // basic_semaphore::async_acquire(); a notification to a loop that has closed goes to another waiter.
  template <class F, class Build = detail::build_tag>
  ticket async_wait(basic_loop<Traits>& l, F&& f, options how = {}) {
    return detail::wait_on_loop<Build>(core_, l, std::forward<F>(f), 1, how.end());
  }
  // As basic_semaphore::acquire_on(); the wait is entered by co_await.
  template <class Build = detail::build_tag>
  awaiter wait_on(basic_loop<Traits>& l, options how = {}) noexcept {
    return awaiter(Build(), l, core_, 1, how.end());
  }
  // As basic_semaphore::cancel().
  bool cancel(const ticket& wait) noexcept { return detail::cancel_wait(core_, wait); }

  // The one that has waited longest; those who wait now. One who is just being entered may be counted and passed over
  // for one that comes right behind it; and what comes to one who is giving up goes to another, who may have come
  // later: for that one it is a return for no reason.
  void notify_one() noexcept { core_.send(core_.account.notify(1), wait_status::granted); }
  void notify_all() noexcept { core_.send(core_.account.notify_all(), wait_status::granted); }

 private:
  // What unlock() throws leaves the call: the waiter leaves first, and what it was told meanwhile goes to the next.
  struct unless_open {
    core& of;
    thread_waiter& w;
    bool open = false;
    ~unless_open() {
      if (open) return;
      w.leave(wait_status::cancelled);
      w.wait(detail::never);
      if (w.status == wait_status::granted) of.give_back(w);
    }
  };

  // False: the deadline came first.
  template <class Lock>
  bool block(Lock& lock, nanos deadline) {
    detail::must_not_run_a_loop();
    thread_waiter w(core_, core_.account.nobody(), 2);
    core_.enter(w, 1, true);
    unless_open undo{core_, w};
    const detail::given_back<Lock> open(lock);
    undo.open = true;
    return detail::wait_until_told(core_, w, deadline) == wait_status::granted;
  }

  template <class Lock, class Predicate>
  bool wait_while(Lock& lock, nanos deadline, Predicate& holds) {
    while (!holds()) {
      if (!block(lock, deadline)) return holds();
    }
    return true;
  }

  core core_;
};

HYBRIDLOOP_CLOSE
