// wait/kernel_bsd.hpp - the kernel seam on FreeBSD, OpenBSD and NetBSD: their words to sleep on
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "wait/kernel_unix.hpp"

#if HYBRIDLOOP_OS(FREEBSD)
#include <sys/types.h>
#include <sys/umtx.h>
#elif HYBRIDLOOP_OS(OPENBSD)
#include <sys/time.h>
#include <sys/futex.h>
#elif HYBRIDLOOP_OS(NETBSD)
#include <sys/syscall.h>
#if defined(SYS___futex)
#include <sys/futex.h>
#endif
#endif

HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(FREEBSD)
struct bsd_words : unix_kernel {
  static constexpr const char* parking = "umtx";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    _umtx_time until{};
    until._timeout = to_timespec(deadline);
    until._flags = UMTX_ABSTIME;
    until._clockid = CLOCK_MONOTONIC;
    void* const size = reinterpret_cast<void*>(sizeof until);  // so says its manual
    return deadline == never ? ask(word, UMTX_OP_WAIT_UINT_PRIVATE, expected, nullptr, nullptr)
                             : ask(word, UMTX_OP_WAIT_UINT_PRIVATE, expected, size, &until);
  }
  static int futex_wake(const void* word, int count) noexcept {
    return ask(word, UMTX_OP_WAKE_PRIVATE, static_cast<u_long>(count), nullptr, nullptr);
  }

 private:
  static int ask(const void* word, int what, u_long value, void* size, void* until) noexcept {
    return answer(::_umtx_op(const_cast<void*>(word), what, value, size, until));
  }
};
#endif

#if HYBRIDLOOP_OS(OPENBSD)
struct bsd_words : unix_kernel {
  static constexpr const char* parking = "futex";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    const timespec span = to_timespec(time_between(read_clock<std::chrono::steady_clock>(), deadline));
    return ask(word, FUTEX_WAIT_PRIVATE, static_cast<int>(expected), deadline == never ? nullptr : &span);
  }
  static int futex_wake(const void* word, int count) noexcept {
    return ask(word, FUTEX_WAKE_PRIVATE, count, nullptr);
  }

 private:
  static int ask(const void* word, int what, int value, const timespec* span) noexcept {
    void* const at = const_cast<void*>(word);
    return answer(::futex(static_cast<volatile std::uint32_t*>(at), what, value, span, nullptr));
  }
};
#endif

#if HYBRIDLOOP_OS(NETBSD) && !defined(SYS___futex)
using bsd_words = unix_kernel;
#endif

#if HYBRIDLOOP_OS(NETBSD) && defined(SYS___futex)
// A kernel before NetBSD 10 does not know the call.
struct bsd_words : unix_kernel {
  static constexpr const char* parking = "futex, or condvar before NetBSD 10";

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (!has_futex()) return parking_lot::wait(word, expected, deadline);
    const timespec at = to_timespec(deadline);
    return ask(word, FUTEX_WAIT_BITSET, static_cast<int>(expected), deadline == never ? nullptr : &at,
               FUTEX_BITSET_MATCH_ANY);
  }
  static int futex_wake(const void* word, int count) noexcept {
    return has_futex() ? ask(word, FUTEX_WAKE, count, nullptr, 0) : parking_lot::wake(word, count);
  }

 private:
  static int ask(const void* word, int what, int value, const timespec* at, int bits) noexcept {
    const int op = what | static_cast<int>(FUTEX_PRIVATE_FLAG);
    return answer(::syscall(SYS___futex, word, op, value, at, nullptr, 0, bits));
  }
  // The same all the time, or those who sleep here would be woken there.
  static bool has_futex() noexcept {
    static const std::uint32_t word = 0;
    static const bool known = ask(&word, FUTEX_WAKE, 1, nullptr, 0) != -ENOSYS;
    return known;
  }
};
#endif

#if HYBRIDLOOP_OS(FREEBSD) || HYBRIDLOOP_OS(OPENBSD) || HYBRIDLOOP_OS(NETBSD)
// They can say in one step what is not inherited.
struct bsd_kernel : bsd_words {
#if !HYBRIDLOOP_NO_IO
  static int pipe(int (&ends)[2]) noexcept { return answer(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }
#endif
  static int replace(int number, int fd) noexcept { return answer(::dup3(fd, number, O_CLOEXEC)); }
};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
