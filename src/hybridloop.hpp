// hybridloop.hpp - an event loop to put inside a game, a tool or an engine
//
//   @contents

#pragma once

// @includes

#if defined(HYBRIDLOOP_VERSION_MAJOR)
#error "hybridloop: a second copy of hybridloop.hpp in one file; include one of them only"
#endif
#define HYBRIDLOOP_VERSION_MAJOR 0
#define HYBRIDLOOP_VERSION_MINOR 1
#define HYBRIDLOOP_VERSION_PATCH 0

#include "base/os.hpp"
#include "base/config.hpp"
#include "base/contract.hpp"
#include "base/error.hpp"
#include "base/clock.hpp"
#include "base/bits.hpp"
#include "base/pause.hpp"
#include "base/handle.hpp"

#include "task/unique_task.hpp"
#include "task/memory.hpp"
#include "task/fifo.hpp"
#include "task/index_stack.hpp"
#include "task/arena.hpp"
#include "task/slab.hpp"

#include "wait/kernel.hpp"
#include "wait/parker.hpp"
#include "wait/bell.hpp"
#include "wait/fence.hpp"

#include "poller/contract.hpp"
#include "poller/epoll.hpp"
#include "poller/select.hpp"

#include "ingress/ring.hpp"
#include "ingress/spill.hpp"
#include "ingress/room.hpp"
#include "ingress/ingress.hpp"
#include "ingress/stream.hpp"

#include "timer/record.hpp"
#include "timer/wheel.hpp"
#include "timer/timers.hpp"

#include "loop/options.hpp"
#include "loop/traits.hpp"
#include "loop/frames.hpp"
#include "loop/doorbell.hpp"
#include "loop/wakeup.hpp"
#include "loop/watch_record.hpp"
#include "loop/watches.hpp"
#include "loop/companion.hpp"
#include "loop/core.hpp"
#include "loop/runner.hpp"
#include "loop/invoke.hpp"
#include "loop/handle.hpp"
#include "loop/loop.hpp"
#include "loop/loop_work.hpp"
#include "loop/commands.hpp"
#include "loop/loop_events.hpp"

#include "base/undef.hpp"
