// loop/loop_work.hpp - definitions: making, running and ending a loop, and giving it work
#pragma once

#include <new>
#include <utility>

#include "loop/blocked.hpp"
#include "loop/fork.hpp"
#include "loop/invoke.hpp"
#include "loop/loan.hpp"
#include "loop/loop.hpp"
#include "loop/runner.hpp"

HYBRIDLOOP_OPEN

template <class Traits>
template <class Build>
basic_loop<Traits>::basic_loop(const loop_options& options) : core_(nullptr) {
  std::error_code code;
  core_ = core::create(options, code);
  detail::throw_if<Build>(code, "hybridloop: loop");
}

template <class Traits>
basic_loop<Traits>::~basic_loop() {
  if (core_ == nullptr) return;
  if (core_->forked()) {
    if (detail::abandon(*core_)) core_->let_go();
    return;
  }
  HYBRIDLOOP_CONTRACT(!core_->wake.running(), "a loop is destroyed inside its own run(), or while another thread runs it: stop() it and let run() return");
  core_->tear_down();
  core_->let_go();
}

// ---- Giving work ----

template <class Traits>
template <class F, class Build>
post_result basic_loop<Traits>::post(F&& f) {
  return core_->template post<Build>(std::forward<F>(f), core_->options.when_full);
}

template <class Traits>
template <class F, class Build>
post_result basic_loop<Traits>::try_post(F&& f) {
  return core_->template try_post_to<Build>(core_->in.shared, std::forward<F>(f));
}

template <class Traits>
template <class Iterator, class Sentinel, class Build>
typename basic_loop<Traits>::range_result basic_loop<Traits>::post_range(Iterator first,
                                                                         Sentinel last) {
  // Looks on every way out, also when an iterator throws: what was posted must be found. From the
  // first accepted element on, *this may be gone.
  struct look_once {
    typename core::doorbell_type& door;
    ~look_once() { door.look(true); }
  };
  const detail::core_ref<Traits> alive(*core_);
  const look_once on_exit{alive->door};
  range_result all{post_result::accepted, 0};
  for (; first != last; ++first) {
    all.result = alive->template post_quietly<Build>(*first);
    if (all.result != post_result::accepted) break;
    ++all.accepted;
  }
  return all;
}

template <class Traits>
template <class Build>
typename basic_loop<Traits>::producer_type basic_loop<Traits>::make_producer(std::size_t capacity) {
  constexpr std::size_t most = std::size_t{1} << 24;
  if (capacity > most) detail::refuse<Build>(errc::invalid_argument, "hybridloop: make_producer");
  detail::lane<Traits>* const lane = core_->in.join(detail::round_up_to_power_of_two(capacity));
  if (lane == nullptr) {
    detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: make_producer");
  }
  return producer_type(*core_, *lane);
}

template <class Traits>
template <class F, class Build>
post_result basic_loop<Traits>::dispatch(F&& f) {
  if (!core_->runs_here()) return post<F, Build>(std::forward<F>(f));
  std::forward<F>(f)();
  return post_result::accepted;
}

template <class Traits>
template <class F, class Build>
std::invoke_result_t<F&> basic_loop<Traits>::invoke(F&& f) {
  if (core_->runs_here()) return f();
  if (core_->in.closed()) detail::refuse<Build>(errc::closed, "hybridloop: invoke");
  if (!core_->options.caller_runs) return ask<Build>(f, core_->options.when_full, [] {});
  detail::loan<Traits> mine(*core_);
  if (mine.serve()) return f();
  return ask<Build>(f, mine.when_full(), [&mine] { mine.end(); });
}

// Posts f and waits for the answer. After posted() the loop may be gone.
template <class Traits>
template <class Build, class F, class Posted>
std::invoke_result_t<F&> basic_loop<Traits>::ask(F& f, overflow when_full, const Posted& posted) {
  using awaited = detail::awaited<Traits, std::invoke_result_t<F&>, Build>;
  using asking = typename awaited::template asking<F>;
  awaited answer;
  const detail::blocked_call<Traits> blocked(&core_->door, answer.answer());
  HYBRIDLOOP_CONTRACT(!blocked.closes_circle(), "invoke() waits for a loop that waits for this one");
  const post_result result = core_->template post<Build>(asking(answer, f), when_full);
  posted();
  if (result == post_result::full) detail::refuse<Build>(errc::full, "hybridloop: invoke");
  if (!answer.wait()) detail::refuse<Build>(errc::closed, "hybridloop: invoke");
  return answer.take();
}

