// timer/wheel.hpp - deadlines in order: a hierarchical wheel for the far ones, a heap for the near
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bits.hpp"
#include "base/clock.hpp"
#include "base/contract.hpp"
#include "task/memory.hpp"
#include "timer/record.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Where a bucket's span begins and which timers stand in it is known to the tick (65.5 us); when
// the clock reaches the tick, its timers move into a small heap that orders them to the nanosecond.
// So adding and cancelling a far timer links and unlinks a list, and firing is exact all the same.
//
// Levels of 64 buckets after G. Varghese and A. Lauck, "Hashed and Hierarchical Timing Wheels"
// (1987). A timer stands at the level of the highest 6-bit digit in which its tick differs from
// the base, the first tick not yet moved to the heap; so the lowest level that is not empty always
// holds the earliest bucket. The loop thread only.
template <class Traits>
class timer_wheel {
 public:
  using record = timer_record<Traits>;

  timer_wheel() noexcept = default;
  timer_wheel(const timer_wheel&) = delete;
  timer_wheel& operator=(const timer_wheel&) = delete;
  ~timer_wheel() {
    if (heap_ != nullptr) heap_give(heap_, alignof(entry));
  }

  // The deadline and the order are set. A deadline of `never` stands nowhere.
  void insert(record& r) {
    if (r.deadline == never) return;
    r.placed = true;
    const std::uint64_t tick = tick_of(r.deadline);
    if (tick < base_) {
      heap_push(r);
    } else {
      link(r, bucket_of(tick));
    }
  }

  // A timer that is due already but must not fire before the next turn: aside until free_held().
  void hold(record& r) noexcept {
    r.placed = true;
    link(r, held);
  }
  void free_held() {
    if (buckets_[held] != nullptr) spread(held);
  }

  void erase(record& r) noexcept {
    if (!r.placed) return;
    r.placed = false;
    if (r.in_heap) {
      heap_erase(r.place);
    } else {
      unlink(r);
    }
  }

  // Moves what the clock has reached into the heap.
  void advance(nanos now) {
    const std::uint64_t target = tick_of(now) + 1;
    if (target <= base_) return;
    for (std::uint32_t level = lowest_level(); level < levels; level = lowest_level()) {
      const std::uint32_t bucket = earliest_bucket(level);
      const std::uint64_t start = start_of(level, bucket);
      if (level == 0 ? start >= target : start > target) break;
      base_ = level == 0 ? start + 1 : start;
      spread(bucket);
    }
    base_ = target;
  }

  // The earliest timer due at `now`, after advance(now), or nullptr. It stays where it is.
  record* due(nanos now) const noexcept {
    return heap_size_ != 0 && heap_[0].deadline <= now ? heap_[0].timer : nullptr;
  }

  // Not later than the earliest deadline, and equal to it unless more than a handful of timers
  // share the earliest bucket: then it is the bucket's beginning, and the wake there is for all.
  nanos next_wake() const noexcept {
    if (heap_size_ != 0) return heap_[0].deadline;
    const std::uint32_t level = lowest_level();
    if (level == levels) return never;
    const std::uint32_t bucket = earliest_bucket(level);
    nanos earliest = never;
    std::size_t seen = 0;
    for (const record* r = buckets_[bucket]; r != nullptr; r = r->next) {
      if (++seen > handful) return time_of(start_of(level, bucket));
      if (r->deadline < earliest) earliest = r->deadline;
    }
    return earliest;
  }

 private:
  static constexpr std::uint32_t tick_bits = 16;
  static constexpr std::uint32_t levels = 8;
  static constexpr std::uint32_t digit_bits = 6;
  static constexpr std::uint32_t buckets_per_level = 1u << digit_bits;
  static constexpr std::uint32_t held = levels * buckets_per_level;  // no level looks there
  static constexpr std::size_t handful = 16;

  struct entry {
    nanos deadline;
    std::uint64_t order;
    record* timer;
    bool before(const entry& other) const noexcept {
      return deadline != other.deadline ? deadline < other.deadline : order < other.order;
    }
  };

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

  void link(record& r, std::uint32_t bucket) noexcept {
    r.in_heap = false;
    r.place = bucket;
    r.prev = nullptr;
    r.next = buckets_[bucket];
    if (r.next != nullptr) r.next->prev = &r;
    buckets_[bucket] = &r;
    occupied_[bucket / buckets_per_level] |= std::uint64_t{1} << bucket % buckets_per_level;
  }

  void unlink(record& r) noexcept {
    if (r.next != nullptr) r.next->prev = r.prev;
    if (r.prev != nullptr) {
      r.prev->next = r.next;
      return;
    }
    buckets_[r.place] = r.next;
    if (r.next == nullptr) clear_bit(r.place);
  }

  void clear_bit(std::uint32_t bucket) noexcept {
    occupied_[bucket / buckets_per_level] &= ~(std::uint64_t{1} << bucket % buckets_per_level);
  }

  // Puts a bucket's timers where they belong now that the base has moved.
  void spread(std::uint32_t bucket) {
    record* r = buckets_[bucket];
    buckets_[bucket] = nullptr;
    clear_bit(bucket);
    while (r != nullptr) {
      record* next = r->next;
      insert(*r);
      r = next;
    }
  }

  // A heap of four children a node: half as deep as a binary one, and the four share two lines.
  void heap_push(record& r) {
    if (heap_size_ == heap_room_) heap_grow();
    r.in_heap = true;
    sift_up(heap_size_++, {r.deadline, r.order, &r});
  }

  void heap_erase(std::size_t at) noexcept {
    const entry last = heap_[--heap_size_];
    if (at == heap_size_) return;
    if (at > 0 && last.before(heap_[(at - 1) / 4])) {
      sift_up(at, last);
    } else {
      sift_down(at, last);
    }
  }

  void sift_up(std::size_t at, const entry& e) noexcept {
    while (at > 0 && e.before(heap_[(at - 1) / 4])) {
      set(at, heap_[(at - 1) / 4]);
      at = (at - 1) / 4;
    }
    set(at, e);
  }

  void sift_down(std::size_t at, const entry& e) noexcept {
    for (std::size_t child = 4 * at + 1; child < heap_size_; child = 4 * at + 1) {
      const std::size_t end = child + 4 < heap_size_ ? child + 4 : heap_size_;
      std::size_t least = child;
      for (std::size_t i = child + 1; i < end; ++i) {
        if (heap_[i].before(heap_[least])) least = i;
      }
      if (!heap_[least].before(e)) break;
      set(at, heap_[least]);
      at = least;
    }
    set(at, e);
  }

  void set(std::size_t at, const entry& e) noexcept {
    heap_[at] = e;
    e.timer->place = static_cast<std::uint32_t>(at);
  }

  void heap_grow() {
    const std::size_t wider = heap_room_ == 0 ? 64 : heap_room_ * 2;
    auto* heap = static_cast<entry*>(heap_take(wider * sizeof(entry), alignof(entry)));
    if (heap == nullptr) fail("out of memory for due timers");
    if (heap_size_ != 0) std::memcpy(heap, heap_, heap_size_ * sizeof(entry));
    if (heap_ != nullptr) heap_give(heap_, alignof(entry));
    heap_ = heap;
    heap_room_ = wider;
  }

  std::uint64_t base_ = 0;
  std::uint64_t occupied_[levels + 1] = {};
  record* buckets_[held + 1] = {};
  entry* heap_ = nullptr;
  std::size_t heap_size_ = 0;
  std::size_t heap_room_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
