// poller/select.hpp - the only ladder: which shim this system gets
#pragma once

#include "poller/contract.hpp"
#include "poller/epoll.hpp"

HYBRIDLOOP_OPEN
namespace detail {

#if HYBRIDLOOP_OS(LINUX)
template <class Kernel>
using system_poller = epoll_poller<Kernel>;
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
