// proc.hpp - what /proc says about this process: its threads, what each has used, its pages
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <set>
#include <string>

#if !defined(_WIN32)
#include <dirent.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/prctl.h>
#endif

namespace support {

// Whether a sanitizer is part of the program, with threads, pages and costs of its own.
#if defined(__has_feature)
#define SUPPORT_HAS(feature) __has_feature(feature)
#else
#define SUPPORT_HAS(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || SUPPORT_HAS(thread_sanitizer)
inline constexpr bool thread_sanitized = true;
#else
inline constexpr bool thread_sanitized = false;
#endif
#if defined(__SANITIZE_ADDRESS__) || SUPPORT_HAS(address_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = thread_sanitized;
#endif

// Whether this runs in qemu's user mode or in valgrind, where time, pages and what is said of them are
// theirs as well. Asked before main(); a thread takes its name over.
#if defined(__linux__)
inline bool runs_in(const char* emulator) {
  static const std::string name = [] {
    char own[16] = {};
    ::prctl(PR_GET_NAME, own);
    return std::string(own);
  }();
  return name.rfind(emulator, 0) == 0;
}
#else
inline bool runs_in(const char*) { return false; }
#endif
inline bool in_valgrind() { return runs_in("memcheck-"); }
inline bool emulated() { return runs_in("qemu-") || in_valgrind(); }

// qemu 7.2 dies in a child that was forked beside threads as soon as it starts one: it takes the new
// thread for one of the parent's.
inline bool forked_threads_die() { return runs_in("qemu-"); }

#if !defined(_WIN32)
inline std::set<std::string> threads() {
  std::set<std::string> found;
  DIR* dir = ::opendir("/proc/self/task");
  if (dir == nullptr) std::abort();
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] != '.') found.emplace(entry->d_name);
  }
  ::closedir(dir);
  return found;
}

// What another thread has used, to the nanosecond.
struct thread_cost {
  std::uint64_t cpu_ns = 0;
  std::uint64_t switches = 0;
};
inline thread_cost cost_of(const std::string& thread) {
  const std::string folder = "/proc/self/task/" + thread;
  thread_cost cost;
  std::ifstream(folder + "/schedstat") >> cost.cpu_ns;
  std::ifstream status(folder + "/status");
  for (std::string word; status >> word;) {
    std::uint64_t count = 0;
    if (word.find("voluntary_ctxt_switches:") != std::string::npos && status >> count) {
      cost.switches += count;
    }
  }
  return cost;
}

struct memory_use {
  std::size_t mapped = 0;
  std::size_t resident = 0;
};
inline memory_use memory_used() {
  memory_use pages;
  std::ifstream("/proc/self/statm") >> pages.mapped >> pages.resident;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return {pages.mapped * page, pages.resident * page};
}
#endif

}  // namespace support
