// poller/terminals.hpp - terminals that kqueue refuses, asked after by select(2) in one wait with the queue
#pragma once

#include <cerrno>

#include "base/clock.hpp"
#include "poller/contract.hpp"
#include "wait/kernel.hpp"

#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

// macOS hears nothing of /dev/tty by kqueue(2) nor by poll(2). Its select(2) does, and knows queues too, so no
// thread stands in between, as in libuv. Level-triggered, whatever was asked for. The poller's lock is held.
template <class Kernel>
class terminals {
 public:
  // What one wait asks for, and what it is answered.
  struct question {
    typename Kernel::select_set reads, writes;
    int top = -1;

    bool asks() const noexcept { return top >= 0; }
    // 0: the queue may have something. Or -errno; EBADF: somebody has closed one of them.
    int wait(int queue, nanos timeout) noexcept {
      reads.put(queue);
      const int got = Kernel::select((queue > top ? queue : top) + 1, reads, writes, timeout);
      return got < 0 ? got : 0;
    }
    bool speaks_of(int fd) const noexcept { return reads.has(fd) || writes.has(fd); }
    ready answer(int fd) const noexcept {
      ready what;
      what.readable = reads.has(fd);
      what.writable = writes.has(fd);
      return what;
    }
  };

  static bool takes(int fd, int queue) noexcept {
    return Kernel::select_set::takes(fd) && Kernel::select_set::takes(queue) && Kernel::is_terminal(fd);
  }

  const question& asked() const noexcept { return asked_; }

  void set(int fd, interest what) noexcept {
    erase(fd);
    if (has(what, interest::readable)) asked_.reads.put(fd);
    if (has(what, interest::writable)) asked_.writes.put(fd);
    if (asked_.speaks_of(fd) && fd > asked_.top) asked_.top = fd;
  }
  void erase(int fd) noexcept {
    asked_.reads.take(fd);
    asked_.writes.take(fd);
    while (asked_.asks() && !asked_.speaks_of(asked_.top)) --asked_.top;
  }
  void clear() noexcept { asked_ = question{}; }

 private:
  question asked_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
