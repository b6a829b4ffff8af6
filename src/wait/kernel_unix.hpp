// wait/kernel_unix.hpp - the kernel seam of POSIX systems that have nothing better to offer
#pragma once

#include <cstddef>
#include <cstdint>

#include "wait/kernel_posix.hpp"
#include "wait/parking_lot.hpp"

#if HYBRIDLOOP_OS(POSIX)
HYBRIDLOOP_OPEN
namespace detail {

// Only what POSIX knows: what is not inherited is said in a second step, so a program that another
// thread starts in between inherits it; and timeouts are whole milliseconds, rounded up.
struct unix_kernel : without_words<posix_kernel> {
#if !HYBRIDLOOP_NO_IO
  static int poll(pollfd* descriptors, std::size_t count, nanos timeout) noexcept {
    return answer(::poll(descriptors, static_cast<nfds_t>(count),
                         timeout == never ? -1 : whole_milliseconds(timeout)));
  }
#if defined(POLLRDHUP)
  static constexpr short poll_half_close = POLLRDHUP;
#else
  static constexpr short poll_half_close = 0;
#endif

  static int pipe(int (&ends)[2]) noexcept {
    if (::pipe(ends) != 0) return -errno;
    for (const int end : ends) {
      if (!keep_to_ourselves(end) || ::fcntl(end, F_SETFL, O_NONBLOCK) != 0) {
        const int refused = -errno;
        ::close(ends[0]);
        ::close(ends[1]);
        ends[0] = ends[1] = -1;
        return refused;
      }
    }
    return 0;
  }

  static int identify(int fd, file_identity& out) noexcept {
    struct stat file;
    if (::fstat(fd, &file) != 0) return -errno;
    identity_of(file, out);
    return 0;
  }
#endif

  static int replace(int number, int fd) noexcept {
    if (::dup2(fd, number) < 0) return -errno;
    return keep_to_ourselves(number) ? number : -errno;
  }

  static unsigned usable_cpus() noexcept {
    const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? static_cast<unsigned>(online) : 1u;
  }

 protected:
  static bool keep_to_ourselves(int fd) noexcept { return ::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
