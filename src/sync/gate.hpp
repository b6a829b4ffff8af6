// sync/gate.hpp - waiting until something is so: what event and latch have in common
#pragma once

#include <chrono>
#include <cstddef>
#include <utility>

#include "base/clock.hpp"
#include "sync/awaiter.hpp"
#include "sync/callback.hpp"
#include "sync/primitive.hpp"
#include "sync/thread_waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// The account has enter(): true if it is open, else one more is owed, and arrived() follows when that has joined;
// enter_if_open(); nobody(): a hint, none is owed; set_out() before a leave, and arrived() behind it. Where
// passed_through() answers no, somebody is still about to call arrived().
template <class Queue, class Account>
class gate_core : public primitive<Queue, Account> {
 public:
  using typename primitive<Queue, Account>::node;
  using primitive<Queue, Account>::primitive;
  gate_core(const gate_core&) = delete;
  gate_core& operator=(const gate_core&) = delete;
  // Who was told last may be here before others are on their way out: a step.
  ~gate_core() {
    while (!this->account.passed_through() && this->refs.are_here()) Queue::traits::kernel::yield();
  }

  bool enter(node& w, std::ptrdiff_t, bool may_wait) noexcept {
    if (!may_wait) {
      if (!enter_at_once(w, 1)) w.status = wait_status::timed_out;
      return true;
    }
    const bool open = this->account.enter();
    if (open) w.begin(1, 1);
    else join_entered(w);
    return open;
  }
  void join_entered(node& w) noexcept {
    w.begin(1, 0);
    this->join(w);
    this->account.arrived();
  }
  bool leave(node& w, wait_status why) noexcept {
    this->account.set_out();
    const bool left = primitive<Queue, Account>::leave(w, why);
    this->account.arrived();
    return left;
  }
  bool enter_at_once(node& w, std::ptrdiff_t) noexcept {
    const bool open = this->account.enter_if_open();
    w.begin(1, open ? 1 : 0);
    return open;
  }
};

}  // namespace detail

// Any thread, everything; the destructor while nobody waits. Whoever was told last may destroy it at once. Blocking
// forms not on a thread that is running a loop: that is a broken contract.
template <class Queue, class Account>
class basic_gate {
 protected:
  using Traits = typename Queue::traits;
  using core = detail::gate_core<Queue, Account>;
  using nanos = detail::nanos;

 public:
  using clock = typename Traits::clock;
  using time_point = typename clock::time_point;
  using ticket = basic_wait_ticket<Traits>;
  using options = basic_wait_options<clock>;

  basic_gate(const basic_gate&) = delete;
  basic_gate& operator=(const basic_gate&) = delete;

  [[nodiscard]] bool try_wait() noexcept { return core_.account.enter_if_open(); }

  void wait() noexcept { static_cast<void>(wait_until_nanos(detail::never)); }
  // False: the time ran out.
  template <class Rep, class Period>
  bool wait_for(std::chrono::duration<Rep, Period> span) noexcept {
    return wait_until_nanos(detail::deadline_in<clock>(span));
  }
  template <class Clock, class Duration>
  bool wait_until(std::chrono::time_point<Clock, Duration> deadline) noexcept {
    return detail::wait_by_clock<clock>(deadline, [this](nanos end) { return wait_until_nanos(end); });
  }

  // As basic_semaphore::async_acquire(), acquire_on() and cancel().
  template <class F, class Build = detail::build_tag>
  ticket async_wait(basic_loop<Traits>& l, F&& f, options how = {}) {
    return detail::wait_on_loop<Build>(core_, l, std::forward<F>(f), 1, how.end());
  }
  template <class Build = detail::build_tag>
  detail::wait_awaiter<core> wait_on(basic_loop<Traits>& l, options how = {}) noexcept {
    return detail::wait_awaiter<core>(Build(), l, core_, 1, how.end());
  }
  bool cancel(const ticket& wait) noexcept { return detail::cancel_wait(core_, wait); }

 protected:
  template <class... Args>
  explicit basic_gate(Args... args) noexcept : core_(args...) {}
  ~basic_gate() = default;

  // As somebody who is in the account already.
  void wait_entered() noexcept {
    detail::must_not_run_a_loop();
    detail::thread_waiter<core> w(core_, core_.account.nobody(), 2);
    core_.join_entered(w);
    static_cast<void>(detail::wait_until_told(core_, w, detail::never));
  }

  core core_;

 private:
  bool wait_until_nanos(nanos deadline) noexcept {
    if (core_.account.enter_if_open()) return true;
    if (deadline != detail::never && deadline <= detail::read_clock<clock>()) return false;
    detail::must_not_run_a_loop();
    detail::thread_waiter<core> w(core_, core_.account.nobody(), 2);
    const bool open = core_.enter(w, 1, true);
    return open || detail::wait_until_told(core_, w, deadline) == wait_status::granted;
  }
};

HYBRIDLOOP_CLOSE
