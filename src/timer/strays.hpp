// timer/strays.hpp - timers for whose place in the wheel there was no memory
#pragma once

#include <cstddef>
#include <utility>

#include "base/clock.hpp"
#include "timer/record.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Linked through their records, so that a timer which was accepted needs no memory to fire. All of them
// are looked through each time: there are some until the heap gives again. The loop thread only.
template <class Traits>
class timer_strays {
 public:
  using record = timer_record<Traits>;
  using entry = timer_entry<Traits>;

  bool empty() const noexcept { return first_ == nullptr; }

  void add(record& r) noexcept {
    r.stray = true;
    r.previous_stray = nullptr;
    r.next_spare = first_;
    if (first_ != nullptr) first_->previous_stray = &r;
    first_ = &r;
  }
  void remove(record& r) noexcept {
    (r.previous_stray != nullptr ? r.previous_stray->next_spare : first_) = r.next_spare;
    if (r.next_spare != nullptr) r.next_spare->previous_stray = r.previous_stray;
    r.stray = false;
  }

  // None is to wait for the next turn any more.
  void free_held() noexcept {
    for (record* r = first_; r != nullptr; r = r->next_spare) r->held = false;
  }
  // Calls f for one after the other, which may add it again; then there is still no memory, and the rest
  // stays.
  template <class F>
  void find_place(const F& f) {
    for (record* r = first_; r != nullptr;) {
      record& one = *std::exchange(r, r->next_spare);
      remove(one);
      f(one);
      if (one.stray) return;
    }
  }

  // The earliest that may fire, or of all; `none` if that is earlier.
  entry soonest(const entry& none, bool of_all = false) const noexcept {
    entry least = none;
    for (record* r = first_; r != nullptr; r = r->next_spare) {
      const entry e{r->deadline, r->order, r};
      if ((of_all || !r->held) && e.before(least)) least = e;
    }
    return least;
  }
  bool any_held() const noexcept {
    const record* r = first_;
    while (r != nullptr && !r->held) r = r->next_spare;
    return r != nullptr;
  }
  std::size_t count_due(nanos now) const noexcept {
    std::size_t count = 0;
    for (const record* r = first_; r != nullptr; r = r->next_spare) count += r->deadline <= now ? 1u : 0u;
    return count;
  }

 private:
  record* first_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
