// sync/primitive.hpp - an account and a queue: what semaphore, condvar and their kin are made of
#pragma once

#include <chrono>
#include <cstddef>
#include <type_traits>

#include "base/clock.hpp"
#include "base/contract.hpp"
#include "loop/frames.hpp"
#include "sync/account.hpp"
#include "sync/wait_refs.hpp"
#include "sync/waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Any thread. Each call ends by telling those whose wait is over, and touches nothing after that: who is
// told last may destroy it.
template <class Queue, class Account>
class primitive {
  using Traits = typename Queue::traits;

 public:
  using traits = Traits;
  using node = typename Queue::node;

  template <class... Args>
  explicit primitive(Args... args) noexcept : account(args...) {}
  primitive(const primitive&) = delete;
  primitive& operator=(const primitive&) = delete;
  ~primitive() { refs.wait_for_all(); }

  // Its need is in the account already.
  void join(node& w) noexcept {
    told_list<Traits> out;
    Traits::schedule_point("joining");
    queue_.join(w, account, out);
    finish(out);
  }
  void send(std::ptrdiff_t n, wait_status status) noexcept {
    if (n == 0) return;
    told_list<Traits> out;
    Traits::schedule_point("sending");
    queue_.send(n, status, account, out);
    finish(out);
  }
  bool leave(node& w, wait_status why) noexcept {
    told_list<Traits> out;
    const bool left = queue_.leave(w, why, account, out);
    finish(out);
    return left;
  }

  // What was given to somebody who is not there to take it.
  void give_back(node& w) noexcept {
    const std::ptrdiff_t n = w.held;
    if (n != 0) send(account.give(n), wait_status::granted);
  }
  // Whether who was told has what it waited for.
  static bool redeem(node&) noexcept { return true; }

  Account account;
  wait_refs<Traits> refs;

 private:
  // What those who left had taken is somebody else's first.
  void finish(told_list<Traits>& out) noexcept {
    if constexpr (Account::collects) {
      for (std::ptrdiff_t back = out.take_returned(); back != 0; back = out.take_returned()) {
        const std::ptrdiff_t owed = account.give(back);
        if (owed != 0) queue_.send(owed, wait_status::granted, account, out);
      }
    }
    out.tell_all();
  }

  Queue queue_;
};

inline void must_not_run_a_loop() {
  HYBRIDLOOP_CONTRACT(loop_frame::innermost() == nullptr,
                      "a thread that runs a loop may not block: use the form that takes the loop, or try_acquire()");
}

// Blocks, as somebody who has joined, until told or timed out. Who times out is told so too. Of who was told before
// that nothing is touched but its own frame.
template <class Core, class Waiter>
wait_status wait_until_told(Core& c, Waiter& w, nanos deadline) noexcept {
  do {
    if (!w.wait(deadline)) {
      w.leave(wait_status::timed_out);
      w.wait(never);
    }
  } while (!c.redeem(w));
  return w.status;
}

template <class Clock, class Rep, class Period>
nanos deadline_in(std::chrono::duration<Rep, Period> span) noexcept {
  const nanos length = to_nanos(span);
  return length == never ? length : saturating_add(read_clock<Clock>(), length);
}

// A deadline by another clock than the loop's: that one may be set, so it is asked again each time.
template <class Own, class Clock, class Duration, class Try>
bool wait_by_clock(std::chrono::time_point<Clock, Duration> deadline, const Try& attempt) {
  if constexpr (std::is_same_v<Own, Clock>) {
    return attempt(to_nanos(deadline));
  } else {
    const nanos end = to_nanos(deadline);
    if (end == never) return attempt(never);
    for (;;) {
      const nanos now = read_clock<Clock>();
      const nanos left = end > now ? saturating_add(end, -now) : 0;
      if (attempt(saturating_add(read_clock<Own>(), left))) return true;
      if (read_clock<Clock>() >= end) return false;
    }
  }
}

// A lock that its holder has not, until the end of the scope.
template <class Lock>
class given_back {
 public:
  explicit given_back(Lock& lock) : lock_(lock) { lock.unlock(); }
  given_back(const given_back&) = delete;
  given_back& operator=(const given_back&) = delete;
  ~given_back() { lock_.lock(); }

 private:
  Lock& lock_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
