// timer/wheel.hpp - deadlines in order: a hierarchical wheel for the far ones, a heap for the near
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/bits.hpp"
#include "base/clock.hpp"
#include "timer/bag.hpp"
#include "timer/heap.hpp"
#include "timer/record.hpp"
#include "timer/strays.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Which timers stand in a bucket is known to the tick (65.5 us). When the clock has reached a tick
// and nothing earlier is left, its timers move into a small heap that orders them to the nanosecond.
// So arming and cancelling cost the same however many timers there are, and firing is exact all the
// same.
//
// Levels of 64 buckets after G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels"
// (1987). A timer stands at the level of the highest 6-bit digit in which its tick differs from
// the base, the first tick not yet moved to the heap; so the lowest level that is not empty always
// holds the earliest bucket, and a deadline alone tells where its timer stands. The loop thread only.
template <class Traits>
class timer_wheel {
 public:
  using record = timer_record<Traits>;

  timer_wheel() noexcept = default;
  timer_wheel(const timer_wheel&) = delete;
  timer_wheel& operator=(const timer_wheel&) = delete;
  ~timer_wheel() {
    for (bag& b : bags_) b.empty_out(chunks_, [](const entry&) {});
    held_.empty_out(chunks_, [](const entry&) {});
  }

  // The deadline is set, and stays as it is until the timer has left. `never` stands nowhere.
  void insert(record& r) {
    if (r.deadline == never) return;
    stand(number(r));
  }

  // A timer that is due already but must not fire before the next turn: aside until free_held().
  void hold(record& r) {
    r.held = true;
    if (!held_.put(number(r), chunks_)) strays_.add(r);
  }
  void free_held() {
    if (!strays_.empty()) free_strays();
    if (held_.empty()) return;
    held_.empty_out(chunks_, [this](const entry& e) {
      if (!e.stands()) return;
      e.timer->held = false;
      stand(e);
    });
  }

  void erase(record& r) noexcept {
    if (std::exchange(r.order, 0) == 0) return;
    const std::uint64_t tick = tick_of(r.deadline);
    const bool held = std::exchange(r.held, false);
    if (r.stray) {
      strays_.remove(r);
    } else if (held) {
      held_.drop_gone(chunks_);
    } else if (tick < base_) {
      heap_.drop_gone();
    } else {
      const std::uint32_t bucket = bucket_of(tick);
      bags_[bucket].drop_gone(chunks_);
      if (bags_[bucket].empty()) clear_bit(bucket);
    }
  }

  // Lets the base follow the clock, as far as the first tick that has timers. Deadlines are told
  // apart the better the nearer they are to the base.
  void advance(nanos now) {
    const std::uint64_t tick = tick_of(now);
    if (tick > base_) move_base(tick);
  }

  // The earliest timer leaves the wheel, if it is due at `now`; otherwise nullptr.
  record* take_due(nanos now) {
    for (;;) {
      if (heap_.empty() && refill(now)) continue;
      const bool due = !heap_.empty() && heap_.top().deadline <= now;
      const entry e = due ? heap_.top() : nobody;
      if (due && !e.stands()) {
        heap_.pop();
        continue;
      }
      if (!strays_.empty()) {
        if (record* r = take_stray(e, now)) return r;
      }
      if (!due) return nullptr;
      heap_.pop();
      e.timer->order = 0;
      return e.timer;
    }
  }

  // Not later than the earliest deadline, and equal to it unless more than a handful of timers
  // share the earliest bucket: then it is the bucket's beginning, and the wake there is for all.
  nanos next_wake() {
    if (held_.earliest(long_ago, chunks_) != never) return long_ago;  // all of these are due
    if (strays_.empty()) return next_wake_of_others();
    if (strays_.any_held()) return long_ago;
    const nanos soonest = strays_.soonest(nobody).deadline;
    const nanos others = next_wake_of_others();
    return soonest < others ? soonest : others;
  }

  // How many are due. Looks at single timers only where the clock is in the middle of a bucket.
  std::size_t count_due(nanos now) const noexcept {
    const std::uint64_t tick = tick_of(now);
    const std::size_t in_heap = tick >= base_ ? heap_.standing() : heap_.count_due(now);
    std::size_t count = held_.standing() + in_heap + strays_.count_due(now);
    for (std::uint32_t level = 0; level < levels; ++level) {
      for (std::uint64_t left = occupied_[level]; left != 0; left &= left - 1) {
        const std::uint32_t bucket = level * buckets_per_level + lowest_bit(left);
        const std::uint64_t start = start_of(level, bucket);
        const std::uint64_t next = start + (std::uint64_t{1} << (level * digit_bits));
        if (start > tick) break;
        count += next <= tick ? bags_[bucket].standing() : bags_[bucket].count_due(now);
      }
    }
    return count;
  }

  // The earliest deadline, exactly. Costs as much as the earliest bucket has timers, once for each
  // time that the earliest of all has left.
  nanos next_deadline() {
    if (soonest_.timer != nullptr && !soonest_.stands()) soonest_ = look_for_soonest();
    return soonest_.deadline;
  }

 private:
  using entry = timer_entry<Traits>;
  using bag = timer_bag<Traits>;
  static constexpr entry nobody{never, 0, nullptr};
  static constexpr std::uint32_t tick_bits = 16;
  static constexpr std::uint32_t levels = 8;
  static constexpr std::uint32_t digit_bits = 6;
  static constexpr std::uint32_t buckets_per_level = 1u << digit_bits;

