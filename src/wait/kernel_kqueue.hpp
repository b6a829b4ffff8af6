// wait/kernel_kqueue.hpp - kqueue(2) as one poller calls it, over the differences of its systems
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/config.hpp"
#include "base/os.hpp"

#if HYBRIDLOOP_HAS_KQUEUE()
#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>
#include <sys/event.h>
#include <sys/select.h>
#include <sys/time.h>
#include <unistd.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_HAS_KQUEUE()
struct kqueue_calls {
  using kernel_event = struct kevent;
  using kernel_filter = decltype(kernel_event::filter);

  // A library on top of another kernel has its descriptors copied by a fork.
  static constexpr bool kqueue_is_inherited = HYBRIDLOOP_OS(LINUX);

  static constexpr kernel_filter filter_read = EVFILT_READ;
  static constexpr kernel_filter filter_write = EVFILT_WRITE;
  static constexpr kernel_filter filter_user = EVFILT_USER;
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
  static constexpr bool kqueue_hears_priority = true;
  static constexpr kernel_filter filter_except = EVFILT_EXCEPT;
  static constexpr unsigned out_of_band = NOTE_OOB;
#else
  static constexpr bool kqueue_hears_priority = false;
  static constexpr kernel_filter filter_except = EVFILT_USER;
  static constexpr unsigned out_of_band = 0;
#endif

  static int kqueue() noexcept {
    const int made = ::kqueue();
    if (made < 0) return -errno;
    if (::fcntl(made, F_SETFD, FD_CLOEXEC) == 0) return made;
    const int refused = -errno;
    ::close(made);
    return refused;
  }

  // The timeout is relative; `never` waits for ever. A day at most, which every system takes: the caller
  // sleeps again.
  static int kevent_wait(int queue, kernel_event* out, int room, nanos timeout) noexcept {
    const nanos span = timeout < longest ? timeout : longest;
    timespec limit{};
    limit.tv_sec = static_cast<decltype(limit.tv_sec)>(span / 1000000000);
    limit.tv_nsec = static_cast<decltype(limit.tv_nsec)>(span % 1000000000);
    return answer_of(::kevent(queue, nullptr, 0, out, static_cast<count>(room), timeout == never ? nullptr : &limit));
  }

  // `mark` comes back with the events.
  static int kevent_add(int queue, int fd, kernel_filter filter, bool edge, std::uint64_t mark) noexcept {
    const unsigned flags = edge ? EV_ADD | EV_ENABLE | EV_CLEAR : EV_ADD | EV_ENABLE;
    const bool except = kqueue_hears_priority && filter == filter_except;
    return tell(queue, number_of(fd), filter, flags, except ? out_of_band : 0, mark);
  }
  static int kevent_delete(int queue, int fd, kernel_filter filter) noexcept {
    return tell(queue, number_of(fd), filter, EV_DELETE, 0, 0);
  }
  static int kevent_enable(int queue, int fd, kernel_filter filter) noexcept {
    return tell(queue, number_of(fd), filter, EV_ENABLE, 0, 0);
  }
  static int kevent_disable(int queue, int fd, kernel_filter filter) noexcept {
    return tell(queue, number_of(fd), filter, EV_DISABLE, 0, 0);
  }

  static int kevent_add_user(int queue) noexcept {
    return tell(queue, 0, filter_user, EV_ADD | EV_ENABLE | EV_CLEAR, NOTE_FFNOP, 0);
  }
  // Any thread, any signal handler.
  static int kevent_trigger(int queue) noexcept { return tell(queue, 0, filter_user, 0, NOTE_TRIGGER, 0); }

  static bool kevent_carries(const kernel_event& event, std::uint64_t mark) noexcept {
    decltype(event.udata) expected{};
    put(expected, static_cast<std::uintptr_t>(mark));
    return event.udata == expected;
  }
  // The numbers that select(2) is asked for, and then those that it answers.
  struct select_set {
    select_set() noexcept { FD_ZERO(&bits); }
    static bool takes(int fd) noexcept { return fd >= 0 && fd < FD_SETSIZE; }
    bool has(int fd) const noexcept { return FD_ISSET(fd, &bits) != 0; }
    void put(int fd) noexcept { FD_SET(fd, &bits); }
    void take(int fd) noexcept { FD_CLR(fd, &bits); }
    fd_set bits;
  };
  // Rounded up to microseconds; otherwise as kevent_wait().
  static int select(int count_of_numbers, select_set& reads, select_set& writes, nanos timeout) noexcept {
    const nanos span = timeout < longest ? timeout : longest;
    timeval limit{};
    limit.tv_sec = static_cast<decltype(limit.tv_sec)>((span + 999) / 1000000000);
    limit.tv_usec = static_cast<decltype(limit.tv_usec)>((span + 999) % 1000000000 / 1000);
    return answer_of(::select(count_of_numbers, &reads.bits, &writes.bits, nullptr, timeout == never ? nullptr : &limit));
  }
  static bool is_terminal(int fd) noexcept { return ::isatty(fd) == 1; }

  static bool kevent_is_end(const kernel_event& event) noexcept { return (event.flags & EV_EOF) != 0; }

 private:
#if HYBRIDLOOP_OS(NETBSD)
  using count = std::size_t;
#else
  using count = int;
#endif
  static constexpr nanos longest = nanos{24} * 3600 * 1000000000;

  static int answer_of(int result) noexcept { return result < 0 ? -errno : result; }
  static std::uintptr_t number_of(int fd) noexcept { return static_cast<std::uintptr_t>(fd); }

  // A pointer here, a number there.
  static void put(void*& at, std::uintptr_t mark) noexcept { at = reinterpret_cast<void*>(mark); }
  static void put(std::intptr_t& at, std::uintptr_t mark) noexcept { at = static_cast<std::intptr_t>(mark); }

  // One change, which is taken or refused at once.
  static int tell(int queue, std::uintptr_t ident, kernel_filter filter, unsigned flags, unsigned extra,
                  std::uint64_t mark) noexcept {
    kernel_event change{};
    change.ident = ident;
    change.filter = filter;
    change.flags = static_cast<decltype(change.flags)>(flags);
    change.fflags = static_cast<decltype(change.fflags)>(extra);
    put(change.udata, static_cast<std::uintptr_t>(mark));
    return answer_of(::kevent(queue, &change, 1, nullptr, 0, nullptr));
  }
};
#else
struct kqueue_calls {};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
