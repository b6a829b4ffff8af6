// loop/traits.hpp - what a loop is made of, so that tests can make it of something else
#pragma once

#include <atomic>
#include <chrono>

#include "base/config.hpp"
#include "poller/select.hpp"
#include "wait/fence.hpp"
#include "wait/kernel.hpp"
#include "wait/parker.hpp"

HYBRIDLOOP_OPEN

// How a poster and a loop that goes to sleep agree on who saw whom; see loop/doorbell.hpp.
enum class fence_policy : std::uint8_t {
  adaptive,    // by posts per park
  symmetric,   // the poster pays, a few nanoseconds a post
  asymmetric   // the loop pays, a microsecond or so a park; where the kernel can
};

// Derive from this one and shadow what you want to replace.
struct default_traits {
  template <class T>
  using atomic = std::atomic<T>;
  using clock = std::chrono::steady_clock;
  using kernel = detail::system_kernel;
  using parker = detail::system_parker<kernel>;
  using poller = detail::system_poller<kernel>;
  using barrier = detail::system_barrier<kernel>;
  static constexpr fence_policy fence = fence_policy::adaptive;
  static void schedule_point(const char* name) noexcept { HYBRIDLOOP_SCHEDULE_POINT(name); }
};

HYBRIDLOOP_CLOSE
