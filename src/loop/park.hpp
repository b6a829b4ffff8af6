// loop/park.hpp - how the loop thread goes to sleep, and what may end it
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "loop/core.hpp"
#include "loop/doorbell.hpp"
#include "loop/event_batch.hpp"
#include "loop/frames.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// When a call of run() returns, other than by stop() or by close() and drained.
enum class until : std::uint8_t {
  ended,     // never
  idle,      // nothing is left that could happen
  turned,    // after one turn
  deadline,  // when the clock says so
};

// A poller that fails is no reason to burn a core: until it recovers, a look every millisecond.
template <class Traits>
void nap(core<Traits>& c, nanos limit) noexcept {
  const nanos soon = c.read_now() + 1000000;
  Traits::parker::wait(c.wake.sleeping_word(), status::in_poller, soon < limit ? soon : limit);
}

// The poller's answer of so many events took no sleep. A wrong yes costs one look at the poller.
inline constexpr bool came_at_once(nanos took, std::size_t events) noexcept {
  return events != 0 && took < 4000 + 500 * static_cast<nanos>(events);
}

// Until `end`, or until the word, which is `asleep`, is turned back to awake. What the loop thread
// offered is not its own before reclaim().
template <class Traits>
void sleep(core<Traits>& c, event_batch<Traits>& events, std::uint32_t asleep, nanos end) {
  Traits::schedule_point("before-sleep");
  const nanos begin = c.read_now();
  const nanos rescue = rescue_ns != 0 ? saturating_add(begin, rescue_ns) : never;
  const nanos limit = rescue < end ? rescue : end;
  if (asleep == status::in_poller) {
    const nanos span = limit == never ? never : time_between(begin, limit);
    if (!events.wait(span)) nap(c, limit);
  } else {
    Traits::parker::wait(c.wake.sleeping_word(), asleep, limit);
  }
  const bool by_itself = asleep == status::offered ? c.wake.reclaim() : c.wake.wake_self();
  c.refresh_now();
  const nanos now = c.cached_now();
  const nanos slept = time_between(begin, now);
  c.ready_at_once = came_at_once(slept, events.left());
  if (!by_itself) c.outlook.woken_after(c, slept);
  c.parked_ns.add(static_cast<std::uint64_t>(slept));
  if (by_itself && now >= rescue && rescue < end && c.in.can_run()) c.rescued.add(1);
}

// The loop thread, when a turn found nothing to do. From publish() on the loop is on the word of
// [sleep]: what is looked at after it is a shared atomic, or a copy made before. True: it has slept in
// the poller, and `events` holds what that reported.
//
// A run_once() is not lent: its caller wants to know that something happened.
template <class Traits>
bool park(core<Traits>& c, event_batch<Traits>& events, until goal, nanos deadline) {
  nanos end = c.timers_.next_wake();
  if (deadline < end) end = deadline;
  if ((end != never && end <= c.cached_now()) || c.outlook.look(c, end)) return false;
  const auto mark = c.in.mark();
  const bool in_poller = c.sleeps_in_poller();
  const bool lends = c.options.caller_runs && !in_poller && goal != until::turned && c.lending_.runs == 0;
  c.lending_.limit = end;
  c.lending_.until_idle = goal == until::idle;
  c.lending_.sleeper = loop_frame::innermost();
  std::uint32_t asleep = in_poller ? status::in_poller : status::in_channel;
  c.wake.choose_fence(c.taken_in());
  Traits::schedule_point("before-park");
  if (!c.wake.publish(asleep)) return false;
  Traits::schedule_point("park-published");
  c.wake.barrier();
  const bool slept = !c.in.news_before_sleep(mark);
  if (slept) {
    (in_poller ? c.parks_poller : c.parks_channel).add(1);
    if (lends && c.wake.offer()) asleep = status::offered;
    sleep(c, events, asleep, end);
  }
  c.wake.wake_self();
  if (!slept) c.forget_now();
  return slept && in_poller;
}

}  // namespace detail
HYBRIDLOOP_CLOSE
