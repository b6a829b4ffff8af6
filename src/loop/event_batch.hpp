// loop/event_batch.hpp - what the kernel reported in one go, and who was not told yet
#pragma once

#include <cstddef>
#include <utility>

#include "base/clock.hpp"
#include "loop/core.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// One for each nested run. The loop thread only.
template <class Traits>
class event_batch {
 public:
  explicit event_batch(core<Traits>& c) noexcept : core_(c) {}
  event_batch(const event_batch&) = delete;
  event_batch& operator=(const event_batch&) = delete;

  std::size_t left() const noexcept { return count_ - next_; }

  // Asks the poller for at most `room` events; the batch before this one must have been told. False:
  // the poller failed.
  bool wait(nanos timeout, std::size_t room = events_per_turn) noexcept {
    const int got = core_.poller.wait(events_, room, timeout);
    next_ = 0;
    count_ = got > 0 ? static_cast<std::size_t>(got) : 0;
    first_ = count_ != 0 ? std::exchange(core_.broken_off, 0) % count_ : 0;
    return got >= 0;
  }

  // Goes round: a batch begins where the last one was broken off, so that a callback that throws every
  // time holds nobody up.
  const poll_event& next() noexcept {
    const std::size_t at = first_ + next_++;
    return events_[at < count_ ? at : at - count_];
  }

  // Has the kernel report again what an exception, a stop or the end of a frame left behind.
  void put_back() noexcept {
    if (left() != 0) core_.broken_off = first_ + next_;
    while (left() != 0) core_.watches_.put_back(core_.poller, next());
  }

 private:
  core<Traits>& core_;
  std::size_t count_ = 0;
  std::size_t first_ = 0;
  std::size_t next_ = 0;
  poll_event events_[events_per_turn];
};

// What a companion reported. It arrives as a task, which runs the microtasks behind it. The callback may
// throw, so files built with and without exceptions have each their own.
template <class Traits, class Build>
void deliver_arrival(core<Traits>& c, const poll_event& event) {
  c.watches_.deliver(c.poller, event, [&c](watch_record<Traits>& r, const ready& what) {
    ++c.ran;
    r.call(what);
    return !c.wake.told(status::stop);
  });
}

}  // namespace detail
HYBRIDLOOP_CLOSE
