// loop/loop_embed.hpp - definitions: living in a frame, and inside another loop
#pragma once

#include <cerrno>
#include <cstddef>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include "loop/fork.hpp"
#include "loop/loop.hpp"
#include "loop/runner.hpp"

HYBRIDLOOP_OPEN

template <class Traits>
template <class Rep, class Period, class Build>
typename basic_loop<Traits>::frame_report basic_loop<Traits>::run_budget(
    std::chrono::duration<Rep, Period> budget) {
  const nanos given = detail::to_nanos(budget);
  const detail::frame_outcome got =
      detail::runner<Traits, Build>(*core_).run_frame(given > 0 ? given : 0);
  frame_report report;
  report.ran = got.ran;
  report.pending = got.pending;
  if (got.next_deadline != detail::never) {
    report.next_deadline = detail::from_nanos<clock>(got.next_deadline);
  }
  report.over_by = std::chrono::duration_cast<duration>(std::chrono::nanoseconds(got.over_by));
  return report;
}

template <class Traits>
template <class Build>
native_handle basic_loop<Traits>::backend_handle() {
  std::error_code code;
  const native_handle handle = backend_handle(code);
  detail::throw_if<Build>(code, "hybridloop: backend_handle");
  return handle;
}

template <class Traits>
native_handle basic_loop<Traits>::backend_handle(std::error_code& code) noexcept {
  code.clear();
  native_handle handle{-1};
  const auto own = detail::ownership<Traits>::patient(*core_);
  if (!own) {
    code = errc::wrong_thread;
  } else if (core_->options.path == fast_path::mini) {
    code = errc::unsupported;
  } else {
    const int refused = detail::expose(*core_, handle);
    if (refused != 0) code = detail::system_error_code(refused);
    if (refused == ENOTSUP) code = errc::unsupported;
  }
  return handle;
}

template <class Traits>
template <class Build>
void basic_loop<Traits>::after_fork_child() {
  std::error_code code;
  after_fork_child<Build>(code);
  detail::throw_if<Build>(code, "hybridloop: after_fork_child");
}

template <class Traits>
template <class Build>
void basic_loop<Traits>::after_fork_child(std::error_code& code) {
  code.clear();
  if (!core_->forked()) return;
  const int refused = detail::go_on_in_child<Traits, Build>(*core_);
  if (refused != 0) code = detail::system_error_code(refused);
}

template <class Traits>
std::optional<typename basic_loop<Traits>::duration> basic_loop<Traits>::next_timeout() const {
  const auto own = detail::ownership<Traits>::patient(*core_);
  HYBRIDLOOP_CONTRACT(static_cast<bool>(own), "next_timeout() while another thread runs the loop");
  if (core_->can_run()) return duration::zero();
  const nanos next = core_->timers_.next_wake();
  if (next == detail::never) return std::nullopt;
  const nanos left = detail::time_between(core::read_now(), next);
  return std::chrono::ceil<duration>(std::chrono::nanoseconds(left));
}

template <class Traits>
template <class Build, class F>
void basic_loop<Traits>::set_hook(detail::hook& place, F&& f) {
  const auto own = detail::ownership<Traits>::patient(*core_);
  HYBRIDLOOP_CONTRACT(static_cast<bool>(own), "on_prepare() or on_check() while another thread runs the loop");
  if constexpr (std::is_null_pointer_v<std::decay_t<F>>) {
    place.set({});
  } else {
    place.set(make_task<Build>(std::forward<F>(f)));
  }
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::on_prepare(F&& f) {
  set_hook<Build>(core_->prepare, std::forward<F>(f));
}

template <class Traits>
template <class F, class Build>
void basic_loop<Traits>::on_check(F&& f) {
  set_hook<Build>(core_->check, std::forward<F>(f));
}

HYBRIDLOOP_CLOSE
