// wait/kernel_linux.hpp - the kernel seam on Linux: futex, membarrier, epoll, eventfd
#pragma once

#include <cstddef>
#include <cstdint>

#include "wait/kernel_posix.hpp"

#if HYBRIDLOOP_OS(LINUX)
#include <linux/futex.h>
#include <stdio.h>
#include <sys/syscall.h>
#if !HYBRIDLOOP_NO_IO
#include <sys/epoll.h>
#include <sys/eventfd.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

struct linux_kernel : posix_kernel {
  // 32-bit systems built with a 64-bit time_t need the call that takes one.
#if defined(SYS_futex_time64) && (!defined(SYS_futex) || defined(__USE_TIME_BITS64))
  static constexpr long futex_number = SYS_futex_time64;
#else
  static constexpr long futex_number = SYS_futex;
#endif
#if defined(SYS_epoll_pwait2)
  static constexpr long epoll_pwait2_number = SYS_epoll_pwait2;
#else
  static constexpr long epoll_pwait2_number = 441;  // on every CPU; headers before 5.11 lack it
#endif

  static constexpr const char* parking = "futex";

  // The deadline is one of CLOCK_MONOTONIC.
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline,
                        std::uint32_t mask = FUTEX_BITSET_MATCH_ANY) noexcept {
    const timespec at = to_timespec(deadline);
    return answer(::syscall(futex_number, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                            deadline == never ? nullptr : &at, nullptr, mask));
  }
  static int futex_wake(const void* word, int count, std::uint32_t mask = FUTEX_BITSET_MATCH_ANY) noexcept {
    return answer(::syscall(futex_number, word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, count, nullptr,
                            nullptr, mask));
  }

  // membarrier(2); the numbers are the kernel's own, older headers lack their names.
  static constexpr int membarrier_global = 1;
  static constexpr int membarrier_expedited = 1 << 3;
  static constexpr int membarrier_register_expedited = 1 << 4;
  static int membarrier(int command) noexcept {
    return answer(::syscall(SYS_membarrier, command, 0, 0));
  }

#if !HYBRIDLOOP_NO_IO
  static int epoll_create() noexcept { return answer(::epoll_create1(EPOLL_CLOEXEC)); }
  static int epoll_ctl(int epoll, int what, int fd, epoll_event* event) noexcept {
    return answer(::epoll_ctl(epoll, what, fd, event));
  }
  // The timeout is relative; `never` waits for ever.
  static int epoll_pwait2(int epoll, epoll_event* out, int room, nanos timeout) noexcept {
    struct {  // struct __kernel_timespec: 64-bit everywhere
      std::int64_t seconds, nanoseconds;
    } span{timeout / 1000000000, timeout % 1000000000};
    return answer(::syscall(epoll_pwait2_number, epoll, out, room, timeout == never ? nullptr : &span, nullptr,
                            std::size_t{0}));
  }
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    return answer(::epoll_wait(epoll, out, room, milliseconds));
  }

  static int eventfd() noexcept { return answer(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)); }

  static int poll(pollfd* descriptors, std::size_t count, nanos timeout) noexcept {
    const timespec span = to_timespec(timeout);
    return answer(::ppoll(descriptors, count, timeout == never ? nullptr : &span, nullptr));
  }
  static constexpr short poll_half_close = POLLRDHUP;

  static int pipe(int (&ends)[2]) noexcept { return answer(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }

  // Not fstat(), of which thread sanitizers think that it must not meet a close(). Here it may.
  static int identify(int fd, file_identity& out) noexcept {
    if (fd < 0) return -EBADF;
    struct stat file;
    if (::fstatat(fd, "", &file, AT_EMPTY_PATH) != 0) return -errno;
    identity_of(file, out);
    return 0;
  }
#endif

  static int replace(int number, int fd) noexcept { return answer(::dup3(fd, number, O_CLOEXEC)); }

  // The affinity masks of this thread and of the main one, since a thread may be kept on a CPU of its own; and never
  // more than the cgroup's quota.
  static unsigned usable_cpus() noexcept {
    static const unsigned quota = quota_cpus();
    cpu_set_t mine, all;
    CPU_ZERO(&mine);
    CPU_ZERO(&all);
    static_cast<void>(::sched_getaffinity(0, sizeof mine, &mine));  // refused, it says nothing: more CPUs than it has bits
    static_cast<void>(::sched_getaffinity(::getpid(), sizeof all, &all));
    CPU_OR(&all, &all, &mine);
    const auto allowed = static_cast<unsigned>(CPU_COUNT(&all));
    return allowed != 0 && allowed < quota ? allowed : quota;
  }

 private:
  static constexpr unsigned unlimited = 1u << 16;

  // "max 100000" or "150000 100000": quota and period in microseconds (cgroup v2), or the same
  // two numbers in two files (v1). Rounded down: one and a half CPUs are no place to spin on.
  static unsigned quota_cpus() noexcept {
    long long quota = -1;
    long long period = 0;
    if (std::FILE* both = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
      const int fields = std::fscanf(both, "%lld %lld", &quota, &period);
      std::fclose(both);
      if (fields != 2) return unlimited;
    } else {
      quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
      period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    }
    if (quota <= 0 || period <= 0) return unlimited;
    return quota < period ? 1u : static_cast<unsigned>(quota / period);
  }

  static long long read_number(const char* path) noexcept {
    long long value = -1;
    if (std::FILE* file = std::fopen(path, "re")) {
      if (std::fscanf(file, "%lld", &value) != 1) value = -1;
      std::fclose(file);
    }
    return value;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(LINUX)
