// sync/waiter_list.hpp - waiters in order, linked through themselves, and tokens that nobody waited for yet
#pragma once

#include <cstddef>

#include "sync/waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// For one thread at a time: behind a lock, or an owner's. What the calls mean: see sync/queue0.hpp. `out` has
// add(w) for those who have all that they need.
template <class Traits>
class waiter_list {
  using waiter_type = waiter<Traits>;
  using told = told_list<Traits>;

 public:
  waiter_list() noexcept = default;
  waiter_list(const waiter_list&) = delete;
  waiter_list& operator=(const waiter_list&) = delete;

  template <class Out>
  void join(waiter_type& w, Out& out) noexcept {
    w.feed(early_, wait_status::granted);
    w.feed(early_closed_, wait_status::closed);
    if (w.need == 0) return out.add(w);
    append(w);
  }

  template <class Out>
  void send(std::ptrdiff_t n, wait_status status, Out& out) noexcept {
    while (first_ != nullptr && n != 0) {
      waiter_type& w = *first_;
      w.feed(n, status);
      if (w.need != 0) return;
      remove(w);
      out.add(w);
    }
    (status == wait_status::granted ? early_ : early_closed_) += n;
  }

  template <class Account>
  bool leave(waiter_type& w, wait_status why, Account& account, told& out) noexcept {
    if (!w.linked || w.status != wait_status::granted) return false;
    const std::ptrdiff_t off = account.withdraw(w.need);
    if (off == 0) return false;
    w.status = why;
    w.need -= off;
    if (w.need != 0) return true;  // it stays for what is on its way
    remove(w);
    out.add(w);
    return true;
  }

  void append(waiter_type& w) noexcept {
    w.linked = true;
    w.next = nullptr;
    w.previous = last_;
    (last_ == nullptr ? first_ : last_->next) = &w;
    last_ = &w;
  }
  void remove(waiter_type& w) noexcept {
    w.linked = false;
    (w.previous == nullptr ? first_ : w.previous->next) = w.next;
    (w.next == nullptr ? last_ : w.next->previous) = w.previous;
  }

  // Neither waiters nor tokens.
  bool empty() const noexcept { return first_ == nullptr && early_ == 0 && early_closed_ == 0; }
  // One waiter, for one token, that has not left.
  waiter_type* alone() const noexcept {
    const bool plain = first_ != nullptr && first_ == last_ && first_->need == 1 && first_->status == wait_status::granted;
    return plain ? first_ : nullptr;
  }
  bool has_one_early() const noexcept { return early_ == 1 && early_closed_ == 0; }
  void add_early() noexcept { ++early_; }
  void take_early() noexcept { --early_; }

 private:
  waiter_type* first_ = nullptr;
  waiter_type* last_ = nullptr;
  std::ptrdiff_t early_ = 0;
  std::ptrdiff_t early_closed_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
