// loop/runner.hpp - one call of run(): the turns it makes, and how it goes to sleep
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "base/pause.hpp"
#include "loop/core.hpp"
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

// Lives on the stack of the caller, who is the loop thread for that long. Calls nest inside a task:
// an inner runner goes on with the next task, and the outer ones return after it when it was stopped.
template <class Traits, class Build>
class runner {
  using core_type = core<Traits>;

 public:
  explicit runner(core_type& c)
      : core_(c), outermost_(!c.runs_here()), entered_(enter(c, outermost_)), frame_(&c),
        ran_before_(std::exchange(c.ran, 0)),
        deliver_before_(std::exchange(c.deliver, &deliver_arrival)) {}
  runner(const runner&) = delete;
  runner& operator=(const runner&) = delete;
  ~runner() {
    put_events_back();
    publish_counts();
    core_.ran = ran_before_;
    core_.deliver = deliver_before_;
    core_.in.publish_head();
    if (!outermost_) return;
    if (stopped_) core_.wake.forget(status::stop);
    core_.wake.leave();
  }

  // How many tasks, timers and watch callbacks it ran.
  std::size_t run(until goal, nanos deadline, bool may_sleep) {
    while (!stop_seen() && !finished(goal)) {
      turn(deadline, may_sleep);
      if (goal == until::turned) break;
      if (goal == until::deadline && core_type::read_now() >= deadline) break;
    }
    return core_.ran;
  }

 private:
  // One turn: due timers, posted work, then whatever the kernel reports. Sleeps only if none of
  // them had anything to offer, and then does what it was woken for.
  void turn(nanos deadline, bool may_sleep) {
    begin_turn();
    fire_due_timers();
    run_deferred();
    drain_ingress();
    if (may_sleep && nothing_happened()) {
      park(deadline);
      fire_due_timers();
      drain_ingress();
    }
    if (!asked_poller_) poll_without_sleeping();
    dispatch_ready();
    end_turn();
  }

  static bool enter(core_type& c, bool outermost) {
    const bool entered = !outermost || c.wake.enter();
    HYBRIDLOOP_CONTRACT(entered, "a loop is run by one thread at a time");
    return entered;
  }

  bool stop_seen() noexcept {
    if (core_.wake.told(status::stop)) stopped_ = true;
    return stopped_;
  }

  bool finished(until goal) noexcept {
    if (core_.wake.told(status::close)) return drained();
    return goal == until::idle && core_.nothing_left();
  }

  // Closed: what was accepted has run, and what that deferred. A slot that is claimed and not yet
  // published counts as accepted; its producer is between two lines of code.
  bool drained() noexcept {
    if (!core_.ended) {
      core_.ended = true;
      core_.end_timers_and_watches();
    }
    if (!core_.deferred.empty() || !core_.microtasks.empty()) return false;
    if (core_.in.empty()) return true;
    if (!core_.in.can_run()) wait_for_claims();
    return false;
  }

  // A few yields for a producer that was preempted, then a nap at a time for one whose closure takes
  // long to build.
  void wait_for_claims() noexcept {
    if (++claim_yields_ < 64) return Traits::kernel::yield();
    const nanos soon = core_type::read_now() + 50000;
    Traits::parker::wait(core_.wake.sleeping_word(), core_.wake.word(), soon);
  }

  void begin_turn() {
    core_.turns.add(1);
    core_.refresh_now();
    ran_at_turn_ = core_.ran;
    took_some_ = false;
    asked_poller_ = false;
    events_ = 0;
    microtasks_left_ = microtasks_per_turn;
    run_microtasks();  // left over from the turn before
  }

  void end_turn() noexcept {
    if (!core_.microtasks.empty()) core_.micro_left.add(1);
    core_.wake.expect_stream(core_.in.posts());
    publish_counts();
  }

  // For stats(): at the end of a turn, and on every way out.
  void publish_counts() noexcept {
    core_.tasks.add(core_.ran - published_);
    published_ = core_.ran;
    core_.publish_counts();
  }

  // Commands, tombstones and microtasks are not counted, yet they may have been the last thing that
  // run_until_idle() was waiting for.
  bool nothing_happened() const noexcept {
    return core_.ran == ran_at_turn_ && !took_some_ && microtasks_left_ == microtasks_per_turn &&
           core_.deferred.empty() && core_.microtasks.empty() && !core_.watches_.always_ready();
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
    for (std::size_t n = core_.deferred.size(); n != 0 && !core_.deferred.empty() && !stop_seen(); --n) {
      unique_task task = core_.deferred.pop();
      run_one([&task] { task(); }, true);
    }
  }

