// loop/commands.hpp - what other threads have the loop thread do: timers and watches
#pragma once

#include <cerrno>
#include <utility>

#include "loop/core.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Commands travel through the ingress, in order with the same thread's posts, are never refused for
// room, and are not counted as tasks. They carry ids, so a late one finds nobody.
//
// What a command changes at once, for any thread to see, it changes as it is built in its place: by
// then it had its memory and the loop was not closed, so nothing is changed that nobody completes.

template <class Traits>
struct timer_command : command_base {
  enum class verb : std::uint8_t { start, release, move, ref, unref };

  timer_command(core<Traits>& c, verb v, timer_id i) noexcept : loop(&c), id(i), what(v) {}

  void operator()() {
    auto& all = loop->timers_;
    switch (what) {
      case verb::start: return start();
      case verb::release: return all.release(id);
      case verb::move: return all.arrive(id, move, deadline, loop->cached_now());
      case verb::ref: return all.set_referenced(id, true);
      case verb::unref: return all.set_referenced(id, false);
    }
  }

  // A loop that is closing ends its timers, also those that are still on their way.
  void start() {
    if (!loop->ended) return loop->timers_.start(id, loop->cached_now());
    loop->timers_.cancel(id);
  }

  core<Traits>* loop;
  timer_id id;
  nanos deadline = 0;
  std::uint32_t move = 0;
  verb what;
};

// A cancel or a move from another thread. `known`, the answer, is the caller's.
template <class Traits>
struct timer_change : timer_command<Traits> {
  using base = timer_command<Traits>;

  timer_change(core<Traits>& c, timer_id i, bool& answer) noexcept
      : base(c, base::verb::release, i), known(&answer) {}
  timer_change(core<Traits>& c, timer_id i, nanos target, bool& answer) noexcept
      : base(c, base::verb::move, i), known(&answer) {
    this->deadline = target;
  }
  timer_change(timer_change&& given) noexcept : base(given), known(given.known) {
    auto& all = this->loop->timers_;
    if (this->what == base::verb::move) {
      this->move = all.announce_move(this->id);
      *known = this->move != 0;
    } else {
      *known = all.end(this->id) != timers<Traits>::ending::unknown;
    }
  }

  bool* known;
};

template <class Traits, class Build>
struct watch_command : command_base {
  enum class verb : std::uint8_t { attach, detach, modify, ref, unref };

  watch_command(core<Traits>& c, verb v, watch_id i, interest w = interest::none) noexcept
      : loop(&c), id(i), wanted(w), what(v) {}

  void operator()() {
    watch_record<Traits>* r = loop->watch_table_.any(id);
    if (r == nullptr) return;
    switch (what) {
      case verb::attach: return attach(*r);
      case verb::detach: return loop->watches_.detach(loop->poller, *r);
      case verb::modify: return modify(*r);
      case verb::ref: return loop->watches_.set_referenced(*r, true);
      case verb::unref: return loop->watches_.set_referenced(*r, false);
    }
  }

  void attach(watch_record<Traits>& r) {
    if (loop->watch_table_.find(id) == nullptr) {  // ended on its way here
      return loop->watches_.detach(loop->poller, r);
    }
    const int refused = loop->template attach<Build>(r);
    if (refused != 0) report(r, refused);
  }

  void modify(watch_record<Traits>& r) {
    if (!r.attached) return;
    const int refused = loop->watches_.modify(loop->poller, r, wanted);
    if (refused != 0) report(r, refused);
  }

  // The refusal reaches the callback, which then never runs again.
  void report(watch_record<Traits>& r, int number) {
    struct end {
      core<Traits>* loop;
      watch_record<Traits>& r;
      ~end() {
        --r.running;
        loop->watch_table_.end(loop->watch_table_.id_of(r));
        loop->watches_.detach(loop->poller, r);
      }
    };
    ready what_happened;
    what_happened.error = true;
    what_happened.native_error = number;
    what_happened.id = id;
    ++r.running;
    const end guard{loop, r};
    loop->watches_.detach(loop->poller, r);
    if (number == ECANCELED) return;
    ++loop->ran;
    r.call(what_happened);
  }

  core<Traits>* loop;
  watch_id id;
  interest wanted;
  verb what;
};

// An unwatch from another thread.
template <class Traits, class Build>
struct watch_end : watch_command<Traits, Build> {
  using base = watch_command<Traits, Build>;

  watch_end(core<Traits>& c, watch_id i, bool& answer) noexcept
      : base(c, base::verb::detach, i), known(&answer) {}
  watch_end(watch_end&& given) noexcept : base(given), known(given.known) {
    *known = this->loop->watch_table_.end(this->id);
  }

  bool* known;
};

// unwatch(id, done) from another thread: off the poller first, then done.
template <class Traits, class F>
struct unwatch_command : command_base {
  template <class Given>
  unwatch_command(core<Traits>& c, watch_id i, Given&& f, bool& answer)
      : loop(&c), id(i), done(std::forward<Given>(f)), known(&answer) {}
  unwatch_command(unwatch_command&& given)
      : loop(given.loop), id(given.id), done(std::move(given.done)), known(given.known) {
    ours = *known = loop->watch_table_.end(id);
  }

  void operator()() {
    if (!ours) return;
    if (watch_record<Traits>* r = loop->watch_table_.any(id)) loop->watches_.detach(loop->poller, *r);
    ++loop->ran;
    done();
  }

  core<Traits>* loop;
  watch_id id;
  F done;
  bool* known;
  bool ours = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
