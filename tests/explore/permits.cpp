// permits.cpp - scenarios: a semaphore between threads, whoever is robbed, times out, or finds it closed
#include "explore/scene.hpp"
#include "explore/waiting.hpp"

using namespace explore;

namespace {

// Two threads and one permit, which each gives back.
template <class Semaphore>
void two_take_turns() {
  Semaphore s(1);
  protected_by<Semaphore> inside(s, 1);
  for (const char* name : {"one", "two"}) {
    start(name, [&] { inside.visit(s.acquire()); });
  }
  play();
  inside.check(1);
}

// One gives up, one does not; there is one permit in the end.
template <class Semaphore>
void one_gives_up() {
  Semaphore s(0);
  protected_by<Semaphore> inside(s, 1);
  start("hasty", [&] { inside.visit(s.try_acquire_until(soon()) ? wait_status::granted : wait_status::timed_out); });
  start("patient", [&] { inside.visit(s.acquire()); });
  start("giver", [&] { s.release(); });
  play();
  inside.check(1);
}

template <class Semaphore>
void closed_meanwhile() {
  Semaphore s(0);
  protected_by<Semaphore> inside(s, 1);
  start("waiter", [&] { inside.visit(s.acquire()); });
  start("giver", [&] { s.release(); });
  start("closer", [&] { s.close(); });
  play();
  inside.check(1);
}

// Several permits at once, in front of one.
template <class Semaphore>
void batch_in_front() {
  Semaphore s(0);
  protected_by<Semaphore> inside(s, 2);
  start("two", [&] { inside.visit(s.acquire(2), 2); });
  start("one", [&] { inside.visit(s.acquire()); });
  start("giver", [&] {
    s.release();
    s.release();
  });
  play();
  inside.check(2);
}

// A batch that gives up has some already, and somebody behind it could do with those.
template <class Semaphore>
void batch_gives_up() {
  Semaphore s(1);
  protected_by<Semaphore> inside(s, 2);
  start("two", [&] { inside.visit(s.try_acquire_until(soon(), 2) ? wait_status::granted : wait_status::timed_out, 2); });
  start("one", [&] { inside.visit(s.acquire()); });
  play();
  inside.check(1);
}

// One that has been released is on its way to a batch that gives up.
template <class Semaphore>
void batch_gives_up_late() {
  Semaphore s(0);
  protected_by<Semaphore> inside(s, 2);
  start("two", [&] { inside.visit(s.try_acquire_until(soon(), 2) ? wait_status::granted : wait_status::timed_out, 2); });
  start("one", [&] { inside.visit(s.acquire()); });
  start("giver", [&] { s.release(); });
  play();
  inside.check(1);
}

// On the stack of who waits for it: gone as soon as that one has been told.
template <class Semaphore>
void on_the_stack() {
  void* const memory = engine::the().memory().take(sizeof(Semaphore));
  auto* const s = new (memory) Semaphore(0);
  start("waiter", [&] {
    ledger::must(s->acquire() == wait_status::granted, "not granted");
    s->~Semaphore();
    engine::the().memory().give(memory, sizeof(Semaphore));
  });
  start("giver", [&] { s->release(); });
  play();
}

// A batch that is served in two steps, and destroys the semaphore.
template <class Semaphore>
void batch_on_the_stack() {
  void* const memory = engine::the().memory().take(sizeof(Semaphore));
  auto* const s = new (memory) Semaphore(0);
  start("waiter", [&] {
    ledger::must(s->acquire(2) == wait_status::granted, "not granted");
    s->~Semaphore();
    engine::the().memory().give(memory, sizeof(Semaphore));
  });
  for (const char* name : {"one", "two"}) start(name, [&] { s->release(); });
  play();
}

// Two permits at once for two that wait.
template <class Semaphore>
void release_of_two() {
  Semaphore s(0);
  for (const char* name : {"one", "two"}) {
    start(name, [&] { ledger::must(s.acquire() == wait_status::granted, "not granted"); });
  }
  start("giver", [&] { s.release(2); });
  play();
  ledger::must(s.available() == 0, "a permit was lost, or made");
}

// Whoever is woken for a permit finds that another has taken it, who gives it back later.
template <class Semaphore>
void robbed() {
  Semaphore s(0);
  protected_by<Semaphore> inside(s, 1);
  start("waiter", [&] { inside.visit(s.acquire()); });
  start("giver", [&] { s.release(); });
  start("robber", [&] {
    if (s.try_acquire()) inside.visit(wait_status::granted);
  });
  play();
  inside.check(1);
}

// The same, and the one that was robbed gives up. The robber keeps it.
template <class Semaphore>
void robbed_and_gives_up() {
  Semaphore s(0);
  bool kept = false;
  start("waiter", [&] {
    if (s.try_acquire_until(soon())) s.release();
  });
  start("giver", [&] { s.release(); });
  start("robber", [&] { kept = s.try_acquire(); });
  play();
  ledger::must(s.available() == (kept ? 0 : 1), "a permit was lost, or made");
}

using fifo1 = semaphore_of<hybridloop::sync::basic_queue1<waiting_traits>, hybridloop::sync::fifo>;
using fifo0 = semaphore_of<hybridloop::sync::basic_queue0<waiting_traits>, hybridloop::sync::fifo>;
using barging1 = semaphore_of<hybridloop::sync::basic_queue1<waiting_traits>, hybridloop::sync::barging>;

}  // namespace

