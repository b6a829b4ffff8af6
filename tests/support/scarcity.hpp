// scarcity.hpp - memory that is counted, and refused; memory_test.cpp has the malloc that asks here
#pragma once

#include <atomic>
#include <cstddef>

#include <hybridloop.hpp>

// Sanitizers bring a malloc of their own.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SUPPORT_OWN_MALLOC
#endif
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) && !defined(SUPPORT_OWN_MALLOC)
#define SUPPORT_COUNTS_ALLOCATIONS 1
#else
#define SUPPORT_COUNTS_ALLOCATIONS 0
#endif

namespace support {

// Of the calling thread.
inline thread_local std::size_t allocations = 0;
inline thread_local bool nothing_left = false;

// Of all allocations in such scopes, on any thread, one is refused, counted from 0.
class scarcity {
 public:
  scarcity() : outer_(here_) { here_ = true; }
  scarcity(const scarcity&) = delete;
  scarcity& operator=(const scarcity&) = delete;
  ~scarcity() { here_ = outer_; }

  static void prepare(int which) {
    struck_ = false;
    left_ = which;
  }
  static bool struck() { return struck_; }
  static void lift() { left_ = -1; }

  static bool strikes() {
    if (!here_ || left_ < 0 || left_.fetch_sub(1) != 0) return false;
    struck_ = true;
    return true;
  }

 private:
  static inline thread_local bool here_ = false;
  static inline std::atomic<int> left_{-1};
  static inline std::atomic<bool> struck_{false};
  const bool outer_;
};

inline bool refuses_memory() { return nothing_left || scarcity::strikes(); }

// Then nothing can be mapped either.
struct meagre_kernel : hybridloop::detail::system_kernel {
  static void* map(std::size_t bytes) noexcept {
    return refuses_memory() ? nullptr : hybridloop::detail::system_kernel::map(bytes);
  }
};
struct meagre_traits : hybridloop::default_traits {
  using kernel = meagre_kernel;
};
using meagre_loop = hybridloop::basic_loop<meagre_traits>;

}  // namespace support
