// loop/options.hpp - how a loop is made, and what it tells about itself
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>

#include "base/config.hpp"
#include "ingress/room.hpp"

HYBRIDLOOP_OPEN

struct loop_options {
  // Slots of the hot queue, rounded up to a power of two, at least 2.
  std::size_t ring_capacity = detail::default_ring_capacity;

  // Pre-allocated blocks behind the ring; 0 is allowed.
  std::size_t arena_capacity = detail::default_arena_capacity;

  // When ring and arena are both full. Read by: post, dispatch, post_range, invoke.
  overflow when_full = overflow::spill;

  // Where the loop sleeps; see HYBRIDLOOP_FAST_PATH.
  fast_path path = detail::default_path;

  // The longest look at empty queues before parking; 0 = never. Ignored by: fast_path::off, and
  // a process that may use one CPU only.
  std::chrono::nanoseconds spin = detail::default_spin;

  // invoke() may be run by its caller, as the loop, while the loop thread sleeps in the channel: nobody
  // is woken for it. Gives up thread affinity: tasks, still one at a time and in order, may run on
  // any thread that calls invoke(), and "the loop thread" is the one that runs them. Ignored by:
  // fast_path::off, a loop that watches descriptors (but for fast_path::mini), run_once().
  bool caller_runs = false;

  // Takes what tasks, timers and watch callbacks throw; without it an exception leaves run().
  // Called where they ran.
  void (*on_exception)(std::exception_ptr) = nullptr;
};

// What run_budget() answers.
template <class Clock>
struct basic_frame_report {
  std::size_t ran = 0;      // tasks, timers and watch callbacks
  // What was ready and was not run: posted, deferred and microtasks, due timers, and descriptors that
  // the kernel had reported. What other threads sent about timers and watches counts as posted.
  std::size_t pending = 0;
  std::optional<typename Clock::time_point> next_deadline;  // the earliest timer's; none: no timer
  typename Clock::duration over_by{};                       // past the budget; 0 within
};

// Counters since construction. stats() may be called by any thread; each field is exact once the
// loop and its posters are at rest, and never torn.
struct loop_stats {
  std::uint64_t turns = 0;
  std::uint64_t tasks = 0;          // tasks, timers and watch callbacks run
  std::uint64_t posts = 0;          // accepted, and what callers of invoke() ran themselves
  std::uint64_t spilled = 0;        // accepted while the ring was full
  std::uint64_t heap_tasks = 0;     // closures and spilled tasks that the arena had no block for
  std::uint64_t wakes_channel = 0;  // a sleep in the channel ended by another thread
  std::uint64_t wakes_poller = 0;   // a sleep in the poller ended by another thread
  std::uint64_t wakes_saved = 0;    // posts that needed no wake
  std::uint64_t loans = 0;          // calls of invoke() whose caller ran it; see caller_runs
  std::uint64_t rescued = 0;        // HYBRIDLOOP_RESCUE_MS found work: a lost wake
  std::uint64_t parks = 0;
  std::uint64_t in_channel = 0;     // parks in the channel
  std::uint64_t in_poller = 0;      // parks in the poller
  std::uint64_t spun_ns = 0;
  std::uint64_t parked_ns = 0;
  std::size_t arena_in_use = 0;
  std::size_t arena_high = 0;
  std::size_t ring_high = 0;        // as the loop saw it; below 64, what it ran in one go
  std::size_t timers = 0;
  std::size_t watches = 0;
  std::uint64_t stale_events = 0;   // events of an earlier owner of a descriptor number, dropped
  std::uint64_t microtasks_deferred = 0;  // turns that ended with microtasks left over
  fast_path path = fast_path::full;
};

namespace detail {

// A number that one thread writes and any thread reads.
template <class Traits, class T = std::uint64_t>
class tally {
 public:
  void add(T n) noexcept {
    if constexpr (stats_kept) set(get() + n);
  }
  void set(T n) noexcept { value_.store(n, std::memory_order_relaxed); }  // ours alone to write
  T get() const noexcept { return value_.load(std::memory_order_relaxed); }  // a hint; statistics

 private:
  typename Traits::template atomic<T> value_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
