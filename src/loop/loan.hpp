// loop/loan.hpp - a caller of invoke() that is the loop itself, while the loop thread sleeps
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <utility>

#include "base/contract.hpp"
#include "loop/core.hpp"
#include "loop/frames.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Runs so many of the tasks that others gave to a lent loop, and the microtasks behind each; with
// `tasks` 0 the microtasks that are there. As the file was built whose run() sleeps: that is who is
// prepared for what they throw. False: not all of it, because of a stop, of an exception, of a claim
// that is not yet published, or because there is no end of microtasks.
template <class Traits, class Build>
bool serve_lent(core<Traits>& c, std::size_t tasks) noexcept {
  const auto keep = [&c](std::exception_ptr thrown) { c.lending_.error = std::move(thrown); };
  const auto run = [&c, &keep](unique_task& task) {
    trap<Build>(
        [&] {
          if (c.options.on_exception == nullptr) return task();
          trap<Build>([&task] { task(); }, c.options.on_exception);
        },
        keep);
  };
  std::size_t microtasks_left = microtasks_per_turn;
  for (;;) {
    for (; !c.microtasks.empty() && microtasks_left != 0 && !c.lending_.error; --microtasks_left) {
      unique_task task = c.microtasks.pop();
      run(task);
    }
    if (c.lending_.error || !c.microtasks.empty() || c.wake.told(status::stop)) return false;
    if (tasks-- == 0) return true;
    const auto run_counted = [&c, &run](unique_task& task) {
      if (task.counted()) ++c.ran;
      run(task);
    };
    const auto run_owed = [&run_counted](auto& queue, std::size_t) -> std::size_t {
      if (queue.owed == 0 || !queue.template run_next<Build>(run_counted)) return 0;
      --queue.owed;
      return 1;
    };
    if (c.in.visit(1, run_owed, [] { return false; }) != 0) return false;
    c.in.publish_heads();
  }
}

// The runner, before it runs the loop inside a task: if that is on loan, the loan is kept.
template <class Traits>
void keep_loan(core<Traits>& c) noexcept {
  if (c.lending_.runs == 0 || std::exchange(c.lending_.kept, true)) return;
  c.wake.keep();
}

// Tries to borrow; who did is the loop until end().
template <class Traits>
class loan {
 public:
  explicit loan(core<Traits>& c) noexcept : core_(c), borrowed_(c.wake.borrow_sleeper()) {
    if (!borrowed_) return;
    c.forget_now();
    HYBRIDLOOP_CONTRACT(!c.forked(), doorbell<Traits>::in_the_child);
    born_ = c.born;
    c.lending_.runs = c.runs;
    frame_.emplace(&c.door, c.lending_.sleeper);
    Traits::schedule_point("lent");
  }
  loan(const loan&) = delete;
  loan& operator=(const loan&) = delete;
  ~loan() { end(); }

  // Runs what was accepted before the loan. True: now it is the caller's turn. False: nothing was
  // borrowed, or some of that is left; then the caller's comes behind it, in the queue.
  bool serve() noexcept {
    if (!borrowed_) return false;
    const std::size_t queued = core_.in.owe_pending();
    served_ = queued == 0 || serve_queued(queued);
    if (served_) {
      ++core_.ran;
    } else {
      frame_.reset();  // the caller is about to wait, as a thread that does not run this loop
    }
    return served_;
  }

  // A borrower is the one who would make room.
  overflow when_full() const noexcept {
    const overflow asked = core_.options.when_full;
    return borrowed_ && asked == overflow::block ? overflow::spill : asked;
  }

  void end() noexcept {
    if (!std::exchange(borrowed_, false)) return;
    core<Traits>& c = core_;
    if (served_ && !c.microtasks.empty()) c.calls.serve(c, 0);
    if (served_) c.lending_.loans.add(1);
    c.publish_counts();
    frame_.reset();
    c.lending_.runs = 0;
    if (core<Traits>::kernel::forks() != born_) return leave_in_child();
    if (std::exchange(c.lending_.kept, false)) return c.wake.end_keep();
    const bool asleep = may_sleep_on();
    Traits::schedule_point("before-give-back");
    if (!asleep || !c.wake.give_back_asleep()) c.wake.give_back_awake();
  }

 private:
  bool serve_queued(std::size_t queued) noexcept {
    core_.note_backlog();
    return core_.calls.serve(core_, queued);
  }

  // What others post meanwhile is on the word.
  bool may_sleep_on() noexcept {
    core<Traits>& c = core_;
    if (!served_ || c.lending_.error || !c.deferred.empty() || !c.microtasks.empty()) return false;
    if (c.watches_.always_ready() || c.sleeps_in_poller()) return false;
    if (c.timers_.started() != 0 && c.timers_.next_wake() < c.lending_.limit) return false;
    return !(c.lending_.until_idle && c.nothing_left());
  }

  // The task has forked. In the child there is no loop thread to wake: nobody runs the loop, and if that
  // thread was parked inside a task, nobody can. Once the loop is the child's own, other threads of the
  // child may be posting to it.
  void leave_in_child() noexcept {
    if (core_.runs <= 1) core_.runs = 0;
    core_.lending_.kept = false;
    if (core_.forked()) return core_.wake.settle_in_child(status::idle);
    core_.wake.forget_keep();
    core_.wake.leave();
    if (core_.exposed) core_.ring_own_bell();
  }

  core<Traits>& core_;
  bool borrowed_;
  bool served_ = false;
  std::uint32_t born_ = 0;
  std::optional<loop_frame> frame_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
