// poller/none.hpp - no poller at all, for HYBRIDLOOP_NO_IO
#pragma once

#include <cerrno>
#include <cstddef>

#include "base/clock.hpp"
#include "poller/contract.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// It cannot be opened, so nobody comes to wait in it or to ring it.
template <class Kernel>
class none_poller {
 public:
  static constexpr const char* name = "none";
  static constexpr bool edges = false;

  int open() noexcept { return ENOTSUP; }
  void close() noexcept {}
  void abandon() noexcept {}
  int reopen() noexcept { return ENOTSUP; }
  bool is_open() const noexcept { return false; }
  bool owns(native_handle) const noexcept { return false; }
  int add(native_handle, interest, poll_token) noexcept { return ENOTSUP; }
  int change(native_handle, interest, poll_token) noexcept { return ENOTSUP; }
  int remove(native_handle) noexcept { return ENOTSUP; }
  int renew() noexcept { return ENOTSUP; }
  int expose(native_handle&) const noexcept { return ENOTSUP; }
  void settle() noexcept {}
  int wait(poll_event*, std::size_t, nanos) noexcept { return -ENOTSUP; }
  native_handle bell() const noexcept { return -1; }
  static int ring(native_handle) noexcept { return ENOTSUP; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
