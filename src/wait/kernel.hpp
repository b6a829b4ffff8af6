// wait/kernel.hpp - the kernel seam: every system call of the library, each answering -errno
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/clock.hpp"
#include "base/os.hpp"

#if HYBRIDLOOP_OS(LINUX)
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if !HYBRIDLOOP_NO_IO
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#endif

HYBRIDLOOP_OPEN
namespace detail {

// Which file a number names. Eventfds, timerfds and their like share one inode, so of these one is
// taken for another.
struct file_identity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool always_ready = false;  // a file that cannot be waited for

  friend bool operator==(const file_identity& a, const file_identity& b) noexcept {
    return a.device == b.device && a.inode == b.inode;
  }
};

// A traits type names its kernel, so a test can put one in between that injects failures, counts
// calls or moves a clock of its own. Answers are what the kernel answers: a value, or -errno.
struct linux_kernel {
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

  static int answer(long result) noexcept { return result < 0 ? -errno : static_cast<int>(result); }

  // Seconds of 32 bits end in 68 years: who sleeps so long is woken, and sleeps again.
  static timespec to_timespec(nanos t) noexcept {
    constexpr nanos last = (std::numeric_limits<decltype(timespec::tv_sec)>::max)();
    if (t < 0) t = 0;
    timespec out{};
    const nanos seconds = t / 1000000000;
    out.tv_sec = static_cast<decltype(out.tv_sec)>(seconds < last ? seconds : last);
    out.tv_nsec = static_cast<decltype(out.tv_nsec)>(t % 1000000000);
    return out;
  }

  // Sleeps while *word == expected, until woken or CLOCK_MONOTONIC reaches the deadline.
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline,
                        std::uint32_t mask = FUTEX_BITSET_MATCH_ANY) noexcept {
    const timespec at = to_timespec(deadline);
    return answer(::syscall(futex_number, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected,
                            deadline == never ? nullptr : &at, nullptr, mask));
  }

  // Wakes those whose mask has a bit of this one. The address is never read here, so it may belong to
  // nobody any more.
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

  // The timeout is relative; `never` waits for ever.
  static int poll(pollfd* descriptors, std::size_t count, nanos timeout) noexcept {
    const timespec span = to_timespec(timeout);
    return answer(::ppoll(descriptors, count, timeout == never ? nullptr : &span, nullptr));
  }
  static constexpr short poll_half_close = POLLRDHUP;  // 0 where there is no such thing

  // The end to read from, then the end to write to.
  static int pipe(int (&ends)[2]) noexcept { return answer(::pipe2(ends, O_NONBLOCK | O_CLOEXEC)); }

  // Not fstat(), of which thread sanitizers think that it must not meet a close(). Here it may.
  static int identify(int fd, file_identity& out) noexcept {
    if (fd < 0) return -EBADF;
    struct stat file;
    if (::fstatat(fd, "", &file, AT_EMPTY_PATH) != 0) return -errno;
    out.device = static_cast<std::uint64_t>(file.st_dev);
    out.inode = static_cast<std::uint64_t>(file.st_ino);
    out.always_ready = cannot_be_polled(file);
    return 0;
  }
