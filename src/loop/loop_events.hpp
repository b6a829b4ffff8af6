// loop/loop_events.hpp - definitions: the loop's timers and watches
#pragma once

#include <cerrno>
#include <type_traits>
#include <utility>

#include "loop/commands.hpp"
#include "loop/loop.hpp"
#include "loop/ownership.hpp"

HYBRIDLOOP_OPEN

// ---- Time ----

template <class Traits>
template <class Build, class F>
timer_id basic_loop<Traits>::arm(nanos deadline, nanos period, repeat how, F&& f) {
  using command = detail::timer_command<Traits>;
  if (core_->in.closed()) return {};
  auto& all = core_->timers_;
  const bool here = core_->runs_here();
  auto* made = all.template make<Build>(core_->in.blocks(), std::forward<F>(f), deadline, period,
                                        how, here);
  if (made == nullptr) {
    detail::refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: timer");
  }
  const timer_id id = all.id_of(*made);
  if (here) {
    all.start(*made, core_->cached_now());
    return id;
  }
  struct unless_sent {
    detail::timers<Traits>& all;
    timer_id id;
    typename detail::timers<Traits>::record* r;
    ~unless_sent() {
      if (r == nullptr) return;
      all.end(id);
      all.discard(*r);
    }
  };
  unless_sent guard{all, id, made};
  if (!core_->template send<Build>(command(*core_, command::verb::start, id))) return {};
  guard.r = nullptr;
  return id;
}

template <class Traits>
template <class Rep, class Period, class F, class Build>
timer_id basic_loop<Traits>::after(std::chrono::duration<Rep, Period> delay, F&& f) {
  const nanos span = detail::to_nanos(delay);
  const nanos deadline =
      span == detail::never ? detail::never : detail::saturating_add(core::read_now(), span);
  return arm<Build>(deadline, 0, repeat::fixed_rate, std::forward<F>(f));
}

template <class Traits>
template <class F, class Build>
timer_id basic_loop<Traits>::at(time_point deadline, F&& f) {
  return arm<Build>(detail::to_nanos(deadline), 0, repeat::fixed_rate, std::forward<F>(f));
}

