// poller/afd.hpp - readiness from a completion port: sockets by AFD, and any other handle that can be waited for
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "poller/afd_slots.hpp"
#include "poller/contract.hpp"
#include "task/plain_array.hpp"
#include "wait/bell.hpp"
#include "wait/kernel.hpp"

#if HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// The kernel is asked about each socket, and answers once, by a packet; as soon as what is wanted is so, or
// at once if it is. To go on is to ask again, which the next wait does: by then who was told has read. AFD
// knows no edges, so `edge` is told like a level.
//
// A question that is taken back is answered nevertheless, and its memory is the kernel's until then. So a
// change that asks for more takes another slot, and the old one is free when its packet has come.
//
// A companion may sit in wait() while the loop thread changes the set; then questions go out at once. The
// same where a foreign loop waits for the port.
template <class Kernel>
class afd_poller {
 public:
  static constexpr const char* name = "windows";
  static constexpr bool edges = false;

  afd_poller() noexcept = default;
  afd_poller(const afd_poller&) = delete;
  afd_poller& operator=(const afd_poller&) = delete;
  ~afd_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    const int refused = -Kernel::port_open(port_);
    if (refused != 0) {
      port_ = -1;
      return refused;
    }
    bell_.port = port_;
    if (Kernel::timer_open(timer_, tie_) != 0) timer_ = tie_ = -1;
    return 0;
  }

  void close() noexcept {
    if (!is_open()) return;
    renew();
    collect();
    slots_.clear();
    for (native_handle* each : {&tie_, &timer_, &port_}) {
      if (*each >= 0) Kernel::close_handle(*each);
      *each = -1;
    }
    bell_.rung.store(0, std::memory_order_relaxed);  // ours alone
    exposed_ = false;
  }

  // No process of this system has a copy of another.
  void abandon() noexcept { close(); }
  int reopen() noexcept { return ENOTSUP; }

  bool is_open() const noexcept { return port_ >= 0; }
  bool owns(native_handle handle) const noexcept {
    return handle >= 0 && (handle == port_ || handle == timer_ || handle == tie_ || slots_.owns(handle));
  }

  int add(native_handle handle, interest what, poll_token token) noexcept {
    bool object = false;
    const int unknown = identify(handle, object);
    if (unknown != 0) return unknown;
    native_handle base = handle;
    const int baseless = object ? 0 : -Kernel::base_socket(handle, base);
    if (baseless != 0) return baseless;
    const typename Kernel::hold held(mutex_);
    afd_slot* s = nullptr;
    const int refused = places_.reach(place_of(handle) + 1) ? slots_.take(port_, s) : ENOMEM;
    if (refused != 0) return refused;
    if (afd_slot* old = find(handle)) erase(*old);
    enter(*s, handle, base, object);
    set(*s, what, token);
    schedule(*s);
    return 0;
  }

  int change(native_handle handle, interest what, poll_token token) noexcept {
    bool object = false;
    const int unknown = identify(handle, object);
    const typename Kernel::hold held(mutex_);
    afd_slot* s = find(handle);
    if (s == nullptr || unknown != 0 || object != s->object) {
      if (s != nullptr) erase(*s);
      return unknown != 0 ? unknown : ENOENT;
    }
    if (s->pending && !object && (questions::events_of(what) & ~s->asked) != 0) return ask_more(*s, what, token);
    set(*s, what, token);
    if (!s->pending) schedule(*s);
    return 0;
  }

  int remove(native_handle handle) noexcept {
    const typename Kernel::hold held(mutex_);
    if (afd_slot* s = find(handle)) {
      erase(*s);
      return 0;
    }
    return Kernel::is_descriptor(handle) && !owns(handle) ? ENOENT : EBADF;
  }

  int renew() noexcept {
    const typename Kernel::hold held(mutex_);
    slots_.for_each([this](afd_slot& s) {
      if (s.live) erase(s);
    });
    return 0;
  }

  // The port itself: it can be waited for, and is signalled while a packet is in it.
  int expose(native_handle& out) noexcept {
    out = port_;
    exposed_ = true;
    settle();
    return 0;
  }

  void settle() noexcept {
    const typename Kernel::hold held(mutex_);
    ask_all();
  }

  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    const nanos end = timeout == 0 || timeout == never ? timeout : saturating_add(read_now(), timeout);
    for (;;) {
      port_packet packets[batch];
      const int got = wait_once(packets, static_cast<int>(room < batch ? room : batch), timeout);
      if (got < 0) return got;
      bool rung = false;
      const int found = translate(packets, got, out, rung);
      if (found != 0 || rung || got == 0) return found;
      if (timeout == 0 || timeout == never) continue;
      timeout = time_between(read_now(), end);
      if (timeout == 0) return 0;
    }
  }

  native_handle bell() const noexcept { return is_open() ? port_bell<Kernel>::number_of(bell_) : -1; }
  static int ring(native_handle bell) noexcept { return port_bell<Kernel>::ring(bell); }

 private:
  using questions = afd_questions<Kernel>;
  static constexpr std::size_t batch = events_per_turn;

  // The system's own clock, whatever the loop's is.
  static nanos read_now() noexcept { return read_clock<std::chrono::steady_clock>(); }

  static std::size_t place_of(native_handle handle) noexcept {
    return static_cast<std::size_t>(handle) / handle_step;
  }

  // 0 or an errno. What is no socket is waited for as a whole; but a file's handle says nothing.
  int identify(native_handle handle, bool& object) const noexcept {
    if (!Kernel::is_descriptor(handle) || owns(handle)) return EBADF;
    object = !Kernel::is_socket(handle);
    return object && Kernel::is_file(handle) ? EPERM : 0;
  }

  afd_slot* find(native_handle handle) noexcept {
    const bool known = handle >= 0 && place_of(handle) < places_.room();
    return known ? places_[place_of(handle)] : nullptr;
  }

  // ---- Under the lock ----

  void set(afd_slot& s, interest what, poll_token token) noexcept {
    s.wanted = questions::events_of(what);
    s.once = has(what, interest::oneshot) || (what & anything) == interest::none;
    s.silent = s.object && (what & anything) == interest::none;
    s.token = token;
  }

  void enter(afd_slot& s, native_handle handle, native_handle base, bool object) noexcept {
    s.number = handle;
    s.base = base;
    s.object = object;
    s.refused = 0;
    s.live = true;
    places_[place_of(handle)] = &s;
  }

  int ask_more(afd_slot& s, interest what, poll_token token) noexcept {
    afd_slot* fresh = nullptr;
    const int refused = slots_.take(port_, fresh);
    if (refused != 0) return refused;
    erase(s);
    enter(*fresh, s.number, s.base, false);
    set(*fresh, what, token);
    schedule(*fresh);
    return 0;
  }

  void forget(afd_slot& s) noexcept {
    s.live = false;
    places_[place_of(s.number)] = nullptr;
  }
  void erase(afd_slot& s) noexcept {
    forget(s);
    if (s.pending && s.refused == 0) take_back(s);
    give_if_over(s);
  }
  void take_back(afd_slot& s) noexcept {
    if (!s.object) {
      Kernel::afd_cancel(slots_.afd_of(s), s);
    } else if (Kernel::handle_cancel(s)) {
      set_pending(s, false);
    }
  }
  void give_if_over(afd_slot& s) noexcept {
    if (!s.live && !s.pending && !s.due) slots_.give(s);
  }
  void set_pending(afd_slot& s, bool now) noexcept {
    s.pending = now;
    if (!s.object) sockets_pending_ = now ? sockets_pending_ + 1 : sockets_pending_ - 1;
  }

  void schedule(afd_slot& s) noexcept {
    if (s.due || s.silent) return;
    if (waiting_ || exposed_) return ask(s);
    postpone(s);
  }
  void postpone(afd_slot& s) noexcept {
    s.due = true;
    s.next = due_;
    due_ = &s;
  }
  void ask_all() noexcept {
    afd_slot* s = std::exchange(due_, nullptr);
    while (s != nullptr) {
      afd_slot* const next = std::exchange(s->next, nullptr);
      s->due = false;
      if (s->live && !s->silent && !s->pending) ask(*s);
      give_if_over(*s);
      s = next;
    }
  }
  // What is refused is told by a packet too; where there is no memory for one, the next wait asks again.
  void ask(afd_slot& s) noexcept {
    s.asked = s.wanted;
    s.refused = s.object ? -Kernel::handle_wait(port_, s, s.base)
                         : -Kernel::afd_poll(slots_.afd_of(s), s, s.base, s.asked);
    if (s.refused != 0 && Kernel::port_post(port_, Kernel::request_key, static_cast<port_request*>(&s)) != 0) {
      return postpone(s);
    }
    set_pending(s, true);
  }

  // ---- The waiter ----

  int wait_once(port_packet* packets, int want, nanos timeout) noexcept {
    set_waiting(true);
    const bool finer = tie_ >= 0 && timeout != 0 && timeout != never &&
                       Kernel::timer_start(timer_, tie_, port_, timeout) == 0;
    const int got = Kernel::port_wait(port_, packets, want, timeout);
    if (finer) Kernel::timer_stop(tie_);
    if (got <= 0) set_waiting(false);
    return got;
  }
  void set_waiting(bool now) noexcept {
    const typename Kernel::hold held(mutex_);
    if (now) ask_all();
    waiting_ = now;
  }

  int translate(const port_packet* packets, int got, poll_event* out, bool& rung) noexcept {
    const typename Kernel::hold held(mutex_);
    waiting_ = false;
    int found = 0;
    for (int i = 0; i < got; ++i) {
      if (packets[i].key == Kernel::bell_key) {
        port_bell<Kernel>::hear(bell_);
        rung = true;
      } else if (packets[i].key == Kernel::request_key) {
        afd_slot& s = slot_of(packets[i]);
        set_pending(s, false);
        if (report(s, out[found])) ++found;
        give_if_over(s);
      }
    }
    return found;
  }
  static afd_slot& slot_of(const port_packet& packet) noexcept {
    return *static_cast<afd_slot*>(static_cast<port_request*>(packet.what));
  }

  // False: nothing is to be told.
  bool report(afd_slot& s, poll_event& out) noexcept {
    if (!s.live || s.silent) return false;
    const int outcome = s.refused != 0 ? -s.refused : s.object ? int{Kernel::afd_receive} : Kernel::afd_outcome(s);
    const unsigned events = outcome < 0 ? 0u : static_cast<unsigned>(outcome) & s.wanted;
    const bool gone = outcome < 0 || (events & Kernel::afd_local_close) != 0;
    if (gone) {
      out = {s.token, ready{}};
      out.what.error = true;
      out.what.native_error = outcome < 0 ? -outcome : EBADF;
      forget(s);
      return true;
    }
    s.silent = s.once && events != 0;
    if (!s.silent) postpone(s);
    out = {s.token, questions::ready_of(events)};
    return events != 0;
  }

  // The kernel writes to the memory of a question about a socket until it is answered.
  void collect() noexcept {
    port_packet packets[batch];
    while (sockets_pending_ != 0) {
      const int got = Kernel::port_wait(port_, packets, static_cast<int>(batch), never);
      if (got < 0) fail("the kernel does not answer what it was asked");
      bool rung = false;
      poll_event none[batch];
      translate(packets, got, none, rung);
    }
    ask_all();
  }

  native_handle port_ = -1;
  native_handle timer_ = -1;  // where the kernel can tie one to a port
  native_handle tie_ = -1;
  typename port_bell<Kernel>::state bell_;

  // Under the lock.
  mutable typename Kernel::mutex mutex_;
  afd_slots<Kernel> slots_;
  plain_array<afd_slot*> places_;  // by number
  afd_slot* due_ = nullptr;
  std::size_t sockets_pending_ = 0;
  bool waiting_ = false;
  bool exposed_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS) && !HYBRIDLOOP_NO_IO
