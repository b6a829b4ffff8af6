// loop/handle.hpp - names of a loop that may outlive it: handles and keep_alive guards
#pragma once

#include <atomic>
#include <utility>

#include "loop/core.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A counted reference to a core; empty after a move.
template <class Traits>
class core_ref {
 public:
  core_ref() noexcept = default;
  explicit core_ref(core<Traits>& c) noexcept : core_(&c) { c.hold(); }
  core_ref(const core_ref& other) noexcept : core_(other.core_) {
    if (core_ != nullptr) core_->hold();
  }
  core_ref(core_ref&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  core_ref& operator=(core_ref other) noexcept {
    std::swap(core_, other.core_);
    return *this;
  }
  ~core_ref() {
    if (core_ != nullptr) core_->let_go();
  }

  core<Traits>* operator->() const noexcept { return core_; }
  core<Traits>& operator*() const noexcept { return *core_; }
  friend bool operator==(const core_ref& a, const core_ref& b) noexcept { return a.core_ == b.core_; }
  explicit operator bool() const noexcept { return core_ != nullptr; }

 private:
  core<Traits>* core_ = nullptr;
};

}  // namespace detail

// What posts, stops, closes and wakes a loop; timers, watches and invoke() are the loop's own.
// Copyable, and valid for as long as anybody likes: once the loop is closed or gone, posts answer
// `closed` and the rest does nothing. Any thread. A moved-from handle answers like a closed loop.
template <class Traits>
class basic_handle {
 public:
  // As the loop's own; see basic_loop.
  template <class F, class Build = detail::build_tag>
  post_result post(F&& f) const {
    if (!core_) return post_result::closed;
    return core_->template post<Build>(std::forward<F>(f), core_->options.when_full);
  }
  template <class F, class Build = detail::build_tag>
  post_result try_post(F&& f) const {
    if (!core_) return post_result::closed;
    return core_->template try_post_to<Build>(core_->in.shared, std::forward<F>(f));
  }
  void stop() const noexcept {
    if (core_) core_->door.tell(detail::status::stop);
  }
  void close() const noexcept {
    if (core_) core_->close();
  }
  void wake() const noexcept {
    if (core_) core_->door.tell(detail::status::wanted);
  }
  bool closed() const noexcept { return !core_ || core_->in.closed(); }

 private:
  template <class>
  friend class basic_loop;
  explicit basic_handle(detail::core<Traits>& c) noexcept : core_(c) {}
  detail::core_ref<Traits> core_;
};

// As long as one lives, run_until_idle() does not return for want of work, and what was posted before
// the last one goes is run first. Any thread may drop it.
template <class Traits>
class [[nodiscard]] basic_keep_alive {
 public:
  basic_keep_alive(basic_keep_alive&&) noexcept = default;
  basic_keep_alive& operator=(basic_keep_alive&& other) noexcept {
    basic_keep_alive moved(std::move(other));
    std::swap(core_, moved.core_);
    return *this;
  }
  ~basic_keep_alive() {
    if (!core_) return;
    if (core_->holds.fetch_sub(1, std::memory_order_acq_rel) == 1 && !core_->forked()) {  // [hold] Y1
      core_->door.tell(detail::status::wanted);
    }
  }

 private:
  template <class>
  friend class basic_loop;
  explicit basic_keep_alive(detail::core<Traits>& c) noexcept : core_(c) {
    c.holds.fetch_add(1, std::memory_order_relaxed);  // a hint; only the way down is waited for
  }
  detail::core_ref<Traits> core_;
};

HYBRIDLOOP_CLOSE
