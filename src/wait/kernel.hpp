// wait/kernel.hpp - the kernel seam: what every system call of the library answers, and whose they are
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "base/os.hpp"
#include "wait/kernel_bsd.hpp"
#include "wait/kernel_linux.hpp"
#include "wait/kernel_macos.hpp"
#include "wait/kernel_posix.hpp"
#include "wait/kernel_unix.hpp"
#include "wait/kernel_windows.hpp"
#include "wait/parking_lot.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A traits type names its kernel, so a test can put one in between that injects failures, counts
// calls or moves a clock of its own. Answers are what the kernel answers: a value, or -errno.
//
// Every kernel has these. What only one poller or barrier calls (epoll_ctl, kevent, membarrier) is
// said where that kernel offers it.
//
//   futex_wait(word, expected, deadline)
//                        sleeps while the 32 bits at `word` are `expected`, until it is woken or the
//                        steady clock reaches the deadline; `never` is none. May end for no reason
//   futex_wake(word, n)  wakes up to n that sleep there. The address is never read, so it may belong to
//                        nobody any more
//   both, with a mask    where the system can: a wake reaches those whose mask has a bit of it
//   poll(set, n, timeout)          relative; `never` waits for ever
//   poll_entry, poll_in and so on    its set, and its words
//   poll_half_close      what poll() reports when the peer has sent its last; 0 where it says nothing
//   pipe(ends)           the end to read from, then the end to write to; neither blocks, nor is inherited
//   identify(fd, out)    which file a number names
//   write, read, close, is_descriptor
//   replace(number, fd)  makes `number` name what `fd` names; what it named before is closed, in one step
//   map(bytes)           zeroed pages that cost nothing until touched; nullptr when there are none
//   unmap(memory, bytes)
//   yield(), nap(span)
//   forks()              changes in the child of a fork
//   thread, mutex, hold
//   usable_cpus()        how many CPUs the process may use, as far as the system tells
//   parking              the name of what is behind the first two
#if HYBRIDLOOP_OS(LINUX)
using native_kernel = linux_kernel;
#elif HYBRIDLOOP_OS(MACOS)
using native_kernel = macos_kernel;
#elif HYBRIDLOOP_OS(FREEBSD) || HYBRIDLOOP_OS(OPENBSD) || HYBRIDLOOP_OS(NETBSD)
using native_kernel = bsd_kernel;
#elif HYBRIDLOOP_OS(POSIX)
using native_kernel = unix_kernel;
#elif HYBRIDLOOP_OS(WINDOWS)
using native_kernel = windows_kernel;
#endif

#if HYBRIDLOOP_PASTE(HYBRIDLOOP_KNOWN_PARKER_, HYBRIDLOOP_PARKER) == 2
using system_kernel = without_words<native_kernel>;
#else
using system_kernel = native_kernel;
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
