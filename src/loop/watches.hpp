// loop/watches.hpp - the descriptors a loop watches, and who is told when one is ready
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "loop/watch_record.hpp"
#include "poller/contract.hpp"
#include "task/memory.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A descriptor is registered once with the poller, for all that its watches want together; the
// token carries the generation of that registration, so events of an earlier owner of the same
// number are dropped. The loop thread only (or who borrows an idle loop).
//
// While watches of one descriptor disagree about `edge`, it is level-triggered for all.
template <class Traits>
class watches {
 public:
  using record = watch_record<Traits>;
  using poller = typename Traits::poller;

  explicit watches(watch_table<Traits>& table) noexcept : table_(table) {}
  watches(const watches&) = delete;
  watches& operator=(const watches&) = delete;
  ~watches() {
    if (descriptors_ != nullptr) heap_give(descriptors_, alignof(descriptor));
  }

  // With a companion thread, level-triggered registrations are one-shot and re-armed by us.
  void serve_companion() noexcept { companion_ = true; }

  std::size_t count() const noexcept { return count_; }
  std::size_t registered() const noexcept { return registered_; }
  std::ptrdiff_t referenced() const noexcept { return referenced_; }
  std::uint64_t stale() const noexcept { return stale_; }
  bool always_ready() const noexcept { return always_armed_ != 0; }

  // 0, or the errno that refused it; then nothing is kept.
  int attach(poller& p, record& r) noexcept {
    if (r.handle < 0) return EBADF;
    if (!reach(r.handle)) return ENOMEM;
    descriptor& d = descriptors_[r.handle];
    r.next = d.first;
    d.first = &r;
    r.attached = true;
    r.served = serial_;
    int refused = update(p, r.handle, has(r.what, interest::edge));
    if (refused == EPERM) {
      r.always = true;
      if (always_pending(r)) ++always_armed_;
      refused = 0;
    }
    if (refused != 0) {
      unlink(r);
      return refused;
    }
    ++count_;
    if (r.referenced) ++referenced_;
    return 0;
  }

  int modify(poller& p, record& r, interest what) noexcept {
    if (always_pending(r)) --always_armed_;
    r.what = what;
    r.armed = true;
    if (always_pending(r)) ++always_armed_;
    return r.always ? 0 : update(p, r.handle, true);
  }

  // The callback does not run again. Destroyed here, or when it returns.
  void detach(poller& p, record& r) noexcept {
    if (r.attached) {
      unlink(r);
      --count_;
      if (r.referenced) --referenced_;
      if (always_pending(r)) --always_armed_;
      update(p, r.handle, false);
    }
    if (r.running == 0) table_.give(r);
  }

  void set_referenced(record& r, bool wanted) noexcept {
    if (r.referenced == wanted) return;
    r.referenced = wanted;
    if (r.attached) referenced_ += wanted ? 1 : -1;
  }

  // Tells every watch of the event's descriptor: call(record, ready) runs the callback and answers
  // whether to go on. What is not told, because of that or an exception, is reported again.
  template <class Call>
  void deliver(poller& p, const poll_event& event, const Call& call) {
    const auto fd = static_cast<native_handle>(event.token & 0xffffffffu);
    const auto generation = static_cast<std::uint32_t>(event.token >> 32);
    if (!is_current(fd, generation)) {
      ++stale_;
      return;
    }
    if (descriptors_[fd].oneshot) descriptors_[fd].disarmed = true;
    const std::uint64_t serial = ++serial_;
    rearm guard{*this, p, fd, generation, true};
    while (is_current(fd, generation)) {
      record* r = next_to_serve(descriptors_[fd].first, serial);
      if (r == nullptr) {
        guard.again = false;
        break;
      }
      r->served = serial;
      ready what = event.what;
      if (concerns(*r, what) && !tell(*r, what, call)) break;
    }
  }

  // Tells every watch of a file that is always ready, once a turn.
  template <class Call>
  void deliver_always(const Call& call) {
    if (always_armed_ == 0) return;
    const std::uint64_t serial = ++serial_;
    for (std::size_t fd = 0; fd < room_ && always_armed_ != 0; ++fd) {
      while (record* r = next_to_serve(descriptors_[fd].first, serial)) {
        r->served = serial;
        ready what;
        what.readable = true;
        what.writable = true;
        if (r->always && concerns(*r, what) && !tell(*r, what, call)) return;
      }
    }
  }

  // An event that was taken from the poller and not told: have it reported once more.
  void put_back(poller& p, const poll_event& event) noexcept {
    const auto fd = static_cast<native_handle>(event.token & 0xffffffffu);
    if (is_current(fd, static_cast<std::uint32_t>(event.token >> 32))) {
      update(p, fd, true);
    }
  }

  void end_all(poller& p) noexcept {
    table_.for_each([this, &p](record& r) {
      if (!r.attached && !r.call) return;
      table_.end(table_.id_of(r));
      detach(p, r);
    });
  }

 private:
  struct descriptor {
    record* first;
    std::uint32_t generation;
    interest registered;
    bool in_poller;
    bool oneshot;   // the kernel falls silent after one event
    bool disarmed;  // and has
  };

  struct rearm {
    watches& all;
    poller& p;
    native_handle fd;
    std::uint32_t generation;
    bool again;
    ~rearm() {
      if (all.is_current(fd, generation)) all.update(p, fd, again);
    }
  };

