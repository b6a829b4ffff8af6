// loop/blocked.hpp - loops that wait for each other would wait for ever, and are told so
#pragma once

#include <cstdint>
#include <mutex>

#include "loop/frames.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A thread that runs loops and waits in invoke() for another one. Whoever closes a circle of these
// finds it before it waits. A thread that runs none closes none, and pays nothing.
template <class Kernel>
class blocked_call {
 public:
  explicit blocked_call(const void* target) noexcept
      : frames_(loop_frame::innermost()), target_(target) {
    if (frames_ == nullptr) return;
    const std::lock_guard<std::mutex> hold(all().lock);
    if (all().born != Kernel::forks()) all().first = nullptr;  // they are not in this process
    all().born = Kernel::forks();
    circle_ = waits_for_us(target);
    if (circle_) return;  // it is not going to wait
    next_ = all().first;
    all().first = this;
  }
  blocked_call(const blocked_call&) = delete;
  blocked_call& operator=(const blocked_call&) = delete;
  ~blocked_call() {
    if (frames_ == nullptr || circle_) return;
    const std::lock_guard<std::mutex> hold(all().lock);
    for (blocked_call** at = &all().first; *at != nullptr; at = &(*at)->next_) {
      if (*at != this) continue;
      *at = next_;
      return;
    }
  }

  bool closes_circle() const noexcept { return circle_; }

 private:
  struct registry {
    std::mutex lock;
    blocked_call* first = nullptr;
    std::uint32_t born = 0;
  };
  static registry& all() noexcept {
    static registry one;
    return one;
  }

  // From loop to loop; each is run by one thread, which waits for one other.
  bool waits_for_us(const void* loop) const noexcept {
    const blocked_call* call = all().first;
    while (call != nullptr) {
      if (loop_frame::runs(frames_, loop)) return true;
      while (call != nullptr && !loop_frame::runs(call->frames_, loop)) call = call->next_;
      if (call == nullptr) return false;
      loop = call->target_;
      call = all().first;
    }
    return false;
  }

  const loop_frame* const frames_;
  const void* const target_;
  blocked_call* next_ = nullptr;
  bool circle_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
