// wait/kernel_posix.hpp - the system calls that all POSIX systems have
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "base/clock.hpp"
#include "base/os.hpp"
#include "wait/kernel_kqueue.hpp"

#if HYBRIDLOOP_OS(POSIX)
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#if !HYBRIDLOOP_NO_IO
#include <poll.h>
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
  bool pipe = false;

  friend bool operator==(const file_identity& a, const file_identity& b) noexcept {
    return a.device == b.device && a.inode == b.inode;
  }
};

// What each system lays over this: see wait/kernel.hpp.
struct posix_kernel : kqueue_calls {
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

  // Rounded up, or the last millisecond would be spent spinning. A day at most: the caller sleeps again.
  static int whole_milliseconds(nanos timeout) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = timeout / 1000000 + (timeout % 1000000 != 0 ? 1 : 0);
    return static_cast<int>(up < longest ? up : longest);
  }

  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    return answer(::write(fd, bytes, size));
  }
  static int read(int fd, void* bytes, std::size_t size) noexcept {
    return answer(::read(fd, bytes, size));
  }
#if !HYBRIDLOOP_NO_IO
  using poll_entry = ::pollfd;
  static constexpr int poll_in = POLLIN;
  static constexpr int poll_out = POLLOUT;
  static constexpr int poll_priority = POLLPRI;
  static constexpr int poll_error = POLLERR;
  static constexpr int poll_hangup = POLLHUP;
  static constexpr int poll_invalid = POLLNVAL;
#endif

  static bool is_descriptor(int fd) noexcept { return ::fcntl(fd, F_GETFD) >= 0; }
  static int close(int fd) noexcept { return answer(::close(fd)); }

#if defined(MAP_NORESERVE)
  static constexpr int unreserved = MAP_NORESERVE;
#else
  static constexpr int unreserved = 0;
#endif

  // Zeroed pages that cost nothing until touched; nullptr when there are none.
  static void* map(std::size_t bytes) noexcept {
    void* got = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | unreserved, -1, 0);
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
      (::sigfillset)(&all);  // a macro on some systems
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

#if !HYBRIDLOOP_NO_IO
 protected:
  // What epoll refuses, and what a poller of another system is asked to refuse as well.
  static bool cannot_be_polled(const struct stat& file) noexcept {
    if (S_ISREG(file.st_mode) || S_ISDIR(file.st_mode) || S_ISBLK(file.st_mode)) return true;
    if (!S_ISCHR(file.st_mode)) return false;
    for (const char* device : {"/dev/null", "/dev/zero", "/dev/full"}) {
      struct stat known;
      if (::stat(device, &known) == 0 && known.st_rdev == file.st_rdev) return true;
    }
    return false;
  }
  static void identity_of(const struct stat& file, file_identity& out) noexcept {
    out.device = static_cast<std::uint64_t>(file.st_dev);
    out.inode = static_cast<std::uint64_t>(file.st_ino);
    out.always_ready = cannot_be_polled(file);
    out.pipe = S_ISFIFO(file.st_mode);
  }
#endif
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