  static std::uint64_t tick_of(nanos t) noexcept {
    return t <= 0 ? 0 : static_cast<std::uint64_t>(t) >> tick_bits;
  }
  static nanos time_of(std::uint64_t tick) noexcept { return static_cast<nanos>(tick << tick_bits); }

  std::uint32_t bucket_of(std::uint64_t tick) const noexcept {
    const std::uint32_t level = highest_bit((tick ^ base_) | (buckets_per_level - 1)) / digit_bits;
    const auto digit = static_cast<std::uint32_t>(tick >> (level * digit_bits)) % buckets_per_level;
    return level * buckets_per_level + digit;
  }

  std::uint32_t lowest_level() const noexcept {
    std::uint32_t level = 0;
    while (level < levels && occupied_[level] == 0) ++level;
    return level;
  }
  std::uint32_t earliest_bucket(std::uint32_t level) const noexcept {
    return level * buckets_per_level + lowest_bit(occupied_[level]);
  }
  std::uint64_t start_of(std::uint32_t level, std::uint32_t bucket) const noexcept {
    const std::uint32_t shift = level * digit_bits;
    const std::uint64_t above = base_ >> (shift + digit_bits) << (shift + digit_bits);
    return above | std::uint64_t{bucket % buckets_per_level} << shift;
  }

  void set_bit(std::uint32_t bucket) noexcept {
    occupied_[bucket / buckets_per_level] |= std::uint64_t{1} << bucket % buckets_per_level;
  }
  void clear_bit(std::uint32_t bucket) noexcept {
    occupied_[bucket / buckets_per_level] &= ~(std::uint64_t{1} << bucket % buckets_per_level);
  }

  entry number(record& r) noexcept {
    r.order = ++last_order_;
    const entry e{r.deadline, r.order, &r};
    if (e.before(soonest_)) soonest_ = e;
    return e;
  }

  nanos next_wake_of_others() {
    while (!heap_.empty() && !heap_.top().stands()) heap_.pop();
    if (!heap_.empty()) return heap_.top().deadline;
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      const nanos earliest = bags_[bucket].earliest(time_of(start_of(level, bucket)), chunks_);
      if (earliest != never) return earliest;
      clear_bit(bucket);
    }
    return never;
  }

  entry look_for_soonest() {
    const entry least = strays_.soonest(held_.soonest(nobody), true);
    while (!heap_.empty() && !heap_.top().stands()) heap_.pop();
    if (!heap_.empty()) return heap_.top().before(least) ? heap_.top() : least;
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      if (bags_[bucket].earliest(0, chunks_) != never) return bags_[bucket].soonest(least);
      clear_bit(bucket);
    }
    return least;
  }

  // Where the base says.
  void stand(const entry& e) {
    const std::uint64_t tick = tick_of(e.deadline);
    if (tick < base_) return be_near(e);
    const std::uint32_t bucket = bucket_of(tick);
    if (!bags_[bucket].put(e, chunks_)) return strays_.add(*e.timer);
    set_bit(bucket);
  }
  void be_near(const entry& e) {
    if (!heap_.push(e)) strays_.add(*e.timer);
  }

  void free_strays() {
    strays_.free_held();
    strays_.find_place([this](record& r) { stand({r.deadline, r.order, &r}); });
  }
  // If one of them comes before the earliest of the others and is due.
  record* take_stray(const entry& other, nanos now) {
    const entry e = strays_.soonest(other);
    if (e.timer == other.timer || e.deadline > now) return nullptr;
    strays_.remove(*e.timer);
    e.timer->order = 0;
    return e.timer;
  }

  // Up to `target` or the first tick with timers, whichever comes first. Buckets of higher levels
  // are spread as the base comes to them.
  void move_base(std::uint64_t target) {
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      const std::uint64_t start = start_of(level, bucket);
      if (start > target) break;
      base_ = start;
      if (level == 0) return;
      clear_bit(bucket);
      const bool all_stand = bags_[bucket].all_stand();
      bags_[bucket].empty_out(chunks_, [this, all_stand](const entry& e) {
        if (all_stand || e.stands()) stand(e);
      });
    }
    base_ = target;
  }

  // Moves the earliest tick that the clock has reached into the empty heap; looking whether its
  // timers stand brings them near before they fire. False: there is none.
  bool refill(nanos now) {
    const std::uint64_t tick = tick_of(now);
    if (tick > base_) move_base(tick);
    const std::uint32_t bucket = bucket_of(base_);
    if (base_ > tick || bags_[bucket].empty()) return false;
    ++base_;
    clear_bit(bucket);
    bags_[bucket].empty_out(chunks_, [this](const entry& e) {
      if (!e.stands()) return;
      e.timer->bring_near();
      be_near(e);
    });
    move_base(base_);
    return true;
  }

  std::uint64_t base_ = 0;
  std::uint64_t last_order_ = 0;
  entry soonest_ = nobody;  // may have left; nobody who stands is earlier
  std::uint64_t occupied_[levels] = {};
  timer_heap<Traits> heap_;
  timer_chunks<Traits> chunks_;
  timer_strays<Traits> strays_;
  bag held_;
  bag bags_[levels * buckets_per_level];
};

}  // namespace detail
HYBRIDLOOP_CLOSE
