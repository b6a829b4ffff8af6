// loop/runner.hpp - one call of run(): the turns it makes, and what it does in each
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "loop/core.hpp"
#include "loop/event_batch.hpp"
#include "loop/frames.hpp"
#include "loop/loan.hpp"
#include "loop/meter.hpp"
#include "loop/ownership.hpp"
#include "loop/park.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Lives on the stack of the caller, who is the loop thread for that long. Calls nest inside a task:
// an inner runner goes on with the next task, and the outer ones return after it when it was stopped.
template <class Traits, class Build>
class runner {
  using core_type = core<Traits>;

 public:
  explicit runner(core_type& c)
      : core_(c), outermost_(!c.runs_here()), entered_(enter(c, outermost_)), frame_(&c.door),
        ran_before_(std::exchange(c.ran, 0)), counted_before_(std::exchange(c.counted, 0)),
        calls_before_(c.calls), events_(c) {
    c.calls = {&deliver_arrival<Traits, Build>, &serve_lent<Traits, Build>};
    ++c.runs;
  }
  runner(const runner&) = delete;
  runner& operator=(const runner&) = delete;
  ~runner() {
    events_.put_back();
    core_.publish_counts();
    --core_.runs;
    core_.ran = ran_before_;
    core_.counted = counted_before_;
    core_.calls = calls_before_;
    core_.in.publish_heads();
    if (!outermost_) return;
    if (stopped_) core_.wake.forget(status::stop);
    leave(core_);
  }

  // How many tasks, timers and watch callbacks it ran.
  std::size_t run(until goal, nanos deadline, bool may_sleep) {
    while (!stop_seen() && !finished(goal)) {
      turn(goal, deadline, may_sleep);
      if (goal == until::turned) break;
      if (goal == until::deadline && core_type::read_now() >= deadline) break;
    }
    return core_.ran;
  }

  // Ready work only, until it is done or the next task is expected to overrun. Turn after turn, but
  // in slices: each source of work in its turn, and in the next frame those that had none in this.
  frame_outcome run_frame(nanos budget) {
    const nanos begin = core_type::read_now();
    meter_.start(begin, budget);
    heed_close();
    for (std::size_t round = 0, barren = 0; !stop_seen() && barren != sources; ++round) {
      const bool some = core_.ran != 0 || round >= sources;
      if (some && meter_.expects_to_overrun(core_type::read_now(), core_.task_cost)) break;
      if (round % sources == 0) begin_turn();
      const std::size_t steps = steps_;
      meter_.start_slice(core_type::read_now());
      serve(core_.next_source++ % sources);
      barren = steps_ == steps && core_.microtasks.empty() ? barren + 1 : 0;
    }
    end_turn();
    const std::size_t due = core_.timers_.count_due(core_type::read_now());
    const std::size_t pending = core_.queued() + due + events_.left();
    const nanos next = core_.timers_.next_deadline();
    const nanos took = core_type::read_now() - begin;
    return {core_.ran, pending, next, took > budget ? took - budget : 0};
  }

 private:
  static constexpr std::size_t sources = 5;

  void serve(std::size_t source) {
    switch (source) {
      case 0: return fire_due_timers();
      case 1: return run_deferred();
      case 2: return drain_ingress();
      case 3: return tell_always_ready();
      default:
        if (events_.left() == 0) poll_without_sleeping(meter_.likely(core_.task_cost));
        return tell_ready();
    }
  }

  // One turn: due timers, posted work, then whatever the kernel reports. Sleeps only if none of
  // them had anything to offer, and then does what it was woken for.
  void turn(until goal, nanos deadline, bool may_sleep) {
    begin_turn();
    fire_due_timers();
    run_deferred();
    drain_ingress();
    if (may_sleep && nothing_happened() && !descriptors_are_busy()) {
      call_hook(core_.prepare);
      const bool sleep = !stop_seen() && !finished(goal) && nothing_happened() && !core_.lending_.error;
      if (sleep) asked_poller_ = park(core_, events_, goal, deadline);
      call_hook(core_.check);
      if (core_.lending_.error) rethrow<Build>(std::exchange(core_.lending_.error, nullptr));
      run_microtasks();  // left over from a loan
      core_.in.adopt();
      fire_due_timers();
      drain_ingress();
    }
    if (!asked_poller_) poll_without_sleeping(events_per_turn);
    tell_always_ready();
    int rounds = goal == until::ended ? 64 : 1;
    do tell_ready();
    while (--rounds != 0 && poller_goes_on());
    end_turn();
  }

