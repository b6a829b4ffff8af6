// ingress/lane_ring.hpp - a bounded ring of slots that one thread fills and the loop thread runs
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "ingress/slot_array.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// One producer: nobody contends for the tail, so a claim is a plain addition, and the producer asks
// for the head only when the one it knows says "full". After L. Lamport's queue (1983), with the
// head known of old as in MCRingBuffer by P. Lee, T. Bu and G. Chandranmenon (2010).
//
// A claim that nobody counts cannot be what a close waits for; the lane's busy flag is (edge [busy]).
template <class Traits>
class lane_ring : public slot_array<Traits> {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using answer = claim_answer;

  lane_ring(void* zeroed, std::size_t capacity, const atomic<std::uint32_t>& closed) noexcept
      : slot_array<Traits>(zeroed, capacity), closed_(closed) {}

  // The producer, while it is busy. On `claimed` it owes a publish() of the index, whatever happens.
  answer claim(std::uint64_t& index) noexcept {
    if (is_closed()) return answer::closed;
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);  // ours alone
    if (this->exceeds(tail, known_head_)) {
      known_head_ = this->head_seen();
      if (this->exceeds(tail, known_head_)) return answer::full;
    }
    tail_.store(tail + 1, std::memory_order_relaxed);  // ours alone to write
    index = tail;
    return answer::claimed;
  }

  // Any thread: the claims so far, of those that the caller knows to have begun.
  std::uint64_t tail() const noexcept {
    return tail_.load(std::memory_order_relaxed);  // a hint; who must know has seen the lane not busy
  }
  bool has_room() const noexcept { return !this->exceeds(tail(), this->head_seen()); }
  bool is_closed() const noexcept {
    return closed_.load(std::memory_order_seq_cst) != 0;  // [busy] D2, [room] R2
  }

 private:
  // The producer.
  alignas(cache_line) atomic<std::uint64_t> tail_{0};
  std::uint64_t known_head_ = 0;
  const atomic<std::uint32_t>& closed_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
