// loop/meter.hpp - when a frame has used up its budget, and whose turn it is within the frame
#pragma once

#include <cstddef>

#include "base/clock.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// What a call of run_budget() answers.
struct frame_outcome {
  std::size_t ran;
  std::size_t pending;
  nanos next_deadline;
  nanos over_by;
};

// Asked after each task. Off, it never says stop.
//
// A frame is shared out in slices of an eighth of the budget, one source of work after the other, so
// that none of them can use it up; the next frame begins with the source after the last one served.
class meter {
 public:
  // What a task costs, learned over all frames of a loop: a mean in which the last eight or so count.
  // A single one that is far off (its thread lost the CPU) must not spoil the frames behind it.
  class estimate {
   public:
    void learn(nanos took) noexcept {
      const nanos most = 4 * cost() + (eighths_ == 0 ? 100000 : 1000);
      const nanos sane = took < 0 ? 0 : took < most ? took : most;  // a clock may be set back
      eighths_ += sane - eighths_ / 8;
    }
    nanos cost() const noexcept { return eighths_ / 8; }

   private:
    nanos eighths_ = 0;
  };

  bool on() const noexcept { return on_; }

  void start(nanos now, nanos budget) noexcept {
    on_ = true;
    last_ = now;
    end_ = saturating_add(now, budget);
    slice_ = budget / 8;
  }
  void start_slice(nanos now) noexcept {
    move_to(now);
    paused_ = false;
    slice_end_ = saturating_add(now, slice_);
  }

  // A task has run.
  void tick(nanos now, estimate& task) noexcept {
    task.learn(now - last_);
    move_to(now);
    paused_ = now >= slice_end_ || expects_to_overrun(now, task);
  }

  bool expects_to_overrun(nanos now, const estimate& task) const noexcept {
    return saturating_add(now, task.cost()) > end_;
  }

  // How many tasks are likely to fit into the slice, at least one.
  std::size_t likely(const estimate& task) const noexcept {
    const nanos cost = task.cost() > 0 ? task.cost() : 1;
    return static_cast<std::size_t>((slice_end_ - last_) / cost) + 1;
  }
  bool paused() const noexcept { return paused_; }

 private:
  // A clock that is set back takes the frame's end along, or the frame would last until it has come again.
  void move_to(nanos now) noexcept {
    if (now < last_) {
      end_ -= last_ - now;
      slice_end_ -= last_ - now;
    }
    last_ = now;
  }

  bool on_ = false;
  bool paused_ = false;
  nanos last_ = 0;
  nanos end_ = 0;
  nanos slice_ = 0;
  nanos slice_end_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
