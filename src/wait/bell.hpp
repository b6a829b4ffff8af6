// wait/bell.hpp - a kernel object that any thread can ring and a poller hears
#pragma once

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
  static int open(int (&ends)[2]) noexcept { return Kernel::pipe(ends); }

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
  static void hear(int bell) noexcept {
    char rings[1024];
    while (Kernel::read(bell, rings, sizeof rings) == static_cast<int>(sizeof rings)) {
    }
  }

  static constexpr int ring_tries = 100;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
