// sync/loop_waiter.hpp - one who is told on a loop: what callbacks and coroutines have in common
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "loop/loop.hpp"
#include "sync/waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Registered with its loop, then entered into what it waits for, then armed; whoever comes in between, be
// it a grant, its deadline or the end of the loop, leaves a mark, and arming finds it. From being told on
// it is its loop's: a task delivers it. A closed loop takes no task: then it gives back what it
// was granted, and waits for the loop's end to collect it.
//
// Edge [arm]: E1 who arms it has written all of it (release), E2 whoever finds it armed may touch it (acquire);
// and the other way round: what a mark says was written before it. Rule: every change of the marks is a
// read-modify-write, one release sequence [intro.races]; of two, one comes first and the other finds it.
template <class Core>
class loop_waiter : public Core::node, public visitor<typename Core::traits> {
 public:
  using traits = typename Core::traits;

 private:
  using visitor_type = visitor<traits>;
  using call = typename visitor_type::call;
  using loop_core = core<traits>;

 public:
  // How it ends, on the loop thread or, unheard, wherever the loop ends: its last touch.
  using conclude_type = void (*)(loop_waiter&, bool heard);

  template <class Build>
  loop_waiter(Build, loop_core& home, Core& of, conclude_type conclude) noexcept
      : Core::node(&tell_on_loop<Build>), visitor_type(&hear<Build>), home_(&home), of_(&of), conclude_(conclude) {}

  loop_core& home() const noexcept { return *home_; }
  Core& of() const noexcept { return *of_; }

  // The thread that makes it. False: the loop is closed, and nothing has happened. Throws what arming a
  // timer does, and then too. Calls entered() as soon as neither can be; the waiter is gone afterwards.
  template <class Build, class Entered>
  bool wait(basic_loop<traits>& l, std::ptrdiff_t n, nanos deadline, const Entered& entered) {
    const bool in_time = deadline == never || deadline > loop_core::read_now();
    if (in_time && deadline != never) {
      const auto late = [this] { mark(due); };
      timer_ = l.template at<decltype(late)&, Build>(from_nanos<typename traits::clock>(deadline), late);
      if (!timer_) return false;
    } else if (home_->in.closed()) {
      return false;
    }
    traits::schedule_point("coming");
    home_->runs_here() ? home_->visitors_.add(*this) : home_->visitors_.send_in(*this);
    entered();
    traits::schedule_point("registered");
    if (of_->enter(*this, n, in_time)) {
      marks_.fetch_or(told, std::memory_order_relaxed);  // ours alone: it waits nowhere
    }
    // The loop's end may have come by before this was known there. [visit]
    if (home_->in.closed()) marks_.fetch_or(ending, std::memory_order_relaxed);  // ours alone: arm() heeds it
    traits::schedule_point("arming");
    arm<Build>();
    return true;
  }

  // It was told in vain, and is going to be told again. What was put off because it was told comes now. The
  // loop thread.
  void again() noexcept {
    const std::uint32_t before = marks_.fetch_and(~std::uint32_t{told}, std::memory_order_acq_rel);  // [arm] E1, E2
    if ((before & cut_short) != 0) of_->leave(*this, status_for(before));
  }

 private:
  enum : std::uint32_t { armed = 1, told = 2, due = 4, ending = 8, cut_short = due | ending, stranded = 16, leaving = 32 };

  // Posted when it is to be delivered. Destroyed unrun, the loop has ended.
  struct delivery {
    explicit delivery(loop_waiter& w) noexcept : whose(&w) {}
    delivery(delivery&& other) noexcept : whose(std::exchange(other.whose, nullptr)) {}
    delivery& operator=(delivery&&) = delete;
    ~delivery() {
      if (whose != nullptr) whose->pass_by();
    }
    void operator()() { std::exchange(whose, nullptr)->arrive(); }
    loop_waiter* whose;
  };

  template <class Build>
  static void tell_on_loop(waiter<traits>& w, nudges<traits>&) noexcept {
    auto& me = static_cast<loop_waiter&>(static_cast<typename Core::node&>(w));
    std::uint32_t seen = armed;
    while (!me.marks_.compare_exchange_strong(seen, seen | told, std::memory_order_acq_rel,  // [arm] E1, E2, [ref] R5
                                              std::memory_order_relaxed)) {  // a hint; the loop repeats
      if ((seen & leaving) != 0) {
        seen = me.tell_who_leaves();
        break;
      }
    }
    if ((seen & armed) != 0) me.template deliver<Build>();
  }
  std::uint32_t tell_who_leaves() noexcept {
    Core* const of = of_;
    of->refs.add();  // [ref] R6
    traits::schedule_point("kept");
    const std::uint32_t before = marks_.fetch_or(told, std::memory_order_acq_rel);  // [arm] E1, E2, [ref] R7
    if ((before & leaving) == 0) of->refs.drop();  // [ref] R7
    return before;
  }