template <class Traits>
template <class Rep, class Period, class F, class Build>
timer_id basic_loop<Traits>::every(std::chrono::duration<Rep, Period> period, F&& f, repeat how) {
  const nanos span = detail::to_nanos(period);
  HYBRIDLOOP_CONTRACT(span > 0, "every() needs a period above zero");
  return arm<Build>(detail::saturating_add(core::read_now(), span), span, how, std::forward<F>(f));
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::reschedule(timer_id id, time_point deadline) {
  const nanos target = detail::to_nanos(deadline);
  if (core_->runs_here()) return core_->timers_.move(id, target, core_->cached_now());
  bool known = false;
  core_->template send<Build>(detail::timer_change<Traits>(*core_, id, target, known));
  return known;
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::cancel(timer_id id) {
  using ending = typename detail::timers<Traits>::ending;
  if (core_->runs_here()) return core_->timers_.cancel(id);
  bool known = false;
  if (core_->template send<Build>(detail::timer_change<Traits>(*core_, id, known))) return known;
  return core_->timers_.end(id) != ending::unknown;  // a closed loop's own end releases it
}

// ---- Descriptors ----

template <class Traits>
template <class F, class Build>
watch_id basic_loop<Traits>::watch(native_handle handle, interest what, F&& f) {
  std::error_code code;
  const watch_id id = watch<F, Build>(handle, what, std::forward<F>(f), code);
  detail::throw_if<Build>(code, "hybridloop: watch");
  return id;
}

template <class Traits>
template <class F, class Build>
watch_id basic_loop<Traits>::watch(native_handle handle, interest what, F&& f,
                                   std::error_code& code) {
  using command = detail::watch_command<Traits, Build>;
  using closure = std::decay_t<F>;
  code = core_->in.closed() ? make_error_code(errc::closed) : std::error_code();
  if (code) return {};
  auto* made = core_->watch_table_.template make<Build>(
      core_->in.blocks(), detail::ready_callable<closure>{std::forward<F>(f)}, handle, what);
  if (made == nullptr) {
    code = std::make_error_code(std::errc::not_enough_memory);
    return {};
  }
  const watch_id id = core_->watch_table_.id_of(*made);
  int refused = 0;
  if (const detail::ownership<Traits> own(*core_); own) {
    refused = core_->template attach<Build>(*made);
    if (refused == 0) return id;
  } else {
    bool sent = false;
    detail::trap<Build>(
        [&] { sent = core_->template send<Build>(command(*core_, command::verb::attach, id)); },
        [&refused](const std::exception_ptr&) { refused = ENOMEM; });
    if (sent) return id;
    if (refused == 0) refused = ECANCELED;
  }
  core_->watch_table_.end(id);
  core_->watch_table_.give(*made);
  code = refused == ECANCELED ? make_error_code(errc::closed) : detail::system_error_code(refused);
  return {};
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::modify(watch_id id, interest what) {
  using command = detail::watch_command<Traits, Build>;
  if (const detail::ownership<Traits> own(*core_); own) {
    auto* r = core_->watch_table_.find(id);
    return r != nullptr && r->attached && core_->watches_.modify(core_->poller, *r, what) == 0;
  }
  return core_->watch_table_.find(id) != nullptr &&
         core_->template send<Build>(command(*core_, command::verb::modify, id, what));
}

template <class Traits>
template <class Build>
bool basic_loop<Traits>::unwatch(watch_id id) {
  if (const detail::ownership<Traits> own(*core_); own) {
    if (!core_->watch_table_.end(id)) return false;
    if (auto* r = core_->watch_table_.any(id)) core_->watches_.detach(core_->poller, *r);
    return true;
  }
  bool known = false;
  if (core_->template send<Build>(detail::watch_end<Traits, Build>(*core_, id, known))) return known;
  return core_->watch_table_.end(id);  // a closed loop's own end takes it off
}

template <class Traits>
template <class F, class Build>
bool basic_loop<Traits>::unwatch(watch_id id, F&& done) {
  using command = detail::unwatch_command<Traits, std::decay_t<F>>;
  if (core_->watch_table_.find(id) == nullptr) return false;
  if (core_->runs_here()) {
    const detail::ownership<Traits> own(*core_);
    defer<F, Build>(std::forward<F>(done));
    core_->watch_table_.end(id);
    if (auto* r = core_->watch_table_.any(id)) core_->watches_.detach(core_->poller, *r);
    return true;
  }
  bool known = false;
  core_->template send<Build>(command(*core_, id, std::forward<F>(done), known));
  return known;
}

// ---- What keeps run_until_idle() ----

template <class Traits>
template <class Build, class Id>
void basic_loop<Traits>::set_referenced(Id id, bool wanted) {
  using command = std::conditional_t<std::is_same_v<Id, timer_id>, detail::timer_command<Traits>,
                                     detail::watch_command<Traits, Build>>;
  using verb = typename command::verb;
  command order(*core_, wanted ? verb::ref : verb::unref, id);
  if (core_->runs_here()) {
    order();
  } else {
    core_->template send<Build>(order);
  }
}

template <class Traits>
template <class Build>
void basic_loop<Traits>::ref(timer_id id) {
  set_referenced<Build>(id, true);
}
template <class Traits>
template <class Build>
void basic_loop<Traits>::unref(timer_id id) {
  set_referenced<Build>(id, false);
}
template <class Traits>
template <class Build>
void basic_loop<Traits>::ref(watch_id id) {
  set_referenced<Build>(id, true);
}
template <class Traits>
template <class Build>
void basic_loop<Traits>::unref(watch_id id) {
  set_referenced<Build>(id, false);
}

HYBRIDLOOP_CLOSE
