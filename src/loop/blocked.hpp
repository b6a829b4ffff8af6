// loop/blocked.hpp - loops that wait for each other would wait for ever, and are told so
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "loop/frames.hpp"
#include "wait/notice.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A thread that runs loops and waits in invoke() for another one. Whoever closes a circle of these
// finds it before it waits. A thread that runs none closes none, and pays nothing.
//
// Edge [circle]: the list changes under a lock, U1 given back (release), U2 taken (acquire). It holds
// the number of the process it was taken in, because in the child of a fork its holder may be missing.
// Rule: a mutex, of one CAS that one can win, and U2 synchronises with U1 [atomics.order].
template <class Traits>
class blocked_call {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  blocked_call(const void* target, const notice<Traits>& answer) noexcept
      : frames_(loop_frame::innermost()), target_(target), answer_(answer) {
    if (frames_ == nullptr) return;
    const locked list;
    circle_ = waits_for_us(target);
    if (circle_) return;  // it is not going to wait
    next_ = first();
    first() = this;
  }
  blocked_call(const blocked_call&) = delete;
  blocked_call& operator=(const blocked_call&) = delete;
  ~blocked_call() {
    if (frames_ == nullptr || circle_) return;
    const locked list;
    blocked_call** at = &first();
    while (*at != nullptr && *at != this) at = &(*at)->next_;
    if (*at == this) *at = next_;
  }

  bool closes_circle() const noexcept { return circle_; }

 private:
  class locked {
   public:
    locked() noexcept {
      const std::uint32_t mine = Traits::kernel::forks() + 1;
      for (std::uint32_t seen = 0; !word().compare_exchange_weak(seen, mine, std::memory_order_acquire);) {  // [circle] U2
        if (seen == mine) {
          Traits::kernel::yield();
          seen = 0;
        }
      }
      if (std::exchange(process(), mine) != mine) first() = nullptr;  // they are not in this one
    }
    locked(const locked&) = delete;
    locked& operator=(const locked&) = delete;
    ~locked() { word().store(0, std::memory_order_release); }  // [circle] U1

   private:
    static atomic<std::uint32_t>& word() noexcept {
      static atomic<std::uint32_t> holder{0};
      return holder;
    }
    static std::uint32_t& process() noexcept {
      static std::uint32_t number = 0;
      return number;
    }
  };
  static blocked_call*& first() noexcept {
    static blocked_call* head = nullptr;
    return head;
  }

  // From loop to loop; each is run by one thread, which waits for one other, or was answered and is on
  // its way back.
  bool waits_for_us(const void* loop) const noexcept {
    for (const blocked_call* call = first(); call != nullptr;) {
      if (!loop_frame::runs(call->frames_, loop) || !call->waits()) {
        call = call->next_;
        continue;
      }
      loop = call->target_;
      if (loop_frame::runs(frames_, loop)) return true;
      call = first();
    }
    return false;
  }
  bool waits() const noexcept { return answer_.told() == notice<Traits>::nothing; }

  const loop_frame* const frames_;
  const void* const target_;
  const notice<Traits>& answer_;
  blocked_call* next_ = nullptr;
  bool circle_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
