// watch/watches.hpp - the descriptors a loop watches, and who is told when one is ready
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "poller/contract.hpp"
#include "watch/record.hpp"
#include "watch/registry.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// The loop thread only (or who borrows an idle loop).
template <class Traits>
class watches {
 public:
  using record = watch_record<Traits>;
  using poller = typename Traits::poller;

  explicit watches(watch_table<Traits>& table) noexcept : table_(table) {}

  void serve_companion() noexcept { registry_.serve_companion(); }
  void register_again(poller& p) noexcept { registry_.register_again(p); }
  void silence(poller& p) noexcept { registry_.silence(p); }

  std::size_t count() const noexcept { return count_; }
  std::size_t registered() const noexcept { return registry_.registered(); }
  std::ptrdiff_t referenced() const noexcept { return referenced_; }
  std::uint64_t stale() const noexcept { return stale_; }
  // Somebody has to be told without the kernel: deliver_always().
  bool always_ready() const noexcept {
    return registry_.always_armed() != 0 || registry_.lost() != nullptr;
  }

  // 0, or the errno that refused it; then nothing is kept.
  int attach(poller& p, record& r) noexcept {
    int refused = registry_.reach(r.handle);
    if (refused != 0) return refused;
    r.served = serial_;
    registry_.join(r);
    refused = registry_.update(p, r.handle, true);
    if (r.lost != 0) {  // the number came again: the others watched what is gone
      registry_.leave(r);
      return attach(p, r);
    }
    if (refused == EPERM) {
      r.always = true;
      registry_.count_on(r);
      refused = 0;
    }
    if (refused != 0) {
      registry_.leave(r);
      return refused;
    }
    r.attached = true;
    ++count_;
    if (r.referenced) ++referenced_;
    return 0;
  }

  int modify(poller& p, record& r, interest what) noexcept {
    if (r.lost != 0) return r.lost;
    registry_.count_off(r);
    r.what = what;
    r.armed = true;
    registry_.count_on(r);
    return r.always ? 0 : registry_.update(p, r.handle, true);
  }

  // The callback does not run again. Destroyed here, or when it returns.
  void detach(poller& p, record& r) noexcept {
    if (r.attached) {
      take_off(r);
      registry_.update(p, r.handle, false);
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
  //
  // Inlined as far as the callback: who returns through a system call is not predicted, level by level.
  template <class Call>
  HYBRIDLOOP_IN_LINE void deliver(poller& p, const poll_event& event, const Call& call) {
    const native_handle fd = registry_.handle_of(event.token);
    const bool current = registry_.is_current(fd, registry_.generation_of(event.token));
    record* const only = current && event.what.native_error == 0 ? registry_.only_watch(fd) : nullptr;
    if (only == nullptr) return deliver_to_all(p, event, call);
    only->served = ++serial_;
    ready what = event.what;
    if (concerns(*only, what)) tell(*only, what, call);
  }

  // Tells the watches of lost descriptors, and, once a turn, those of files that are always ready.
  // Goes round, so that a callback that throws every time holds nobody up.
  template <class Call>
  void deliver_always(const Call& call) {
    if (!tell_lost(call)) return;
    const std::uint64_t serial = ++serial_;
    for (std::size_t left = registry_.room(); left != 0 && registry_.always_armed() != 0; --left) {
      always_at_ = always_at_ + 1 < registry_.room() ? always_at_ + 1 : 0;
      const native_handle fd = registry_.handle_at(always_at_);
      while (record* r = next_to_serve(registry_[fd].first, serial, true)) {
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
    const native_handle fd = registry_.handle_of(event.token);
    if (registry_.is_current(fd, registry_.generation_of(event.token))) {
      registry_.update(p, fd, true);
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
  struct rearm {
    registry<Traits>& all;
    poller& p;
    native_handle fd;
    std::uint32_t generation;
    std::uint64_t serial;
    ~rearm() {
      auto& d = all[fd];
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

  // Who waited longest is first, so that a callback that throws every time holds nobody up.
  static record* next_to_serve(record* r, std::uint64_t serial, bool always) noexcept {
    record* next = nullptr;
    for (; r != nullptr; r = r->next) {
      if (r->always != always || r->served >= serial) continue;
      if (next == nullptr || r->served < next->served) next = r;
    }
    return next;
  }

  template <class Call>
  HYBRIDLOOP_OUT_OF_LINE void deliver_to_all(poller& p, const poll_event& event, const Call& call) {
    const native_handle fd = registry_.handle_of(event.token);
    const std::uint32_t generation = registry_.generation_of(event.token);
    if (!registry_.is_current(fd, generation)) {
      ++stale_;
      return registry_.heed_ghost(p);
    }
    if (event.what.native_error != 0) return registry_.lose(fd, event.what.native_error);
    if (registry_[fd].oneshot) registry_[fd].disarmed = true;
    ++registry_[fd].serving;
    const std::uint64_t serial = ++serial_;
    const rearm guard{registry_, p, fd, generation, serial};
    while (registry_.is_current(fd, generation)) {
      record* r = next_to_serve(registry_[fd].first, serial, false);
      if (r == nullptr) return;
      r->served = serial;
      ready what = event.what;
      if (concerns(*r, what) && !tell(*r, what, call)) return;
    }
  }

  // Narrows an event to what a watch asked for; false when nothing is left.
  HYBRIDLOOP_IN_LINE static bool concerns(const record& r, ready& what) noexcept {
    if (!r.armed) return false;
    what.readable = what.readable && (has(r.what, interest::readable) || what.hangup);
    what.writable = what.writable && has(r.what, interest::writable);
    what.priority = what.priority && has(r.what, interest::priority);
    return what.readable || what.writable || what.priority || what.hangup || what.error;
  }

  template <class Call>
  HYBRIDLOOP_IN_LINE bool tell(record& r, ready& what, const Call& call) {
    what.id = table_.id_of(r);
    const bool falls_silent = has(r.what, interest::oneshot) || (r.what & anything) == interest::none ||
                              (r.always && has(r.what, interest::edge));
    if (falls_silent) {
      registry_.count_off(r);
      r.armed = false;
    }
    ++r.running;
    const call_end guard{*this, r};
    return call(r, what);
  }

  template <class Call>
  bool tell_lost(const Call& call) {
    while (record* lost = registry_.lost()) {
      record& r = *lost;
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

  void take_off(record& r) noexcept {
    registry_.leave(r);
    r.attached = false;
    --count_;
    if (r.referenced) --referenced_;
    registry_.count_off(r);
  }

  watch_table<Traits>& table_;
  registry<Traits> registry_;
  std::size_t count_ = 0;
  std::size_t always_at_ = 0;
  std::ptrdiff_t referenced_ = 0;
  std::uint64_t serial_ = 0;
  std::uint64_t stale_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