  static bool enter(core_type& c, bool outermost) {
    HYBRIDLOOP_CONTRACT(!c.forked(), doorbell<Traits>::in_the_child);
    if (!outermost) keep_loan(c);
    const bool entered = !outermost || c.wake.enter();
    HYBRIDLOOP_CONTRACT(entered, "run() while another thread runs this loop: post to it, or make a second one");
    return entered;
  }

  bool stop_seen() noexcept {
    if (core_.wake.told(status::stop)) stopped_ = true;
    return stopped_;
  }

  bool finished(until goal) noexcept {
    heed_close();
    if (core_.ended) return drained();
    return goal == until::idle && core_.nothing_left();
  }

  void heed_close() noexcept {
    if (core_.ended || !core_.wake.told(status::close)) return;
    core_.ended = true;
    core_.wake.settle_lanes(core_.in.has_lanes());
    core_.end_timers_and_watches();
  }

  // Closed: what was accepted has run, and what that deferred. A slot that is claimed and not yet
  // published counts as accepted; its producer is between two lines of code.
  bool drained() noexcept {
    if (!core_.deferred.empty() || !core_.microtasks.empty() || core_.visitors_.has_late()) return false;
    if (core_.in.empty()) return true;
    if (!core_.in.can_run()) core_.wait_for_claims(claim_yields_);
    return false;
  }

  void begin_turn() {
    core_.turns.add(1);
    core_.forget_now();
    core_.let_in();
    steps_at_turn_ = steps_;
    asked_poller_ = false;
    microtasks_left_ = microtasks_per_turn;
    run_microtasks();  // left over from the turn before
  }

  void end_turn() noexcept {
    if (!core_.microtasks.empty()) core_.micro_left.add(1);
    core_.wake.expect_stream(core_.taken_in());
    core_.publish_counts();
  }

  // Commands, tombstones and microtasks are not counted as tasks, yet they may have been the last
  // thing that run_until_idle() was waiting for.
  bool nothing_happened() const noexcept {
    return steps_ == steps_at_turn_ && microtasks_left_ == microtasks_per_turn &&
           core_.deferred.empty() && core_.microtasks.empty() && !core_.watches_.always_ready();
  }

  // Where the poller has just answered at once it is asked before any sleep is prepared, for as long as
  // that finds something. Not where somebody wants to hear of each round.
  bool descriptors_are_busy() noexcept {
    if (!core_.ready_at_once || core_.prepare || core_.check) return false;
    poll_without_sleeping(events_per_turn);
    asked_poller_ = true;
    return core_.ready_at_once = events_.left() != 0;
  }

  // The same where nothing else can happen either: round after round in one turn.
  bool poller_goes_on() noexcept {
    if (!core_.ready_at_once || !core_.only_descriptors()) return false;
    core_.forget_now();
    core_.publish_counts();
    microtasks_left_ = microtasks_per_turn;
    poll_without_sleeping(events_per_turn);
    return core_.ready_at_once = events_.left() != 0;
  }

  // ---- What there is to do ----

  void fire_due_timers() {
    if (core_.timers_.started() == 0 || stop_seen()) return;
    core_.timers_.fire(
        core_.cached_now(), timers_per_turn,
        [this](unique_task& task) { return run_one([&task] { task(); }, true); },
        [] { return core_type::read_now(); });
  }

  // What was deferred before this turn; what these defer waits for the next one. A nested run may
  // have been there first.
  void run_deferred() {
    for (std::size_t n = core_.deferred.size(); n != 0 && !core_.deferred.empty() && !halted(); --n) {
      unique_task task = core_.deferred.pop();
      run_one([&task] { task(); }, true);
    }
  }

