// base/handle.hpp - the small names users hold: descriptors, timers, watches
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/config.hpp"

HYBRIDLOOP_OPEN

#if HYBRIDLOOP_OS(WINDOWS)
// A SOCKET, or a HANDLE cast to a number.
using native_handle = std::intptr_t;
#else
// A file descriptor.
using native_handle = int;
#endif

namespace detail {

// How far apart the system gives out their numbers, from 0 on.
#if HYBRIDLOOP_OS(WINDOWS)
inline constexpr std::size_t handle_step = 4;
#else
inline constexpr std::size_t handle_step = 1;
#endif

// An entry of a table and the generation it was handed out in; generation 0 is nobody.
template <class Kind>
class id {
 public:
  constexpr id() noexcept = default;
  constexpr id(std::uint32_t index, std::uint32_t generation) noexcept
      : index_(index), generation_(generation) {}

  constexpr explicit operator bool() const noexcept { return generation_ != 0; }
  constexpr std::uint32_t index() const noexcept { return index_; }
  constexpr std::uint32_t generation() const noexcept { return generation_; }

  friend constexpr bool operator==(id a, id b) noexcept {
    return a.index_ == b.index_ && a.generation_ == b.generation_;
  }
  friend constexpr bool operator!=(id a, id b) noexcept { return !(a == b); }
  friend constexpr bool operator<(id a, id b) noexcept { return a.packed() < b.packed(); }

  constexpr std::uint64_t packed() const noexcept {
    return std::uint64_t{generation_} << 32 | index_;
  }

 private:
  std::uint32_t index_ = 0;
  std::uint32_t generation_ = 0;
};

}  // namespace detail

// Trivially copyable, comparable, false in a condition when default-made.
struct timer_id : detail::id<timer_id> {
  using detail::id<timer_id>::id;
};
struct watch_id : detail::id<watch_id> {
  using detail::id<watch_id>::id;
};

HYBRIDLOOP_CLOSE

template <>
struct std::hash<HYBRIDLOOP_NAMESPACE::timer_id> {
  std::size_t operator()(HYBRIDLOOP_NAMESPACE::timer_id id) const noexcept {
    return std::hash<std::uint64_t>()(id.packed());
  }
};
template <>
struct std::hash<HYBRIDLOOP_NAMESPACE::watch_id> {
  std::size_t operator()(HYBRIDLOOP_NAMESPACE::watch_id id) const noexcept {
    return std::hash<std::uint64_t>()(id.packed());
  }
};
