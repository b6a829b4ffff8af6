// system_posix.hpp - descriptors, CPU time and sockets, as POSIX has them
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <hybridloop.hpp>

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/epoll.h>
#endif

struct epoll_event;  // tests name it where there is none

namespace support {

using descriptor = hybridloop::native_handle;

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

// A file that is always ready.
inline descriptor open_file() {
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd < 0) std::abort();
  return fd;
}
inline void close_file(descriptor fd) { ::close(fd); }

// A handle for a foreign loop: whether it is readable within so many milliseconds; -1 waits for ever.
inline bool becomes_readable(descriptor handle, int milliseconds) {
  pollfd one{handle, POLLIN, 0};
  return ::poll(&one, 1, milliseconds) == 1;
}

// Whether f runs into a broken contract, or whatever else ends a program with a sentence.
template <class F>
bool aborts(const F& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    const bool told = ::freopen("/dev/null", "w", stderr) != nullptr;
    hybridloop::set_failure_handler([](const char*) { ::_exit(77); });
    f();
    ::_exit(told ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 77;
}

inline void connect_two(descriptor (&ends)[2]) {
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) std::abort();
  for (const int end : ends) keep_to_ourselves(end), never_block(end);
}
inline void close_socket(descriptor fd) { ::close(fd); }

// How many; 0 where there is none, or no room.
inline std::size_t send_bytes(descriptor fd, const void* bytes, std::size_t size) {
  const auto sent = ::write(fd, bytes, size);
  return sent > 0 ? static_cast<std::size_t>(sent) : 0;
}
inline std::size_t receive_bytes(descriptor fd, void* bytes, std::size_t size) {
  const auto got = ::read(fd, bytes, size);
  return got > 0 ? static_cast<std::size_t>(got) : 0;
}

#if defined(__linux__)
inline constexpr const char* descriptors_folder = "/proc/self/fd";
inline constexpr int epoll_adds = EPOLL_CTL_ADD;

// The calling thread, of those that it may use.
inline void keep_on_first_cpu() {
  cpu_set_t all, one;
  CPU_ZERO(&one);
  if (::sched_getaffinity(0, sizeof all, &all) != 0) std::abort();
  std::size_t cpu = 0;
  while (!CPU_ISSET(cpu, &all)) ++cpu;
  CPU_SET(cpu, &one);
  if (::sched_setaffinity(0, sizeof one, &one) != 0) std::abort();
}
#else
inline constexpr const char* descriptors_folder = "/dev/fd";
inline constexpr int epoll_adds = 0;
inline void keep_on_first_cpu() {}
#endif

// Names of what stands there, without the one used to look, and those beyond the process's limit:
// valgrind's own.
using descriptor_list = std::vector<std::string>;
inline descriptor_list open_descriptors() {
  descriptor_list found;
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

inline std::chrono::microseconds process_cpu() {
  rusage raw{};
  ::getrusage(RUSAGE_SELF, &raw);
  const auto of = [](const timeval& t) {
    return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec);
  };
  return of(raw.ru_utime) + of(raw.ru_stime);
}


// ---- What tests of watches and pollers ask ----

// A closed end is a half close then.
inline constexpr bool pairs_are_tcp = false;

inline std::vector<std::string> thread_ids() {
  std::vector<std::string> found;
  DIR* dir = ::opendir("/proc/self/task");
  if (dir == nullptr) std::abort();
  while (const dirent* entry = ::readdir(dir)) found.emplace_back(entry->d_name);
  ::closedir(dir);
  return found;
}

inline constexpr std::int64_t readiness_takes = 0;
inline constexpr int early_returns = 0;

inline bool is_readable(descriptor fd) {
  pollfd look{fd, POLLIN, 0};
  return ::poll(&look, 1, 0) == 1;
}
inline void send_no_more(descriptor fd) {
  if (::shutdown(fd, SHUT_WR) != 0) std::abort();
}
inline void send_urgent(descriptor fd) {
  if (::send(fd, "!", 1, MSG_OOB) != 1) std::abort();
}
inline descriptor duplicate(descriptor fd) { return ::dup(fd); }
inline std::vector<descriptor> always_ready_files() {
  std::vector<descriptor> found;
  for (const char* path : {"/dev/null", "/proc/self/exe"}) found.push_back(::open(path, O_RDONLY | O_CLOEXEC));
  return found;
}

}  // namespace support
