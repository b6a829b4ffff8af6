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

// The word of a timer is its generation and these flags, changed by CAS only.
//
// Edge [timer]: cancel() is exact, and so is firing.
//
//   any thread                              loop thread
//   T1  armed -> ended: it will not run     T2  armed -> running: it runs
//   T3  running and repeating -> ended:     T4  running -> armed, or finds `ended` and stops
//       it will not run again
//
// All are acq_rel CASes on one word: exactly one of T1 and T2 succeeds, and the record goes back to
// the table only after the loop thread has seen `ended`, so T1 reads no stranger's timer: a record
// handed out again carries another generation.
namespace timer_flag {
inline constexpr std::uint64_t armed = 1;
inline constexpr std::uint64_t running = 2;
inline constexpr std::uint64_t repeats = 4;
inline constexpr std::uint64_t ended = 8;
inline constexpr std::uint64_t moving = 16;  // a reschedule is on its way; do not fire meanwhile
inline constexpr std::uint64_t all = 255;
}  // namespace timer_flag

template <class Traits>
struct timer_record {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  // Any thread.
  atomic<std::uint64_t> word{0};
  atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;            // set once
  atomic<nanos> wanted{0};            // the deadline that a reschedule asks for

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
