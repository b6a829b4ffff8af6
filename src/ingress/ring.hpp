// ingress/ring.hpp - a bounded ring of slots that many threads fill and the loop thread runs
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Many producers, one consumer, after D. Vyukov's bounded queue (2010).
//
// A producer claims an index by advancing the tail, builds its closure in the slot that the index
// names, and publishes the slot by writing its lap (index + 1: no two claims of a slot share one,
// and zeroed memory is an empty ring). The loop thread walks the slots in the order of the claims
// and runs each closure where it lies. Slots are written by producers only; the loop thread
// answers with one published head for a whole batch.
//
// The tail also carries the closed bit, so that acceptance *is* the claim: what was claimed before
// the ring closed will be run, and nothing is claimed after.
//
// Edge [slot]: the loop thread sees the closure.
//
//   producer                                loop thread
//   S1  closure built                       S3  lap: load, acquire; it is index + 1
//   S2  lap = index + 1, release            S4  closure runs
//
// Edge [head]: a producer never builds into a slot whose closure still lives.
//
//   loop thread                             producer
//   H1  closures destroyed                  H3  head: load, acquire (seq_cst serves [room] too)
//   H2  head, release (seq_cst: [room])     H4  claims index < head + capacity, builds
//
// Edge [close]: everything claimed before the close is run or destroyed.
//
//   closer                                  loop thread
//   C1  tail |= closed                      C3  sees the close bit of the status word
//   C2  status |= close (release)           C4  tail: load; leaves when head has reached it
//
// The claim is a compare-and-swap on the word that C1 changes, so it lands before C1 and is
// counted, or fails and answers `closed`.
template <class Traits>
class ring {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  static constexpr std::uint64_t closed = std::uint64_t{1} << 63;

  struct slot {
    atomic<std::uint64_t> lap;
    unique_task task;
  };

  enum class answer : std::uint8_t { claimed, full, closed };

  // `capacity` is a power of two, `zeroed` is capacity slots of zeroed memory.
  ring(void* zeroed, std::size_t capacity) noexcept
      : slots_(static_cast<slot*>(zeroed)), mask_(capacity - 1) {}
  ring(const ring&) = delete;
  ring& operator=(const ring&) = delete;

  // Any thread. On `claimed` the caller owes a publish() of the index, whatever happens.
  answer claim(std::uint64_t& index) noexcept {
    std::uint64_t tail = tail_.load(std::memory_order_seq_cst);  // [close] C1; the CAS decides
    for (;;) {
      if ((tail & closed) != 0) return answer::closed;
      const std::uint64_t head = head_out_.load(std::memory_order_seq_cst);  // [head] H3, [room] R2
      // A negative difference is a tail that went stale while we slept: the CAS refuses it.
      if (static_cast<std::int64_t>(tail - head) > static_cast<std::int64_t>(mask_)) {
        const std::uint64_t again = tail_.load(std::memory_order_seq_cst);  // [close] C1
        if (again == tail) return answer::full;
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

  // The claimer: the place to build in.
  unique_task& task_at(std::uint64_t index) noexcept { return slots_[index & mask_].task; }

  // The claimer, once. `strong` makes the store part of the total order that [sleep] needs.
  void publish(std::uint64_t index, bool strong) noexcept {
    atomic<std::uint64_t>& lap = slots_[index & mask_].lap;
    if (strong) {
      lap.store(index + 1, std::memory_order_seq_cst);  // [slot] S2, [sleep] P1
    } else {
      lap.store(index + 1, std::memory_order_release);  // [slot] S2, [sleep] P1 with a barrier
    }
  }

  // Any thread: the claims so far.
  std::uint64_t tail() const noexcept {
    return tail_.load(std::memory_order_seq_cst) & ~closed;  // [close] C4
  }
  bool is_closed() const noexcept {
    return (tail_.load(std::memory_order_seq_cst) & closed) != 0;  // [close] C1, [room] R2
  }
  void close() noexcept { tail_.fetch_or(closed, std::memory_order_seq_cst); }  // [close] C1

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

  // Publishes the head, up to the oldest task that still runs in its slot.
  void publish_head(std::uint64_t bound) noexcept {
    head_out_.store(bound < head_ ? bound : head_, std::memory_order_seq_cst);  // [head] H2, [room] R3
  }

  std::size_t capacity() const noexcept { return mask_ + 1; }

 private:
  // Set once, read by all.
  slot* const slots_;
  const std::uint64_t mask_;

  // Producers.
  alignas(cache_line) atomic<std::uint64_t> tail_{0};

  // Written by the loop thread once a batch, read by producers.
  alignas(cache_line) atomic<std::uint64_t> head_out_{0};

  // The loop thread.
  alignas(cache_line) std::uint64_t head_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
