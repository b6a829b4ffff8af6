// poller/afd_slots.hpp - what a poller has asked the kernel, at addresses that stay
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "base/handle.hpp"
#include "poller/contract.hpp"
#include "task/memory.hpp"
#include "task/plain_array.hpp"
#include "wait/kernel_port.hpp"

#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// A registration, and its one question to the kernel. Taken off while a packet is still to come, it is
// given back when that has come.
struct afd_slot : port_request {
  poll_token token = 0;
  native_handle number = -1;
  native_handle base = -1;   // the socket that AFD is asked about
  std::uint32_t group = 0;
  unsigned wanted = 0;       // events
  unsigned asked = 0;        // events of the question that is out
  int refused = 0;           // the errno of a question that was not taken: a packet of our own says so
  bool live = false;         // registered
  bool object = false;       // no socket
  bool once = false;
  bool silent = false;       // until change()
  bool pending = false;      // a packet is to come
  bool due = false;          // to be asked by the next wait
  afd_slot* next = nullptr;  // due, or free
};

// The words that AFD has for an interest, and those it answers with.
template <class Kernel>
struct afd_questions {
  static unsigned events_of(interest what) noexcept {
    unsigned events = Kernel::afd_abort | Kernel::afd_connect_fail | Kernel::afd_local_close;
    if (has(what, interest::readable)) events |= Kernel::afd_receive | Kernel::afd_accept | Kernel::afd_disconnect;
    if (has(what, interest::writable)) events |= Kernel::afd_send;
    if (has(what, interest::priority)) events |= Kernel::afd_expedited;
    return events;
  }

  static ready ready_of(unsigned events) noexcept {
    ready what;
    what.error = (events & (Kernel::afd_abort | Kernel::afd_connect_fail)) != 0;
    what.hangup = what.error || (events & Kernel::afd_disconnect) != 0;
    what.readable = what.hangup || (events & (Kernel::afd_receive | Kernel::afd_accept)) != 0;
    what.writable = (events & Kernel::afd_send) != 0;
    what.priority = (events & Kernel::afd_expedited) != 0;
    return what;
  }
};

// Slots in groups of a size for which AFD is quick: it looks through all questions of one of its handles.
template <class Kernel>
class afd_slots {
 public:
  static constexpr std::size_t group_size = 32;

  afd_slots() noexcept = default;
  afd_slots(const afd_slots&) = delete;
  afd_slots& operator=(const afd_slots&) = delete;

  // 0 or an errno.
  int take(native_handle port, afd_slot*& out) noexcept {
    const int refused = free_ == nullptr ? grow(port) : 0;
    if (refused != 0) return refused;
    out = free_;
    free_ = out->next;
    out->next = nullptr;
    return 0;
  }
  void give(afd_slot& s) noexcept {
    Kernel::handle_forget(s);
    s.next = free_;
    free_ = &s;
  }

  native_handle afd_of(const afd_slot& s) const noexcept { return groups_[s.group]->afd; }
  bool owns(native_handle handle) const noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      if (groups_[i]->afd == handle) return true;
    }
    return false;
  }

  template <class F>
  void for_each(F&& f) noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      for (afd_slot& s : groups_[i]->slots) f(s);
    }
  }

  // No packet is to come.
  void clear() noexcept {
    for (std::size_t i = 0; i < count_; ++i) {
      group* g = groups_[i];
      Kernel::close_handle(g->afd);
      g->~group();
      heap_give(g, alignof(group));
    }
    count_ = 0;
    free_ = nullptr;
  }

 private:
  struct group {
    native_handle afd = -1;
    afd_slot slots[group_size];
  };

  int grow(native_handle port) noexcept {
    void* memory = groups_.reach(count_ + 1) ? heap_take(sizeof(group), alignof(group)) : nullptr;
    if (memory == nullptr) return ENOMEM;
    native_handle afd = -1;
    const int refused = -Kernel::afd_open(port, afd);
    if (refused != 0) {
      heap_give(memory, alignof(group));
      return refused;
    }
    auto* made = ::new (memory) group;
    made->afd = afd;
    for (afd_slot& s : made->slots) {
      s.group = static_cast<std::uint32_t>(count_);
      s.next = free_;
      free_ = &s;
    }
    groups_[count_++] = made;
    return 0;
  }

  plain_array<group*> groups_;
  std::size_t count_ = 0;
  afd_slot* free_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
