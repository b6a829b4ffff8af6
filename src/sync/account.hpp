// sync/account.hpp - one word that says what there is and what is owed, so that no wake is looked for twice
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/contract.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Every primitive is an account and a queue. Whoever waits enters its debt into the account first, in one
// step with finding that there is nothing to take, and then joins the queue. Whoever gives sees in the
// account, again in one step, how many tokens are owed, and sends as many through the queue, where a
// token may arrive before the one that it is for. So nobody has to look twice, and
//
//   what waiters still need  =  tokens on their way  +  debt
//
// holds at each step. Whoever leaves takes its need off the debt. Where the debt is less, tokens for the
// rest are on their way: then it is too late to leave, or the waiter stays until it has got them and
// hands them back. (The signed count is J. Preshing's lightweight semaphore; that a token may
// overtake its waiter is the way of N. Koval, D. Khalanskiy and D. Alistarh, CQS, 2023.)

// Of a semaphore that hands released permits to those who wait: permits, or less than none by what is
// owed. The lowest bit says closed.
//
// Edge [permit]: who takes a permit sees what was done before it was released. A1 permits are added
// (release); A2 permits are taken (acquire). Rule: every change is a read-modify-write, so A2 meets each
// A1 before it in the release sequence [intro.races]. A permit that goes through the queue takes the
// queue's edge.
template <class Traits>
class permit_account {
 public:
  static constexpr bool collects = true;  // a waiter may hold some of what it needs

  // Permits are counted in 62 bits.
  static constexpr std::ptrdiff_t most = (std::numeric_limits<std::ptrdiff_t>::max)() / 4;

  explicit permit_account(std::ptrdiff_t permits) noexcept : word_(of(permits)) {}

  // How many of n are had at once; the rest is owed. Less than 0: closed, and nothing was taken.
  std::ptrdiff_t take(std::ptrdiff_t n) noexcept {
    const value before = word_.fetch_sub(of(n), std::memory_order_acquire);  // [permit] A2
    const std::ptrdiff_t there = permits_of(before);
    if (there >= n && (before & closed_bit) == 0) return n;
    return take_less(n, before);
  }

  bool try_take(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (permits_of(seen) >= n && (seen & closed_bit) == 0) {
      if (word_.compare_exchange_weak(seen, seen - of(n), std::memory_order_acquire,  // [permit] A2
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
    return false;
  }

  // How many of them are owed: as many tokens are to be sent.
  std::ptrdiff_t give(std::ptrdiff_t n) noexcept {
    const value before = word_.fetch_add(of(n), std::memory_order_release);  // [permit] A1
    const std::ptrdiff_t there = permits_of(before);
    HYBRIDLOOP_CONTRACT(there <= most - n, "a semaphore has no more than max() permits");
    if (there >= 0 || (before & closed_bit) != 0) return 0;
    return -there < n ? -there : n;
  }

  // What came to somebody who had left: how many others get. A queue asks that decides about a leave before it
  // asks withdraw().
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept { return give(n); }

  // Takes up to `need` off the debt; for the rest tokens are on their way. Once closed, that is for all.
  std::ptrdiff_t withdraw(std::ptrdiff_t need) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (permits_of(seen) < 0 && (seen & closed_bit) == 0) {
      const std::ptrdiff_t owed = -permits_of(seen);
      const std::ptrdiff_t off = owed < need ? owed : need;
      if (word_.compare_exchange_weak(seen, seen + of(off), std::memory_order_relaxed)) return off;  // a hint; no permit moves
    }
    return 0;
  }

  // What is owed is owed no more: as many tokens that say "closed" are to be sent.
  std::ptrdiff_t close() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if ((seen & closed_bit) != 0) return 0;
      const std::ptrdiff_t there = permits_of(seen);
      const value after = (there < 0 ? 0 : of(there)) | closed_bit;
      if (word_.compare_exchange_weak(seen, after, std::memory_order_acq_rel,  // [permit] A1, A2
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return there < 0 ? -there : 0;
      }
    }
  }
  bool closed() const noexcept { return (word_.load(std::memory_order_relaxed) & closed_bit) != 0; }  // a hint; it may change at once

  // Takes up to n that are there, and says how many.
  std::ptrdiff_t forget(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (permits_of(seen) > 0) {
      const std::ptrdiff_t off = permits_of(seen) < n ? permits_of(seen) : n;
      if (word_.compare_exchange_weak(seen, seen - of(off), std::memory_order_acquire,  // [permit] A2
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return off;
      }
    }
    return 0;
  }

  std::ptrdiff_t available() const noexcept {
    const std::ptrdiff_t now = there();
    return now < 0 ? 0 : now;
  }
  std::ptrdiff_t owed() const noexcept {
    const std::ptrdiff_t now = there();
    return now < 0 ? -now : 0;
  }

 private:
  using value = std::ptrdiff_t;
  static constexpr value closed_bit = 1;
  static constexpr value of(std::ptrdiff_t permits) noexcept { return permits * 2; }
  static constexpr std::ptrdiff_t permits_of(value word) noexcept {
    return (word - (word & closed_bit)) / 2;
  }

  std::ptrdiff_t there() const noexcept { return permits_of(word_.load(std::memory_order_relaxed)); }  // a hint; it may change at once

  std::ptrdiff_t take_less(std::ptrdiff_t n, value before) noexcept {
    const std::ptrdiff_t there = permits_of(before);
    if ((before & closed_bit) == 0) {
      HYBRIDLOOP_CONTRACT(n <= 2 * most + there, "those who wait for a semaphore need no more than twice max() together");
      return there < 0 ? 0 : there;
    }
    word_.fetch_add(of(n), std::memory_order_release);  // [permit] A1
    return -1;
  }

  typename Traits::template atomic<value> word_;
};

// Of a condvar: how many wait and have not been promised a notification.
//
// Memory is ordered by the caller's lock, and by the queue on the way from notifier to waiter.
template <class Traits>
class notice_account {
 public:
  static constexpr bool collects = false;

  void enter() noexcept { owed_.fetch_add(1, std::memory_order_relaxed); }  // a hint; the caller's lock orders it

  // How many of `most` tokens are to be sent.
  std::ptrdiff_t notify(std::ptrdiff_t most) noexcept { return withdraw(most); }
  // Notifications that were given to somebody who is not there any more: others get them.
  std::ptrdiff_t give(std::ptrdiff_t n) noexcept { return withdraw(n); }
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept { return withdraw(n); }
  std::ptrdiff_t notify_all() noexcept { return owed_.exchange(0, std::memory_order_relaxed); }  // a hint; as above

  std::ptrdiff_t withdraw(std::ptrdiff_t need) noexcept {
    std::ptrdiff_t seen = owed_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen > 0) {
      const std::ptrdiff_t off = seen < need ? seen : need;
      if (owed_.compare_exchange_weak(seen, seen - off, std::memory_order_relaxed)) return off;  // a hint; as above
    }
    return 0;
  }

  bool nobody() const noexcept { return owed_.load(std::memory_order_relaxed) == 0; }  // a hint; as above

 private:
  typename Traits::template atomic<std::ptrdiff_t> owed_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
