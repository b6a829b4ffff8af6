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

  // Any thread; `here` says that it is the loop thread. nullptr when there is no memory; throws what
  // the closure's constructor throws.
  template <class Build, class F>
  record* make(block_source& home, F&& f, nanos deadline, nanos period, repeat how, bool here) {
    unique_task::room<std::decay_t<F>> place(home);
    record* r = place.had() ? take(here) : nullptr;
    if (r == nullptr) return nullptr;
    give_back unless_made{this, r};
    r->task.emplace(place, std::forward<F>(f));
    unless_made.r = nullptr;
    r->deadline = deadline;
    r->period = period;
    r->how = how;
    r->referenced = true;
    r->ours = here;
    const std::uint64_t flags = timer_flag::armed | (period > 0 ? timer_flag::repeats : 0);
    r->word.store(record::make_word(next_generation(*r), flags), std::memory_order_release);  // [timer] T1
    return r;
  }

  timer_id id_of(const record& r) const noexcept {
    return {r.index, record::generation_of(r.word.load(std::memory_order_relaxed))};  // a hint; its holder asks
  }

  enum class ending : std::uint8_t { unknown, unplace, by_itself };

  // Any thread. `unplace`: it will not run; the loop thread owes a release(). `by_itself`: one run
  // is in progress, the last, and releases it.
  ending end(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const std::uint64_t next = (word & ~timer_flag::armed) | timer_flag::ended;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T1, T3
                                        std::memory_order_acquire)) {  // [timer] T1, T3
        return (word & timer_flag::running) != 0 ? ending::by_itself : ending::unplace;
      }
    }
    return ending::unknown;
  }

  // Any thread but the loop's. The caller owes the loop thread an arrive() with the number given
  // here, and until that has come the timer does not fire; of several moves on their way the one
  // with the last number counts. 0: unknown.
  std::uint32_t announce_move(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const std::uint64_t next = (word + timer_flag::one_move) | timer_flag::moving;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T5
                                        std::memory_order_acquire)) {  // [timer] T5
        return move_of(next);
      }
    }
    return 0;
  }

  // Whoever made a timer that the loop refused to start, and ended it. Only its maker knows of it,
  // so it may go on the maker's thread.
  void discard(record& r) noexcept {
    r.task.reset();
    table_.give(r.index);
  }

  // The loop thread from here on.
  void start(record& r, nanos now) {
    r.started = true;
    ++started_;
    if (r.referenced) ++referenced_;
    place(r, now);
  }
  void start(timer_id id, nanos now) {
    std::uint64_t word = 0;
    record* r = find(id, word);
    if (names(id, word)) start(*r, now);
  }

  // end(), and release() where it is owed.
  bool cancel(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const bool runs = (word & timer_flag::running) != 0;
      const std::uint64_t next = runs ? word | timer_flag::ended : word & timer_flag::generation;
      if (r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T1, T3
                                        std::memory_order_acquire)) {  // [timer] T1, T3
        if (!runs) free(*r);
        return true;
      }
    }
    return false;
  }

  void release(timer_id id) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    const bool same = record::generation_of(word) == id.generation();
    // While its last run is in progress, the end of that releases it.
    constexpr std::uint64_t both = timer_flag::ended | timer_flag::running;
    if (same && (word & both) == timer_flag::ended) wipe_and_free(*r, word);
  }

  // What announce_move() announced. A timer that runs goes there afterwards, and one whose start is
  // still on its way starts there.
  void arrive(timer_id id, std::uint32_t move, nanos deadline, nanos now) {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word) && move_of(word) == move) {
      if (r->word.compare_exchange_weak(word, word & ~timer_flag::moving, std::memory_order_acq_rel,  // [timer] T6
                                        std::memory_order_acquire)) {  // [timer] T6
        return put(*r, word, deadline, now);
      }
    }
  }

  // Overrides the moves that are on their way, if any. False: unknown.
  bool move(timer_id id, nanos deadline, nanos now) {
    std::uint64_t word = 0;
    record* r = find(id, word);
    while (names(id, word)) {
      const std::uint64_t next = (word + timer_flag::one_move) & ~timer_flag::moving;
      if ((word & timer_flag::moving) == 0 ||
          r->word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T6
                                        std::memory_order_acquire)) {  // [timer] T6
        put(*r, word, deadline, now);
        return true;
      }
    }
    return false;
  }

  void set_referenced(timer_id id, bool wanted) noexcept {
    std::uint64_t word = 0;
    record* r = find(id, word);
    if (!names(id, word) || r->referenced == wanted) return;
    r->referenced = wanted;
    if (r->started) referenced_ += wanted ? 1 : -1;
  }

  std::ptrdiff_t referenced() const noexcept { return referenced_; }
  std::size_t started() const noexcept { return started_; }
  nanos next_wake() { return wheel_.next_wake(); }
  nanos next_deadline() { return wheel_.next_deadline(); }
  std::size_t count_due(nanos now) const noexcept { return wheel_.count_due(now); }

  // Runs what is due at `now`, in order, at most `most`: run(task). What is armed meanwhile and due
  // already waits for the next call, so a timer of zero delay cannot starve the rest. `later` is
  // asked for the time after a run, where that matters.
  template <class Run, class Later>
  std::size_t fire(nanos now, std::size_t most, const Run& run, const Later& later) {
    wheel_.free_held();
    const firing_scope scope(*this, now);
    std::size_t fired = 0;
    while (fired < most) {
      record* r = wheel_.take_due(now);
      if (r == nullptr) break;
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
      if ((was & timer_flag::running) == 0) wipe_and_free(r, was);
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

  static bool names(timer_id id, std::uint64_t word) noexcept {
    return record::generation_of(word) == id.generation() && record::has_runs_left(word);
  }
  static std::uint32_t move_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word / timer_flag::one_move) + 1;
  }
  static std::uint32_t next_generation(const record& r) noexcept {
    const std::uint64_t word = r.word.load(std::memory_order_relaxed);  // ours alone until it is made
    const std::uint32_t next = record::generation_of(word) + 1;
    return next == 0 ? 1 : next;
  }

  // The record that an id points at, whoever has it now, and its word.
  record* find(timer_id id, std::uint64_t& word) noexcept {
    record* r = table_.find(id.index());
    if (r != nullptr) word = r->word.load(std::memory_order_acquire);  // [timer] T1, T2
    return r;
  }

  void place(record& r, nanos now) {
    if (r.deadline <= firing_until_) {
      wheel_.hold(r);
    } else {
      wheel_.advance(now);
      wheel_.insert(r);
    }
  }

  // A repeating timer that is sent into the past makes up for nothing.
  void put(record& r, std::uint64_t word, nanos deadline, nanos now) {
    const bool no_later = (word & timer_flag::repeats) != 0 && deadline < now;
    wheel_.erase(r);
    r.deadline = no_later ? now : deadline;
    r.moved = (word & timer_flag::running) != 0;
    if (!r.moved && r.started) place(r, now);
  }

  // False: ended, or on its way to another deadline.
  bool begin_run(record& r) noexcept {
    std::uint64_t word = r.word.load(std::memory_order_acquire);  // [timer] T2
    for (;;) {
      if ((word & (timer_flag::ended | timer_flag::moving)) != 0) return false;
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
    while ((word & timer_flag::repeats) != 0 && (word & timer_flag::ended) == 0) {
      const std::uint64_t next = (word & ~timer_flag::running) | timer_flag::armed;
      if (!r.word.compare_exchange_weak(word, next, std::memory_order_acq_rel,  // [timer] T4
                                        std::memory_order_acquire)) {  // [timer] T4
        continue;
      }
      if ((word & timer_flag::moving) != 0) return;  // arrive() places it
      const nanos now = r.how == repeat::fixed_rate ? firing_until_ : later();
      if (!std::exchange(r.moved, false)) r.deadline = r.deadline_after(now);
      return place(r, now);
    }
    wipe_and_free(r, word);
  }

  void uncount(record& r) noexcept {
    if (!r.started) return;
    r.started = false;
    --started_;
    if (r.referenced) --referenced_;
  }

  void wipe_and_free(record& r, std::uint64_t word) noexcept {
    r.word.store(word & timer_flag::generation, std::memory_order_relaxed);  // ours alone: no runs are left
    free(r);
  }

  // The closure's destructor may do anything, so the record is nobody's until that is over.
  void free(record& r) noexcept {
    wheel_.erase(r);
    uncount(r);
    r.moved = false;
    r.task.reset();
    give(r);
  }

  // What the loop thread made waits here for its next timer, without a read-modify-write; what others
  // made goes back to where they take from.
  record* take(bool here) noexcept {
    if (here && spare_ != nullptr) {
      record* r = std::exchange(spare_, spare_->next_spare);
      if (spare_ != nullptr) spare_->bring_near();
      return r;
    }
    const std::uint32_t index = table_.take();
    return index == table_.none ? nullptr : &table_.at(index);
  }
  void give(record& r) noexcept {
    if (!r.ours) return table_.give(r.index);
    r.next_spare = std::exchange(spare_, &r);
  }

  slab<Traits, record> table_;

  // The loop thread.
  timer_wheel<Traits> wheel_;
  nanos firing_until_ = long_ago;
  std::size_t started_ = 0;
  std::ptrdiff_t referenced_ = 0;
  record* spare_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
