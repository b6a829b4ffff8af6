// poller/epoll.hpp - readiness from epoll(7)
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "base/contract.hpp"
#include "poller/contract.hpp"
#include "wait/bell.hpp"
#include "wait/kernel.hpp"

#if HYBRIDLOOP_OS(LINUX) && !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

template <class Kernel>
class epoll_poller {
 public:
  static constexpr const char* name = "epoll";
  static constexpr bool edges = true;

  epoll_poller() noexcept = default;
  epoll_poller(const epoll_poller&) = delete;
  epoll_poller& operator=(const epoll_poller&) = delete;
  ~epoll_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    const int epoll = Kernel::epoll_create();
    if (epoll < 0) return -epoll;
    epoll_ = epoll;
    bell_ = eventfd_bell<Kernel>::open();
    const int refused = bell_ < 0 ? -bell_ : add_bell(bell_);
    if (refused != 0) close();
    return refused;
  }

  void close() noexcept {
    if (bell_ >= 0) Kernel::close(bell_);
    if (epoll_ >= 0) Kernel::close(epoll_);
    if (outer_ >= 0) Kernel::close(outer_);
    bell_ = -1;
    epoll_ = -1;
    outer_ = -1;
  }
  void abandon() noexcept { close(); }

  bool is_open() const noexcept { return epoll_ >= 0; }
  bool owns(native_handle fd) const noexcept {
    return fd >= 0 && (fd == epoll_ || fd == bell_ || fd == outer_);
  }

  // EEXIST: a registration stayed behind when the number was closed, and now it names that file again.
  int add(native_handle fd, interest what, poll_token token) noexcept {
    const int refused = control(EPOLL_CTL_ADD, fd, events_of(what), token);
    return refused == EEXIST ? change(fd, what, token) : refused;
  }
  int change(native_handle fd, interest what, poll_token token) noexcept {
    return control(EPOLL_CTL_MOD, fd, events_of(what), token);
  }
  int remove(native_handle fd) noexcept { return control(EPOLL_CTL_DEL, fd, 0, 0); }

  // A new set under the old number.
  int renew() noexcept {
    epoll_poller fresh;
    fresh.epoll_ = Kernel::epoll_create();
    if (fresh.epoll_ < 0) return -fresh.epoll_;
    const int refused = fresh.add_bell(bell_);
    if (refused != 0) return refused;
    // The old set may live on in the child of a fork, so it is taken out of the outer one by hand.
    if (outer_ >= 0) Kernel::epoll_ctl(outer_, EPOLL_CTL_DEL, epoll_, nullptr);
    const int moved = Kernel::replace(epoll_, fresh.epoll_);
    if (outer_ >= 0 && add_to_outer() != 0) fail("the kernel refuses to expose a loop's new epoll set");
    return moved < 0 ? -moved : 0;
  }

  // The numbers stay; what they name is new.
  int reopen() noexcept {
    epoll_poller fresh;
    const int refused = fresh.open();
    if (refused != 0) return refused;
    int moved = Kernel::replace(bell_, fresh.bell_);
    if (moved >= 0) moved = Kernel::replace(epoll_, fresh.epoll_);
    if (moved >= 0) moved = -add_bell(bell_);
    if (moved < 0) return -moved;
    return outer_ >= 0 ? reopen_outer() : 0;
  }

  // A set around the set, because renew() must not change what a foreign loop waits for.
  int expose(native_handle& out) noexcept {
    if (outer_ < 0) {
      const int made = Kernel::epoll_create();
      if (made < 0) return -made;
      outer_ = made;
      const int refused = add_to_outer();
      if (refused != 0) {
        Kernel::close(std::exchange(outer_, -1));
        return refused;
      }
    }
    out = outer_;
    return 0;
  }

  void settle() noexcept {}

  // Sub-millisecond where the kernel has epoll_pwait2 (5.11); otherwise rounded up, or the last
  // millisecond would be spent spinning.
  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    epoll_event events[batch];
    const int want = static_cast<int>(room < batch ? room : batch);
    int got = -ENOSYS;
    if (timeout == 0 || timeout == never) {
      got = Kernel::epoll_wait(epoll_, events, want, timeout == 0 ? 0 : -1);
    } else {
      if (has_pwait2()) got = Kernel::epoll_pwait2(epoll_, events, want, timeout);
      if (got == -ENOSYS || got == -EPERM) {  // EPERM: a sandbox that does not know the call
        no_pwait2().store(true, std::memory_order_relaxed);  // a hint; asking again is harmless
        got = Kernel::epoll_wait(epoll_, events, want, Kernel::whole_milliseconds(timeout));
      }
    }
    if (got < 0) return got == -EINTR ? 0 : got;
    return translate(events, got, out);
  }

  native_handle bell() const noexcept { return bell_; }
  static int ring(native_handle bell) noexcept { return eventfd_bell<Kernel>::ring(bell); }

 private:
  static constexpr std::size_t batch = events_per_turn;

  static std::uint32_t events_of(interest what) noexcept {
    std::uint32_t events = 0;
    if (has(what, interest::readable)) events |= EPOLLIN | EPOLLRDHUP;
    if (has(what, interest::writable)) events |= EPOLLOUT;
    if (has(what, interest::priority)) events |= EPOLLPRI;
    if (has(what, interest::edge)) events |= EPOLLET;
    if (has(what, interest::oneshot)) events |= EPOLLONESHOT;
    // The kernel reports hang-ups and errors unasked and for ever; here once is enough.
    if ((what & anything) == interest::none) events = EPOLLET | EPOLLONESHOT;
    return events;
  }

  static ready ready_of(std::uint32_t events) noexcept {
    ready what;
    what.hangup = (events & (EPOLLHUP | EPOLLRDHUP)) != 0;
    what.readable = (events & EPOLLIN) != 0 || what.hangup;
    what.writable = (events & EPOLLOUT) != 0;
    what.error = (events & EPOLLERR) != 0;
    what.priority = (events & EPOLLPRI) != 0;
    return what;
  }

  int add_bell(int bell) noexcept {
    return tell_kernel(EPOLL_CTL_ADD, bell, EPOLLIN | EPOLLET, bell_token);
  }

  int reopen_outer() noexcept {
    const int fresh = Kernel::epoll_create();
    if (fresh < 0) return -fresh;
    const int moved = Kernel::replace(outer_, fresh);
    Kernel::close(fresh);
    return moved < 0 ? -moved : add_to_outer();
  }

  int add_to_outer() noexcept {
    epoll_event event{};
    event.events = EPOLLIN;
    return -Kernel::epoll_ctl(outer_, EPOLL_CTL_ADD, epoll_, &event);
  }

  // A number that was closed may have become one of ours; it is no descriptor of the user's then.
  int control(int verb, int fd, std::uint32_t events, poll_token token) noexcept {
    return owns(fd) ? EBADF : tell_kernel(verb, fd, events, token);
  }

  int tell_kernel(int verb, int fd, std::uint32_t events, poll_token token) noexcept {
    epoll_event event{};
    event.events = events;
    event.data.u64 = token;
    return -Kernel::epoll_ctl(epoll_, verb, fd, &event);
  }

  static int translate(const epoll_event* events, int count, poll_event* out) noexcept {
    int kept = 0;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == bell_token) continue;
      out[kept].token = events[i].data.u64;
      out[kept].what = ready_of(events[i].events);
      ++kept;
    }
    return kept;
  }

  static std::atomic<bool>& no_pwait2() noexcept {
    static std::atomic<bool> missing{false};
    return missing;
  }
  static bool has_pwait2() noexcept {
    return !no_pwait2().load(std::memory_order_relaxed);  // a hint; ENOSYS falls back
  }

  int epoll_ = -1;
  int bell_ = -1;
  int outer_ = -1;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(LINUX) && !HYBRIDLOOP_NO_IO