  // From the CAS on it may be delivered at any time, and be gone. So what came before that is dealt with before.
  template <class Build>
  void arm() noexcept {
    std::uint32_t seen = marks_.load(std::memory_order_acquire);  // [arm] E2
    for (bool left = false;;) {
      const bool leaves = !left && (seen & told) == 0 && (seen & cut_short) != 0;
      if (!marks_.compare_exchange_weak(seen, seen | (leaves ? leaving : armed), std::memory_order_acq_rel,  // [arm] E1, E2, [ref] R1
                                        std::memory_order_acquire)) {  // [arm] E2
        continue;
      }
      if (!leaves) break;
      left = true;
      leave_for(seen);
      seen = marks_.load(std::memory_order_acquire);  // [arm] E2
    }
    if ((seen & told) != 0) deliver<Build>();
  }

  // Needs no memory but what the loop has: whoever finds no room there is let in a turn later, and so is who
  // comes after that.
  template <class Build>
  void deliver() noexcept {
    loop_core& c = *home_;
    auto& bell = c.door;
    if ((!c.visitors_.has_late() || c.in.closed()) && send<Build>()) return;
    c.visitors_.be_late(*this);
    bell.tell(status::wanted);
  }
  // False: there is no room.
  template <class Build>
  bool send() noexcept {
    delivery mine(*this);
    const post_result sent = home_->template post<Build>(std::move(mine), overflow::fail);
    if (sent == post_result::accepted) return true;
    mine.whose = nullptr;
    if (sent == post_result::closed) strand();
    return sent == post_result::closed;
  }

  // The loop thread. Where nothing in the full queues can run, all slots are held by tasks that this one runs
  // inside of; then nobody is overtaken by another way.
  template <class Build>
  void come_in() noexcept {
    loop_core& c = *home_;
    if (send<Build>() || (!c.in.can_run() && put_aside(c))) return;
    c.visitors_.be_late(*this);
    c.door.tell(status::wanted);
  }
  bool put_aside(loop_core& c) noexcept {
    unique_task::room<delivery> space(c.in.blocks());
    if (!space.had() || !c.deferred.make_room()) return false;
    unique_task task;
    task.emplace(space, delivery(*this));
    c.deferred.push(std::move(task));
    return true;
  }

  // The loop thread.
  void mark(std::uint32_t reason) noexcept {
    std::uint32_t seen = marks_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    bool leaves = false;
    do {
      leaves = (seen & (armed | told)) == armed;
    } while (!marks_.compare_exchange_weak(seen, seen | reason | (leaves ? leaving : 0u), std::memory_order_acq_rel,  // [arm] E1, E2, [ref] R1
                                           std::memory_order_relaxed));  // a hint; the loop repeats
    if (leaves) leave_for(reason);
  }
  // It said that it is leaving before it was told.
  void leave_for(std::uint32_t reasons) noexcept {
    Core* const of = of_;
    traits::schedule_point("giving-up");
    of->refs.add();  // [ref] R2
    of->leave(*this, status_for(reasons));
    const std::uint32_t before = marks_.fetch_and(~std::uint32_t{leaving}, std::memory_order_acq_rel);  // [arm] E1, E2, [ref] R4
    of->refs.drop((before & told) != 0 ? 2 : 1);  // [ref] R4
  }
  static wait_status status_for(std::uint32_t reasons) noexcept {
    return (reasons & ending) != 0 ? wait_status::closed : wait_status::timed_out;
  }

  // What one gives back may be granted to the next that no loop takes, and so on: one after the other, and
  // not one inside the other, because they may be many.
  void strand() noexcept {
    static thread_local visitor_type* last = nullptr;
    this->next_late = nullptr;
    const bool inside = last != nullptr;
    if (inside) last->next_late = this;
    last = this;
    if (inside) return;
    for (loop_waiter* w = this; w != nullptr;) {
      w->give_back();
      auto* const after = static_cast<loop_waiter*>(w->next_late);
      if (after == nullptr) last = nullptr;
      w->marks_.fetch_or(stranded, std::memory_order_release);  // [arm] E1
      w = after;
    }
  }
  void give_back() noexcept {
    if (this->status == wait_status::granted) of_->give_back(*this);
  }

  // The loop thread.
  void arrive() {
    if (!of_->redeem(*this)) return;
    const bool ended = (marks_.load(std::memory_order_relaxed) & ending) != 0;  // ours alone: the loop thread's own mark
    go(!ended || this->status != wait_status::closed);
  }
  // Who destroys the loop, or heeds its close.
  void pass_by() noexcept {
    give_back();
    go(false);
  }
  void go(bool heard) {
    if (timer_) home_->timers_.cancel(timer_);
    home_->visitors_.remove(*this);
    conclude_(*this, heard);
  }

  template <class Build>
  static void hear(visitor_type& v, call what) noexcept {
    auto& me = static_cast<loop_waiter&>(v);
    if (what == call::come_in) return me.template come_in<Build>();
    if (what == call::loop_ends) me.mark(ending);
    if ((me.marks_.load(std::memory_order_acquire) & stranded) != 0) me.go(false);  // [arm] E2
  }

  loop_core* const home_;
  Core* const of_;
  const conclude_type conclude_;
  timer_id timer_;
  typename traits::template atomic<std::uint32_t> marks_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
