// loop/producer.hpp - a lane of one's own into the loop
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include "base/bits.hpp"
#include "loop/handle.hpp"

HYBRIDLOOP_OPEN

// What loop.make_producer() gives: posts to the loop through a queue that no other thread uses, for a
// fraction of what a post costs otherwise, without a locked instruction while the loop is awake and
// takes the fence on itself (it does so in a stream of posts).
//
// One thread at a time, which may change if the threads synchronise. FIFO among its own posts; to all
// others there is no order, timers, watches and the same thread's loop.post() included. May outlive
// the loop, whose posts then answer `closed`. What was posted before it is destroyed is still run. It
// does not keep run_until_idle(). A moved-from one answers like a closed loop.
template <class Traits>
class [[nodiscard]] basic_producer {
 public:
  basic_producer(basic_producer&& other) noexcept
      : core_(std::move(other.core_)), lane_(std::exchange(other.lane_, nullptr)) {}
  basic_producer& operator=(basic_producer&& other) noexcept {
    basic_producer moved(std::move(other));
    std::swap(core_, moved.core_);
    std::swap(lane_, moved.lane_);
    return *this;
  }
  ~basic_producer() {
    if (lane_ == nullptr || !core_) return;
    core_->in.part();
    lane_->let_go();
    if (!core_->forked()) core_->door.tell(detail::status::wanted);
  }

  // Follows loop_options::when_full, in the lane's own order. F as in basic_loop::post().
  template <class F, class Build = detail::build_tag>
  post_result post(F&& f) {
    if (lane_ == nullptr) return post_result::closed;
    const busy until_posted(*lane_, core_->door.strong());
    return core_->template post_to<Build>(lane_->tasks, std::forward<F>(f), core_->options.when_full);
  }

  // Never blocks and never spills: `full` as soon as the lane is.
  template <class F, class Build = detail::build_tag>
  post_result try_post(F&& f) {
    if (lane_ == nullptr) return post_result::closed;
    const busy until_posted(*lane_, core_->door.strong());
    return core_->template try_post_to<Build>(lane_->tasks, std::forward<F>(f));
  }

  bool closed() const noexcept { return lane_ == nullptr || core_->in.closed(); }

 private:
  template <class>
  friend class basic_loop;
  using lane_type = detail::lane<Traits>;
  using busy = typename lane_type::post;
  basic_producer(detail::core<Traits>& c, lane_type& mine) noexcept : core_(c), lane_(&mine) {}

  detail::core_ref<Traits> core_;
  lane_type* lane_;
};

HYBRIDLOOP_CLOSE
