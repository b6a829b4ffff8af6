// poller/select.hpp - the shim that base/config.hpp has chosen
#pragma once

#include "poller/afd.hpp"
#include "poller/contract.hpp"
#include "poller/epoll.hpp"
#include "poller/kqueue.hpp"
#include "poller/none.hpp"
#include "poller/poll.hpp"

HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
using system_poller = HYBRIDLOOP_SYSTEM_POLLER<Kernel>;

}  // namespace detail
HYBRIDLOOP_CLOSE
