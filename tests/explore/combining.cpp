// combining.cpp - scenarios: queues of waiters that join, leave, are served, and destroy what they waited for
#include <new>
#include <utility>

#include "explore/scene.hpp"
#include "explore/waiting.hpp"

using namespace explore;

namespace {

using hybridloop::wait_status;
using scene_traits = symmetric_traits;
using queue1 = hybridloop::sync::basic_queue1<scene_traits>;
using queue3 = hybridloop::sync::basic_queue3<scene_traits>;
using queue_locked = hybridloop::sync::basic_queue_locked<scene_traits>;

// What a queue asks of its account, it asks as its owner: two at once, or one that does not know what
// the one before it did, is a race.
template <class Account>
struct owned : Account {
  using Account::Account;
  std::ptrdiff_t withdraw(std::ptrdiff_t n) noexcept {
    engine::the().touch(&mark, true);
    return Account::withdraw(n);
  }
  std::ptrdiff_t pass_on(std::ptrdiff_t n) noexcept {
    engine::the().touch(&mark, true);
    return Account::pass_on(n);
  }
  char mark = 0;
};
template <class Queue>
using permits = hybridloop::detail::primitive<Queue, owned<hybridloop::detail::permit_account<scene_traits>>>;
template <class Queue>
using notices = hybridloop::detail::primitive<Queue, owned<hybridloop::detail::notice_account<scene_traits>>>;

template <class Of>
void give(Of& of, std::ptrdiff_t n) {
  of.send(of.account.give(n), wait_status::granted);
}

// Sleeps until it is told; whoever tells it must know all that it is.
template <class Core>
class sitter_of : public Core::node {
  using base = hybridloop::detail::waiter<scene_traits>;

 public:
  sitter_of() : Core::node(&tell_it) {}

  // What is missing of n comes later.
  template <class Of>
  void join(Of& of, std::ptrdiff_t n) {
    const std::ptrdiff_t had = of.account.take(n);
    this->begin(n, 0);
    of.send(had, wait_status::granted);
    enter(of);
  }
  template <class Of>
  void enter(Of& of) {
    engine::the().touch(this, true);
    of.join(*this);
  }
  wait_status sit() {
    while (word_.load(std::memory_order_acquire) == 0) parker::wait(word_, 0, forever);
    engine::the().touch(this, false);
    return this->status;
  }