  // Posted work, a bounded number of tasks. Ends early when the loop is stopped.
  void drain_ingress() {
    struct let_producers_in {
      ingress<Traits>& in;
      ~let_producers_in() { in.publish_head(); }
    };
    const std::size_t backlog = core_.in.backlog();
    if (backlog > core_.ring_high.get()) core_.ring_high.set(backlog);
    const let_producers_in on_exit{core_.in};
    const bool paced = core_.options.path != fast_path::off;
    std::size_t left = tasks_per_turn;
    while (left != 0) {
      const std::size_t before = left;
      left = drain_batch(left);
      if (stop_seen() || left == 0 || before == left || !paced) break;
      if (!core_.pace.more(before - left, [this] { return core_.in.can_run(); })) break;
    }
  }

  // Until nothing can run, or `left` tasks have; answers what is left of them.
  std::size_t drain_batch(std::size_t left) {
    const std::size_t stride = publish_stride();
    core_.in.take_spilled();
    while (left != 0 && !stop_seen()) {
      const bool some = core_.in.template run_next<Build>([this](unique_task& task) {
        run_one([&task] { task(); }, task.counted());
      });
      if (!some) break;
      took_some_ = true;
      if (--left % stride == 0) {
        core_.in.publish_head();
        core_.in.take_spilled();
      }
    }
    return left;
  }

  void dispatch_ready() {
    if (core_.watches_.always_ready() && !stop_seen()) {
      core_.watches_.deliver_always([this](watch_record<Traits>& r, const ready& what) {
        return run_one([&r, &what] { r.call(what); }, true);
      });
    }
    while (next_event_ < events_ && !stop_seen()) {
      const poll_event& event = next_event();
      core_.watches_.deliver(core_.poller, event, [this](watch_record<Traits>& r, const ready& what) {
        return run_one([&r, &what] { r.call(what); }, true);
      });
    }
  }

  // What a companion reported. It arrives as a task, which runs the microtasks behind it.
  static void deliver_arrival(core_type& c, const poll_event& event) {
    c.watches_.deliver(c.poller, event, [&c](watch_record<Traits>& r, const ready& what) {
      ++c.ran;
      r.call(what);
      return !c.wake.told(status::stop);
    });
  }

  // Goes round: a batch begins where the last one was broken off, so that a callback that throws every
  // time holds nobody up.
  const poll_event& next_event() noexcept {
    const std::size_t at = first_event_ + next_event_++;
    return ready_[at < events_ ? at : at - events_];
  }

  // Events that an exception or a stop left behind are reported again.
  void put_events_back() noexcept {
    if (next_event_ < events_) core_.broken_off = first_event_ + next_event_;
    while (next_event_ < events_) core_.watches_.put_back(core_.poller, next_event());
  }

  // One task, timer or callback, and the microtasks behind it. False when the loop was stopped.
  template <class F>
  bool run_one(F&& f, bool counted) {
    if (counted) ++core_.ran;
    guarded(std::forward<F>(f));
    run_microtasks();
    return !stop_seen();
  }

  void run_microtasks() {
    while (!core_.microtasks.empty() && microtasks_left_ != 0) {
      --microtasks_left_;
      unique_task task = core_.microtasks.pop();
      guarded([&task] { task(); });
    }
  }

  template <class F>
  void guarded(F&& f) {
    if (core_.options.on_exception == nullptr) {
      std::forward<F>(f)();
    } else {
      trap<Build>(std::forward<F>(f), core_.options.on_exception);
    }
  }

  // ---- Sleeping ----

  void poll_without_sleeping() noexcept {
    if (core_.options.path == fast_path::mini || core_.watches_.registered() == 0) return;
    take_events(core_.poller.wait(ready_, events_per_turn, 0));
  }

  void take_events(int got) noexcept {
    next_event_ = 0;
    events_ = got > 0 ? static_cast<std::size_t>(got) : 0;
    first_event_ = events_ != 0 ? std::exchange(core_.broken_off, 0) % events_ : 0;
  }

  // A poller that fails is no reason to burn a core: until it recovers, a look every millisecond.
  void nap(nanos limit) noexcept {
    const nanos soon = core_type::read_now() + 1000000;
    Traits::parker::wait(core_.wake.sleeping_word(), core_.wake.published(), soon < limit ? soon : limit);
  }

