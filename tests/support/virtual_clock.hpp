// virtual_clock.hpp - a loop whose sleep until a deadline takes no time: the clock jumps there
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include <hybridloop.hpp>

namespace support {

// Stands still until it is moved. One for the whole program: each test begins with reset().
struct virtual_clock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::nanoseconds;
  using time_point = std::chrono::time_point<virtual_clock>;
  static constexpr bool is_steady = true;

  static time_point now() noexcept { return time_point(duration(nanos_.load())); }
  static void reset() noexcept { nanos_ = start; }
  static void advance(duration d) noexcept { nanos_ += d.count(); }
  static void advance_to(std::int64_t nanos) noexcept {
    if (nanos > nanos_) nanos_ = nanos;
  }

 private:
  static constexpr rep start = 1000000000000000;  // not zero, so that there is a past
  static inline std::atomic<rep> nanos_{start};
};

// A wait with a deadline for which nothing is there moves the clock instead of sleeping. A wait
// without one is real: what should end it and does not, hangs.
struct virtual_kernel : hybridloop::detail::system_kernel {
  using real = hybridloop::detail::system_kernel;
  using nanos = hybridloop::detail::nanos;

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (deadline == hybridloop::detail::never) return real::futex_wait(word, expected, deadline);
    if (static_cast<const std::atomic<std::uint32_t>*>(word)->load() != expected) return -EAGAIN;
    virtual_clock::advance_to(deadline);
    return -ETIMEDOUT;
  }
  // Templates, since each system has only its own.
  template <class Event, class Real = real>
  static int epoll_pwait2(int epoll, Event* out, int room, nanos timeout) noexcept {
    const int got = Real::epoll_wait(epoll, out, room, timeout == hybridloop::detail::never ? -1 : 0);
    if (got == 0) virtual_clock::advance(std::chrono::nanoseconds(timeout));
    return got;
  }
  template <class Event, class Real = real>
  static int kevent_wait(int queue, Event* out, int room, nanos timeout) noexcept {
    const int got = Real::kevent_wait(queue, out, room, timeout == hybridloop::detail::never ? timeout : 0);
    if (got == 0) virtual_clock::advance(std::chrono::nanoseconds(timeout));
    return got;
  }
  template <class Set, class Real = real>
  static int poll(Set* descriptors, std::size_t count, nanos timeout) noexcept {
    const int got = Real::poll(descriptors, count, timeout == hybridloop::detail::never ? timeout : 0);
    if (got == 0) virtual_clock::advance(std::chrono::nanoseconds(timeout));
    return got;
  }
  template <class Packet, class Real = real>
  static int port_wait(hybridloop::native_handle port, Packet* out, int room, nanos timeout) noexcept {
    const int got = Real::port_wait(port, out, room, timeout == hybridloop::detail::never ? timeout : 0);
    if (got == 0) virtual_clock::advance(std::chrono::nanoseconds(timeout));
    return got;
  }
};

struct virtual_traits : hybridloop::default_traits {
  using clock = virtual_clock;
  using kernel = virtual_kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};

// Begins at the same time in each test, and never spins: looking at a clock that stands is vain.
template <class Traits>
class basic_virtual_loop : public hybridloop::basic_loop<Traits> {
 public:
  explicit basic_virtual_loop(hybridloop::loop_options options = {})
      : hybridloop::basic_loop<Traits>(prepared(options)) {}

 private:
  static const hybridloop::loop_options& prepared(hybridloop::loop_options& options) noexcept {
    virtual_clock::reset();
    options.spin = std::chrono::nanoseconds(0);
    return options;
  }
};
using virtual_loop = basic_virtual_loop<virtual_traits>;

}  // namespace support
