// sync/permits.hpp - what a semaphore does with a released permit: hand it to whoever has waited longest
#pragma once

#include <cstddef>

#include "sync/primitive.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// A released permit goes to whoever has waited longest. Nobody starves, and nobody overtakes.
struct fifo {};

}  // namespace sync

namespace detail {

// Any thread, everything. What a primitive is to those who wait for it:
//
//   take(n)             all of n at once, or how many of them until the rest comes; less than 0: closed
//   queue_up(w, n, had) after a take() that was not enough. True: settled at once, and w says how
//   enter(w, n, ...)    both. Who may not wait is told that time ran out
//   enter_at_once(w, n) false: there is too little
//   look_for(n)         whether they could be had by looking for a moment, before it queues up
//   is_next(n)          a hint, behind take() and before queue_up(): nobody waits before it
//   leave(w, why)       as a queue's; not before w has queued up
//   redeem(w)           whoever was told asks whether that is all, and waits again if not
//   give_back(n)        what was granted to somebody who is not there to take it
template <class Queue, class Fairness>
class permits;

template <class Queue>
class permits<Queue, sync::fifo> : public primitive<Queue, permit_account<typename Queue::traits>> {
  using base = primitive<Queue, permit_account<typename Queue::traits>>;

 public:
  using typename base::node;
  using base::account;
  static constexpr std::ptrdiff_t most = decltype(base::account)::most;

  explicit permits(std::ptrdiff_t n) noexcept : base(n) {}

  std::ptrdiff_t take(std::ptrdiff_t n) noexcept { return account.take(n); }
  bool try_take(std::ptrdiff_t n) noexcept { return account.try_take(n); }
  void give(std::ptrdiff_t n) noexcept {
    const std::ptrdiff_t owed = account.give(n);
    if (owed != 0) this->send(owed, wait_status::granted);
  }
  void close() noexcept { this->send(account.close(), wait_status::closed); }

  // Less than all of n goes to whoever has waited longest, as any permit: who kept it, and came into the queue behind
  // one that came later for several, would wait for that one, and that one for what is kept.
  bool queue_up(node& w, std::ptrdiff_t n, std::ptrdiff_t had) noexcept {
    w.begin(n, had == n ? n : 0);
    if (had < 0) w.status = wait_status::closed;
    if (had == n || had < 0) return true;
    this->send(had, wait_status::granted);
    this->join(w);
    return false;
  }
  bool enter(node& w, std::ptrdiff_t n, bool may_wait) noexcept {
    if (may_wait) return queue_up(w, n, take(n));
    if (enter_at_once(w, n)) return true;
    w.status = account.closed() ? wait_status::closed : wait_status::timed_out;
    return true;
  }
  bool enter_at_once(node& w, std::ptrdiff_t n) noexcept {
    const bool had = try_take(n);
    w.begin(n, had ? n : 0);
    return had;
  }
  static bool look_for(std::ptrdiff_t) noexcept { return false; }
  bool is_next(std::ptrdiff_t n) const noexcept { return account.owed() <= n; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
