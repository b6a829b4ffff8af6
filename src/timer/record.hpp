// timer/record.hpp - one timer: what any thread may ask of it, and what only the loop thread touches
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/handle.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN

// How a repeating timer counts.
enum class repeat : std::uint8_t {
  fixed_rate,   // every period from the first deadline on; what was missed is made up for
  fixed_delay,  // a period after the end of each run
  skip_missed   // every period from the first deadline on; what was missed is left out
};

namespace detail {

// The word of a timer is these flags, its generation, and the number of moves on their way to it.
//
// Edge [timer]: cancel() is exact, and so is firing.
//
//   any thread                              loop thread
//   T1  armed -> ended: it will not run     T2  armed -> running: it runs
//   T3  running and repeating -> ended:     T4  running -> armed, or finds `ended` and stops
//       it will not run again
//   T5  a move is announced: + one_move     T6  the move arrives: - one_move; at none, it may fire
//
// All are acq_rel read-modify-writes of one word: exactly one of T1 and T2 succeeds, and the record goes back to
// the table only after the loop thread has seen `ended`, so T1 reads no stranger's timer: a record
// handed out again carries another generation.
namespace timer_flag {
inline constexpr std::uint64_t armed = 1;
inline constexpr std::uint64_t running = 2;
inline constexpr std::uint64_t repeats = 4;
inline constexpr std::uint64_t ended = 8;
inline constexpr std::uint64_t generation = 0xffffffffull << 8;
inline constexpr std::uint64_t one_move = 1ull << 40;  // does not fire while there are any
}  // namespace timer_flag

template <class Traits>
struct timer_record {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  // Any thread.
  atomic<std::uint64_t> word{0};
  atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;            // set once

  // The loop thread.
  nanos deadline = 0;
  nanos period = 0;
  std::uint64_t order = 0;            // FIFO among equals
  timer_record* prev = nullptr;
  timer_record* next = nullptr;
  std::uint32_t place = 0;            // a bucket, or a position in the heap; see wheel.hpp
  repeat how = repeat::fixed_rate;
  bool in_heap = false;
  bool placed = false;                // stands in the wheel
  bool started = false;               // counted
  bool moved = false;                 // while running: the deadline is the next one already
  bool referenced = true;
  unique_task task;

  static std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 8);
  }
  static std::uint64_t make_word(std::uint32_t generation, std::uint64_t flags) noexcept {
    return std::uint64_t{generation} << 8 | flags;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
