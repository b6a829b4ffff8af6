// loop/fork.hpp - what becomes of a loop in the child of a fork
#pragma once

#include <cstdint>

#include "base/contract.hpp"
#include "loop/core.hpp"
#include "loop/frames.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// The child has one thread, the one that forked, and a copy of all memory; the kernel objects it
// shares with its parent. Threads that were in the middle of a call are gone, so what they had
// claimed stays unpublished, what they had counted stays counted, and a lock stays locked.

// Was the loop at rest when its process was copied? Not if another thread was running it and had not
// parked, or had parked inside a task, or had borrowed it: then what belongs to the loop thread may be
// half changed. If the one thread has borrowed it, the one it has from is not there.
template <class Traits>
bool copied_at_rest(core<Traits>& c) noexcept {
  const std::uint32_t m = status::mode_of(c.wake.word());
  if (loop_frame::runs_itself(&c.door)) return c.lending_.runs <= 1;
  return m != status::awake && m != status::lent && c.runs <= 1;
}

// The destructor of a loop, in the child. Touches no kernel object that the parent has too, beyond
// closing the child's own descriptors of it. False: the memory cannot be looked through, and is left.
template <class Traits>
bool abandon(core<Traits>& c) noexcept {
  const bool at_rest = copied_at_rest(c);
  c.companion_.forget();
  c.poller.abandon();
  c.in.close();
  if (!at_rest) return false;
  c.wake.settle_in_child(status::dead);
  c.in.abandon_claims();
  c.destroy_all_work();
  return true;
}

// Makes the copy a loop of its own: kernel objects of its own under the old numbers, with the same
// watches, and a companion. What was accepted stays accepted. 0 or an errno; then it can be destroyed,
// or the call be made again.
template <class Traits, class Build>
int go_on_in_child(core<Traits>& c) noexcept {
  HYBRIDLOOP_CONTRACT(copied_at_rest(c), "a loop that another thread was running when the process forked cannot go on in the child");
  const bool open = c.poller.is_open();
  int refused = open ? c.poller.reopen() : 0;
  if (refused != 0) return refused;
  c.wake.settle_in_child(c.runs_here() ? status::awake : status::idle);
  c.in.abandon_claims();
  c.companion_.forget();
  if (!c.runs_here()) c.runs = 0;
  if (open) c.watches_.register_again(c.poller);
  if (open && c.options.path == fast_path::mini) refused = c.companion_.template start<Build>(c);
  if (refused != 0) return refused;
  c.born = Traits::kernel::forks();
  c.door.born = c.born;
  if (open) c.door.bell.store(c.poller.bell(), std::memory_order_release);  // [bell] B3
  if (c.exposed && !c.runs_here()) c.ring_own_bell();
  return 0;
}

}  // namespace detail
HYBRIDLOOP_CLOSE