 private:
  static void tell_it(base& w, hybridloop::detail::nudges<scene_traits>&) noexcept {
    auto& me = static_cast<sitter_of&>(w);
    engine::the().touch(&me, true);
    auto& word = me.word_;
    ledger::must(word.exchange(1, std::memory_order_acq_rel) == 0, "told twice");
    parker::wake_one(word);
  }
  atomic<std::uint32_t> word_{0};
};
template <class Queue>
using sitter = sitter_of<permits<Queue>>;

// ---- Scenes ----

template <class Queue>
void joins_and_is_served() {
  permits<Queue> gate(std::ptrdiff_t{0});
  char work = 0;
  start("waiter", [&] {
    const paged<sitter<Queue>> w;
    w->join(gate, 1);
    ledger::must(w->sit() == wait_status::granted, "told something else");
    engine::the().touch(&work, false);
  });
  start("giver", [&] {
    engine::the().touch(&work, true);
    give(gate, 1);
  });
  play();
  ledger::must(gate.account.available() == 0, "a permit too many");
}

// Gives up at once, and is gone as soon as it is told.
template <class Queue>
void leaves_and_is_served() {
  permits<Queue> gate(std::ptrdiff_t{0});
  std::ptrdiff_t taken = 0;
  start("waiter", [&] {
    const paged<sitter<Queue>> w;
    w->join(gate, 1);
    const bool left = gate.leave(*w, wait_status::timed_out);
    const wait_status how = w->sit();
    ledger::must(left == (how == wait_status::timed_out), "a leave was answered wrongly");
    taken = how == wait_status::granted ? 1 : 0;
  });
  start("giver", [&] { give(gate, 1); });
  play();
  ledger::must(gate.account.available() + taken == 1, "a permit was lost, or made");
}

// What one leaves is the other's.
template <class Queue>
void one_leaves_one_stays() {
  permits<Queue> gate(std::ptrdiff_t{0});
  start("leaves", [&] {
    const paged<sitter<Queue>> w;
    w->join(gate, 1);
    static_cast<void>(gate.leave(*w, wait_status::cancelled));
    if (w->sit() == wait_status::granted) give(gate, 1);
  });
  start("stays", [&] {
    const paged<sitter<Queue>> w;
    w->join(gate, 1);
    ledger::must(w->sit() == wait_status::granted, "told something else");
  });
  start("giver", [&] { give(gate, 1); });
  play();
  ledger::must(gate.account.available() == 0, "a permit too many");
}

// At the head, with one of two: leaving, it gives that back to the one behind it.
template <class Queue>
void batch_leaves() {
  permits<Queue> gate(std::ptrdiff_t{0});
  paged<sitter<Queue>> batch;
  paged<sitter<Queue>> single;
  batch->join(gate, 2);
  single->join(gate, 1);
  start("batch", [&] {
    static_cast<void>(gate.leave(*batch, wait_status::cancelled));
    const wait_status how = batch->sit();
    batch.destroy();
    if (how == wait_status::granted) give(gate, 2);
  });
  start("single", [&] {
    ledger::must(single->sit() == wait_status::granted, "told something else");
    single.destroy();
  });
  start("giver", [&] {
    give(gate, 1);
    give(gate, 1);
  });
  play();
  ledger::must(gate.account.available() == 1, "a permit was lost, or made");
}

template <class Queue>
void both_leave() {
  permits<Queue> gate(std::ptrdiff_t{0});
  paged<sitter<Queue>> first;
  paged<sitter<Queue>> second;
  std::ptrdiff_t taken = 0;
  for (sitter<Queue>* w : {&*first, &*second}) w->join(gate, 1);
  for (paged<sitter<Queue>>* w : {&first, &second}) {
    start(w == &first ? "first" : "second", [&, w] {
      static_cast<void>(gate.leave(**w, wait_status::timed_out));
      taken += (*w)->sit() == wait_status::granted ? 1 : 0;
      w->destroy();
    });
  }
  start("giver", [&] { give(gate, 1); });
  play();
  ledger::must(gate.account.available() + taken == 1, "a permit was lost, or made");
}

// Three permits, three that want two of them. One is there, the others come one by one.
template <class Queue>
void batches_meet() {
  hybridloop::detail::permits<Queue, hybridloop::sync::fifo> gate(1);
  for (const char* name : {"one", "two", "three"}) {
    start(name, [&] {
      const paged<sitter_of<decltype(gate)>> w;
      const std::ptrdiff_t had = gate.take(2);
      engine::the().touch(&*w, true);
      if (had == 2 || gate.queue_up(*w, 2, had) || w->sit() == wait_status::granted) gate.give(2);
    });
  }
  start("giver", [&] {
    gate.give(1);
    gate.give(1);
  });
  play();
  ledger::must(gate.account.available() == 3, "a permit was lost, or made");
}

template <class Queue>
void closes() {
  permits<Queue> gate(std::ptrdiff_t{0});
  std::ptrdiff_t taken = 0;
  start("waiter", [&] {
    const paged<sitter<Queue>> w;
    const std::ptrdiff_t had = gate.account.take(1);
    if (had != 0) {
      taken = had == 1 ? 1 : 0;
      return;
    }
    w->begin(1, 0);
    w->enter(gate);
    const bool left = gate.leave(*w, wait_status::timed_out);
    const wait_status how = w->sit();
    ledger::must(left == (how == wait_status::timed_out), "a leave was answered wrongly");
    taken = how == wait_status::granted ? 1 : 0;
  });
  start("closer", [&] { gate.send(gate.account.close(), wait_status::closed); });
  start("giver", [&] { give(gate, 1); });
  play();
  ledger::must(gate.account.available() + taken == 1, "a permit was lost, or made");
}

// Deadline and stop come together, and a permit.
template <class Queue>
void two_have_it_leave() {
  permits<Queue> gate(std::ptrdiff_t{0});
  paged<sitter<Queue>> w;
  w->join(gate, 1);
  bool timed_out = false;
  bool stopped = false;
  std::ptrdiff_t taken = 0;
  wait_status how = wait_status::granted;
  start("waiter", [&] { taken = (how = w->sit()) == wait_status::granted ? 1 : 0; });
  start("timer", [&] { timed_out = gate.leave(*w, wait_status::timed_out); });
  start("stop", [&] { stopped = gate.leave(*w, wait_status::cancelled); });
  start("giver", [&] { give(gate, 1); });
  play();
  ledger::must(timed_out == (how == wait_status::timed_out), "a leave was answered wrongly");
  ledger::must(stopped == (how == wait_status::cancelled), "a leave was answered wrongly");
  ledger::must(gate.account.available() + taken == 1, "a permit was lost, or made");
}

// Whoever is told is the last who needs it.
template <class Queue>
void destroyed_by_who_was_told() {
  paged<permits<Queue>> gate(std::ptrdiff_t{0});
  start("waiter", [&] {
    {
      const paged<sitter<Queue>> w;
      w->join(*gate, 1);
      static_cast<void>(w->sit());
    }
    gate.destroy();
  });
  start("giver", [of = &*gate] { give(*of, 1); });
  play();
}

template <class Queue>
void destroyed_by_the_last() {
  paged<permits<Queue>> gate(std::ptrdiff_t{0});
  unsigned left = 2;
  char work = 0;
  for (const char* name : {"one", "two"}) {
    start(name, [&] {
      {
        const paged<sitter<Queue>> w;
        w->join(*gate, 1);
        static_cast<void>(w->sit());
      }
      engine::the().touch(&work, false);
      if (--left == 0) gate.destroy();
    });
  }
  start("giver", [&work, of = &*gate] {
    engine::the().touch(&work, true);
    give(*of, 2);
  });
  play();
}

// The notification is somebody's: who leaves with it passes it on.
template <class Queue>
void notified_once() {
  notices<Queue> bell;
  paged<sitter<Queue>> leaves;
  paged<sitter<Queue>> stays;
  for (sitter<Queue>* w : {&*leaves, &*stays}) {
    w->begin(1, 0);
    bell.account.enter();
    w->enter(bell);
  }
  start("leaves", [&] {
    static_cast<void>(bell.leave(*leaves, wait_status::timed_out));
    const wait_status how = leaves->sit();
    leaves.destroy();
    if (how == wait_status::granted) bell.send(bell.account.notify(1), wait_status::granted);
  });
  start("stays", [&] {
    ledger::must(stays->sit() == wait_status::granted, "told something else");
    stays.destroy();
  });
  start("notifier", [&] { bell.send(bell.account.notify(1), wait_status::granted); });
  play();
  ledger::must(bell.account.nobody(), "somebody still waits");
}

}  // namespace

