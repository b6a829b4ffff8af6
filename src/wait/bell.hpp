// wait/bell.hpp - a kernel object that any thread can ring and a poller hears
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "base/handle.hpp"
#include "wait/kernel.hpp"

HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(LINUX)
// An eventfd that sits in an epoll set edge-triggered and is never read: each write is an edge.
// Only a saturated counter (2^64 - 2 rings) makes no edge; then one read makes room again.
template <class Kernel>
struct eventfd_bell {
  static int open() noexcept { return Kernel::eventfd(); }

  // Any thread, any signal handler. 0, or the errno that could not be mended.
  static int ring(native_handle bell) noexcept {
    for (int tries = 0;; ++tries) {
      const std::uint64_t one = 1;
      const int wrote = Kernel::write(bell, &one, sizeof one);
      if (wrote == static_cast<int>(sizeof one)) return 0;
      if (wrote == -EAGAIN) {
        std::uint64_t count = 0;
        Kernel::read(bell, &count, sizeof count);
      } else if (wrote != -EINTR && tries >= ring_tries) {
        return wrote < 0 ? -wrote : EIO;
      } else if (wrote != -EINTR) {
        Kernel::yield();
      }
    }
  }

  static constexpr int ring_tries = 100;
};
#endif

// An event of the user's in a kqueue; the queue's own number rings it.
template <class Kernel>
struct user_bell {
  // Any thread, any signal handler. 0, or the errno that could not be mended.
  static int ring(native_handle queue) noexcept {
    for (int tries = 0;; ++tries) {
      const int answer = Kernel::kevent_trigger(queue);
      if (answer == 0) return 0;
      if (answer == -EINTR) continue;
      if (tries >= ring_tries) return -answer;
      Kernel::yield();
    }
  }

  static constexpr int ring_tries = 100;
};

// A pipe that does not block. One byte is as good as many, so a full pipe has been rung; who hears it
// reads it empty.
template <class Kernel>
struct pipe_bell {
  // When refused, the ends are as they were, whatever the system has written there.
  static int open(native_handle (&ends)[2]) noexcept {
    native_handle made[2];
    const int refused = Kernel::pipe(made);
    if (refused == 0) ends[0] = made[0], ends[1] = made[1];
    return refused;
  }

  // Any thread, any signal handler; the end to write to. 0, or the errno that could not be mended.
  static int ring(native_handle bell) noexcept {
    for (int tries = 0;; ++tries) {
      const char one = 1;
      const int wrote = Kernel::write(bell, &one, sizeof one);
      if (wrote == static_cast<int>(sizeof one) || wrote == -EAGAIN) return 0;
      if (wrote == -EINTR) continue;
      if (tries >= ring_tries) return wrote < 0 ? -wrote : EIO;
      Kernel::yield();
    }
  }

  // The end to read from.
  static void hear(native_handle bell) noexcept {
    char rings[1024];
    while (Kernel::read(bell, rings, sizeof rings) == static_cast<int>(sizeof rings)) {
    }
  }

  static constexpr int ring_tries = 100;
};

#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
// A packet in a completion port: one at a time, since each takes memory of the kernel's.
//
// Edge [rung]: whoever turns the word on posts the packet, and who takes the packet turns it off before it
// looks around.
//
//   ringer                                  waiter
//   R1  publishes; rung -> 1, exchange      R2  takes the packet; rung -> 0, exchange
//   if it was 0, posts the packet
//
// A ring that found 1 has a packet to come, whose R2 reads this R1 or a later one, and sees what was
// published. Rule: exchanges of one word are read-modify-writes, so R2 reads R1 or its release sequence
// [intro.races].
template <class Kernel>
struct port_bell {
  struct state {
    std::atomic<std::uint32_t> rung{0};
    native_handle port = -1;
  };

  static native_handle number_of(const state& bell) noexcept {
    return reinterpret_cast<native_handle>(&bell);
  }

  // Any thread. 0, or the errno that could not be mended.
  static int ring(native_handle bell) noexcept {
    auto& b = *reinterpret_cast<state*>(bell);
    if (b.rung.exchange(1, std::memory_order_acq_rel) != 0) return 0;  // [rung] R1
    for (int tries = 0;; ++tries) {
      const int answer = Kernel::port_post(b.port, Kernel::bell_key, nullptr);
      if (answer == 0) return 0;
      if (tries >= ring_tries) return -answer;
      Kernel::yield();
    }
  }

  static void hear(state& bell) noexcept { bell.rung.exchange(0, std::memory_order_acq_rel); }  // [rung] R2

  static constexpr int ring_tries = 100;
};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
