// base/bits.hpp - the highest and the lowest bit of a word
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/config.hpp"

#if defined(_MSC_VER) && defined(_WIN64)
#include <intrin.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// Both want a word that is not zero.
#if defined(__GNUC__) || defined(__clang__)
inline std::uint32_t highest_bit(std::uint64_t v) noexcept {
  return 63u - static_cast<std::uint32_t>(__builtin_clzll(v));
}
inline std::uint32_t lowest_bit(std::uint64_t v) noexcept {
  return static_cast<std::uint32_t>(__builtin_ctzll(v));
}
#elif defined(_MSC_VER) && defined(_WIN64)
inline std::uint32_t highest_bit(std::uint64_t v) noexcept {
  unsigned long bit;
  _BitScanReverse64(&bit, v);
  return bit;
}
inline std::uint32_t lowest_bit(std::uint64_t v) noexcept {
  unsigned long bit;
  _BitScanForward64(&bit, v);
  return bit;
}
#else
inline std::uint32_t highest_bit(std::uint64_t v) noexcept {
  std::uint32_t bit = 0;
  while ((v >>= 1) != 0) ++bit;
  return bit;
}
inline std::uint32_t lowest_bit(std::uint64_t v) noexcept { return highest_bit(v & (~v + 1)); }
#endif

inline std::size_t round_up_to_power_of_two(std::size_t n) noexcept {
  return n <= 2 ? 2 : std::size_t{1} << (highest_bit(n - 1) + 1);
}

}  // namespace detail
HYBRIDLOOP_CLOSE
