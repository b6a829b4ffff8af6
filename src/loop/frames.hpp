// loop/frames.hpp - which loops this thread is running, innermost first
#pragma once

#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Loops nest: an inner one may run inside a task of an outer one, and both then say
// running_in_this_thread(). One stack a thread; the frames lie in the callers of run(). Who borrows a
// loop from a thread that sleeps stands in for it in all loops that it runs.
class loop_frame {
 public:
  explicit loop_frame(const void* loop, const loop_frame* sleeper = nullptr) noexcept
      : loop_(loop), below_(top_), sleeper_(sleeper) {
    top_ = this;
  }
  loop_frame(const loop_frame&) = delete;
  loop_frame& operator=(const loop_frame&) = delete;
  ~loop_frame() { top_ = below_; }

  static bool runs(const void* loop) noexcept { return runs(top_, loop); }
  static bool runs(const loop_frame* innermost, const void* loop) noexcept {
    for (const loop_frame* f = innermost; f != nullptr; f = f->below_) {
      if (f->loop_ == loop || (f->sleeper_ != nullptr && runs(f->sleeper_, loop))) return true;
    }
    return false;
  }
  // Not for another thread that sleeps.
  static bool runs_itself(const void* loop) noexcept {
    const loop_frame* f = top_;
    while (f != nullptr && f->loop_ != loop) f = f->below_;
    return f != nullptr;
  }
  static const loop_frame* innermost() noexcept { return top_; }
  static const void* thread() noexcept { return &top_; }  // another one for each thread that lives

 private:
  const void* loop_;
  loop_frame* below_;
  const loop_frame* sleeper_;  // the innermost frame of the thread that lent the loop
  static inline thread_local loop_frame* top_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