EXPLORE(serve_queue3, 4) { joins_and_is_served<queue3>(); }
EXPLORE(leave_queue3, 4) { leaves_and_is_served<queue3>(); }
EXPLORE(stay_queue3, 3) { one_leaves_one_stays<queue3>(); }
EXPLORE(batch_queue3, 3) { batch_leaves<queue3>(); }
EXPLORE(both_leave_queue3, 2) { both_leave<queue3>(); }
EXPLORE(batches_queue3, 2) { batches_meet<queue3>(); }
EXPLORE(closed_queue3, 3) { closes<queue3>(); }
EXPLORE(leavers_queue3, 2) { two_have_it_leave<queue3>(); }
EXPLORE(told_destroys_queue3, 4) { destroyed_by_who_was_told<queue3>(); }
EXPLORE(last_destroys_queue3, 2) { destroyed_by_the_last<queue3>(); }
EXPLORE(notified_queue3, 3) { notified_once<queue3>(); }

EXPLORE(serve_locked, 2) { joins_and_is_served<queue_locked>(); }
EXPLORE(leave_locked, 2) { leaves_and_is_served<queue_locked>(); }
EXPLORE(stay_locked, 2) { one_leaves_one_stays<queue_locked>(); }
EXPLORE(batch_locked, 2) { batch_leaves<queue_locked>(); }
EXPLORE(both_leave_locked, 2) { both_leave<queue_locked>(); }
EXPLORE(batches_locked, 2) { batches_meet<queue_locked>(); }
EXPLORE(closed_locked, 2) { closes<queue_locked>(); }
EXPLORE(leavers_locked, 2) { two_have_it_leave<queue_locked>(); }
EXPLORE(told_destroys_locked, 2) { destroyed_by_who_was_told<queue_locked>(); }
EXPLORE(last_destroys_locked, 2) { destroyed_by_the_last<queue_locked>(); }
EXPLORE(notified_locked, 2) { notified_once<queue_locked>(); }

EXPLORE(serve_queue1, 2) { joins_and_is_served<queue1>(); }
EXPLORE(leave_queue1, 2) { leaves_and_is_served<queue1>(); }
EXPLORE(stay_queue1, 2) { one_leaves_one_stays<queue1>(); }
EXPLORE(batch_queue1, 2) { batch_leaves<queue1>(); }
EXPLORE(both_leave_queue1, 2) { both_leave<queue1>(); }
EXPLORE(batches_queue1, 1) { batches_meet<queue1>(); }
EXPLORE(closed_queue1, 2) { closes<queue1>(); }
EXPLORE(leavers_queue1, 2) { two_have_it_leave<queue1>(); }
EXPLORE(told_destroys_queue1, 2) { destroyed_by_who_was_told<queue1>(); }
EXPLORE(last_destroys_queue1, 2) { destroyed_by_the_last<queue1>(); }
EXPLORE(notified_queue1, 2) { notified_once<queue1>(); }
