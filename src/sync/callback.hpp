// sync/callback.hpp - callbacks that wait, and the tickets by which they are cancelled
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "loop/handle.hpp"
#include "loop/loop.hpp"
#include "sync/loop_waiter.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

template <class Traits>
struct ticket_access;

}  // namespace detail

template <class Clock>
struct basic_wait_options {
  std::ptrdiff_t n = 1;  // how many permits
  std::optional<typename Clock::time_point> deadline;

  detail::nanos end() const noexcept { return deadline ? detail::to_nanos(*deadline) : detail::never; }
};

// Names one wait. Copyable; may outlive the wait, what was waited for, and the loop. False in a
// condition: none.
template <class Traits>
class basic_wait_ticket {
 public:
  basic_wait_ticket() noexcept = default;

  explicit operator bool() const noexcept { return static_cast<bool>(home_); }
  friend bool operator==(const basic_wait_ticket& a, const basic_wait_ticket& b) noexcept {
    return a.home_ == b.home_ && a.index_ == b.index_ && a.generation_ == b.generation_;
  }
  friend bool operator!=(const basic_wait_ticket& a, const basic_wait_ticket& b) noexcept { return !(a == b); }

 private:
  template <class>
  friend struct detail::ticket_access;

  detail::core_ref<Traits> home_;
  std::uint32_t index_ = 0;
  std::uint32_t generation_ = 0;
};

namespace detail {

// Stands in a record of its loop. What it calls is moved out before it is called; the rest of it needs no
// destructor, because who cancels may still be looking at it then.
template <class Core>
class callback_waiter : public loop_waiter<Core> {
  using traits = typename Core::traits;
  using base = loop_waiter<Core>;
  using record = wait_record<traits>;

 public:
  using callback = basic_task<wait_status>;

  template <class Build>
  callback_waiter(Build built, core<traits>& home, Core& of, record& mine) noexcept
      : base(built, home, of, &conclude), record_(mine) {
    static_assert(sizeof(callback_waiter) <= record::room, "a waiter and its callback fit a record");
  }

  callback f;

  static void free(core<traits>& home, record& r) noexcept {
    r.renew();
    home.waits_.give(r.index);
  }

 private:
  static void conclude(base& w, bool heard) {
    auto& me = static_cast<callback_waiter&>(w);
    callback f = std::move(me.f);
    const wait_status status = me.status;
    core<traits>& home = me.home();
    record& mine = me.record_;
    if (mine.end()) free(home, mine);
    if (heard) f(status);
  }

  record& record_;
};

template <class Traits>
struct ticket_access {
  using ticket = basic_wait_ticket<Traits>;
  using loop_core = core<Traits>;

  static ticket make(loop_core& home, std::uint32_t index, std::uint32_t generation) noexcept {
    ticket made;
    made.home_ = core_ref<Traits>(home);
    made.index_ = index;
    made.generation_ = generation;
    return made;
  }

  // While it stands, the wait's record is not used for another.
  class pinned {
   public:
    explicit pinned(const ticket& t) noexcept {
      if (!t.home_) return;
      wait_record<Traits>& there = t.home_->waits_.at(t.index_);
      if (!there.pin(t.generation_)) return;
      home_ = &*t.home_;
      record_ = &there;
    }
    pinned(const pinned&) = delete;
    pinned& operator=(const pinned&) = delete;
    ~pinned() {
      if (record_ == nullptr || !record_->unpin()) return;
      record_->renew();
      home_->waits_.give(record_->index);
    }
    wait_record<Traits>* get() const noexcept { return record_; }

   private:
    loop_core* home_ = nullptr;
    wait_record<Traits>* record_ = nullptr;
  };
};

template <class Build, class Core, class F>
basic_wait_ticket<typename Core::traits> wait_on_loop(Core& of, basic_loop<typename Core::traits>& l, F&& f,
                                                      std::ptrdiff_t n, nanos deadline) {
  using traits = typename Core::traits;
  using waiting = callback_waiter<Core>;
  using closure = std::decay_t<F>;
  core<traits>& home = loop_access<traits>::core_of(l);
  typename waiting::callback::template room<closure> place(home.in.blocks());
  const std::uint32_t index = place.had() ? home.waits_.take() : slab<traits, wait_record<traits>>::none;
  if (index == slab<traits, wait_record<traits>>::none) {
    refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: wait");
  }
  wait_record<traits>& record = home.waits_.at(index);
  auto* const made = ::new (static_cast<void*>(record.storage)) waiting(Build(), home, of, record);
  record.of = &of;
  const std::uint32_t generation = record.open();
  struct unless_waiting {
    core<traits>& home;
    wait_record<traits>* record;
    waiting* made;
    ~unless_waiting() {
      if (record == nullptr) return;
      made->f.reset();
      if (record->end()) waiting::free(home, *record);
    }
  };
  unless_waiting undo{home, &record, made};
  made->f.template emplace<closure>(place, std::forward<F>(f));
  auto ticket = ticket_access<traits>::make(home, index, generation);
  const bool waits = made->template wait<Build>(l, n, deadline, [&undo] { undo.record = nullptr; });
  if (!waits) return {};
  return ticket;
}

template <class Core>
bool cancel_wait(Core& of, const basic_wait_ticket<typename Core::traits>& wait) noexcept {
  const typename ticket_access<typename Core::traits>::pinned here(wait);
  if (here.get() == nullptr || here.get()->of != &of) return false;
  auto& w = *reinterpret_cast<callback_waiter<Core>*>(here.get()->storage);
  return of.leave(w, wait_status::cancelled);
}

}  // namespace detail
HYBRIDLOOP_CLOSE
