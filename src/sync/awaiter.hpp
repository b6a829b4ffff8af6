// sync/awaiter.hpp - coroutines that wait: `co_await`, without a coroutine type of ours
#pragma once

#include <cstddef>

#include "loop/loop.hpp"
#include "sync/loop_waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Stands in the coroutine's frame, and needs nothing else. The coroutine goes on in a task of that loop, or at
// once where it is on that loop already and there is nothing to wait for. Any handle that has address() and
// from_address() will do, so this is C++17.
template <class Core>
class [[nodiscard]] wait_awaiter : loop_waiter<Core> {
  using traits = typename Core::traits;
  using base = loop_waiter<Core>;

 public:
  template <class Build>
  wait_awaiter(Build built, basic_loop<traits>& l, Core& of, std::ptrdiff_t n, nanos deadline) noexcept
      : base(built, loop_access<traits>::core_of(l), of, &conclude), loop_(l), n_(n), deadline_(deadline) {}
  ~wait_awaiter() {
    HYBRIDLOOP_CONTRACT(!suspended_, "a coroutine that waits may not be destroyed before its wait is over, or its loop");
  }

  bool await_ready() noexcept { return this->home().runs_here() && this->of().enter_at_once(*this, n_); }

  // A closed loop: the coroutine goes on at once, and hears so.
  template <class Handle, class Build = build_tag>
  bool await_suspend(Handle frame) {
    frame_ = frame.address();
    resume_ = [](void* f) { Handle::from_address(f).resume(); };
    struct unless_waiting {
      bool* flag;
      ~unless_waiting() {
        if (flag != nullptr) *flag = false;
      }
    };
    suspended_ = true;
    unless_waiting undo{&suspended_};
    // Where it does wait, all of this may be gone by now.
    const bool waits = this->template wait<Build>(loop_, n_, deadline_, [&undo] { undo.flag = nullptr; });
    if (!waits) this->status = wait_status::closed;
    return waits;
  }

  wait_status await_resume() const noexcept { return this->status; }

 private:
  // Unheard, it stays suspended; whoever owns the frame may destroy it now.
  static void conclude(base& w, bool heard) {
    auto& me = static_cast<wait_awaiter&>(w);
    me.suspended_ = false;
    if (heard) me.resume_(me.frame_);
  }

  basic_loop<traits>& loop_;
  const std::ptrdiff_t n_;
  const nanos deadline_;
  void* frame_ = nullptr;
  void (*resume_)(void*) = nullptr;
  bool suspended_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
