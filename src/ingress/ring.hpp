// ingress/ring.hpp - a bounded ring of slots that many threads fill and the loop thread runs
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "ingress/slot_array.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Many producers, one consumer, after D. Vyukov's bounded queue (2010). A producer claims an index by
// advancing the tail.
//
// The tail also carries the closed bit, so that acceptance *is* the claim: what was claimed before
// the ring closed will be run, and nothing is claimed after.
//
// Edge [close]: everything claimed before the close is run or destroyed.
//
//   closer                                  loop thread
//   C1  tail |= closed                      C3  sees the close bit of the status word
//   C2  status |= close (release)           C4  tail: load; leaves when head has reached it
//
// The claim is a compare-and-swap on the word that C1 changes, so it lands before C1 and is
// counted, or fails and answers `closed`. Rule: a read-modify-write reads the last value before its own
// [atomics.order]; C3 synchronises with C2, so C4 reads C1 or later, and all claims with it.
template <class Traits>
class ring : public slot_array<Traits> {
 public:
  using answer = claim_answer;
  static constexpr std::uint64_t closed = std::uint64_t{1} << 63;

  using slot_array<Traits>::slot_array;

  // Any thread. On `claimed` the caller owes a publish() of the index, whatever happens.
  answer claim(std::uint64_t& index) noexcept {
    std::uint64_t tail = tail_.load(std::memory_order_seq_cst);  // [close] C1; the CAS decides
    for (;;) {
      if ((tail & closed) != 0) return answer::closed;
      // A negative difference is a tail that went stale while we slept: the CAS refuses it.
      if (this->exceeds(tail, known_head_.load(std::memory_order_acquire))) {  // [head] H3
        const std::uint64_t head = this->head_seen();
        known_head_.store(head, std::memory_order_release);  // [head] H3, handed on to other producers
        const std::uint64_t again = tail_.load(std::memory_order_seq_cst);  // [close] C1
        if (again == tail && this->exceeds(tail, head)) return answer::full;
        tail = again;
        continue;
      }
      if (tail_.compare_exchange_weak(tail, tail + 1, std::memory_order_seq_cst,  // [close] C1
                                      std::memory_order_seq_cst)) {  // [close] C1
        index = tail;
        return answer::claimed;
      }
    }
  }

  // Any thread: the claims so far.
  std::uint64_t tail() const noexcept {
    return tail_.load(std::memory_order_seq_cst) & ~closed;  // [close] C4
  }
  bool has_room() const noexcept { return !this->exceeds(tail(), this->head_seen()); }
  bool is_closed() const noexcept {
    return (tail_.load(std::memory_order_seq_cst) & closed) != 0;  // [close] C1, [room] R2
  }
  void close() noexcept { tail_.fetch_or(closed, std::memory_order_seq_cst); }  // [close] C1

 private:
  // Producers: with the tail, the last head that one of them has seen. The loop thread looks at
  // neither while it works, and they look at its head when this one says "full": in each direction
  // the line of the slot is all that travels.
  alignas(cache_line) typename Traits::template atomic<std::uint64_t> tail_{0};
  typename Traits::template atomic<std::uint64_t> known_head_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