  // Posted work, a bounded number of tasks. Ends early when the loop is stopped.
  void drain_ingress() {
    struct let_producers_in {
      ingress<Traits>& in;
      ~let_producers_in() { in.publish_heads(); }
    };
    const let_producers_in on_exit{core_.in};
    if (std::exchange(much_came_, false) || core_.in.shared.holds(backlog_batch)) core_.note_backlog();
    const bool paced = core_.options.path != fast_path::off && !meter_.on();
    std::size_t left = tasks_per_turn;
    while (left != 0) {
      const std::size_t before = left;
      const std::uint64_t ran = core_.in.shared.ran();
      left = drain_batch(left);
      if (before - left >= backlog_batch) much_came_ = true;
      core_.note_batch(core_.in.shared.ran() - ran);
      if (halted() || left == 0 || before == left || !paced) break;
      const auto some = [this] { return core_.in.can_run(); };
      const auto plenty = [this] { return core_.in.fills_up(); };
      if (!core_.pace.more(before - left, some, plenty)) break;
    }
  }

  // Every queue in its turn, until nothing can run or `left` tasks have; answers what is left.
  std::size_t drain_batch(std::size_t left) {
    return core_.in.visit(
        left, [this](auto& queue, std::size_t share) { return this->drain(queue, share); },
        [this] { return halted(); });
  }

  // Until nothing of the queue can run, or `most` tasks have; answers how many.
  template <class Queue>
  std::size_t drain(Queue& queue, std::size_t most) {
    std::size_t count = 0;
    queue.take_spilled();
    while (count != most && !halted()) {
      const bool some = queue.template run_next<Build>([this](unique_task& task) {
        run_one([&task] { task(); }, task.counted());
      });
      if (!some) break;
      ++count;
      ++steps_;
      if (queue.publish_head_in_time()) queue.take_spilled();
    }
    return count;
  }

  void tell_always_ready() {
    if (!core_.watches_.always_ready() || stop_seen()) return;
    core_.watches_.deliver_always([this](watch_record<Traits>& r, const ready& what) {
      return run_one([&r, &what] { r.call(what); }, true);
    });
  }

  HYBRIDLOOP_IN_LINE void tell_ready() {
    while (events_.left() != 0 && !halted()) {
      const poll_event& event = events_.next();
      core_.watches_.deliver(core_.poller, event, [this](watch_record<Traits>& r, const ready& what) {
        return run_one([&r, &what] { r.call(what); }, true);
      });
    }
  }

  // One task, timer or callback, and the microtasks behind it. False when the loop was stopped.
  template <class F>
  HYBRIDLOOP_IN_LINE bool run_one(F&& f, bool counted) {
    if (counted) ++core_.ran;
    ++steps_;
    guarded(std::forward<F>(f));
    if (!core_.microtasks.empty()) run_microtasks();
    if (meter_.on()) meter_.tick(core_type::read_now(), core_.task_cost);
    return !halted();
  }

  bool halted() noexcept { return stop_seen() || meter_.paused(); }

  // A run inside a hook calls none.
  void call_hook(hook& h) {
    if (!h || core_.in_hook) return;
    struct raised {
      bool& flag;
      ~raised() { flag = false; }
    };
    core_.in_hook = true;
    const raised until_it_returns{core_.in_hook};
    h.call([this](unique_task& task) { guarded([&task] { task(); }); });
    run_microtasks();
  }

  void run_microtasks() {
    while (!core_.microtasks.empty() && microtasks_left_ != 0) {
      --microtasks_left_;
      unique_task task = core_.microtasks.pop();
      guarded([&task] { task(); });
    }
  }

  template <class F>
  HYBRIDLOOP_IN_LINE void guarded(F&& f) {
    if (core_.options.on_exception == nullptr) {
      std::forward<F>(f)();
    } else {
      trap<Build>(std::forward<F>(f), core_.options.on_exception);
    }
  }

  void poll_without_sleeping(std::size_t most) noexcept {
    if (core_.asks_poller()) events_.wait(0, most < events_per_turn ? most : events_per_turn);
  }

  core_type& core_;
  const bool outermost_;
  const bool entered_;
  const loop_frame frame_;
  const std::size_t ran_before_;
  const std::size_t counted_before_;
  const decltype(core_type::calls) calls_before_;
  bool stopped_ = false;

  std::size_t steps_ = 0;          // whatever was run, counted as a task or not
  std::size_t steps_at_turn_ = 0;
  bool asked_poller_ = false;      // in this turn
  bool much_came_ = true;          // or may have: the ring's tail is worth a look
  std::uint32_t claim_yields_ = 0;
  std::size_t microtasks_left_ = microtasks_per_turn;
  meter meter_;
  event_batch<Traits> events_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