  // From publish() on the loop is on the word of [sleep]: what is looked at after it is a shared
  // atomic, or a copy made before.
  void park(nanos deadline) {
    nanos end = core_.timers_.next_wake();
    if (deadline < end) end = deadline;
    if (end <= core_.cached_now() || look_for_a_while(end)) return;
    const auto mark = core_.in.mark();
    const bool in_poller = core_.sleeps_in_poller();
    core_.wake.choose_fence(core_.in.posts());
    Traits::schedule_point("before-park");
    if (!core_.wake.publish(in_poller ? status::in_poller : status::in_channel)) return;
    Traits::schedule_point("park-published");
    core_.wake.barrier();
    if (!core_.in.news_before_sleep(mark)) sleep(in_poller, end);
    core_.wake.wake_self();
    core_.refresh_now();
  }

  void sleep(bool in_poller, nanos end) {
    Traits::schedule_point("before-sleep");
    const nanos begin = core_type::read_now();
    const nanos rescue = rescue_ns != 0 ? saturating_add(begin, rescue_ns) : never;
    const nanos limit = rescue < end ? rescue : end;
    (in_poller ? core_.parks_poller : core_.parks_channel).add(1);
    if (in_poller) {
      const nanos span = limit == never ? never : limit > begin ? limit - begin : 0;
      const int got = core_.poller.wait(ready_, events_per_turn, span);
      take_events(got);
      asked_poller_ = true;
      if (got < 0) nap(limit);
    } else {
      Traits::parker::wait(core_.wake.sleeping_word(), core_.wake.published(), limit);
    }
    const bool by_itself = core_.wake.wake_self();
    const nanos now = core_type::read_now();
    core_.parked_ns.add(static_cast<std::uint64_t>(now - begin));
    if (by_itself && now >= rescue && rescue < end && core_.in.can_run()) core_.rescued.add(1);
  }

  // A bounded look at empty queues, while posters still find the loop awake. It pays when a task
  // comes before a sleep and a wake would have been over, so it grows when it hits and shrinks
  // when it misses, down to nothing but a try now and then.
  bool look_for_a_while(nanos end) noexcept {
    if (core_.options.path == fast_path::off || core_.options.spin.count() == 0) return false;
    const nanos most = core_.options.spin.count();
    if (core_.spin_misses % 64 == 0) {
      core_.may_spin = Traits::kernel::usable_cpus() > 1;
      core_.spin = most;
    }
    if (!core_.may_spin || core_.spin < shortest_look) {
      ++core_.spin_misses;
      return false;
    }
    const nanos begin = core_.cached_now();
    const bool hit = look_until(begin, core_.spin, end);
    core_.spun_ns.add(static_cast<std::uint64_t>(core_.cached_now() - begin));
    core_.spin = hit ? most : core_.spin / 2;
    core_.spin_misses = hit ? 1 : core_.spin_misses + 1;
    return hit;
  }

  bool look_until(nanos begin, nanos span, nanos end) noexcept {
    constexpr std::uint32_t urgent = status::stop | status::close | status::wanted;
    for (int reads = 0; reads < most_reads; ++reads) {
      if (core_.cached_now() - begin >= span || core_.cached_now() >= end) break;
      for (int i = 0; i < looks_per_clock; ++i) {
        if (core_.in.can_run()) return true;
        if (core_.wake.told(urgent)) {
          core_.wake.forget(status::wanted);
          return true;
        }
        cpu_pause();
      }
      core_.refresh_now();
    }
    return false;
  }

  std::size_t publish_stride() const noexcept {
    const std::size_t quarter = core_.in.capacity() / 4;
    return quarter == 0 ? 1 : quarter < 256 ? quarter : 256;
  }

  static constexpr nanos shortest_look = 500;
  static constexpr int looks_per_clock = 8;
  static constexpr int most_reads = 1 << 16;  // for a clock that stands still

  core_type& core_;
  const bool outermost_;
  const bool entered_;
  const loop_frame frame_;
  const std::size_t ran_before_;
  void (*const deliver_before_)(core_type&, const poll_event&);
  bool stopped_ = false;

  std::size_t published_ = 0;  // of core_.ran
  std::size_t ran_at_turn_ = 0;
  bool took_some_ = false;     // from the ingress, in this turn
  bool asked_poller_ = false;  // in this turn
  std::uint32_t claim_yields_ = 0;
  std::size_t microtasks_left_ = microtasks_per_turn;
  std::size_t events_ = 0;
  std::size_t first_event_ = 0;
  std::size_t next_event_ = 0;
  poll_event ready_[events_per_turn];
};

}  // namespace detail
HYBRIDLOOP_CLOSE
