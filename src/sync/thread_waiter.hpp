// sync/thread_waiter.hpp - a thread that blocks until it is told
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.hpp"
#include "base/pause.hpp"
#include "sync/waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// How long it pays to look before going to sleep, learned by each thread for itself: up to as long as a
// wake takes while looks end in time, half as long after each that did not, down to a try now and then.
// None where the process has one CPU.
class patience {
 public:
  // True: it holds, by now.
  template <class Kernel, class Condition>
  static bool look(const Condition& holds) noexcept {
    patience& mine = own();
    if (mine.misses_ % tries == 0) {
      mine.may_look_ = Kernel::usable_cpus() > 1;
      mine.span_ = longest;
    }
    if (!mine.may_look_ || mine.span_ < shortest) {
      ++mine.misses_;
      return false;
    }
    const bool hit = look_for(mine.span_, holds);
    mine.span_ = hit ? longest : mine.span_ / 2;
    mine.misses_ = hit ? 1 : mine.misses_ + 1;
    return hit;
  }

 private:
  static constexpr std::uint32_t shortest = 500;  // nanoseconds
  static constexpr std::uint32_t longest = 16000;
  static constexpr std::uint32_t tries = 64;

  template <class Condition>
  static bool look_for(std::uint32_t span, const Condition& holds) noexcept {
    for (std::uint32_t left = pauses_in(span); left != 0; --left) {
      if (holds()) return true;
      cpu_pause();
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

// Edge [told]: T1 the teller leaves the status, then word = told (release): its last touch, and the wake
// that follows uses only the address. T2 the waiter sees it (acquire) and reads the status; it may then
// destroy all of it. Rule: T2 synchronises with T1 [atomics.order].
template <class Core>
class thread_waiter : public Core::node {
  using Traits = typename Core::traits;

 public:
  thread_waiter() noexcept : Core::node(&tell_thread) {}

  // False: the deadline came first.
  bool wait(nanos deadline) noexcept {
    if (told()) return true;
    if (patience::look<typename Traits::kernel>([this] { return told(); })) return true;
    std::uint32_t seen = waiting;
    word_.compare_exchange_strong(seen, asleep, std::memory_order_relaxed);  // a hint; sleep() looks
    return sleep(deadline);
  }

  // It was told in vain, and is going to be told again.
  void again() noexcept { word_.store(waiting, std::memory_order_relaxed); }  // ours alone until it is in reach again

 private:
  enum : std::uint32_t { waiting, asleep, done };

  bool told() const noexcept { return word_.load(std::memory_order_acquire) == done; }  // [told] T2

  bool sleep(nanos deadline) noexcept {
    while (!told()) {
      if (deadline != never && read_clock<typename Traits::clock>() >= deadline) return told();
      Traits::parker::wait(word_, asleep, deadline);
    }
    return true;
  }

  static void tell_thread(waiter<Traits>& w) noexcept {
    auto& word = static_cast<thread_waiter&>(w).word_;
    if (word.exchange(done, std::memory_order_acq_rel) == asleep) Traits::parker::wake_one(word);  // [told] T1
  }

  typename Traits::template atomic<std::uint32_t> word_{waiting};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
