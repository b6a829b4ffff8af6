// leaving.cpp - scenarios: who gives up is on its way out when all are told, and the last destroys what they waited for
#include "explore/scene.hpp"
#include "explore/waiting.hpp"

namespace explore {

struct leaver_traits : waiting_traits {};

}  // namespace explore

template <>
struct hybridloop::detail::epoch_memory<explore::leaver_traits> : explore::page_memory {
  static constexpr bool reuses = false;
};

using namespace explore;

namespace {

using queue0 = hybridloop::sync::basic_queue0<waiting_traits>;
using queue1 = hybridloop::sync::basic_queue1<waiting_traits>;
using queue2 = hybridloop::sync::basic_queue2<leaver_traits, 2>;
using queue3 = hybridloop::sync::basic_queue3<waiting_traits>;
using queue_locked = hybridloop::sync::basic_queue_locked<waiting_traits>;

template <class Queue>
using condition = hybridloop::detail::notices<Queue>;
template <class Queue>
using gate = hybridloop::detail::gate_core<
    Queue, hybridloop::detail::event_account<typename Queue::traits, hybridloop::sync::manual_reset>>;
using hybridloop::detail::permits;
using hybridloop::sync::barging;
using hybridloop::sync::fifo;

// Segments outlive what they were for, and a scene begins without any.
struct afresh {
  afresh() { queue2::memory::forget_all(); }
  afresh(const afresh&) = delete;
  afresh& operator=(const afresh&) = delete;
  ~afresh() { queue2::memory::forget_all(); }
};

// Both wait. One of them may time out as well as be told, and the other destroys it when it was told.
template <class Core, class Tell, class... Args>
void gives_up_beside_the_last(Tell tell, Args... args) {
  const afresh memory;
  paged<Core> there(args...);
  Core& core = *there;
  hybridloop::detail::thread_waiter<Core> hasty(core, false);
  hybridloop::detail::thread_waiter<Core> last(core, false);
  for (auto* w : {&hasty, &last}) ledger::must(!core.enter(*w, 1, true), "nothing was there to be had");
  start("hasty", [&] {
    static_cast<void>(hybridloop::detail::wait_until_told(core, hasty, engine::the().now() + 1000));
  });
  start("last", [&] {
    static_cast<void>(hybridloop::detail::wait_until_told(core, last, forever));
    there.destroy();
  });
  start("teller", [&] { tell(core); });
  play();
}

template <class Queue>
void notified() {
  gives_up_beside_the_last<condition<Queue>>([](condition<Queue>& c) {
    c.send(c.account.notify_all(), wait_status::granted);
  });
}
template <class Queue>
void let_through() {
  gives_up_beside_the_last<gate<Queue>>([](gate<Queue>& g) {
    const std::ptrdiff_t through = g.account.set();
    if (through == 0) return;
    g.send(through, wait_status::granted);
    g.account.arrived();
  }, false);
}
template <class Queue>
void given() {
  gives_up_beside_the_last<permits<Queue, fifo>>([](auto& p) { p.give(2); }, std::ptrdiff_t{0});
}
template <class Queue, class Fairness>
void closed() {
  gives_up_beside_the_last<permits<Queue, Fairness>>([](auto& p) { p.close(); }, std::ptrdiff_t{0});
}

// The one that may time out waits on a loop.
template <class Queue>
void loop_gives_up_beside_the_last() {
  using condvar = hybridloop::basic_condvar<Queue>;
  paged<condvar> there;
  condvar& changed = *there;
  hybridloop::basic_mutex<Queue> lock;
  int calls = 0;
  {
    hybridloop::basic_loop<waiting_traits> l(small_loop());
    bool waits = false;
    changed.async_wait(l, [&](wait_status) { ++calls; l.close(); }, {1, soon()});
    start("loop", [&] { l.run(); });
    start("last", [&] {
      lock.lock();
      waits = true;
      changed.wait(lock, [&] { return !waits; });
      lock.unlock();
      there.destroy();
    });
    start("notifier", [&] {
      lock.lock();
      while (!waits) {
        lock.unlock();
        waiting_traits::kernel::yield();
        lock.lock();
      }
      waits = false;
      changed.notify_all();
      lock.unlock();
    });
    play();
  }
  ledger::must(calls == 1, "a callback was not called once");
}

}  // namespace

EXPLORE(condvar_gives_up_0, 3) { notified<queue0>(); }
EXPLORE(condvar_gives_up_1, 3) { notified<queue1>(); }
EXPLORE(condvar_gives_up_2, 3) { notified<queue2>(); }
EXPLORE(condvar_gives_up_3, 3) { notified<queue3>(); }
EXPLORE(condvar_gives_up_locked, 3) { notified<queue_locked>(); }
EXPLORE(event_gives_up_1, 3) { let_through<queue1>(); }
EXPLORE(event_gives_up_2, 3) { let_through<queue2>(); }
EXPLORE(event_gives_up_3, 3) { let_through<queue3>(); }
EXPLORE(permit_gives_up_1, 3) { given<queue1>(); }
EXPLORE(permit_gives_up_2, 3) { given<queue2>(); }
EXPLORE(permit_gives_up_3, 3) { given<queue3>(); }
EXPLORE(closed_gives_up_1, 3) { closed<queue1, fifo>(); }
EXPLORE(closed_gives_up_3, 3) { closed<queue3, fifo>(); }
EXPLORE(closed_gives_up_barging, 3) { closed<queue1, barging>(); }
EXPLORE(loop_gives_up_1, 2) { loop_gives_up_beside_the_last<queue1>(); }
EXPLORE(loop_gives_up_3, 2) { loop_gives_up_beside_the_last<queue3>(); }