template <class Traits>
template <class Build, class F>
detail::unique_task basic_loop<Traits>::make_task(F&& f) {
  using closure = std::decay_t<F>;
  detail::unique_task task;
  detail::unique_task::room<closure> place(core_->in.blocks());
  if (!place.had()) {
    detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: task");
  }
  task.emplace(place, std::forward<F>(f));
  return task;
}

// Room is made first, so that f is still the caller's where there is none; and once more, because the
// closure's constructor may have taken it.
template <class Traits>
template <class Build, class F>
void basic_loop<Traits>::put_aside(detail::task_fifo& queue, F&& f) {
  const auto make_room = [&queue] {
    if (!queue.make_room()) detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: task");
  };
  make_room();
  detail::unique_task task = make_task<Build>(std::forward<F>(f));
  make_room();
  queue.push(std::move(task));
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::defer(F&& f) {
  HYBRIDLOOP_CONTRACT(core_->runs_here(), "defer() outside of the loop thread: post() instead");
  put_aside<Build>(core_->deferred, std::forward<F>(f));
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::microtask(F&& f) {
  HYBRIDLOOP_CONTRACT(core_->runs_here(), "microtask() outside of the loop thread: post() instead");
  put_aside<Build>(core_->microtasks, std::forward<F>(f));
}

// ---- Running it ----

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_as(detail::until goal, nanos deadline, bool may_sleep) {
  return detail::runner<Traits, Build>(*core_).run(goal, deadline, may_sleep);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run() {
  return run_as<Build>(detail::until::ended, detail::never, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_until_idle() {
  return run_as<Build>(detail::until::idle, detail::never, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_once() {
  return run_as<Build>(detail::until::turned, detail::never, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::poll() {
  return run_as<Build>(detail::until::turned, detail::never, false);
}

template <class Traits>
template <class Rep, class Period, class Build>
std::size_t basic_loop<Traits>::run_for(std::chrono::duration<Rep, Period> span) {
  const nanos end = detail::saturating_add(core::read_now(), detail::to_nanos(span));
  return run_as<Build>(detail::until::deadline, end, true);
}

template <class Traits>
template <class Build>
std::size_t basic_loop<Traits>::run_until(time_point deadline) {
  return run_as<Build>(detail::until::deadline, detail::to_nanos(deadline), true);
}

// ---- What it tells about itself ----

template <class Traits>
loop_stats basic_loop<Traits>::stats() const noexcept {
  const core& c = *core_;
  loop_stats s;
  s.turns = c.turns.get();
  s.tasks = c.tasks.get();
  s.posts = c.posts() + c.lending_.loans.get();
  s.spilled = c.in.shared.spilled() + c.lane_spilled.get();
  s.heap_tasks = c.in.blocks().heap_tasks();
  s.wakes_channel = c.door.wakes_channel.load(std::memory_order_relaxed);  // a hint; statistics
  s.wakes_poller = c.door.wakes_poller.load(std::memory_order_relaxed);    // a hint; statistics
  const std::uint64_t wakes = s.wakes_channel + s.wakes_poller;
  s.wakes_saved = s.posts > wakes ? s.posts - wakes : 0;
  s.loans = c.lending_.loans.get();
  s.rescued = c.rescued.get();
  s.in_channel = c.parks_channel.get();
  s.in_poller = c.parks_poller.get();
  s.parks = s.in_channel + s.in_poller;
  s.spun_ns = c.spun_ns.get();
  s.parked_ns = c.parked_ns.get();
  s.arena_in_use = c.in.blocks().in_use();
  s.arena_high = c.in.blocks().high();
  s.ring_high = c.ring_high.get();
  s.timers = c.timer_count.get();
  s.watches = c.watch_count.get();
  s.stale_events = c.stale_events.get();
  s.microtasks_deferred = c.micro_left.get();
  s.path = c.options.path;
  return s;
}

HYBRIDLOOP_CLOSE
