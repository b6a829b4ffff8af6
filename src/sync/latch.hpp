// sync/latch.hpp - waiting until so many things are done
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/contract.hpp"
#include "sync/gate.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// What is to be done above, how many wait for it below.
//
// Edge [latch]: X8 something is done (release); X9 who finds all done goes on (acquire). Rule: every change
// is a read-modify-write, so X9 meets each X8 [intro.races]. Who had to wait takes the queue's edge from the last X8,
// which is an acquire as well.
template <class Traits>
class latch_account {
 public:
  static constexpr bool collects = false;
  static constexpr std::ptrdiff_t most = 0x7fffffff;

  explicit latch_account(std::ptrdiff_t count) noexcept : word_(static_cast<value>(count) * one_left) {}

  bool enter_if_open() const noexcept { return word_.load(std::memory_order_acquire) < one_left; }  // [latch] X9
  bool enter() noexcept {
    value seen = word_.load(std::memory_order_acquire);  // [latch] X9
    while (seen >= one_left) {
      if (word_.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel,  // [latch] X8, X9
                                      std::memory_order_acquire)) {  // [latch] X9
        return false;
      }
    }
    return true;
  }

  bool nobody() const noexcept { return word_.load(std::memory_order_relaxed) % one_left == 0; }  // a hint; it may change at once
  static void set_out() noexcept {}
  static void arrived() noexcept {}
  static bool passed_through() noexcept { return true; }

  struct verdict {
    bool opens;
    std::ptrdiff_t through;  // how many that wait
  };
  // `stays`: who counts waits in the same step, unless that opens it.
  verdict count_down(std::ptrdiff_t n, bool stays) noexcept {
    const value step = static_cast<value>(n) * one_left;
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      HYBRIDLOOP_CONTRACT(seen / one_left >= static_cast<value>(n), "a latch is counted down to 0 and not below");
      const value after = seen - step;
      const bool opens = after < one_left;
      if (word_.compare_exchange_weak(seen, opens ? 0 : after + (stays ? 1 : 0), std::memory_order_acq_rel,  // [latch] X8, X9
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return {opens, opens ? static_cast<std::ptrdiff_t>(after) : 0};
      }
    }
  }

  std::ptrdiff_t withdraw(std::ptrdiff_t) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen % one_left != 0) {
      if (word_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,  // [latch] X8, X9
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return 1;
      }
    }
    return 0;
  }
  static std::ptrdiff_t give(std::ptrdiff_t) noexcept { return 0; }
  static std::ptrdiff_t pass_on(std::ptrdiff_t) noexcept { return 0; }

 private:
  using value = std::uint64_t;
  static constexpr value one_left = value{1} << 32;

  typename Traits::template atomic<value> word_;
};

}  // namespace detail

template <class Queue>
class basic_latch : public basic_gate<Queue, detail::latch_account<typename Queue::traits>> {
  using account_type = detail::latch_account<typename Queue::traits>;
  using base = basic_gate<Queue, account_type>;

 public:
  // From 0 to max(), else it is a broken contract.
  explicit basic_latch(std::ptrdiff_t count) noexcept : base(checked(count)) {}

  static constexpr std::ptrdiff_t (max)() noexcept { return account_type::most; }

  // Below 0 is a broken contract.
  void count_down(std::ptrdiff_t n = 1) noexcept {
    this->core_.send(this->core_.account.count_down(checked(n), false).through, wait_status::granted);
  }
  // Both in one step: whose count opens it touches it no more than count_down() does.
  void arrive_and_wait(std::ptrdiff_t n = 1) noexcept {
    const auto count = this->core_.account.count_down(checked(n), true);
    if (count.opens) return this->core_.send(count.through, wait_status::granted);
    this->wait_entered();
  }

 private:
  static std::ptrdiff_t checked(std::ptrdiff_t n) noexcept {
    HYBRIDLOOP_CONTRACT(n >= 0 && n <= (max)(), "a latch counts from 0 to max()");
    return n;
  }
};

HYBRIDLOOP_CLOSE
