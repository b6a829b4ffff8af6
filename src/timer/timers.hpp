// timer/timers.hpp - all timers of a loop: made and cancelled anywhere, fired by the loop thread
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "task/slab.hpp"
#include "timer/record.hpp"
#include "timer/wheel.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A timer is made by any thread and *started* by the loop thread: other threads send the id of
// what they made, moved or ended through the ingress, in order with their posts. Ids carry a
// generation, so a command that comes late finds nobody instead of a stranger.
template <class Traits>
class timers {
 public:
  using record = timer_record<Traits>;

  // Any thread. nullptr when there is no memory; throws what the closure's constructor throws.
  template <class F>
  record* make(block_source& home, F&& f, nanos deadline, nanos period, repeat how) {
    unique_task::room<std::decay_t<F>> place(home);
    const std::uint32_t index = place.had() ? table_.take() : table_.none;
    if (index == table_.none) return nullptr;
    record& r = table_.at(index);
    give_back unless_made{this, &r};
    r.task.emplace(place, std::forward<F>(f));
    unless_made.r = nullptr;
    r.deadline = deadline;
    r.period = period;
    r.how = how;
    r.referenced = true;
    const std::uint32_t generation = next_generation(r);
    const std::uint64_t flags = timer_flag::armed | (period > 0 ? timer_flag::repeats : 0);
    r.word.store(record::make_word(generation, flags), std::memory_order_release);  // [timer] T1
    return &r;
  }

  timer_id id_of(const record& r) const noexcept {
    return {r.index, record::generation_of(r.word.load(std::memory_order_relaxed))};  // a hint; its holder asks
  }

  enum class ending : std::uint8_t { unknown, unplace, by_itself };

