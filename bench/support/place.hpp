// place.hpp - which CPU a thread runs on
#pragma once

#include <cstddef>
#include <vector>

#if defined(__linux__)
#include <sched.h>

namespace bench {

// The CPUs that this thread may use.
inline std::vector<std::size_t> cpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<std::size_t> all;
  if (::sched_getaffinity(0, sizeof mask, &mask) != 0) return all;
  for (std::size_t i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &mask)) all.push_back(i);
  }
  return all;
}

// This thread, and those that it starts from here on.
inline void pin(const std::vector<std::size_t>& to) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const std::size_t i : to) CPU_SET(i, &mask);
  ::sched_setaffinity(0, sizeof mask, &mask);
}

}  // namespace bench
#else
namespace bench {
inline std::vector<std::size_t> cpus() { return {}; }
inline void pin(const std::vector<std::size_t>&) {}
}  // namespace bench
#endif

namespace bench {

// Puts this thread back to where it was.
class placement {
 public:
  placement() = default;
  placement(const placement&) = delete;
  placement& operator=(const placement&) = delete;
  ~placement() { pin(before_); }

 private:
  std::vector<std::size_t> before_ = cpus();
};

}  // namespace bench