#endif

  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    return answer(::write(fd, bytes, size));
  }
  static int read(int fd, void* bytes, std::size_t size) noexcept {
    return answer(::read(fd, bytes, size));
  }
  static bool is_descriptor(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }
  static int close(int fd) noexcept { return answer(::close(fd)); }
  // Makes `number` name what `fd` names; what it named before is closed, in one step.
  static int replace(int number, int fd) noexcept { return answer(::dup3(fd, number, O_CLOEXEC)); }

  // Zeroed pages that cost nothing until touched; nullptr when there are none.
  static void* map(std::size_t bytes) noexcept {
    void* got = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return got == MAP_FAILED ? nullptr : got;
  }
  static void unmap(void* memory, std::size_t bytes) noexcept { ::munmap(memory, bytes); }

  static void yield() noexcept { ::sched_yield(); }

  // How many forks lie between the process that asked first and this one. Counted by a handler, since
  // asking for the process id is a system call; so clone(2) by hand goes unseen.
  static std::uint32_t forks() noexcept {
    static std::atomic<std::uint32_t> count{0};
    static const int refused =
        ::pthread_atfork(nullptr, nullptr, [] { count.fetch_add(1, std::memory_order_relaxed); });  // ours alone: a child has one thread
    static_cast<void>(refused);
    return count.load(std::memory_order_relaxed);  // a hint; it changes before anybody looks
  }

  // A thread of the library's own. It blocks all signals: they are for threads the program knows.
  // (std::thread costs whoever includes it more than all of the library's own headers.)
  class thread {
   public:
    thread() noexcept = default;
    thread(const thread&) = delete;
    thread& operator=(const thread&) = delete;

    bool joinable() const noexcept { return run_ != nullptr; }

    // Calls run(with) there. 0, or the errno of a refused thread.
    int start(void (*run)(void*), void* with) noexcept {
      sigset_t all, before;
      ::sigfillset(&all);
      ::pthread_sigmask(SIG_SETMASK, &all, &before);
      run_ = run;
      with_ = with;
      const int refused = ::pthread_create(&thread_, nullptr, &thread::enter, this);
      if (refused != 0) run_ = nullptr;
      ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
      return refused;
    }
    void join() noexcept {
      ::pthread_join(thread_, nullptr);
      run_ = nullptr;
    }
    // The child of a fork, where it is not there to be joined.
    void forget() noexcept { run_ = nullptr; }

   private:
    static void* enter(void* me) {
      const thread& mine = *static_cast<thread*>(me);
      mine.run_(mine.with_);
      return nullptr;
    }
    pthread_t thread_{};
    void (*run_)(void*) = nullptr;
    void* with_ = nullptr;
  };

  // (As costly to include as std::thread.)
  class mutex {
   public:
    mutex() noexcept = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;
    ~mutex() { ::pthread_mutex_destroy(&mutex_); }
    void lock() noexcept { ::pthread_mutex_lock(&mutex_); }
    bool try_lock() noexcept { return ::pthread_mutex_trylock(&mutex_) == 0; }
    void unlock() noexcept { ::pthread_mutex_unlock(&mutex_); }

   private:
    pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  };
  class hold {
   public:
    explicit hold(mutex& m) noexcept : mutex_(m) { m.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { mutex_.unlock(); }

   private:
    mutex& mutex_;
  };

  static void nap(nanos span) noexcept {
    const timespec length = to_timespec(span);
    ::nanosleep(&length, nullptr);
  }

  // CPUs this thread may use: the affinity mask, and never more than the cgroup's quota.
  static unsigned usable_cpus() noexcept {
    static const unsigned quota = quota_cpus();
    cpu_set_t mask;
    CPU_ZERO(&mask);
    const int got = ::sched_getaffinity(0, sizeof mask, &mask);
    const unsigned allowed = got == 0 ? static_cast<unsigned>(CPU_COUNT(&mask)) : quota;
    return allowed < quota ? allowed : quota;
  }

 private:
#if !HYBRIDLOOP_NO_IO
  // What epoll refuses.
  static bool cannot_be_polled(const struct stat& file) noexcept {
    if (S_ISREG(file.st_mode) || S_ISDIR(file.st_mode) || S_ISBLK(file.st_mode)) return true;
    if (!S_ISCHR(file.st_mode)) return false;
    for (const char* device : {"/dev/null", "/dev/zero", "/dev/full"}) {
      struct stat known;
      if (::stat(device, &known) == 0 && known.st_rdev == file.st_rdev) return true;
    }
    return false;
  }
#endif

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

using system_kernel = linux_kernel;

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(LINUX)
