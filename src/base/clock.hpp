// base/clock.hpp - time inside the library: absolute nanoseconds that saturate, never overflow
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Nanoseconds since the epoch of the loop's clock, or a span of them.
using nanos = std::int64_t;
inline constexpr nanos never = (std::numeric_limits<nanos>::max)();
inline constexpr nanos long_ago = (std::numeric_limits<nanos>::min)();

constexpr nanos saturating_add(nanos a, nanos b) noexcept {
  if (b > 0 && a > never - b) return never;
  if (b < 0 && a < long_ago - b) return long_ago;
  return a + b;
}

// None where the clock was set back.
constexpr nanos time_between(nanos begin, nanos end) noexcept { return end > begin ? end - begin : 0; }

// Rounded up, so that nothing is ever early; what does not fit is `never` or long ago.
template <class Rep, class Period>
constexpr nanos to_nanos(std::chrono::duration<Rep, Period> d) noexcept {
  using given = std::chrono::duration<Rep, Period>;
  if constexpr (std::is_floating_point_v<Rep>) {
    const auto exact = std::chrono::duration<long double, std::nano>(d).count();
    if (!(exact < 9.2e18L)) return never;
    if (exact < -9.2e18L) return long_ago;
    const auto whole = static_cast<nanos>(exact);
    return static_cast<long double>(whole) < exact ? whole + 1 : whole;
  } else {
    using scale = std::ratio_divide<Period, std::nano>;
    constexpr auto num = static_cast<std::uint64_t>(scale::num);
    constexpr auto den = static_cast<std::uint64_t>(scale::den);
    const bool past = std::is_signed_v<Rep> && d < given::zero();
    const auto count = static_cast<std::uint64_t>(d.count());
    const std::uint64_t size = past ? 0 - count : count;
    if (size / den >= static_cast<std::uint64_t>(never) / num) return past ? long_ago : never;
    const std::uint64_t rest = size % den * num + (past ? 0 : den - 1);
    const auto whole = static_cast<nanos>(size / den * num + rest / den);
    return past ? -whole : whole;
  }
}

template <class Clock, class Duration>
constexpr nanos to_nanos(std::chrono::time_point<Clock, Duration> t) noexcept {
  using point = std::chrono::time_point<Clock, Duration>;
  return t == (point::max)() ? never : to_nanos(t.time_since_epoch());
}

template <class Clock>
typename Clock::time_point from_nanos(nanos t) noexcept {
  using duration = typename Clock::duration;
  if (t == never) return (Clock::time_point::max)();
  return typename Clock::time_point(
      std::chrono::duration_cast<duration>(std::chrono::nanoseconds(t)));
}

template <class Clock>
nanos read_clock() noexcept {
  return to_nanos(Clock::now());
}

}  // namespace detail
HYBRIDLOOP_CLOSE
