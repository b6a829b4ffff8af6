// loop/frames.hpp - which loops this thread is running, innermost first
#pragma once

#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Loops nest: an inner one may run inside a task of an outer one, and both then say
// running_in_this_thread(). One stack a thread; the frames lie in the callers of run().
class loop_frame {
 public:
  explicit loop_frame(const void* loop) noexcept : loop_(loop), below_(top_) { top_ = this; }
  loop_frame(const loop_frame&) = delete;
  loop_frame& operator=(const loop_frame&) = delete;
  ~loop_frame() { top_ = below_; }

  static bool runs(const void* loop) noexcept { return runs(top_, loop); }
  static bool runs(const loop_frame* innermost, const void* loop) noexcept {
    for (const loop_frame* f = innermost; f != nullptr; f = f->below_) {
      if (f->loop_ == loop) return true;
    }
    return false;
  }
  static const loop_frame* innermost() noexcept { return top_; }
  static const void* thread() noexcept { return &top_; }  // another one for each thread that lives

 private:
  const void* loop_;
  loop_frame* below_;
  static inline thread_local loop_frame* top_ = nullptr;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
