// pollers.hpp - the pollers that compile here: each promise of the contract is tested of all
#pragma once

#include <hybridloop.hpp>

namespace support {

// A kqueue that knows events of the user's, and does nothing about them: a pipe is the bell.
template <class Kernel>
struct deaf : Kernel {
  static int kevent_trigger(int) noexcept { return 0; }
};

// A kqueue that is a library on epoll keeps what was closed while another number names it, and has no
// way to take it off.
#if defined(TEST_KQUEUE)
inline constexpr bool ghosts_stay = true;
#else
inline constexpr bool ghosts_stay = false;
#endif

}  // namespace support

// For TEST_CASE_TEMPLATE("...", poller, SUPPORT_POLLERS(kernel)). TEST_KQUEUE is what `make POLLER=kqueue` says.
#if defined(__linux__) && defined(TEST_KQUEUE)
#define SUPPORT_POLLERS(kernel)                                                      \
  hybridloop::detail::epoll_poller<kernel>, hybridloop::detail::kqueue_poller<kernel>, \
      hybridloop::detail::kqueue_poller<support::deaf<kernel>>, hybridloop::detail::poll_poller<kernel>
#elif defined(__linux__)
#define SUPPORT_POLLERS(kernel) hybridloop::detail::epoll_poller<kernel>, hybridloop::detail::poll_poller<kernel>
#elif defined(_WIN32)
#define SUPPORT_POLLERS(kernel) hybridloop::detail::afd_poller<kernel>, hybridloop::detail::poll_poller<kernel>
#else
#define SUPPORT_POLLERS(kernel)                                                                               \
  hybridloop::detail::kqueue_poller<kernel>, hybridloop::detail::kqueue_poller<support::deaf<kernel>>, \
      hybridloop::detail::poll_poller<kernel>
#endif
