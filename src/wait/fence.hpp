// wait/fence.hpp - the barrier that a sleeper pays so that posters need not
#pragma once

#include <atomic>
#include <cstdint>

#include "wait/kernel.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// membarrier(2), private expedited: returns when every other thread of the process has passed a
// full barrier. Registration is per process: microseconds while it has one thread, a grace period of
// the kernel (some 10 ms) when it has more, so a loop does it when it is made.
#if HYBRIDLOOP_OS(LINUX)
template <class Kernel>
struct process_barrier {
  // Whether issue() may be counted on.
  static bool available() noexcept {
    int state = known().load(std::memory_order_relaxed);  // a hint; asking twice is harmless
    if (state == unknown) {
      state = Kernel::membarrier(Kernel::membarrier_register_expedited) == 0 ? yes : no;
      known().store(state, std::memory_order_relaxed);  // a hint; asking twice is harmless
    }
    return state == yes;
  }

  // False when the kernel has come to refuse it (a sandbox, a restored checkpoint).
  static bool issue() noexcept {
    if (Kernel::membarrier(Kernel::membarrier_expedited) == 0) return true;
    return Kernel::membarrier(Kernel::membarrier_register_expedited) == 0 &&
           Kernel::membarrier(Kernel::membarrier_expedited) == 0;
  }

  // The one barrier on the way back to symmetric posting, after issue() failed: the slow command,
  // which needs no registration, and where even that is refused a pause in which the other CPUs'
  // store buffers have long drained.
  static void issue_last() noexcept {
    known().store(no, std::memory_order_relaxed);  // a hint; asking twice is harmless
    if (Kernel::membarrier(Kernel::membarrier_global) == 0) return;
    for (int i = 0; i < 1000; ++i) Kernel::yield();
  }

 private:
  enum : int { unknown, yes, no };
  static std::atomic<int>& known() noexcept {
    static std::atomic<int> state{unknown};
    return state;
  }
};

template <class Kernel>
using system_barrier = process_barrier<Kernel>;
#elif HYBRIDLOOP_OS(WINDOWS)
// FlushProcessWriteBuffers, which takes no registration. Wine's does nothing, or did for long.
template <class Kernel>
struct process_barrier {
  static bool available() noexcept { return Kernel::can_flush_write_buffers(); }
  static bool issue() noexcept {
    Kernel::flush_write_buffers();
    return true;
  }
  static void issue_last() noexcept { Kernel::flush_write_buffers(); }
};

template <class Kernel>
using system_barrier = process_barrier<Kernel>;
#else
// Where the kernel has no such call, posters pay for themselves.
template <class Kernel>
struct no_barrier {
  static bool available() noexcept { return false; }
  static bool issue() noexcept { return false; }
  static void issue_last() noexcept {}
};

template <class Kernel>
using system_barrier = no_barrier<Kernel>;
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
