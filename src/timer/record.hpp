// timer/record.hpp - one timer: what any thread may ask of it, and what only the loop thread touches
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/handle.hpp"
#include "base/pause.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN

// How a repeating timer counts.
enum class repeat : std::uint8_t {
  fixed_rate,   // every period from the first deadline on; what was missed is made up for
  fixed_delay,  // a period after the end of each run
  skip_missed   // every period from the first deadline on; what was missed is left out
};

namespace detail {

// The word of a timer is these flags, its generation, and the number of the last move that another
// thread asked for. A timer has runs left while it is armed, or runs and repeats.
//
// Edge [timer]: cancel() is exact, and so is firing.
//
//   any thread                              loop thread
//   T1  armed -> ended: it will not run     T2  armed -> running: it runs
//   T3  running and repeating -> ended:     T4  running -> armed, or finds `ended` and stops
//       it will not run again
//   T5  a move is announced: next number,   T6  the move arrives, and has the last number:
//       `moving`; it may not fire               it may fire again
//
// All are acq_rel read-modify-writes of one word: exactly one of T1 and T2 succeeds. Rule: each reads the
// last value, and synchronises with who wrote it [atomics.order]. Once no runs
// are left only the loop thread changes the word, so a store wipes it before the record goes back
// to the table. A record that is handed out again carries another generation: who comes late finds
// a stranger, and has touched nothing but this word.
namespace timer_flag {
inline constexpr std::uint64_t armed = 1;
inline constexpr std::uint64_t running = 2;
inline constexpr std::uint64_t repeats = 4;
inline constexpr std::uint64_t ended = 8;
inline constexpr std::uint64_t moving = 16;
inline constexpr std::uint64_t generation = 0xffffffffull << 8;
inline constexpr std::uint64_t one_move = 1ull << 40;
}  // namespace timer_flag

// Two lines of 64 bytes; what cancel() needs is in the first, with the first word of the closure.
template <class Traits>
struct alignas(64) timer_record {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  // Any thread.
  atomic<std::uint64_t> word{0};
  atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;  // set once

  // The loop thread; before it knows the timer, its maker.
  nanos deadline = 0;
  nanos period = 0;
  std::uint64_t order = 0;  // where it stands in the wheel; 0 is nowhere
  timer_record* next_spare = nullptr;
  repeat how = repeat::fixed_rate;
  bool ours = false;        // made by the loop thread
  bool held = false;        // stands aside until the next turn
  bool stray = false;       // stands among those for whom there was no memory
  bool started = false;     // counted
  bool moved = false;       // while running: the deadline is the next one already
  bool referenced = true;
  unique_task task;
  timer_record* previous_stray = nullptr;

  // Soon to be armed, or to fire. The clock that is read in between waits for every load before it, but
  // not for these.
  void bring_near() const noexcept {
    prefetch_to_write(this);
    prefetch_to_write(reinterpret_cast<const unsigned char*>(this) + 64);
  }

  // The loop thread: the next one of a repeating timer whose run has ended.
  nanos deadline_after(nanos now) const noexcept {
    if (how == repeat::fixed_delay) return saturating_add(now, period);
    const nanos next = saturating_add(deadline, period);
    if (how == repeat::fixed_rate || next > now) return next;
    const nanos missed = (now - deadline) / period;
    return saturating_add(deadline + missed * period, period);
  }

  static std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 8);
  }
  static std::uint64_t make_word(std::uint32_t generation, std::uint64_t flags) noexcept {
    return std::uint64_t{generation} << 8 | flags;
  }
  static bool has_runs_left(std::uint64_t word) noexcept {
    if ((word & timer_flag::ended) != 0) return false;
    constexpr std::uint64_t between_runs = timer_flag::running | timer_flag::repeats;
    return (word & timer_flag::armed) != 0 || (word & between_runs) == between_runs;
  }
};

// One standing of a timer. Each has a number of its own, and a timer leaves by forgetting it: nobody
// looks for the entry, which is dropped where it is met.
template <class Traits>
struct timer_entry {
  nanos deadline;
  std::uint64_t order;  // FIFO among equals
  timer_record<Traits>* timer;

  bool stands() const noexcept { return timer->order == order; }
  bool before(const timer_entry& other) const noexcept {
    return deadline != other.deadline ? deadline < other.deadline : order < other.order;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
