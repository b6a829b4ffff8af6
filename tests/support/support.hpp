// support.hpp - what many tests need: scale, start gates, accepted posts, descriptors, CPU time
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace support {

using namespace std::chrono_literals;

// TEST_SCALE=0.1 for a slow build (sanitizers), 10 and more for a soak.
inline double scale() {
  static const double value = [] {
    const char* text = std::getenv("TEST_SCALE");
    return text == nullptr ? 1.0 : std::atof(text);
  }();
  return value;
}
inline std::size_t scaled(std::size_t n, std::size_t least = 1) {
  const auto want = static_cast<std::size_t>(static_cast<double>(n) * scale());
  return want < least ? least : want;
}

// Threads that start together.
class gate {
 public:
  void open() {
    const std::lock_guard<std::mutex> hold(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

// A thread that is joined when its scope ends.
class scoped_thread {
 public:
  template <class F>
  explicit scoped_thread(F&& f) : thread_(std::forward<F>(f)) {}
  scoped_thread(scoped_thread&&) = default;
  ~scoped_thread() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::thread thread_;
};

template <class Loop, class F>
void must_post(Loop& l, F&& f) {
  if (l.post(std::forward<F>(f)) != hybridloop::post_result::accepted) std::abort();
}

// What POSIX says in two steps.
inline void keep_to_ourselves(int fd) {
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) std::abort();
}
inline void never_block(int fd) {
  if (::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) std::abort();
}

inline void make_pipe(int (&ends)[2]) {
  if (::pipe(ends) != 0) std::abort();
  for (const int end : ends) keep_to_ourselves(end), never_block(end);
}

// Two ends of a connection, non-blocking, closed with the scope.
class socket_pair {
 public:
  socket_pair() {
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_) != 0) std::abort();
    for (const int end : ends_) keep_to_ourselves(end), never_block(end);
  }
  socket_pair(const socket_pair&) = delete;
  socket_pair& operator=(const socket_pair&) = delete;
  ~socket_pair() {
    close_left();
    close_right();
  }
  int left() const { return ends_[0]; }
  int right() const { return ends_[1]; }
  void write_right() const {
    if (::write(ends_[1], "x", 1) != 1) std::abort();
  }
  std::size_t drain_left() const {
    char buffer[4096];
    const auto got = ::read(ends_[0], buffer, sizeof buffer);
    return got > 0 ? static_cast<std::size_t>(got) : 0;
  }
  void close_left() { close_end(0); }
  void close_right() { close_end(1); }

 private:
  void close_end(int i) {
    if (ends_[i] >= 0) ::close(ends_[i]);
    ends_[i] = -1;
  }
  int ends_[2] = {-1, -1};
};

#if defined(__linux__)
inline constexpr const char* descriptors_folder = "/proc/self/fd";
#else
inline constexpr const char* descriptors_folder = "/dev/fd";
#endif

// Names of what stands there, without the one used to look, and those beyond the process's limit:
// valgrind's own.
inline std::vector<std::string> open_descriptors() {
  std::vector<std::string> found;
  DIR* dir = ::opendir(descriptors_folder);
  if (dir == nullptr) std::abort();
  const int own = dirfd(dir);  // a macro on some systems
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  while (const dirent* entry = ::readdir(dir)) {
    const int number = std::atoi(entry->d_name);
    const bool ours = entry->d_name[0] != '.' && number != own && static_cast<rlim_t>(number) < limit.rlim_cur;
    if (ours) found.emplace_back(entry->d_name);
  }
  ::closedir(dir);
  return found;
}

// The parking lot takes a lock, which a signal handler may have interrupted.
inline bool handlers_may_wake() {
  return std::string(hybridloop::default_traits::parker::name).find("condvar") == std::string::npos;
}

struct usage {
  std::chrono::microseconds cpu{0};
  long switches = 0;
};
#if defined(RUSAGE_THREAD)
inline constexpr auto usage_of_a_thread = RUSAGE_THREAD;
#else
inline constexpr auto usage_of_a_thread = RUSAGE_SELF;
#endif
// Of the calling thread, where the system tells.
inline usage thread_usage() {
  rusage raw{};
  ::getrusage(usage_of_a_thread, &raw);
  const auto of = [](const timeval& t) {
    return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec);
  };
  return {of(raw.ru_utime) + of(raw.ru_stime), raw.ru_nvcsw + raw.ru_nivcsw};
}

}  // namespace support
