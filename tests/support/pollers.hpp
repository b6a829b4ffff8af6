// pollers.hpp - the pollers that compile here: each promise of the contract is tested of all
#pragma once

#include <hybridloop.hpp>

// For TEST_CASE_TEMPLATE("...", poller, SUPPORT_POLLERS(kernel)). TEST_KQUEUE is what `make POLLER=kqueue` says.
#if defined(__linux__) && defined(TEST_KQUEUE)
#define SUPPORT_POLLERS(kernel)                                                      \
  hybridloop::detail::epoll_poller<kernel>, hybridloop::detail::kqueue_poller<kernel>, \
      hybridloop::detail::poll_poller<kernel>
#elif defined(__linux__)
#define SUPPORT_POLLERS(kernel) hybridloop::detail::epoll_poller<kernel>, hybridloop::detail::poll_poller<kernel>
#elif defined(_WIN32)
#define SUPPORT_POLLERS(kernel) hybridloop::detail::afd_poller<kernel>, hybridloop::detail::poll_poller<kernel>
#else
#define SUPPORT_POLLERS(kernel) hybridloop::detail::kqueue_poller<kernel>, hybridloop::detail::poll_poller<kernel>
#endif
