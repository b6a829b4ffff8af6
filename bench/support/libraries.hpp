// libraries.hpp - the headers of the rivals that are on this machine, in the order in which they get along
#pragma once

#include <string>

#if defined(HAVE_LIBUV)
#include <uv.h>
#endif

// libev and libevent both say EV_READ and EV_TIMEOUT, and mean other numbers: libev's are kept here.
#if defined(HAVE_LIBEV)
#include <ev.h>
namespace rivals {
inline constexpr int libev_readable = EV_READ;
}
#undef EV_TIMEOUT
#endif

#if defined(HAVE_LIBEVENT)
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/thread.h>
#endif

#if defined(HAVE_ASIO)
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/version.hpp>
#endif

namespace rivals {

// Stands for a rival that is not here. Its name is said, its rows are left out.
struct absent {};

}  // namespace rivals
