// loop/ownership.hpp - being the loop while nobody runs it, and leaving it to a foreign loop
#pragma once

#include <cstdint>

#include "base/contract.hpp"
#include "base/handle.hpp"
#include "loop/core.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// For as long as one of these lives and is true, the caller is the loop: it runs it, or it has
// borrowed it while nobody did.
template <class Traits>
class ownership {
 public:
  explicit ownership(core<Traits>& c) noexcept : core_(c), runs_(c.runs_here()) {
    HYBRIDLOOP_CONTRACT(!c.forked(), doorbell<Traits>::in_the_child);
    if (!runs_) borrowed_ = c.wake.borrow(was_);
    if (borrowed_) c.lender.store(loop_frame::thread(), std::memory_order_relaxed);  // ours alone
  }
  // Waits for another borrower; where that is this very thread, it is the owner.
  static ownership patient(core<Traits>& c) noexcept { return ownership(c, true); }
  ownership(const ownership&) = delete;
  ownership& operator=(const ownership&) = delete;
  ~ownership() {
    if (borrowed_) give_back();
  }
  explicit operator bool() const noexcept { return runs_ || borrowed_; }

 private:
  ownership(core<Traits>& c, bool) noexcept : ownership(c) {
    if (*this) return;
    const void* const me = loop_frame::thread();
    runs_ = c.lender.load(std::memory_order_relaxed) == me;  // a hint; only we write our own name
    borrowed_ = !runs_ && c.wake.borrow_in_turn(was_);
    if (borrowed_) c.lender.store(me, std::memory_order_relaxed);  // ours alone
  }

  // A foreign loop goes on waiting, unless the loop was given work meanwhile.
  void give_back() noexcept {
    core_.publish_counts();
    core_.lender.store(nullptr, std::memory_order_relaxed);  // ours alone
    const bool awaited = was_ == status::away;
    if (awaited && !core_.watches_.always_ready() && core_.wake.give_back_away()) return;
    if (awaited) core_.ring_own_bell();
    core_.wake.give_back();
  }

  core<Traits>& core_;
  bool runs_;
  bool borrowed_ = false;
  std::uint32_t was_ = 0;
};

// The owner: a handle for a foreign loop. 0, or an errno. What came before anybody waited has rung no
// bell.
template <class Traits>
int expose(core<Traits>& c, native_handle& handle) noexcept {
  int refused = c.open_poller();
  if (refused == 0) refused = c.poller.expose(handle);
  if (refused != 0 || c.exposed) return refused;
  c.exposed = true;
  if (!c.runs_here()) c.ring_own_bell();
  return 0;
}

// The loop thread, at the end of the outermost run: nobody runs the loop any more. If a foreign loop
// waits for it, that is a sleep like any other, so posters must ring, and [sleep] holds: L1 and L2 are
// here, and only then others may become the loop.
template <class Traits>
void leave(core<Traits>& c) noexcept {
  if (!c.exposed) return c.wake.leave();
  if (c.ended && c.nothing_queued()) {  // nothing comes any more: the handle falls silent
    c.watches_.silence(c.poller);
    poll_event none[1];
    c.poller.wait(none, 1, 0);
    return c.wake.leave();
  }
  const bool more = c.can_run();  // takes in what spilled, so before the mark
  const auto mark = c.in.mark();
  c.wake.choose_fence(c.taken_in());
  Traits::schedule_point("before-away");
  c.poller.settle();
  if (!more && c.wake.publish(status::in_poller)) {
    Traits::schedule_point("away-published");
    c.wake.barrier();
    if (!c.in.news_before_sleep(mark)) return c.wake.leave_away();
  }
  c.ring_own_bell();
  c.wake.leave();
}

}  // namespace detail
HYBRIDLOOP_CLOSE
