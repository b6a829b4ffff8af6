// poller/contract.hpp - what a poller is, and the words it speaks
#pragma once

#include <cstdint>

#include "base/handle.hpp"

HYBRIDLOOP_OPEN

// What to watch a descriptor for; flags, combined with |.
enum class interest : unsigned {
  none = 0,
  readable = 1,
  writable = 2,
  edge = 4,      // once per change instead of as long as it is so
  oneshot = 8,   // once, then silent until modify()
  priority = 16  // out-of-band data
};

constexpr interest operator|(interest a, interest b) noexcept {
  return static_cast<interest>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr interest operator&(interest a, interest b) noexcept {
  return static_cast<interest>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
constexpr interest operator~(interest a) noexcept {
  return static_cast<interest>(~static_cast<unsigned>(a) & 31u);
}
constexpr interest& operator|=(interest& a, interest b) noexcept { return a = a | b; }
constexpr interest& operator&=(interest& a, interest b) noexcept { return a = a & b; }

// What a watch's callback is told.
struct ready {
  bool readable = false;
  bool writable = false;
  bool hangup = false;    // the peer will send no more; comes with readable
  bool error = false;     // the descriptor has failed, or could not be watched
  bool priority = false;
  int native_error = 0;   // errno of a refused watch or modify; 0 otherwise
  watch_id id{};
};

namespace detail {

constexpr bool has(interest set, interest flag) noexcept {
  return (set & flag) != interest::none;
}
inline constexpr interest anything = interest::readable | interest::writable | interest::priority;

// Which registration an event belongs to; the poller hands it back and never looks inside.
using poll_token = std::uint64_t;
inline constexpr poll_token bell_token = ~poll_token{0};

struct poll_event {
  poll_token token;
  ready what;
};

// A poller has these verbs, in this order. All answer 0 or an errno; EINTR never leaves `wait`
// as an error. What a poller has opened for itself is no descriptor to it: EBADF. The loop thread
// calls them, except where it says otherwise.
//
//   open()                        creates the kernel objects; refused ones leave nothing behind
//   close()                       idempotent
//   is_open()
//   owns(fd)                      one of the kernel objects' own numbers
//   add(fd, interest, token)      EPERM: a file that is always ready and cannot be polled
//   change(fd, interest, token)   also makes an edge-triggered descriptor report again. EBADF, ENOENT
//                                 or EPERM: the number no longer names what was added
//   remove(fd)                    removing what is not there is an answer, not a failure; EBADF where
//                                 the number is no descriptor at all
//   renew()                       forgets every registration, also those that cannot be removed. The
//                                 bell stays; when refused, all stays. Not while another thread waits
//   expose(out)                   a handle that is readable while the bell was rung and not heard by
//                                 wait(), or a registered descriptor is ready. ENOTSUP: there is none
//   settle()                      before somebody waits for that handle: makes it speak of all that was reported
//                                 and is to be reported again
//   abandon()                     the child of a fork: closes its copies of the kernel objects, and tells
//                                 the kernel nothing about what the parent has registered there
//   reopen()                      the child of a fork: kernel objects of its own under the old numbers,
//                                 and nothing registered. When refused, it may only be closed
//   edges                         a constant: false where `edge` is told like level-triggered
//   wait(out, room, timeout)      relative nanoseconds, `never` for ever; the number of events, or
//                                 0 for a timeout, a signal or the bell alone, or -errno
//   bell()                        the handle that ring() takes; stays the same while open
//   ring(bell)                    static; any thread, any signal handler: ends a wait, or the next
//                                 one when none is going on. Never lost, may be coalesced
//
// With interest `none` a registration reports a hang-up at most once.

}  // namespace detail
HYBRIDLOOP_CLOSE
