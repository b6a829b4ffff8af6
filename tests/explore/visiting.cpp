// visiting.cpp - scenarios: callbacks that wait, and are told on a loop that others stop, close and destroy
#include <new>

#include "explore/scene.hpp"
#include "explore/waiting.hpp"

using namespace explore;

namespace {

using hybridloop::sync::barging;
using hybridloop::sync::basic_queue1;
using hybridloop::sync::fifo;
using loop_type = hybridloop::basic_loop<waiting_traits>;
using fifo1 = semaphore_of<basic_queue1<waiting_traits>, fifo>;
using barging1 = semaphore_of<basic_queue1<waiting_traits>, barging>;

// A callback that is called once, or destroyed once without a call.
class fate {
 public:
  auto callback(std::function<void(wait_status)> then) {
    return [this, then, kept = tracker(this)](wait_status how) {
      ledger::must(calls_++ == 0, "a callback was called twice");
      status_ = how;
      then(how);
    };
  }
  void check() const {
    ledger::must(live_ == 0, "a callback was not destroyed");
  }
  bool called() const { return calls_ == 1; }
  wait_status status() const { return status_; }

 private:
  struct tracker {
    explicit tracker(fate* f) : of(f) { ++of->live_; }
    tracker(tracker&& other) noexcept : of(other.of) { ++of->live_; }
    tracker(const tracker& other) : of(other.of) { ++of->live_; }
    ~tracker() { --of->live_; }
    fate* of;
  };
  int calls_ = 0;
  int live_ = 0;
  wait_status status_ = wait_status::closed;
};

// Registered by another thread than the loop's, while somebody releases.
template <class Semaphore>
void granted_while_registered() {
  Semaphore s(0);
  fate f;
  {
    loop_type l(small_loop());
    start("loop", [&] { l.run(); });
    start("asker", [&] { s.async_acquire(l, f.callback([&](wait_status) { l.close(); })); });
    start("giver", [&] { s.release(); });
    play();
  }
  ledger::must(f.called() && f.status() == wait_status::granted && s.available() == 0, "not granted");
  f.check();
}

// Granted or timed out, and then the permit is still there.
template <class Semaphore>
void deadline_while_registered() {
  Semaphore s(0);
  fate f;
  {
    loop_type l(small_loop());
    start("loop", [&] { l.run(); });
    start("asker", [&] {
      s.async_acquire(l, f.callback([&](wait_status) { l.close(); }), {1, soon()});
    });
    start("giver", [&] { s.release(); });
    play();
  }
  ledger::must(f.called(), "nobody was told");
  ledger::must(s.available() == (f.status() == wait_status::granted ? 0 : 1), "a permit was lost, or made");
  f.check();
}

// Cancelled by one who says so, or granted.
template <class Semaphore>
void cancelled_meanwhile() {
  Semaphore s(0);
  fate f;
  bool cancelled = false;
  {
    loop_type l(small_loop());
    const auto ticket = s.async_acquire(l, f.callback([&](wait_status) { l.close(); }));
    start("loop", [&] { l.run(); });
    start("canceller", [&] { cancelled = s.cancel(ticket); });
    start("giver", [&] { s.release(); });
    play();
  }
  ledger::must(f.called() && (f.status() == wait_status::cancelled) == cancelled, "a cancel was not told the truth");
  ledger::must(s.available() == (cancelled ? 1 : 0), "a permit was lost, or made");
  f.check();
}

// Nothing but its deadline ends it.
template <class Semaphore>
void deadline_alone() {
  Semaphore s(0);
  fate f;
  {
    loop_type l(small_loop());
    start("loop", [&] { l.run(); });
    start("asker", [&] {
      s.async_acquire(l, f.callback([&](wait_status) { l.close(); }), {1, soon()});
    });
    play();
  }
  ledger::must(f.called() && f.status() == wait_status::timed_out, "not timed out");
  f.check();
}

// A ticket of a wait that is over, while another has its record.
template <class Semaphore>
void stale_ticket() {
  Semaphore s(1);
  fate first, second;
  {
    loop_type l(small_loop());
    const auto old = s.async_acquire(l, first.callback([](wait_status) {}));
    l.poll();
    s.async_acquire(l, second.callback([&](wait_status) { l.close(); }));
    start("loop", [&] { l.run(); });
    start("canceller", [&] { ledger::must(!s.cancel(old), "a wait that is over was cancelled"); });
    start("giver", [&] { s.release(); });
    play();
  }
  ledger::must(second.called() && second.status() == wait_status::granted, "not granted");
  first.check(), second.check();
}

// The loop closes while it is granted: called with the permit, or not called and the permit is there.
template <class Semaphore>
void loop_closes_meanwhile() {
  Semaphore s(0);
  fate f;
  {
    loop_type l(small_loop());
    start("loop", [&] { l.run(); });
    start("asker", [&] { s.async_acquire(l, f.callback([](wait_status) {})); });
    start("giver", [&] { s.release(); });
    start("closer", [&] { l.close(); });
    play();
  }
  ledger::must(s.available() == (f.called() && f.status() == wait_status::granted ? 0 : 1), "a permit was lost, or made");
  f.check();
}

// Destroyed by one thread while another releases what its callback waits for.
template <class Semaphore>
void loop_destroyed_meanwhile() {
  Semaphore s(0);
  fate f;
  void* const memory = engine::the().memory().take(sizeof(loop_type));
  auto* const l = new (memory) loop_type(small_loop());
  s.async_acquire(*l, f.callback([](wait_status) {}));
  start("destroyer", [&] { l->~loop_type(); });
  start("giver", [&] { s.release(); });
  play();
  engine::the().memory().give(memory, sizeof(loop_type));
  ledger::must(!f.called() && s.available() == 1, "a permit was lost, or made");
  f.check();
}

// Nobody releases anything: the end of the loop is the end of the wait.
template <class Semaphore>
void loop_destroyed_alone() {
  Semaphore s(0);
  fate f;
  {
    loop_type l(small_loop());
    start("asker", [&] { s.async_acquire(l, f.callback([](wait_status) {})); });
    play();
  }
  ledger::must(!f.called() && s.available() == 0, "a permit was made");
  f.check();
}

// Two wait on one loop whose queues have room for one: who finds none is let in later.
template <class Semaphore>
void no_room_for_all() {
  Semaphore s(0);
  fate a, b, c;
  {
    loop_type l(small_loop(2, 0));
    last_one last(3, [&] { l.close(); });
    for (fate* f : {&a, &b, &c}) s.async_acquire(l, f->callback([&](wait_status) { last.done(); }));
    start("loop", [&] { l.run(); });
    start("giver", [&] { s.release(3); });
    play();
  }
  ledger::must(a.called() && b.called() && c.called() && s.available() == 0, "somebody was not told");
  a.check(), b.check(), c.check();
}

// The callback destroys the semaphore that called it, while the release that did it is on its way out.
template <class Semaphore>
void destroyed_by_the_told() {
  void* const memory = engine::the().memory().take(sizeof(Semaphore));
  auto* const s = new (memory) Semaphore(0);
  fate f;
  {
    loop_type l(small_loop());
    s->async_acquire(l, f.callback([&](wait_status) {
      s->~Semaphore();
      engine::the().memory().give(memory, sizeof(Semaphore));
      l.close();
    }));
    start("loop", [&] { l.run(); });
    start("giver", [&] { s->release(); });
    play();
  }
  f.check();
}

// One thread and one callback, one permit that each gives back.
template <class Semaphore>
void thread_and_callback() {
  Semaphore s(1);
  fate f;
  {
    loop_type l(small_loop());
    last_one last(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("asker", [&] {
      s.async_acquire(l, f.callback([&](wait_status) {
        s.release();
        last.done();
      }));
    });
    start("thread", [&] {
      ledger::must(s.acquire() == wait_status::granted, "not granted");
      engine::the().breathe("inside");
      s.release();
      last.done();
    });
    play();
  }
  ledger::must(f.called() && s.available() == 1, "a permit was lost, or made");
  f.check();
}

}  // namespace

EXPLORE(granted_while_registered_1, 2) { granted_while_registered<fifo1>(); }
EXPLORE(granted_while_registered_barging, 2) { granted_while_registered<barging1>(); }
EXPLORE(deadline_while_registered_1, 2) { deadline_while_registered<fifo1>(); }
EXPLORE(deadline_while_registered_barging, 2) { deadline_while_registered<barging1>(); }
EXPLORE(cancelled_meanwhile_1, 2) { cancelled_meanwhile<fifo1>(); }
EXPLORE(cancelled_meanwhile_barging, 2) { cancelled_meanwhile<barging1>(); }
EXPLORE(loop_closes_meanwhile_1, 2) { loop_closes_meanwhile<fifo1>(); }
EXPLORE(loop_closes_meanwhile_barging, 2) { loop_closes_meanwhile<barging1>(); }
EXPLORE(loop_destroyed_meanwhile_1, 3) { loop_destroyed_meanwhile<fifo1>(); }
EXPLORE(loop_destroyed_meanwhile_barging, 3) { loop_destroyed_meanwhile<barging1>(); }
EXPLORE(no_room_for_all_1, 2) { no_room_for_all<fifo1>(); }
EXPLORE(destroyed_by_the_told_1, 2) { destroyed_by_the_told<fifo1>(); }
EXPLORE(destroyed_by_the_told_barging, 2) { destroyed_by_the_told<barging1>(); }
EXPLORE(thread_and_callback_1, 2) { thread_and_callback<fifo1>(); }
EXPLORE(thread_and_callback_barging, 2) { thread_and_callback<barging1>(); }
EXPLORE(deadline_alone_1, 2) { deadline_alone<fifo1>(); }
EXPLORE(stale_ticket_1, 2) { stale_ticket<fifo1>(); }
EXPLORE(loop_destroyed_alone_1, 1) { loop_destroyed_alone<fifo1>(); }
