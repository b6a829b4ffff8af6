// watch/registry.hpp - the descriptors that the poller knows, each once for all of its watches
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "poller/contract.hpp"
#include "task/plain_array.hpp"
#include "watch/record.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A descriptor is registered with the poller for all that its watches want together; the token
// carries the generation of that registration, so events of an earlier owner of the same number are
// dropped. The loop thread only (or who borrows an idle loop).
//
// While watches of one descriptor disagree about `edge`, it is level-triggered for all; so it is under
// a poller that has no edges.
//
// A descriptor may be closed without a word to us, and its number name a stranger soon after. When
// the kernel says so, its watches are moved to the lost, who are told once.
template <class Traits>
class registry {
 public:
  using record = watch_record<Traits>;
  using poller = typename Traits::poller;

  struct descriptor {
    record* first;
    std::uint32_t generation;
    interest registered;
    bool in_poller;
    bool oneshot;   // the kernel falls silent after one event
    bool disarmed;  // and has
    std::uint32_t serving;  // events being told, one per nested run
  };

  // With a companion thread, level-triggered registrations are one-shot and re-armed by us.
  void serve_companion() noexcept { companion_ = true; }

  std::size_t registered() const noexcept { return registered_; }
  record* lost() const noexcept { return lost_; }

  // Descriptors are addressed by number, whose place is below room() once it was reached.
  std::size_t room() const noexcept { return descriptors_.room(); }
  descriptor& operator[](native_handle fd) noexcept { return descriptors_[place_of(fd)]; }
  static native_handle handle_at(std::size_t place) noexcept {
    return static_cast<native_handle>(place * handle_step);
  }

  static native_handle handle_of(poll_token token) noexcept {
    return static_cast<native_handle>(token & 0xffffffffu);
  }
  static std::uint32_t generation_of(poll_token token) noexcept {
    return static_cast<std::uint32_t>(token >> 32);
  }
  bool is_current(native_handle fd, std::uint32_t generation) const noexcept {
    if (fd < 0 || place_of(fd) >= room()) return false;
    const descriptor& d = descriptors_[place_of(fd)];
    return d.in_poller && d.generation == generation;
  }

  // The descriptor's only watch, where an event leaves nothing to do but to tell it: no other waits
  // for its turn, and the kernel goes on reporting what it wants, which after a refused change it does
  // not. Otherwise nullptr.
  record* only_watch(native_handle fd) noexcept {
    const descriptor& d = (*this)[fd];
    record* const r = d.first;
    const bool alone = r != nullptr && r->next == nullptr && !r->always && r->armed;
    if (!alone || d.oneshot || d.disarmed) return nullptr;
    return (r->what & anything) == (d.registered & anything) ? r : nullptr;
  }

  // Makes room for the number. 0 or an errno.
  int reach(native_handle fd) noexcept {
    return descriptors_.reach(place_of(fd) + 1) ? 0 : ENOMEM;
  }

  void join(record& r) noexcept { link(r, (*this)[r.handle].first); }
  void leave(record& r) noexcept {
    record** at = r.lost != 0 ? &lost_ : &(*this)[r.handle].first;
    while (*at != &r) at = &(*at)->next;
    *at = r.next;
    r.lost = 0;
  }

  // How many wait for no event: counted off and on again around what changes that.
  std::size_t always_armed() const noexcept { return always_armed_; }
  void count_off(const record& r) noexcept { always_armed_ -= r.waits_for_no_event() ? 1u : 0u; }
  void count_on(const record& r) noexcept { always_armed_ += r.waits_for_no_event() ? 1u : 0u; }

  // Makes the poller's registration what the watches want. `again` asks the kernel in any case: it
  // says whether the descriptor is still the one it was, and reports an edge-triggered one once
  // more. 0 or an errno.
  int update(poller& p, native_handle fd, bool again) noexcept {
    descriptor& d = (*this)[fd];
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

  // The poller has it no more, or cannot be told; its watches are still to hear why.
  void lose(native_handle fd, int why) noexcept {
    drop(fd);
    haunted_ = true;
    while (record* r = (*this)[fd].first) {
      count_off(*r);
      leave(*r);
      r->always = false;
      r->lost = why;
      link(*r, lost_);
    }
  }

  // The kernel keeps a registration by number and file. Where a number is closed while its file lives
  // on through a duplicate, one stays behind that cannot be taken off any more and may be reported
  // for ever. Once such reports have cost as much as registering all descriptors anew, this does.
  // With a companion they fall silent by themselves.
  void heed_ghost(poller& p) noexcept {
    if (haunted_ && !companion_ && ++ghosts_ > registered_ + few_ghosts) start_anew(p);
  }

 private:
  // What all watches of a descriptor want together; `any`: that need the poller.
  interest wanted(const descriptor& d, bool& any) const noexcept {
    interest all = interest::none;
    bool edge = poller::edges;
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
    if (!(*this)[fd].in_poller) return;
    drop(fd);
    if (p.remove(fd) != 0) haunted_ = true;
  }

  void drop(native_handle fd) noexcept {
    (*this)[fd].in_poller = false;
    (*this)[fd].disarmed = false;
    --registered_;
  }

  void start_anew(poller& p) noexcept {
    ghosts_ = 0;
    if (p.renew() == 0) register_again(p);  // else another time
  }

 public:
  // Nothing is watched any more, and nothing is to be heard.
  void silence(poller& p) noexcept {
    if (haunted_ && p.renew() == 0) haunted_ = false;
  }

  // With a poller that has forgotten all.
  void register_again(poller& p) noexcept {
    for (std::size_t i = 0; i < room(); ++i) {
      const descriptor& d = descriptors_[i];
      if (!d.in_poller) continue;
      const native_handle fd = handle_at(i);
      const int refused = p.add(fd, d.registered, token_of(fd, d));
      if (refused != 0) lose(fd, means_gone(refused) ? EBADF : refused);
    }
    haunted_ = false;
  }

 private:
  static std::size_t place_of(native_handle fd) noexcept { return static_cast<std::size_t>(fd) / handle_step; }

  static poll_token token_of(native_handle fd, const descriptor& d) noexcept {
    return poll_token{d.generation} << 32 | static_cast<std::uint32_t>(fd);
  }

  static void link(record& r, record*& list) noexcept {
    record** at = &list;
    while (*at != nullptr) at = &(*at)->next;
    r.next = nullptr;
    *at = &r;
  }

  static constexpr std::uint64_t few_ghosts = 16;

  plain_array<descriptor> descriptors_;
  std::size_t registered_ = 0;
  record* lost_ = nullptr;
  std::size_t always_armed_ = 0;
  std::uint64_t ghosts_ = 0;
  bool haunted_ = false;  // a registration may have stayed behind
  bool companion_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
