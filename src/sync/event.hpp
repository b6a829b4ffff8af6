// sync/event.hpp - something has happened: heard by all who wait, or by one
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "sync/gate.hpp"

HYBRIDLOOP_OPEN
namespace sync {

struct manual_reset {};  // set() opens it for all, until reset()
struct auto_reset {};    // set() lets one through; several without anybody there are one

}  // namespace sync

namespace detail {

// Set, and nobody waits; or how many wait. And how many are between here and the queue: they join, leave, or bring
// tokens. reset() and the destructor let those pass: else who comes behind reset() would find a token of the set()
// before it, for one who was counted and has not joined yet, or has left on the newcomer's account.
//
// Edge [event]: V8 set() (release); V9 who is let through at once (acquire). V6 the queue has it (release); V7 nobody
// is on the way any more (acquire). Rule: every change is a read-modify-write, so V9 meets each V8 before it in
// the release sequence, and V7 each V6 [intro.races]. Who had to wait takes the queue's edge.
template <class Traits, class Reset>
class event_account {
  static constexpr bool one_by_one = std::is_same_v<Reset, sync::auto_reset>;

 public:
  static constexpr bool collects = false;

  explicit event_account(bool set) noexcept : word_(set ? is_set : 0) {}

  bool enter() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const bool open = (seen & is_set) != 0;
      const value after = !open ? seen + one_waiting + one_on_its_way : one_by_one ? 0 : seen;
      if (change(seen, after)) return open;
    }
  }
  bool enter_if_open() noexcept {
    if constexpr (!one_by_one) return open();
    value seen = is_set;
    return word_.compare_exchange_strong(seen, 0, std::memory_order_acq_rel);  // [event] V8, V9
  }
  bool open() const noexcept { return (word_.load(std::memory_order_acquire) & is_set) != 0; }  // [event] V9
  bool nobody() const noexcept { return word_.load(std::memory_order_relaxed) < one_waiting; }  // a hint; it may change at once

  // How many are let through that wait.
  std::ptrdiff_t set() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const bool waited_for = seen >= one_waiting;
      const value all = (seen & on_their_way) | is_set;
      if (change(seen, !waited_for ? seen | is_set : one_by_one ? seen - one_waiting : all + one_on_its_way)) {
        return !waited_for ? 0 : one_by_one ? 1 : static_cast<std::ptrdiff_t>(seen / one_waiting);
      }
    }
  }
  void reset() noexcept {
    value seen = word_.load(std::memory_order_acquire);  // [event] V9
    while ((seen & is_set) != 0) {
      if (seen == is_set) {
        if (change(seen, 0)) return;
      } else {
        Traits::kernel::yield();
        seen = word_.load(std::memory_order_acquire);  // [event] V7, V9
      }
    }
  }

  // Who is going to leave; a set() and who enters are counted in their own step.
  void set_out() noexcept {
    if constexpr (!one_by_one) word_.fetch_add(one_on_its_way, std::memory_order_acq_rel);  // [event] V6, V7
  }
  // The queue has dealt with it.
  void arrived() noexcept {
    if constexpr (!one_by_one) word_.fetch_sub(one_on_its_way, std::memory_order_release);  // [event] V6
  }
  bool passed_through() const noexcept { return (word_.load(std::memory_order_acquire) & on_their_way) == 0; }  // [event] V7

  std::ptrdiff_t withdraw(std::ptrdiff_t) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen >= one_waiting) {
      if (change(seen, seen - one_waiting)) return 1;
    }
    return 0;
  }
  // So many who were let through are not there: of those that are let through one by one others are.
  std::ptrdiff_t give(std::ptrdiff_t n) noexcept {
    std::ptrdiff_t through = 0;
    for (; one_by_one && n != 0; --n) through += set();
    return through;
  }
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept { return give(n); }

 private:
  using value = std::uint64_t;
  static constexpr value is_set = 1;
  static constexpr value one_on_its_way = one_by_one ? 0 : 2;
  static constexpr value on_their_way = 0xfffffffe;
  static constexpr value one_waiting = value{1} << 32;

  bool change(value& seen, value after) noexcept {
    return word_.compare_exchange_weak(seen, after, std::memory_order_acq_rel,  // [event] V8, V9
                                       std::memory_order_relaxed);  // a hint; the caller looks again
  }

  typename Traits::template atomic<value> word_;
};

}  // namespace detail

template <class Queue, class Reset>
class basic_event : public basic_gate<Queue, detail::event_account<typename Queue::traits, Reset>> {
  using base = basic_gate<Queue, detail::event_account<typename Queue::traits, Reset>>;

 public:
  explicit basic_event(bool set = false) noexcept : base(set) {}

  // Also from a callback that it called. Allocates as release() does.
  void set() noexcept {
    const std::ptrdiff_t through = this->core_.account.set();
    if (through == 0) return;
    this->core_.send(through, wait_status::granted);
    this->core_.account.arrived();
  }
  // Who waited at a set() is let through all the same, and nobody who comes later. It may have to let others,
  // who set it, come or leave, take a few steps first.
  void reset() noexcept { this->core_.account.reset(); }
  bool is_set() const noexcept { return this->core_.account.open(); }
};

HYBRIDLOOP_CLOSE
