// wait/kernel_bsd.hpp - the kernel seam on FreeBSD, OpenBSD and NetBSD
#pragma once

#include <cstddef>
#include <cstdint>

#include "wait/kernel_unix.hpp"

#if HYBRIDLOOP_OS(FREEBSD) || HYBRIDLOOP_OS(OPENBSD) || HYBRIDLOOP_OS(NETBSD)
HYBRIDLOOP_OPEN
namespace detail {

// They can say in one step what is not inherited.
struct bsd_kernel : unix_kernel {
#if !HYBRIDLOOP_NO_IO
  static int pipe(int (&ends)[2]) noexcept { return answer(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }
#endif
  static int replace(int number, int fd) noexcept { return answer(::dup3(fd, number, O_CLOEXEC)); }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif
