// sync/queue1.hpp - phase 1: a word that holds the one waiter there mostly is, and a small lock for more
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "sync/small_lock.hpp"
#include "sync/waiter.hpp"
#include "sync/waiter_list.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// One word is state and waiter at once, so that the two cannot disagree: nobody; one waiter, for one token;
// one token that came early; or `many`, and then the list behind the lock says what there is. Whoever
// has the lock and finds something else moves it into the list first; only who has the lock takes `many` away.
//
// Edge [single]: whoever takes what the word names sees it whole. S1 a waiter, a token or an empty list is put
// there (release); S2 it is taken out, by a CAS (acquire). Until that CAS nobody touches the waiter, so that one
// that went and came again (ABA) is a waiter like any other. Rule: S2 synchronises with the S1 that it reads;
// `many` is put there and taken away by holders of the lock, which orders them.
template <class Traits>
class basic_queue1 {
 public:
  using traits = Traits;
  static constexpr int phase = 1;

  struct node : detail::waiter<Traits> {
    using detail::waiter<Traits>::waiter;
  };
  using told_list = detail::told_list<Traits>;

  basic_queue1() noexcept = default;
  basic_queue1(const basic_queue1&) = delete;
  basic_queue1& operator=(const basic_queue1&) = delete;

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    if (w.need == 1 && join_alone(w, out)) return;
    const hold locked(*this);
    list_.join(w, out);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    if (n == 1 && status == wait_status::granted && send_one(out)) return;
    hold locked(*this);
    list_.send(n, status, out);
    locked.keep_list = out.empty();
  }

  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const hold locked(*this);
    return list_.leave(w, why, account, out);
  }

 private:
  using word = std::uintptr_t;
  static constexpr word nobody = 0;
  static constexpr word many = 1;
  static constexpr word early = 2;

  static word name(const node& w) noexcept { return reinterpret_cast<word>(&w); }
  static node* waiter_in(word seen) noexcept { return seen <= early ? nullptr : reinterpret_cast<node*>(seen); }

  // The lock, with everything in the list. Given back, the word says again what there is, if it can: then
  // others go on without the lock. A sender that has nobody to tell leaves that to whoever comes next,
  // because the one who takes what it sent may be the last, and destroy the lock before it is given back.
  class hold {
   public:
    explicit hold(basic_queue1& q) noexcept : queue_(q) {
      q.lock_.lock();
      q.move_into_list();
    }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() {
      if (!keep_list) queue_.move_out_of_list();
      queue_.lock_.unlock();
    }
    bool keep_list = false;

   private:
    basic_queue1& queue_;
  };

  bool join_alone(node& w, told_list& out) noexcept {
    word seen = nobody;
    if (slot_.compare_exchange_strong(seen, name(w), std::memory_order_release,  // [single] S1
                                      std::memory_order_relaxed)) {  // a hint; the CAS below decides
      return true;
    }
    if (seen != early || !slot_.compare_exchange_strong(seen, nobody, std::memory_order_acq_rel,  // [single] S2, S1
                                                        std::memory_order_relaxed)) {  // a hint; the lock decides
      return false;
    }
    w.grant();
    out.add(w);
    return true;
  }

  bool send_one(told_list& out) noexcept {
    word seen = slot_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    if (seen == many || seen == early) return false;
    const word then = seen == nobody ? early : nobody;
    Traits::schedule_point("slot-seen");
    if (!slot_.compare_exchange_strong(seen, then, std::memory_order_acq_rel,  // [single] S2, S1
                                       std::memory_order_relaxed)) {  // a hint; the lock decides
      return false;
    }
    if (node* const w = waiter_in(seen)) {
      w->grant();
      out.add(*w);
    }
    return true;
  }

  void move_into_list() noexcept {
    word seen = slot_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen != many && !slot_.compare_exchange_weak(seen, many, std::memory_order_acq_rel,  // [single] S2, S1
                                                        std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
    if (node* const w = waiter_in(seen)) list_.append(*w);
    if (seen == early) list_.add_early();
  }

  void move_out_of_list() noexcept {
    word then = many;
    if (list_.empty()) {
      then = nobody;
    } else if (list_.has_one_early()) {
      list_.take_early();
      then = early;
    } else if (auto* const w = list_.alone()) {
      list_.remove(*w);
      then = name(static_cast<node&>(*w));
    }
    if (then != many) slot_.store(then, std::memory_order_release);  // [single] S1
  }

  typename Traits::template atomic<word> slot_{nobody};
  detail::small_lock<Traits> lock_;
  detail::waiter_list<Traits> list_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
