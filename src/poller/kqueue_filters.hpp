// poller/kqueue_filters.hpp - what a watch asks for and is told, in the filters of kqueue(2)
#pragma once

#include "poller/contract.hpp"
#include "wait/kernel.hpp"

#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
struct kqueue_filters {
  enum : unsigned { reads = 1, writes = 2, excepts = 4 };
  static constexpr unsigned every[] = {reads, writes, excepts};

  static unsigned asked_by(interest what) noexcept {
    return (has(what, interest::readable) ? unsigned{reads} : 0u) | (has(what, interest::writable) ? unsigned{writes} : 0u) |
           (has(what, interest::priority) ? unsigned{excepts} : 0u);
  }
  static typename Kernel::kernel_filter one(unsigned which) noexcept {
    return which == reads ? Kernel::filter_read : which == writes ? Kernel::filter_write : Kernel::filter_except;
  }

  // The end of a pipe to write to has no hang-up: its reader is gone, which is an error.
  static void report(const typename Kernel::kernel_event& event, bool pipe, ready& what) noexcept {
    const bool over = Kernel::kevent_is_end(event);
    const bool failed = over && event.fflags != 0;
    if (event.filter == Kernel::filter_read) {
      what.readable = true;
      what.hangup = what.hangup || over;
      what.error = what.error || failed;
    } else if (event.filter == Kernel::filter_write) {
      what.writable = true;
      what.hangup = what.hangup || (over && !pipe);
      what.readable = what.readable || what.hangup;
      what.error = what.error || failed || (over && pipe);
    } else {
      what.priority = true;
    }
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
