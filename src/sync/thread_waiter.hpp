// sync/thread_waiter.hpp - a thread that blocks until it is told
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "base/pause.hpp"
#include "sync/waiter.hpp"
#include "wait/notice.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// How long it pays to look before going to sleep, learned by each thread for itself: up to as long as a
// wake takes while looks end in time, half as long after each that did not, down to a try now and then.
// None where the process has one CPU.
class patience {
 public:
  // True: it holds, by now.
  template <class Kernel, class Condition>
  static bool look(const Condition& holds, std::uint32_t seldom = 1) noexcept {
    patience& mine = own();
    if (mine.misses_ % tries == 0) {
      mine.may_look_ = Kernel::usable_cpus() > 1;
      mine.span_ = longest;
    }
    if (!mine.may_look_ || mine.span_ < shortest) {
      ++mine.misses_;
      return false;
    }
    const bool hit = look_for(mine.span_, holds, seldom);
    mine.span_ = hit ? longest : mine.span_ / 2;
    mine.misses_ = hit ? 1 : mine.misses_ + 1;
    return hit;
  }

 private:
  static constexpr std::uint32_t shortest = 500;  // nanoseconds
  static constexpr std::uint32_t longest = 16000;
  static constexpr std::uint32_t tries = 256;

  template <class Condition>
  static bool look_for(std::uint32_t span, const Condition& holds, std::uint32_t seldom) noexcept {
    std::uint32_t step = 1;
    for (std::uint32_t left = pauses_in(span); left > step; left -= step) {
      if (holds()) return true;
      for (std::uint32_t i = 0; i != step; ++i) cpu_pause();
      if (step < seldom) step *= 2;
    }
    return holds();
  }
  static patience& own() noexcept {
    static thread_local patience mine;
    return mine;
  }

  std::uint32_t span_ = longest;
  std::uint32_t misses_ = 0;
  bool may_look_ = false;
};

template <class Core>
class thread_waiter : public Core::node {
  using Traits = typename Core::traits;

 public:
  explicit thread_waiter(const Core& of, unsigned words = 8) noexcept
      : Core::node(&tell_thread), notice_(common_wait{&of, words}) {}

  // False: the deadline came first.
  bool wait(nanos deadline) noexcept {
    return patience::look<typename Traits::kernel>([this] { return was_told(); }) || notice_.wait(deadline);
  }

  // It was told in vain, and is going to be told again.
  void again() noexcept { notice_.forget(); }

 private:
  static constexpr std::uint32_t done = 1;

  bool was_told() const noexcept { return notice_.told() != notice<Traits>::nothing; }
  static void tell_thread(waiter<Traits>& w, nudges<Traits>& later) noexcept {
    static_cast<thread_waiter&>(w).notice_.tell(done, later);
  }

  notice<Traits> notice_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
