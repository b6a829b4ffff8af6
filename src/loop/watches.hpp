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
//
// A descriptor may be closed without a word to us, and its number name a stranger soon after. When
// the kernel says so, its watches are told once (error, EBADF) and end.
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
  // Somebody has to be told without the kernel: deliver_always().
  bool always_ready() const noexcept { return always_armed_ != 0 || lost_ != nullptr; }

  // 0, or the errno that refused it; then nothing is kept.
  int attach(poller& p, record& r) noexcept {
    int refused = reach(r.handle);
    if (refused != 0) return refused;
    r.served = serial_;
    link(r, descriptors_[r.handle].first);
    refused = update(p, r.handle, true);
    if (r.lost != 0) {  // the number came again: the others watched what is gone
      unlink(r);
      return attach(p, r);
    }
    if (refused == EPERM) {
      r.always = true;
      if (always_pending(r)) ++always_armed_;
      refused = 0;
    }
    if (refused != 0) {
      unlink(r);
      return refused;
    }
    r.attached = true;
    ++count_;
    if (r.referenced) ++referenced_;
    return 0;
  }

  int modify(poller& p, record& r, interest what) noexcept {
    if (r.lost != 0) return r.lost;
    if (always_pending(r)) --always_armed_;
    r.what = what;
    r.armed = true;
    if (always_pending(r)) ++always_armed_;
    return r.always ? 0 : update(p, r.handle, true);
  }

  // The callback does not run again. Destroyed here, or when it returns.
  void detach(poller& p, record& r) noexcept {
    if (r.attached) {
      take_off(r);
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
      if (haunted_ && !companion_ && ++ghosts_ > registered_ + few_ghosts) start_anew(p);
      return;
    }
    if (descriptors_[fd].oneshot) descriptors_[fd].disarmed = true;
    ++descriptors_[fd].serving;
    const std::uint64_t serial = ++serial_;
    const rearm guard{*this, p, fd, generation, serial};
    while (is_current(fd, generation)) {
      record* r = next_to_serve(descriptors_[fd].first, serial, false);
      if (r == nullptr) return;
      r->served = serial;
      ready what = event.what;
      if (concerns(*r, what) && !tell(*r, what, call)) return;
    }
  }

  // Tells the watches of lost descriptors, and, once a turn, those of files that are always ready.
  // Goes round, so that a callback that throws every time holds nobody up.
  template <class Call>
  void deliver_always(const Call& call) {
    if (!tell_lost(call)) return;
    const std::uint64_t serial = ++serial_;
    for (std::size_t left = room_; left != 0 && always_armed_ != 0; --left) {
      always_at_ = always_at_ + 1 < room_ ? always_at_ + 1 : 0;
      const std::size_t fd = always_at_;
      while (record* r = next_to_serve(descriptors_[fd].first, serial, true)) {
        r->served = serial;
        ready what;
        what.readable = true;
        what.writable = true;
        if (concerns(*r, what) && !tell(*r, what, call)) return;
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

  // Ends every watch that was attached; on the way out, also those whose attach never arrived.
  void end_all(poller& p, bool unattached_too) noexcept {
    table_.for_each([this, &p, unattached_too](record& r) {
      if (!r.attached && !(unattached_too && r.call)) return;
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
    std::uint32_t serving;  // events being told, one per nested run
  };

  struct rearm {
    watches& all;
    poller& p;
    native_handle fd;
    std::uint32_t generation;
    std::uint64_t serial;
    ~rearm() {
      descriptor& d = all.descriptors_[fd];
      --d.serving;
      if (!d.in_poller) return;
      const bool same = d.generation == generation;
      all.update(p, fd, same && next_to_serve(d.first, serial, false) != nullptr);
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
    return r.always && r.armed && (has(r.what, interest::readable) || has(r.what, interest::writable));
  }

  // Who waited longest is first, so that a callback that throws every time holds nobody up.
  static record* next_to_serve(record* r, std::uint64_t serial, bool always) noexcept {
    record* next = nullptr;
    for (; r != nullptr; r = r->next) {
      if (r->always != always || r->served >= serial) continue;
      if (next == nullptr || r->served < next->served) next = r;
    }
    return next;
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

  template <class Call>
  bool tell_lost(const Call& call) {
    while (lost_ != nullptr) {
      record& r = *lost_;
      ready what;
      what.error = true;
      what.native_error = r.lost;
      what.id = table_.id_of(r);
      take_off(r);
      ++r.running;
      const call_end guard{*this, r};
      if (!call(r, what)) return false;
    }
    return true;
  }

  // What all watches of a descriptor want together; `any`: that need the poller.
  interest wanted(const descriptor& d, bool& any) const noexcept {
    interest all = interest::none;
    bool edge = true;
    bool oneshot = true;
    std::size_t watchers = 0;
    for (const record* r = d.first; r != nullptr; r = r->next) {
      if (r->always) continue;
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

  // Makes the poller's registration what the watches want. `again` asks the kernel in any case: it
  // says whether the descriptor is still the one it was, and reports an edge-triggered one once
  // more. 0 or an errno.
  int update(poller& p, native_handle fd, bool again) noexcept {
    descriptor& d = descriptors_[fd];
    bool any = false;
    const interest want = wanted(d, any);
    if (!any) {
      forget(p, fd);
      return 0;
    }
    if (d.in_poller && !again) {
      if (want == d.registered && !d.disarmed) return 0;
      if (want == interest::none && d.disarmed) return 0;  // the kernel is silent already
      if (d.serving != 0 && d.disarmed) return 0;          // armed again when all were told
    }
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
      if (!means_gone(refused)) return refused;
      lose(fd, EBADF);
      return EBADF;
    }
    ++d.generation;
    const int refused = p.add(fd, want, token_of(fd, d));
    if (refused == 0) {
      d.in_poller = true;
      ++registered_;
    }
    return refused;
  }

  static constexpr bool means_gone(int refused) noexcept {
    return refused == EBADF || refused == ENOENT || refused == EPERM;
  }

  void forget(poller& p, native_handle fd) noexcept {
    if (!descriptors_[fd].in_poller) return;
    drop(fd);
    if (p.remove(fd) != 0) haunted_ = true;
  }

  // The poller has it no more, or cannot be told; its watches are still to hear why.
  void lose(native_handle fd, int why) noexcept {
    drop(fd);
    haunted_ = true;
    while (record* r = descriptors_[fd].first) {
      if (always_pending(*r)) --always_armed_;
      unlink(*r);
      r->always = false;
      r->lost = why;
      link(*r, lost_);
    }
  }

  void drop(native_handle fd) noexcept {
    descriptors_[fd].in_poller = false;
    descriptors_[fd].disarmed = false;
    --registered_;
  }

  // The kernel keeps a registration by number and file. Where a number is closed while its file lives
  // on through a duplicate, one stays behind that cannot be taken off any more and may be reported
  // for ever. Once such reports have cost as much as registering all descriptors anew, this does.
  // With a companion they fall silent by themselves.
  void start_anew(poller& p) noexcept {
    ghosts_ = 0;
    if (p.renew() != 0) return;  // another time
    for (std::size_t i = 0; i < room_; ++i) {
      const descriptor& d = descriptors_[i];
      if (!d.in_poller) continue;
      const auto fd = static_cast<native_handle>(i);
      const int refused = p.add(fd, d.registered, token_of(fd, d));
      if (refused != 0) lose(fd, means_gone(refused) ? EBADF : refused);
    }
    haunted_ = false;
  }

  static poll_token token_of(native_handle fd, const descriptor& d) noexcept {
    return poll_token{d.generation} << 32 | static_cast<std::uint32_t>(fd);
  }

  static void link(record& r, record*& list) noexcept {
    record** at = &list;
    while (*at != nullptr) at = &(*at)->next;
    r.next = nullptr;
    *at = &r;
  }

  void unlink(record& r) noexcept {
    record** at = r.lost != 0 ? &lost_ : &descriptors_[r.handle].first;
    while (*at != &r) at = &(*at)->next;
    *at = r.next;
    r.lost = 0;
  }

  void take_off(record& r) noexcept {
    unlink(r);
    r.attached = false;
    --count_;
    if (r.referenced) --referenced_;
    if (always_pending(r)) --always_armed_;
  }

  // Room for the number.
  int reach(native_handle fd) noexcept {
    const auto index = static_cast<std::size_t>(fd);
    if (index < room_) return 0;
    std::size_t wider = room_ == 0 ? 64 : room_ * 2;
    while (wider <= index) wider *= 2;
    void* memory = heap_take(wider * sizeof(descriptor), alignof(descriptor));
    if (memory == nullptr) return ENOMEM;
    if (room_ != 0) std::memcpy(memory, descriptors_, room_ * sizeof(descriptor));
    std::memset(static_cast<unsigned char*>(memory) + room_ * sizeof(descriptor), 0,
                (wider - room_) * sizeof(descriptor));
    if (descriptors_ != nullptr) heap_give(descriptors_, alignof(descriptor));
    descriptors_ = static_cast<descriptor*>(memory);
    room_ = wider;
    return 0;
  }

  static constexpr std::uint64_t few_ghosts = 16;

  watch_table<Traits>& table_;
  descriptor* descriptors_ = nullptr;
  std::size_t room_ = 0;
  std::size_t count_ = 0;
  std::size_t registered_ = 0;
  record* lost_ = nullptr;
  std::size_t always_armed_ = 0;
  std::size_t always_at_ = 0;
  std::ptrdiff_t referenced_ = 0;
  std::uint64_t serial_ = 0;
  std::uint64_t stale_ = 0;
  std::uint64_t ghosts_ = 0;
  bool haunted_ = false;  // a registration may have stayed behind
  bool companion_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