  struct call_end {
    watches& all;
    record& r;
    ~call_end() {
      if (--r.running == 0 && !r.attached) all.table_.give(r);
    }
  };

  bool is_current(native_handle fd, std::uint32_t generation) const noexcept {
    return fd >= 0 && static_cast<std::size_t>(fd) < room_ && descriptors_[fd].in_poller &&
           descriptors_[fd].generation == generation;
  }

  static bool always_pending(const record& r) noexcept {
    return r.always && r.armed && (r.what & anything) != interest::none;
  }

  static record* next_to_serve(record* r, std::uint64_t serial) noexcept {
    while (r != nullptr && r->served >= serial) r = r->next;
    return r;
  }

  // Narrows an event to what a watch asked for; false when nothing is left.
  static bool concerns(const record& r, ready& what) noexcept {
    if (!r.armed) return false;
    what.readable = what.readable && (has(r.what, interest::readable) || what.hangup);
    what.writable = what.writable && has(r.what, interest::writable);
    what.priority = what.priority && has(r.what, interest::priority);
    return what.readable || what.writable || what.priority || what.hangup || what.error;
  }

  template <class Call>
  bool tell(record& r, ready& what, const Call& call) {
    what.id = table_.id_of(r);
    const bool falls_silent = has(r.what, interest::oneshot) || (r.what & anything) == interest::none ||
                              (r.always && has(r.what, interest::edge));
    if (falls_silent) {
      if (always_pending(r)) --always_armed_;
      r.armed = false;
    }
    ++r.running;
    const call_end guard{*this, r};
    return call(r, what);
  }

  // What all watches of a descriptor want together.
  interest wanted(const descriptor& d, bool& any) const noexcept {
    interest all = interest::none;
    bool edge = true;
    bool oneshot = true;
    std::size_t watchers = 0;
    for (const record* r = d.first; r != nullptr; r = r->next) {
      any = true;
      ++watchers;
      if (!r->armed) continue;
      all |= r->what & anything;
      edge = edge && has(r->what, interest::edge);
      oneshot = oneshot && has(r->what, interest::oneshot);
    }
    if (all == interest::none) return all;
    if (edge) all |= interest::edge;
    if ((oneshot && watchers == 1) || (companion_ && !edge)) all |= interest::oneshot;
    return all;
  }

  // Makes the poller's registration what the watches want. `again` has an edge-triggered
  // descriptor report what it has reported before. 0 or an errno.
  int update(poller& p, native_handle fd, bool again) noexcept {
    descriptor& d = descriptors_[fd];
    bool any = false;
    const interest want = wanted(d, any);
    if (!any) return forget(p, fd);
    if (d.first->always) return 0;
    if (d.in_poller && want == interest::none && d.disarmed) {
      d.registered = want;  // the kernel is silent already
      return 0;
    }
    if (d.in_poller && want == d.registered && !d.disarmed && !again) return 0;
    const int refused = tell_poller(p, fd, d, want);
    if (refused == 0) {
      d.registered = want;
      d.oneshot = has(want, interest::oneshot) || want == interest::none;
      d.disarmed = false;
    }
    return refused;
  }

  int tell_poller(poller& p, native_handle fd, descriptor& d, interest want) noexcept {
    if (d.in_poller) {
      const int refused = p.change(fd, want, token_of(fd, d));
      if (refused != ENOENT) return refused;
      d.in_poller = false;  // closed behind our back, and the number came again
      --registered_;
    }
    ++d.generation;
    const int refused = p.add(fd, want, token_of(fd, d));
    if (refused == 0) {
      d.in_poller = true;
      ++registered_;
    }
    return refused;
  }

  int forget(poller& p, native_handle fd) noexcept {
    descriptor& d = descriptors_[fd];
    if (!d.in_poller) return 0;
    d.in_poller = false;
    d.disarmed = false;
    --registered_;
    p.remove(fd);
    return 0;
  }

  static poll_token token_of(native_handle fd, const descriptor& d) noexcept {
    return poll_token{d.generation} << 32 | static_cast<std::uint32_t>(fd);
  }

  void unlink(record& r) noexcept {
    record** at = &descriptors_[r.handle].first;
    while (*at != &r) at = &(*at)->next;
    *at = r.next;
    r.attached = false;
  }

  bool reach(native_handle fd) noexcept {
    const auto index = static_cast<std::size_t>(fd);
    if (index < room_) return true;
    std::size_t wider = room_ == 0 ? 64 : room_ * 2;
    while (wider <= index) wider *= 2;
    void* memory = heap_take(wider * sizeof(descriptor), alignof(descriptor));
    if (memory == nullptr) return false;
    if (room_ != 0) std::memcpy(memory, descriptors_, room_ * sizeof(descriptor));
    std::memset(static_cast<unsigned char*>(memory) + room_ * sizeof(descriptor), 0,
                (wider - room_) * sizeof(descriptor));
    if (descriptors_ != nullptr) heap_give(descriptors_, alignof(descriptor));
    descriptors_ = static_cast<descriptor*>(memory);
    room_ = wider;
    return true;
  }

  watch_table<Traits>& table_;
  descriptor* descriptors_ = nullptr;
  std::size_t room_ = 0;
  std::size_t count_ = 0;
  std::size_t registered_ = 0;
  std::size_t always_armed_ = 0;
  std::ptrdiff_t referenced_ = 0;
  std::uint64_t serial_ = 0;
  std::uint64_t stale_ = 0;
  bool companion_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
