// sync/select.hpp - the phases by name, and the one that is meant where none is named
#pragma once

#include "loop/traits.hpp"
#include "sync/channel.hpp"
#include "sync/condvar.hpp"
#include "sync/event.hpp"
#include "sync/latch.hpp"
#include "sync/mutex.hpp"
#include "sync/queue0.hpp"
#include "sync/queue1.hpp"
#include "sync/queue2.hpp"
#include "sync/queue3.hpp"
#include "sync/queue_locked.hpp"
#include "sync/semaphore.hpp"

HYBRIDLOOP_OPEN
namespace sync {

using queue0 = basic_queue0<default_traits>;
using queue1 = basic_queue1<default_traits>;
using queue2 = basic_queue2<default_traits>;
using queue3 = basic_queue3<default_traits>;
using queue_locked = basic_queue_locked<default_traits>;

using default_queue = HYBRIDLOOP_DEFAULT_QUEUE;

}  // namespace sync

// Files that choose different phases name different types, so what passes one of these between them does not
// link.
using semaphore = basic_semaphore<sync::default_queue>;
using condvar = basic_condvar<sync::default_queue>;
using mutex = basic_mutex<sync::default_queue>;
using event = basic_event<sync::default_queue, sync::manual_reset>;
using auto_event = basic_event<sync::default_queue, sync::auto_reset>;
using latch = basic_latch<sync::default_queue>;
template <class T>
using channel = basic_channel<T, sync::default_queue>;
using wait_ticket = basic_wait_ticket<default_traits>;
using wait_options = basic_wait_options<default_traits::clock>;

HYBRIDLOOP_CLOSE