EXPLORE(two_take_turns_0, 2) { two_take_turns<fifo0>(); }
EXPLORE(two_take_turns_1, 3) { two_take_turns<fifo1>(); }
EXPLORE(two_take_turns_barging, 3) { two_take_turns<barging1>(); }
EXPLORE(one_gives_up_0, 1) { one_gives_up<fifo0>(); }
EXPLORE(one_gives_up_1, 3) { one_gives_up<fifo1>(); }
EXPLORE(one_gives_up_barging, 3) { one_gives_up<barging1>(); }
EXPLORE(closed_meanwhile_0, 2) { closed_meanwhile<fifo0>(); }
EXPLORE(closed_meanwhile_1, 3) { closed_meanwhile<fifo1>(); }
EXPLORE(closed_meanwhile_barging, 3) { closed_meanwhile<barging1>(); }
EXPLORE(batch_in_front_1, 3) { batch_in_front<fifo1>(); }
EXPLORE(batch_in_front_barging, 3) { batch_in_front<barging1>(); }
EXPLORE(batch_gives_up_1, 3) { batch_gives_up<fifo1>(); }
EXPLORE(batch_gives_up_barging, 3) { batch_gives_up<barging1>(); }
EXPLORE(batch_gives_up_late_1, 2) { batch_gives_up_late<fifo1>(); }
EXPLORE(batch_gives_up_late_barging, 2) { batch_gives_up_late<barging1>(); }
EXPLORE(on_the_stack_0, 3) { on_the_stack<fifo0>(); }
EXPLORE(on_the_stack_1, 3) { on_the_stack<fifo1>(); }
EXPLORE(on_the_stack_barging, 3) { on_the_stack<barging1>(); }
EXPLORE(batch_on_the_stack_0, 2) { batch_on_the_stack<fifo0>(); }
EXPLORE(batch_on_the_stack_1, 2) { batch_on_the_stack<fifo1>(); }
EXPLORE(batch_on_the_stack_barging, 2) { batch_on_the_stack<barging1>(); }
EXPLORE(release_of_two_1, 2) { release_of_two<fifo1>(); }
EXPLORE(release_of_two_barging, 2) { release_of_two<barging1>(); }
EXPLORE(robbed_barging, 3) { robbed<barging1>(); }
EXPLORE(robbed_and_gives_up_barging, 3) { robbed_and_gives_up<barging1>(); }
