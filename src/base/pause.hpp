// base/pause.hpp - one polite step of a spin
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "base/config.hpp"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <intrin.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// 10 to 140 cycles, by the CPU: spins are bounded by time, never by a count of these.
#if defined(__x86_64__) || defined(__i386__)
inline void cpu_pause() noexcept { __builtin_ia32_pause(); }
#elif defined(__aarch64__) || defined(__arm__)
inline void cpu_pause() noexcept { __asm__ __volatile__("yield" ::: "memory"); }
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
inline void cpu_pause() noexcept { _mm_pause(); }
#else
inline void cpu_pause() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }  // ours alone
#endif

// The line is about to be written, or read, by this thread: it may begin to travel. (GCC and clang mean
// `prefetchw` only where they are told of it; every x86-64 has it or takes it for nothing.)
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
inline void prefetch_to_write(const void* p) noexcept {
  __asm__ __volatile__("{prefetchw (%0)|prefetchw BYTE PTR [%0]}" : : "r"(p));
}
#elif defined(__GNUC__) || defined(__clang__)
inline void prefetch_to_write(const void* p) noexcept { __builtin_prefetch(p, 1); }
#else
inline void prefetch_to_write(const void*) noexcept {}
#endif

// Spins too short for the clock, which costs as much as they last, count pauses, whose length is
// measured once. The fastest of a few tries: one that was interrupted looks slow.
inline std::uint32_t measure_pauses() noexcept {
  using clock = std::chrono::steady_clock;
  constexpr std::uint32_t pauses = 32;
  std::int64_t fastest = 1 << 20;
  for (int tries = 0; tries < 8; ++tries) {
    const auto begin = clock::now();
    for (std::uint32_t i = 0; i < pauses; ++i) cpu_pause();
    const auto span = std::chrono::nanoseconds(clock::now() - begin).count();
    if (span > 0 && span < fastest) fastest = span;
  }
  return static_cast<std::uint32_t>(1024 * pauses / fastest) + 1;
}
inline std::uint32_t& pauses_per_1024_ns() noexcept {
  static std::uint32_t count = measure_pauses();
  return count;
}
inline std::uint32_t pauses_in(std::uint32_t ns) noexcept { return ns * pauses_per_1024_ns() / 1024 + 1; }

}  // namespace detail
HYBRIDLOOP_CLOSE
