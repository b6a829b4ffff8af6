// ingress/patience.hpp - a poster that finds the ring full looks again for a moment before it spills
#pragma once

#include <cstdint>

#include "base/pause.hpp"
#include "ingress/room.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A spilled task costs several times what one in the ring does, and once some have spilled the next
// ones must follow. A loop that is at work gives back slots every few microseconds, and sooner when
// it is asked to; so the poster that would be the first to spill waits for as long as that takes, and
// then lets the loop have its CPU, in case it lost it. After that a poster gives way once in a while
// only. All bounded, because the loop may be in a task that lasts.
template <class Traits, class Queue>
void look_for_room(Queue& queue) noexcept {
  constexpr std::uint32_t posts_per_yield = 64;
  static thread_local std::uint32_t posts = 0;
  const auto look = [&queue](std::uint32_t ns) {
    std::uint32_t left = pauses_in(ns);
    for (; left != 0 && !queue.has_room(); --left) cpu_pause();
    return left != 0;
  };
  if (!queue.has_spilled()) {
    posts = 0;
    if (look(6000)) return;
    const typename waiting_room<Traits>::glance asks(queue.room());
    if (look(10000)) return;
  }
  if (posts++ % posts_per_yield == 0) Traits::kernel::yield();
}

}  // namespace detail
HYBRIDLOOP_CLOSE
