// timer/bag.hpp - the timers of one bucket of the wheel, in no order
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "task/memory.hpp"
#include "timer/record.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Memory for the bags of one loop, kept for the next one that needs it.
template <class Traits>
class timer_chunks {
 public:
  static constexpr std::uint32_t size = 32;
  struct chunk {
    chunk* older;
    timer_entry<Traits> entries[size];
  };

  timer_chunks() noexcept = default;
  timer_chunks(const timer_chunks&) = delete;
  timer_chunks& operator=(const timer_chunks&) = delete;
  ~timer_chunks() {
    while (free_ != nullptr) heap_give(take(), alignof(chunk));
  }

  // nullptr: the heap is empty.
  chunk* take() noexcept {
    if (free_ == nullptr) return static_cast<chunk*>(heap_take(sizeof(chunk), alignof(chunk)));
    return std::exchange(free_, free_->older);
  }
  void give(chunk* c) noexcept {
    c->older = free_;
    free_ = c;
  }

 private:
  chunk* free_ = nullptr;
};

// Putting an entry in writes where the last one was written, and taking all out reads in line: no
// timer's memory is touched for another timer's sake. Timers that left stay as entries until half of
// the bag has gone; then each one that leaves has a chunk looked through. So a bag is never much
// larger than twice what stands in it, and nobody ever waits for all of it. The loop thread only.
template <class Traits>
class timer_bag {
 public:
  using entry = timer_entry<Traits>;
  using chunks = timer_chunks<Traits>;

  bool empty() const noexcept { return size_ == 0; }

  // False: there is no memory for it.
  bool put(const entry& e, chunks& spare) noexcept {
    if (size_ % chunks::size == 0) {
      chunk* fresh = spare.take();
      if (fresh == nullptr) return false;
      fresh->older = newest_;
      newest_ = fresh;
    }
    ++size_;
    last() = e;
    return true;
  }

  // A timer has left. If it came last, as one that is armed and cancelled at once did, it goes now.
  void drop_gone(chunks& spare) noexcept {
    ++gone_;
    while (gone_ != 0 && !last().stands()) drop_last_gone(spare);
    if (gone_ > size_ / 2 + few) sweep(spare);
  }

  // Calls f for each entry, and is empty before the first call.
  template <class F>
  void empty_out(chunks& spare, const F& f) {
    timer_bag all = *this;
    *this = timer_bag();
    while (all.newest_ != nullptr) {
      chunk* c = all.newest_;
      const std::uint32_t count = all.filled(c);
      for (std::uint32_t i = 0; i < count; ++i) f(c->entries[i]);
      all.size_ -= count;
      all.newest_ = c->older;
      spare.give(c);
    }
  }
  bool all_stand() const noexcept { return gone_ == 0; }
  std::size_t standing() const noexcept { return size_ - gone_; }
  std::size_t count_due(nanos now) const noexcept {
    std::size_t count = 0;
    for_each([&count, now](const entry& e) { count += e.deadline <= now && e.stands() ? 1u : 0u; });
    return count;
  }

  // The earliest deadline, or `crowd` if there are more than a handful; `never` when nobody stands
  // here any more, and then the bag is empty. What it puts back has the chunks that it took out.
  nanos earliest(nanos crowd, chunks& spare) {
    entry kept[handful + 1];
    std::size_t count = 0;
    nanos least = never;
    while (size_ != 0 && count <= handful) {
      const entry e = last();
      if (e.stands()) {
        drop_last(spare);
        kept[count++] = e;
        if (e.deadline < least) least = e.deadline;
      } else {
        drop_last_gone(spare);
      }
    }
    for (std::size_t i = 0; i < count; ++i) put(kept[i], spare);
    return count > handful ? crowd : least;
  }

  // Exactly, however many there are; `none` when nobody stands here.
  entry soonest(const entry& none) const noexcept {
    entry least = none;
    for_each([&least](const entry& e) {
      if (e.stands() && e.before(least)) least = e;
    });
    return least;
  }

 private:
  using chunk = typename chunks::chunk;
  static constexpr std::size_t handful = 16;
  static constexpr std::uint32_t few = 64;

  template <class F>
  void for_each(const F& f) const {
    for (const chunk* c = newest_; c != nullptr; c = c->older) {
      for (std::uint32_t i = 0; i < filled(c); ++i) f(c->entries[i]);
    }
  }

  entry& last() const noexcept { return newest_->entries[(size_ - 1) % chunks::size]; }
  std::uint32_t filled(const chunk* c) const noexcept {
    return c == newest_ ? (size_ - 1) % chunks::size + 1 : chunks::size;
  }

  void drop_last(chunks& spare) noexcept {
    if (--size_ % chunks::size != 0) return;
    chunk* empty = newest_;
    newest_ = empty->older;
    if (swept_ == empty) swept_ = nullptr;
    spare.give(empty);
  }
  void drop_last_gone(chunks& spare) noexcept {
    --gone_;
    drop_last(spare);
  }

  // One chunk further than the last time. From its end, so that what the last entry of the bag is
  // moved over has been looked at.
  void sweep(chunks& spare) noexcept {
    chunk* c = swept_ != nullptr ? swept_->older : nullptr;
    if (c == nullptr) c = newest_;
    swept_ = c;
    for (std::uint32_t i = filled(c); i-- > 0;) {
      if (c->entries[i].stands()) continue;
      c->entries[i] = last();
      drop_last_gone(spare);
    }
  }

  chunk* newest_ = nullptr;  // the others are full
  chunk* swept_ = nullptr;
  std::uint32_t size_ = 0;
  std::uint32_t gone_ = 0;   // entries that do not stand
};

}  // namespace detail
HYBRIDLOOP_CLOSE
