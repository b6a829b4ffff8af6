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
// wake takes while looks end in time, half as long after each that did not, and then no more but for a try now and
// then, ever more seldom. None where the process has one CPU.
class patience {
 public:
  // True: it holds, by now. It is looked at ever more seldom, down to every so many pauses.
  template <class Kernel, class Condition>
  static bool look(const Condition& holds, std::uint32_t seldom = 1) noexcept {
    patience& mine = own();
    if (mine.span_ < shortest && !mine.tries_again<Kernel>()) return false;
    const bool hit = look_for(mine.span_, holds, seldom);
    mine.span_ = hit ? longest : mine.span_ / 2;
    if (hit) mine.rest_ = shortest_rest;
    return hit;
  }

 private:
  static constexpr std::uint32_t shortest = 500;  // nanoseconds
  static constexpr std::uint32_t longest = 16000;
  static constexpr std::uint32_t shortest_rest = 16;  // waits without a look, while looks pay now and then
  static constexpr std::uint32_t first_rest = 64;
  static constexpr std::uint32_t longest_rest = 1024;

  template <class Kernel>
  bool tries_again() noexcept {
    if (rested_++ < rest_) return false;
    rested_ = 0;
    rest_ = rest_ == 0 ? first_rest : rest_ < longest_rest ? 2 * rest_ : rest_;
    span_ = Kernel::usable_cpus() > 1 ? longest : 0;
    return span_ != 0;
  }

  template <class Condition>
  static bool look_for(std::uint32_t span, const Condition& holds, std::uint32_t seldom) noexcept {
    std::uint32_t step = 1;
    for (std::uint32_t left = pauses_in(span); left >= step; step = step < seldom ? 2 * step : step) {
      if (holds()) return true;
      left -= step;
      for (std::uint32_t i = 0; i != step; ++i) cpu_pause();
    }
    return holds();
  }
  static patience& own() noexcept {
    static thread_local patience mine;
    return mine;
  }

  std::uint32_t span_ = 0;
  std::uint32_t rest_ = 0;
  std::uint32_t rested_ = 0;
};

template <class Core>
class thread_waiter : public Core::node {
  using Traits = typename Core::traits;

 public:
  // Whoever is not the next waits for others first, longer than a look, and takes a CPU from them by looking.
  thread_waiter(Core& of, bool looks, unsigned words = 8) noexcept
      : Core::node(&tell_thread), of_(of), notice_(common_wait{&of, words}), looks_(looks) {}

  // False: the deadline came first.
  bool wait(nanos deadline) noexcept { return (looks_ && look()) || notice_.wait(deadline); }

  // As somebody who has joined. Told already, it stays so; else it is going to be told how this ends.
  void leave(wait_status why) noexcept {
    if (!notice_.leave()) return;  // [ref] R1
    Traits::schedule_point("giving-up");
    of_.refs.add();  // [ref] R2
    of_.leave(*this, why);
    of_.refs.drop(notice_.stay() ? 1 : 2);  // [ref] R4
  }

  // It was told in vain, and is going to be told again.
  void again() noexcept { notice_.forget(); }

 private:
  static constexpr std::uint32_t done = 1;

  bool look() const noexcept {
    return patience::look<typename Traits::kernel>([this] { return notice_.told() != notice<Traits>::nothing; });
  }
  static void tell_thread(waiter<Traits>& w, nudges<Traits>& later) noexcept {
    auto& me = static_cast<thread_waiter&>(w);
    if (!me.notice_.tell_who_stays(done, later)) tell_who_leaves(me, later);  // [ref] R5
  }
  static void tell_who_leaves(thread_waiter& me, nudges<Traits>& later) noexcept {
    Core& of = me.of_;
    of.refs.add();  // [ref] R6
    Traits::schedule_point("kept");
    if (me.notice_.tell(done, later)) of.refs.drop();  // [ref] R7
  }

  Core& of_;
  notice<Traits> notice_;
  const bool looks_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
