// task/index_stack.hpp - a lock-free stack of free indices, for tables whose entries never move
#pragma once

#include <atomic>
#include <cstdint>

#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Treiber's stack (R. K. Treiber, 1986) over indices instead of pointers. The head carries the
// number of pops beside the index, so a pop that slept while its entry went out and came back
// (ABA) fails and looks again; the links are atomics that are never part of an entry's payload.
//
// Edge [free]: who takes an index sees everything its last holder did to the entry.
//
//   holder                                  taker
//   F1  head: CAS in, release               F2  head: load or failed CAS, acquire
//
// Rule: every change of the head is a read-modify-write, so F2 meets F1 through any number of pushes
// and pops in between (they continue its release sequence, [intro.races]).
//
// Any thread: everything.
template <class Traits>
class index_stack {
 public:
  static constexpr std::uint32_t none = 0xffffffff;

  // `link_of(i)` is the atomic link of entry i.
  template <class LinkOf>
  std::uint32_t pop(LinkOf&& link_of) noexcept {
    std::uint64_t head = head_.load(std::memory_order_seq_cst);  // [free] F2, [room] R2
    for (;;) {
      const auto top = static_cast<std::uint32_t>(head);
      if (top == 0) return none;
      const std::uint64_t next = link_of(top - 1).load(std::memory_order_relaxed);  // a hint; the CAS decides
      const std::uint64_t pops = (head >> 32) + 1;
      if (head_.compare_exchange_weak(head, pops << 32 | next, std::memory_order_acquire,  // [free] F2
                                      std::memory_order_acquire)) {  // [free] F2
        return top - 1;
      }
    }
  }

  // A chain whose links the caller has set from `first` on, in one step; what was on top follows
  // `last`. seq_cst because [room] counts on it: a poster that waits for a block looks for one here.
  template <class LinkOf>
  void push_chain(std::uint32_t first, std::uint32_t last, LinkOf&& link_of) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      link_of(last).store(static_cast<std::uint32_t>(head), std::memory_order_relaxed);  // ours alone until the CAS
      const std::uint64_t next = (head >> 32) << 32 | (first + 1);
      if (head_.compare_exchange_weak(head, next, std::memory_order_seq_cst,  // [free] F1, [room] R3
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return;
      }
    }
  }
  template <class LinkOf>
  void push(std::uint32_t index, LinkOf&& link_of) noexcept {
    push_chain(index, index, link_of);
  }

  // Before push_chain: `next` follows `index`, which nobody else can reach yet.
  template <class LinkOf>
  static void chain(std::uint32_t index, std::uint32_t next, LinkOf&& link_of) noexcept {
    link_of(index).store(next + 1, std::memory_order_relaxed);  // ours alone until the CAS
  }

  // Number of pops so far, modulo 2^32.
  std::uint32_t pops() const noexcept {
    return static_cast<std::uint32_t>(head_.load(std::memory_order_relaxed) >> 32);  // a hint; statistics
  }

 private:
  typename Traits::template atomic<std::uint64_t> head_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
