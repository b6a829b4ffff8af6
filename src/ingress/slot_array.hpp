// ingress/slot_array.hpp - slots that producers fill and the loop thread runs, in the order of their claims
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "base/pause.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

enum class claim_answer : std::uint8_t { claimed, full, closed };

// What a ring of many producers and one of a single producer share: all but the claim.
//
// A producer claims an index, builds its closure in the slot that the index names, and publishes the
// slot by writing its lap (index + 1: no two claims of a slot share one, and zeroed memory is an
// empty ring). The loop thread walks the slots in the order of the claims and runs each closure where
// it lies. Slots are written by producers only; the loop thread answers with one published head for
// a whole batch.
//
// Edge [slot]: the loop thread sees the closure.
//
//   producer                                loop thread
//   S1  closure built                       S3  lap: load, acquire; it is index + 1
//   S2  lap = index + 1, release            S4  closure runs
//
// Rule: S3 reads S2, and no other store of that value, and synchronises with it [atomics.order].
//
// Edge [head]: a producer never builds into a slot whose closure still lives.
//
//   loop thread                             producer
//   H1  closures destroyed                  H3  head: load, acquire (seq_cst serves [room] too)
//   H2  head, release (seq_cst: [room])     H4  claims index < head + capacity, builds
//
// Rule: H3 synchronises with H2 [atomics.order]. A producer that has the head from another one has it by
// a release too, so H1 happens before H4 all the same [intro.races].
template <class Traits>
class slot_array {
 protected:
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  struct slot {
    atomic<std::uint64_t> lap;
    unique_task task;
  };

  // `capacity` is a power of two, `zeroed` is capacity slots of zeroed memory.
  slot_array(void* zeroed, std::size_t capacity) noexcept
      : slots_(static_cast<slot*>(zeroed)), mask_(capacity - 1) {}
  slot_array(const slot_array&) = delete;
  slot_array& operator=(const slot_array&) = delete;

  // The claimer: the place to build in. Every slot was last read by the loop thread, and a store to it
  // would wait, or a locked instruction behind it, until its line is here: so a later one is asked for.
  unique_task& task_at(std::uint64_t index) noexcept {
    prefetch_to_write(&slots_[(index + 8) & mask_]);
    return slots_[index & mask_].task;
  }

  // The claimer, once. `strong` makes the store part of the total order that [sleep] needs.
  void publish(std::uint64_t index, bool strong) noexcept {
    atomic<std::uint64_t>& lap = slots_[index & mask_].lap;
    if (strong) {
      lap.store(index + 1, std::memory_order_seq_cst);  // [slot] S2, [sleep] P1
    } else {
      lap.store(index + 1, std::memory_order_release);  // [slot] S2, [sleep] P1 with a barrier
    }
  }

  std::size_t capacity() const noexcept { return static_cast<std::size_t>(mask_ + 1); }

  // The loop thread from here on.
  std::uint64_t head() const noexcept { return head_; }
  bool published(std::uint64_t index) const noexcept {
    return slots_[index & mask_].lap.load(std::memory_order_acquire) == index + 1;  // [slot] S3
  }
  // The last look before a sleep. Takes the index, because a thread that borrows the loop may move
  // the head meanwhile.
  bool published_before_sleep(std::uint64_t index) const noexcept {
    return slots_[index & mask_].lap.load(std::memory_order_seq_cst) == index + 1;  // [sleep] L2
  }
  void advance() noexcept { ++head_; }

  // Publishes the head, up to the oldest task that still runs in its slot. False: one does.
  bool publish_head(std::uint64_t bound) noexcept {
    const bool all = bound >= head_;
    head_out_.store(all ? head_ : bound, std::memory_order_seq_cst);  // [head] H2, [room] R3
    return all;
  }

 protected:
  // A claimer.
  std::uint64_t head_seen() const noexcept {
    return head_out_.load(std::memory_order_seq_cst);  // [head] H3, [room] R2
  }
  bool exceeds(std::uint64_t tail, std::uint64_t head) const noexcept {
    return static_cast<std::int64_t>(tail - head) > static_cast<std::int64_t>(mask_);
  }

 private:
  // Set once, read by all.
  slot* const slots_;
  const std::uint64_t mask_;

  // Written by the loop thread once a batch, read by producers.
  alignas(cache_line) atomic<std::uint64_t> head_out_{0};

  // The loop thread.
  alignas(cache_line) std::uint64_t head_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
