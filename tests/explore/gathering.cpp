// gathering.cpp - scenarios: events, latches, condvars and channels, whose waiters give up, come late, and destroy them
#include "explore/scene.hpp"
#include "explore/waiting.hpp"

namespace explore {

struct paged_traits : waiting_traits {};

}  // namespace explore

template <>
struct hybridloop::detail::epoch_memory<explore::paged_traits> : explore::page_memory {
  static constexpr bool reuses = false;
};

using namespace explore;

namespace {

using one = hybridloop::sync::basic_queue1<waiting_traits>;
using two = hybridloop::sync::basic_queue2<paged_traits, 2>;
using three = hybridloop::sync::basic_queue3<waiting_traits>;
template <class Queue>
using manual = hybridloop::basic_event<Queue, hybridloop::sync::manual_reset>;
template <class Queue>
using automatic = hybridloop::basic_event<Queue, hybridloop::sync::auto_reset>;

// Segments outlive what they were for, and a scene begins without any.
struct afresh {
  afresh() { two::memory::forget_all(); }
  afresh(const afresh&) = delete;
  afresh& operator=(const afresh&) = delete;
  ~afresh() { two::memory::forget_all(); }
};

// Whoever waits at a set() is let through, and nobody who comes behind the reset().
template <class Queue>
void set_and_reset() {
  paged<manual<Queue>> e;
  start("waiter", [&] { static_cast<void>(e->wait_until(soon())); });
  start("setter", [&] {
    e->set();
    e->reset();
    ledger::must(!e->wait_until(soon()), "who came behind a reset was let through");
  });
  play();
}

// It is gone as soon as who waited for it knows.
template <class Queue>
void event_on_the_stack() {
  paged<manual<Queue>> e;
  start("waiter", [&] {
    e->wait();
    e.destroy();
  });
  start("setter", [&] { e->set(); });
  play();
}

// One signal: somebody had it, or it is still there.
template <class Queue>
void signal_for_one() {
  paged<automatic<Queue>> e;
  int through = 0;
  for (const char* name : {"hasty", "other"}) {
    start(name, [&] { through += e->wait_until(soon()); });
  }
  start("setter", [&] { e->set(); });
  play();
  ledger::must(through + e->is_set() == 1, "a signal was lost, or made");
}

// What was done before is seen by who waited, who destroys it.
template <class Queue>
void latch_on_the_stack() {
  paged<hybridloop::basic_latch<Queue>> done(2);
  int work[2] = {};
  start("waiter", [&] {
    done->wait();
    done.destroy();
    for (int& each : work) engine::the().touch(&each, false);
  });
  for (int& mine : work) {
    start(&mine == work ? "first" : "second", [&] {
      engine::the().touch(&mine, true);
      done->count_down();
    });
  }
  play();
}

// Whoever waits for it is gone with it when the last has arrived, who would have waited as well.
template <class Queue>
void latch_goes_under_who_arrives() {
  paged<hybridloop::basic_latch<Queue>> done(2);
  char work = 0;
  start("waiter", [&] {
    done->wait();
    done.destroy();
    engine::the().touch(&work, false);
  });
  start("arrives", [&] {
    engine::the().touch(&work, true);
    done->arrive_and_wait(2);
  });
  play();
}

// Three that come for each other.
template <class Queue>
void all_arrive() {
  paged<hybridloop::basic_latch<Queue>> done(3);
  int work[3] = {};
  unsigned left = 3;
  for (int& mine : work) {
    start("one of three", [&] {
      engine::the().touch(&mine, true);
      done->arrive_and_wait();
      for (int& each : work) engine::the().touch(&each, false);
      if (--left == 0) done.destroy();
    });
  }
  play();
}

// What changes under the lock is heard by who looked before, and the condvar is gone behind the notification.
template <class Queue>
void condvar_on_the_stack() {
  paged<hybridloop::basic_condvar<Queue>> changed;
  hybridloop::basic_mutex<Queue> lock;
  bool is_so = false;
  start("waiter", [&] {
    lock.lock();
    changed->wait(lock, [&] { return is_so; });
    lock.unlock();
    changed.destroy();
  });
  start("notifier", [&] {
    lock.lock();
    is_so = true;
    changed->notify_one();
    lock.unlock();
  });
  play();
}

// Who says that its time ran out was not notified: else the other one waits for ever.
template <class Queue>
void one_gives_up_the_lock() {
  hybridloop::basic_condvar<Queue> changed;
  hybridloop::basic_mutex<Queue> lock;
  bool patient_waits = false;
  start("hasty", [&] {
    lock.lock();
    if (changed.wait_until(lock, soon()) == std::cv_status::no_timeout) changed.notify_one();
    lock.unlock();
  });
  start("patient", [&] {
    lock.lock();
    patient_waits = true;
    changed.wait(lock);
    lock.unlock();
  });
  start("notifier", [&] {
    for (bool done = false; !done; waiting_traits::kernel::yield()) {
      lock.lock();
      done = patient_waits;
      if (done) changed.notify_one();
      lock.unlock();
    }
  });
  play();
}

template <class Queue>
using pipe_of = hybridloop::basic_channel<int, Queue>;

// In order, and all of it before it is over.
template <class Queue>
void sent_and_closed() {
  paged<pipe_of<Queue>> c(std::size_t{1});
  int last = 0;
  start("sender", [&] {
    for (int i = 1; i <= 2; ++i) ledger::must(c->send(int{i}) == wait_status::granted, "not granted");
    c->close();
  });
  start("receiver", [&] {
    for (auto v = c->receive(); v; v = c->receive()) ledger::must(*v == ++last, "not in order");
    ledger::must(last == 2, "a value was lost");
  });
  play();
}

// Who is told that it was sent was heard.
template <class Queue>
void closed_by_another() {
  paged<pipe_of<Queue>> c(std::size_t{1});
  bool sent = false, received = false;
  start("sender", [&] { sent = c->send(7) == wait_status::granted; });
  start("receiver", [&] { received = c->receive().has_value(); });
  start("closer", [&] { c->close(); });
  play();
  ledger::must(received == sent, "a value was lost, or made");
}

}  // namespace

