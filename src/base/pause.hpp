// base/pause.hpp - one polite step of a spin
#pragma once

#include <atomic>

#include "base/config.hpp"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <intrin.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// 10 to 140 cycles, by the CPU: spins are bounded by the clock, never by a count of these.
#if defined(__x86_64__) || defined(__i386__)
inline void cpu_pause() noexcept { __builtin_ia32_pause(); }
#elif defined(__aarch64__) || defined(__arm__)
inline void cpu_pause() noexcept { __asm__ __volatile__("yield" ::: "memory"); }
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
inline void cpu_pause() noexcept { _mm_pause(); }
#else
inline void cpu_pause() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }  // ours alone
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
