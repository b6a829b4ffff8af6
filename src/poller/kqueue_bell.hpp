// poller/kqueue_bell.hpp - what ends a wait in a kqueue: an event of the user's, or a pipe where there are none
#pragma once

#include <atomic>

#include "base/handle.hpp"
#include "wait/bell.hpp"
#include "wait/kernel.hpp"

#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
class kqueue_bell {
 public:
  // For a queue that is empty yet. 0 or an errno.
  int open(int queue) noexcept {
    if (bells_.load(std::memory_order_relaxed) == untried) {  // a hint; asking twice is harmless
      int first = untried;  // whose answer is everybody's: a bell is rung as it was made
      bells_.compare_exchange_strong(first, try_user_events(queue) ? yes : no, std::memory_order_relaxed);  // a hint; settled before there is a bell
    }
    if (!has_user_events()) {
      const int refused = -pipe_bell<Kernel>::open(ends);
      if (refused != 0) return refused;
    }
    return tell(queue);
  }
  // That it is to hear the bell. 0 or an errno.
  int tell(int queue) const noexcept {
    if (has_user_events()) return -Kernel::kevent_add_user(queue);
    return -Kernel::kevent_add(queue, ends[0], Kernel::filter_read, false, 0);
  }

  // False: the event is none of the bell's.
  bool hears(const typename Kernel::kernel_event& event) const noexcept {
    if (event.filter == Kernel::filter_user) return true;
    if (static_cast<native_handle>(event.ident) != ends[0]) return false;
    pipe_bell<Kernel>::hear(ends[0]);
    return true;
  }

  native_handle handle(int queue) const noexcept { return ends[1] >= 0 ? ends[1] : queue; }
  // Any thread, any signal handler. 0 or an errno.
  static int ring(native_handle handle) noexcept {
    return has_user_events() ? user_bell<Kernel>::ring(handle) : pipe_bell<Kernel>::ring(handle);
  }

  int ends[2] = {-1, -1};  // of the pipe, where it takes one

 private:
  // Asked of the running kernel: some know the filter and do nothing about it.
  static bool try_user_events(int queue) noexcept {
    typename Kernel::kernel_event heard{};
    return Kernel::kevent_add_user(queue) == 0 && Kernel::kevent_trigger(queue) == 0 &&
           Kernel::kevent_wait(queue, &heard, 1, 0) == 1 && heard.filter == Kernel::filter_user;
  }
  static bool has_user_events() noexcept {
    return bells_.load(std::memory_order_relaxed) == yes;  // a hint; settled before there is a bell
  }
  enum : int { untried, yes, no };
  static inline std::atomic<int> bells_{untried};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
