// sync/queue_locked.hpp - a small lock around waiters in their own frames: what phase 3 has to be better than
#pragma once

#include <cstddef>

#include "sync/small_lock.hpp"
#include "sync/waiter.hpp"
#include "sync/waiter_list.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// The way of Tokio's batch_semaphore: leaving costs O(1), nothing is allocated, nobody is told under the lock. What
// gives back the lock is the last touch: of those who had it, only who was told by one that had it later
// may destroy it, and a token of a sender that waits for the lock is one that somebody still needs.
template <class Traits>
class basic_queue_locked {
 public:
  using traits = Traits;
  static constexpr int phase = 3;

  struct node : detail::waiter<Traits> {
    using detail::waiter<Traits>::waiter;
  };
  using told_list = detail::told_list<Traits>;

  basic_queue_locked() noexcept = default;
  basic_queue_locked(const basic_queue_locked&) = delete;
  basic_queue_locked& operator=(const basic_queue_locked&) = delete;

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    const hold locked(lock_);
    list_.join(w, out);
  }
  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    const hold locked(lock_);
    list_.send(n, status, out);
  }
  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const hold locked(lock_);
    return list_.leave(w, why, account, out);
  }

 private:
  class hold {
   public:
    explicit hold(detail::small_lock<Traits>& lock) noexcept : lock_(lock) { lock_.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { lock_.unlock(); }

   private:
    detail::small_lock<Traits>& lock_;
  };

  detail::small_lock<Traits> lock_;
  detail::waiter_list<Traits> list_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
