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
    r.next_spare = std::exchange(first_, &r);
  }
  void remove(record& r) noexcept {
    record** at = &first_;
    while (*at != &r) at = &(*at)->next_spare;
    *at = r.next_spare;
    r.stray = false;
  }

  // Calls f for each, which may add it again.
  template <class F>
  void empty_out(const F& f) {
    record* r = std::exchange(first_, nullptr);
    while (r != nullptr) {
      record& one = *std::exchange(r, r->next_spare);
      one.stray = false;
      f(one);
    }
  }

  // The earliest that waits for no next turn; `none` if that is earlier.
  entry soonest(const entry& none) const noexcept {
    entry least = none;
    for (record* r = first_; r != nullptr; r = r->next_spare) {
      const entry e{r->deadline, r->order, r};
      if (!r->held && e.before(least)) least = e;
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
