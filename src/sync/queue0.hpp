// sync/queue0.hpp - phase 0: a mutex and a circle of waiters; plain on purpose, the others are measured by it
#pragma once

#include <cstddef>

#include "sync/waiter.hpp"
#include "task/memory.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// What a queue is. Any thread. `account` is the one of the primitive that the queue is of, the same in
// each call; `out` takes those whose wait is over by it: whoever calls tells them, after what they
// have returned is released.
//
//   node                            what stands in a waiter: derived from detail::waiter
//   join(w, account, out)           w waits for w.need more tokens; some may have come before it
//   send(n, status, account, out)   n tokens, for those who have waited longest, or will come. A waiter that
//                                   gets one that says "closed" is told so when it has all that it needs
//   leave(w, why, account, out)     true: w is told `why`, in time. False: it is told something else, is
//                                   being told, or has left before
//
// A wait with several tokens is served at the head of the queue only, until it has all of them.

template <class Traits>
class basic_queue0 {
 public:
  using traits = Traits;
  static constexpr int phase = 0;

  struct node : detail::waiter<Traits> {
    using detail::waiter<Traits>::waiter;
  };
  using told_list = detail::told_list<Traits>;

  basic_queue0() noexcept = default;
  basic_queue0(const basic_queue0&) = delete;
  basic_queue0& operator=(const basic_queue0&) = delete;
  ~basic_queue0() {
    if (slots_ != nullptr) detail::heap_give(slots_, alignof(node*));
  }

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    const hold locked(mutex_);
    w.feed(early_, wait_status::granted);
    w.feed(early_closed_, wait_status::closed);
    if (w.need == 0) return out.add(w);
    w.linked = true;
    if (strays_ != nullptr || !push(w)) add_stray(w);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    const hold locked(mutex_);
    for (node* w = front(); w != nullptr && n != 0; w = front()) {
      w->feed(n, status);
      if (w->need != 0) return;
      pop();
      w->linked = false;
      out.add(*w);
    }
    (status == wait_status::granted ? early_ : early_closed_) += n;
  }

  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const hold locked(mutex_);
    if (!w.linked || w.status != wait_status::granted) return false;
    const std::ptrdiff_t off = account.withdraw(w.need);
    if (off == 0) return false;
    w.status = why;
    w.need -= off;
    if (w.need != 0) return true;  // it stays for what is on its way
    erase(w);
    out.add(w);
    return true;
  }

 private:
  using hold = typename Traits::kernel::hold;

  bool push(node& w) noexcept {
    if (count_ == capacity_ && !grow()) return false;
    at(count_++) = &w;
    return true;
  }
  node* front() noexcept { return count_ != 0 ? at(0) : static_cast<node*>(strays_); }
  void pop() noexcept {
    if (count_ == 0) {
      strays_ = strays_->next;
      return;
    }
    first_ = (first_ + 1) & (capacity_ - 1);
    --count_;
  }
  node*& at(std::size_t place) noexcept { return slots_[(first_ + place) & (capacity_ - 1)]; }

  bool grow() noexcept {
    const std::size_t wider = capacity_ == 0 ? 8 : capacity_ * 2;
    void* const memory = detail::heap_take(wider * sizeof(node*), alignof(node*));
    if (memory == nullptr) return false;
    auto* const larger = static_cast<node**>(memory);
    for (std::size_t i = 0; i < count_; ++i) larger[i] = at(i);
    if (slots_ != nullptr) detail::heap_give(slots_, alignof(node*));
    slots_ = larger;
    capacity_ = wider;
    first_ = 0;
    return true;
  }

  void erase(node& w) noexcept {
    w.linked = false;
    std::size_t place = 0;
    while (place != count_ && at(place) != &w) ++place;
    if (place == count_) return erase_stray(w);
    for (; place + 1 < count_; ++place) at(place) = at(place + 1);
    --count_;
  }

  // For whom there was no memory: linked through their nodes, behind those in the circle.
  void add_stray(node& w) noexcept {
    detail::waiter<Traits>** end = &strays_;
    while (*end != nullptr) end = &(*end)->next;
    w.next = nullptr;
    *end = &w;
  }
  void erase_stray(node& w) noexcept {
    detail::waiter<Traits>** link = &strays_;
    while (*link != &w) link = &(*link)->next;
    *link = w.next;
  }

  typename Traits::kernel::mutex mutex_;
  node** slots_ = nullptr;
  std::size_t capacity_ = 0;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  detail::waiter<Traits>* strays_ = nullptr;
  std::ptrdiff_t early_ = 0;  // tokens that nobody has waited for yet
  std::ptrdiff_t early_closed_ = 0;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