EXPLORE(set_and_reset_1, 3) { set_and_reset<one>(); }
EXPLORE(set_and_reset_3, 3) { set_and_reset<three>(); }
EXPLORE(event_on_the_stack_1, 5) { event_on_the_stack<one>(); }
EXPLORE(event_on_the_stack_2, 2) {
  const afresh scene;
  event_on_the_stack<two>();
}
EXPLORE(event_on_the_stack_3, 5) { event_on_the_stack<three>(); }
EXPLORE(signal_for_one_1, 3) { signal_for_one<one>(); }
EXPLORE(signal_for_one_2, 2) {
  const afresh scene;
  signal_for_one<two>();
}
EXPLORE(signal_for_one_3, 3) { signal_for_one<three>(); }
EXPLORE(latch_on_the_stack_1, 4) { latch_on_the_stack<one>(); }
EXPLORE(latch_on_the_stack_3, 4) { latch_on_the_stack<three>(); }
EXPLORE(latch_goes_under_who_arrives_1, 3) { latch_goes_under_who_arrives<one>(); }
EXPLORE(latch_goes_under_who_arrives_3, 3) { latch_goes_under_who_arrives<three>(); }
EXPLORE(all_arrive_1, 2) { all_arrive<one>(); }
EXPLORE(condvar_on_the_stack_1, 4) { condvar_on_the_stack<one>(); }
EXPLORE(condvar_on_the_stack_2, 2) {
  const afresh scene;
  condvar_on_the_stack<two>();
}
EXPLORE(condvar_on_the_stack_3, 4) { condvar_on_the_stack<three>(); }
EXPLORE(one_gives_up_the_lock_1, 2) { one_gives_up_the_lock<one>(); }
EXPLORE(one_gives_up_the_lock_2, 2) {
  const afresh scene;
  one_gives_up_the_lock<two>();
}
EXPLORE(one_gives_up_the_lock_3, 2) { one_gives_up_the_lock<three>(); }
EXPLORE(sent_and_closed_1, 4) { sent_and_closed<one>(); }
EXPLORE(closed_by_another_1, 3) { closed_by_another<one>(); }
EXPLORE(closed_by_another_3, 3) { closed_by_another<three>(); }
