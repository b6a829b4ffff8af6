// timer/heap.hpp - the timers whose tick has come, in exact order
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "task/memory.hpp"
#include "timer/record.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Four children a node: half as deep as a binary heap, and the four share two lines. The loop
// thread only.
template <class Traits>
class timer_heap {
 public:
  using entry = timer_entry<Traits>;

  timer_heap() noexcept = default;
  timer_heap(const timer_heap&) = delete;
  timer_heap& operator=(const timer_heap&) = delete;
  ~timer_heap() {
    if (entries_ != nullptr) heap_give(entries_, alignof(entry));
  }

  bool empty() const noexcept { return size_ == 0; }
  const entry& top() const noexcept { return entries_[0]; }

  // False: there is no memory for it.
  bool push(const entry& e) noexcept {
    if (size_ == room_ && !grow()) return false;
    std::size_t at = size_++;
    for (; at > 0 && e.before(entries_[(at - 1) / 4]); at = (at - 1) / 4) {
      entries_[at] = entries_[(at - 1) / 4];
    }
    entries_[at] = e;
    return true;
  }

  void pop() noexcept {
    if (!top().stands()) --gone_;
    if (--size_ != 0) sift_down(entry(entries_[size_]));
  }

  std::size_t standing() const noexcept { return size_ - gone_; }
  std::size_t count_due(nanos now) const noexcept {
    std::size_t count = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      if (entries_[i].deadline <= now && entries_[i].stands()) ++count;
    }
    return count;
  }

  // A timer has left. Entries that came last go at once, the others when they are the larger part.
  void drop_gone() noexcept {
    ++gone_;
    for (; gone_ != 0 && !entries_[size_ - 1].stands(); --gone_) --size_;
    if (gone_ > size_ / 2 + few) drop_all_gone();
  }

 private:
  static constexpr std::size_t few = 64;

  void sift_down(const entry& e) noexcept {
    std::size_t at = 0;
    for (std::size_t child = 1; child < size_; child = 4 * at + 1) {
      const std::size_t end = child + 4 < size_ ? child + 4 : size_;
      std::size_t least = child;
      for (std::size_t i = child + 1; i < end; ++i) {
        if (entries_[i].before(entries_[least])) least = i;
      }
      if (!entries_[least].before(e)) break;
      entries_[at] = entries_[least];
      at = least;
    }
    entries_[at] = e;
  }

  void drop_all_gone() noexcept {
    const std::size_t all = std::exchange(size_, 0);
    gone_ = 0;
    for (std::size_t i = 0; i < all; ++i) {
      if (entries_[i].stands()) push(entry(entries_[i]));
    }
  }

  bool grow() noexcept {
    const std::size_t wider = room_ == 0 ? 64 : room_ * 2;
    auto* entries = static_cast<entry*>(heap_take(wider * sizeof(entry), alignof(entry)));
    if (entries == nullptr) return false;
    if (size_ != 0) std::memcpy(entries, entries_, size_ * sizeof(entry));
    if (entries_ != nullptr) heap_give(entries_, alignof(entry));
    entries_ = entries;
    room_ = wider;
    return true;
  }

  entry* entries_ = nullptr;
  std::size_t size_ = 0;
  std::size_t room_ = 0;
  std::size_t gone_ = 0;  // entries that do not stand
};

}  // namespace detail
HYBRIDLOOP_CLOSE