  // Any thread. `unplace`: it will not run; the loop thread owes a release(). `by_itself`: one run
  // is in progress, the last, and releases it.
  ending end(timer_id id) noexcept {
    record* r = table_.find(id.index());
    if (r == nullptr || !id) return ending::unknown;
    std::uint64_t word = r->word.load(std::memory_order_acquire);  // [timer] T1
    for (;;) {
      if (record::generation_of(word) != id.generation() || !has_runs_left(word)) return ending::unknown;
      const std::uint64_t next = (word & ~timer_flag::armed) | timer_flag::ended;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T1, T3
                                        std::memory_order_acquire)) {  // [timer] T1, T3
        return (word & timer_flag::running) != 0 ? ending::by_itself : ending::unplace;
      }
    }
  }

  // Any thread. True: the caller owes the loop thread a move(id), and until that has come the timer
  // does not fire. Several may be on their way; the last to arrive counts.
  bool announce_move(timer_id id) noexcept {
    record* r = table_.find(id.index());
    if (r == nullptr || !id) return false;
    std::uint64_t word = r->word.load(std::memory_order_acquire);  // [timer] T1
    for (;;) {
      if (record::generation_of(word) != id.generation() || !has_runs_left(word)) return false;
      if (r->word.compare_exchange_weak(word, word + timer_flag::one_move, std::memory_order_acq_rel,  // [timer] T5
                                        std::memory_order_acquire)) {  // [timer] T1
        return true;
      }
    }
  }

  // The loop thread from here on.
  void start(timer_id id, nanos now) {
    record* r = live(id);
    if (r == nullptr || r->placed || r->started) return;
    r->started = true;
    ++started_;
    if (r->referenced) ++referenced_;
    place(*r, now);
  }

  void release(timer_id id) noexcept {
    record* r = table_.find(id.index());
    if (r == nullptr) return;
    const std::uint64_t word = r->word.load(std::memory_order_acquire);  // [timer] T2
    if (record::generation_of(word) == id.generation() && (word & timer_flag::ended) != 0) release(*r);
  }

  // Whoever made a timer that the loop refused to start. Only its maker knows of it, so it may be
  // released on the maker's thread.
  void discard(timer_id id) noexcept { release(id); }

  // What announce_move() announced. A timer that runs goes there afterwards, and one whose start is
  // still on its way starts there.
  void move(timer_id id, nanos deadline, nanos now) {
    record* r = live(id);
    if (r == nullptr) return;
    const std::uint64_t was =
        r->word.fetch_sub(timer_flag::one_move, std::memory_order_acq_rel);  // [timer] T6
    if ((was & timer_flag::ended) != 0) return;
    wheel_.erase(*r);
    r->deadline = deadline;
    r->moved = (was & timer_flag::running) != 0;
    const bool last = was < 2 * timer_flag::one_move;
    if (last && !r->moved && r->started) place(*r, now);
  }

  void set_referenced(timer_id id, bool wanted) noexcept {
    record* r = live(id);
    if (r == nullptr || r->referenced == wanted) return;
    r->referenced = wanted;
    if (r->started) referenced_ += wanted ? 1 : -1;
  }

  std::ptrdiff_t referenced() const noexcept { return referenced_; }
  std::size_t started() const noexcept { return started_; }
  nanos next_wake() const noexcept { return wheel_.next_wake(); }

  // Runs what is due at `now`, in order, at most `most`: run(task). What is armed meanwhile and due
  // already waits for the next call, so a timer of zero delay cannot starve the rest. `later` is
  // asked for the time after a run, for repeat::fixed_delay.
  template <class Run, class Later>
  std::size_t fire(nanos now, std::size_t most, const Run& run, const Later& later) {
    wheel_.free_held();
    wheel_.advance(now);
    if (wheel_.due(now) == nullptr) return 0;
    const firing_scope scope(*this, now);
    std::size_t fired = 0;
    while (fired < most) {
      record* r = wheel_.due(now);
      if (r == nullptr) break;
      wheel_.erase(*r);
      if (!begin_run(*r)) continue;
      ++fired;
      const run_end<Later> guard{*this, *r, later};
      if (!run(r->task)) break;
    }
    return fired;
  }

  // Ends every timer that was started, without running any; on the way out, also those whose start
  // never arrived.
  void end_all(bool unstarted_too) noexcept {
    table_.for_each([this, unstarted_too](record& r) {
      if (!r.started && !(unstarted_too && r.task)) return;
      const std::uint64_t was = r.word.fetch_or(timer_flag::ended, std::memory_order_acq_rel);  // [timer] T1
      if ((was & timer_flag::running) == 0) release(r);
    });
  }

 private:
  struct give_back {
    timers* all;
    record* r;
    ~give_back() {
      if (r != nullptr) all->table_.give(r->index);
    }
  };

  // Restores the outer turn's view when a nested turn has fired timers.
  class firing_scope {
   public:
    firing_scope(timers& all, nanos now) noexcept : all_(all), outer_(all.firing_until_) {
      all.firing_until_ = now;
    }
    firing_scope(const firing_scope&) = delete;
    firing_scope& operator=(const firing_scope&) = delete;
    ~firing_scope() {
      all_.firing_until_ = outer_;
      all_.wheel_.free_held();
    }

   private:
    timers& all_;
    nanos outer_;
  };

  template <class Later>
  struct run_end {
    timers& all;
    record& r;
    const Later& later;
    ~run_end() { all.end_run(r, later); }
  };

  static bool has_runs_left(std::uint64_t word) noexcept {
    if ((word & timer_flag::ended) != 0) return false;
    if ((word & timer_flag::armed) != 0) return true;
    return (word & timer_flag::running) != 0 && (word & timer_flag::repeats) != 0;
  }

  static std::uint32_t next_generation(const record& r) noexcept {
    const std::uint64_t word = r.word.load(std::memory_order_relaxed);  // ours alone until it is made
    const std::uint32_t next = record::generation_of(word) + 1;
    return next == 0 ? 1 : next;
  }

  record* live(timer_id id) noexcept {
    record* r = table_.find(id.index());
    if (r == nullptr) return nullptr;
    const std::uint64_t word = r->word.load(std::memory_order_acquire);  // [timer] T2
    return record::generation_of(word) == id.generation() && has_runs_left(word) ? r : nullptr;
  }

  void place(record& r, nanos now) {
    r.order = next_order_++;
    if (r.deadline <= firing_until_) {
      wheel_.hold(r);
    } else {
      wheel_.advance(now);
      wheel_.insert(r);
    }
  }

  // False: ended, or on its way to another deadline.
  bool begin_run(record& r) noexcept {
    std::uint64_t word = r.word.load(std::memory_order_acquire);  // [timer] T2
    for (;;) {
      if ((word & timer_flag::ended) != 0 || word >= timer_flag::one_move) return false;
      const std::uint64_t next = (word & ~timer_flag::armed) | timer_flag::running;
      if (r.word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T2
                                       std::memory_order_acquire)) {  // [timer] T2
        if ((word & timer_flag::repeats) == 0) uncount(r);  // a nested run does not wait for this one
        return true;
      }
    }
  }

  template <class Later>
  void end_run(record& r, const Later& later) {
    std::uint64_t word = r.word.load(std::memory_order_acquire);  // [timer] T4
    for (;;) {
      const bool again = (word & timer_flag::repeats) != 0 && (word & timer_flag::ended) == 0;
      const std::uint64_t next =
          (word & ~timer_flag::running) | (again ? timer_flag::armed : timer_flag::ended);
      if (!r.word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T4
                                        std::memory_order_acquire)) {  // [timer] T4
        continue;
      }
      if (!again) {
        release(r);
      } else if (word < timer_flag::one_move) {
        const nanos now = later();
        if (!std::exchange(r.moved, false)) r.deadline = next_deadline(r, now);
        place(r, now);
      }
      return;
    }
  }

  static nanos next_deadline(const record& r, nanos now) noexcept {
    if (r.how == repeat::fixed_delay) return saturating_add(now, r.period);
    const nanos next = saturating_add(r.deadline, r.period);
    if (r.how == repeat::fixed_rate || next > now) return next;
    if (r.deadline < 0) return saturating_add(now, r.period);  // a deadline before all time
    const nanos missed = (now - r.deadline) / r.period;
    return saturating_add(r.deadline + missed * r.period, r.period);
  }

  // Writes `started` only where it was set: discard() comes here on its maker's thread, while
  // end_all() looks at every record.
  void uncount(record& r) noexcept {
    if (!r.started) return;
    r.started = false;
    --started_;
    if (r.referenced) --referenced_;
  }

  // The closure's destructor may do anything, so the record is out of the table's hands first.
  void release(record& r) noexcept {
    wheel_.erase(r);
    uncount(r);
    r.moved = false;
    r.word.fetch_and(timer_flag::generation, std::memory_order_acq_rel);  // [timer] released once
    unique_task closure(std::move(r.task));
    table_.give(r.index);
  }

  slab<Traits, record> table_;

  // The loop thread.
  timer_wheel<Traits> wheel_;
  std::uint64_t next_order_ = 0;
  nanos firing_until_ = long_ago;
  std::size_t started_ = 0;
  std::ptrdiff_t referenced_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
