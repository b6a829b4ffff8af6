// loop/lookout.hpp - a bounded look at empty queues before the loop parks
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "base/pause.hpp"
#include "loop/doorbell.hpp"
#include "loop/options.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Posters still find the loop awake while it looks. That pays when a task comes before a sleep and
// a wake would have been over, so the look is as long as it may be while it hits, or while the sleep
// behind it is so short that a longer one would have hit. Else it shrinks, down to nothing but a try now
// and then. Bounded by time, and none at all where the process has one CPU.
class lookout {
 public:
  // The loop thread. True: there is something to do.
  template <class Core>
  bool look(Core& c, nanos end) noexcept {
    const nanos most = c.options.spin.count();
    looked_ = 0;
    if (c.options.path == fast_path::off || most == 0) return false;
    if (misses_ % 64 == 0) {
      may_look_ = Core::kernel::usable_cpus() > 1;
      span_ = most;
    }
    if (!may_look_ || span_ < shortest) {
      ++misses_;
      return false;
    }
    const nanos begin = c.cached_now();
    const bool hit = look_until(c, begin, end);
    looked_ = time_between(begin, c.cached_now());
    c.spun_ns.add(static_cast<std::uint64_t>(looked_));
    span_ = hit ? most : span_ / 2;
    misses_ = hit ? 1 : misses_ + 1;
    return hit;
  }

  // The loop thread, after a sleep behind that look which others ended.
  template <class Core>
  void woken_after(Core& c, nanos slept) noexcept {
    const nanos most = c.options.spin.count();
    if (looked_ + slept < most) span_ = most;
  }

 private:
  template <class Core>
  bool look_until(Core& c, nanos begin, nanos end) noexcept {
    constexpr std::uint32_t urgent = status::stop | status::close | status::wanted;
    for (int reads = 0; reads < most_reads; ++reads) {
      if (c.cached_now() - begin >= span_ || c.cached_now() >= end) break;
      for (int i = 0; i < looks_per_clock; ++i) {
        if (c.in.can_run()) return true;
        if (c.wake.told(urgent)) {
          c.wake.forget(status::wanted);
          return true;
        }
        cpu_pause();
      }
      c.refresh_now();
    }
    return false;
  }

  static constexpr nanos shortest = 500;
  static constexpr int looks_per_clock = 8;
  static constexpr int most_reads = 1 << 16;  // for a clock that stands still

  nanos span_ = 0;  // how long the next one may last
  nanos looked_ = 0;  // how long the last one did
  std::uint32_t misses_ = 0;
  bool may_look_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
