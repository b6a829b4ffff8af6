// timing.cpp - scenarios: timers made, moved and cancelled by others, on a clock that jumps
#include "explore/scene.hpp"

using namespace explore;
using namespace std::chrono_literals;

namespace {
using timed_loop = hybridloop::basic_loop<symmetric_traits>;
}

// The loop sleeps until a far deadline, or for ever, when a near one is armed.
EXPLORE(arm_from_elsewhere, 3) {
  bool ran = false;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop());
    l.after(10ms, [] {});
    start("loop", [&] { l.run(); });
    start("armer", [&] {
      const auto due = clock::now() + 1ms;
      bool told = false;
      l.at(due, [&, due] {
        ran = true;
        ledger::must(!told || clock::now() <= due, "a timer is late");
        l.close();
      });
      told = clock::now() < due;
    });
    play();
  }
  ledger::must(ran, "a timer has not run");
}

// Exact: true means that it does not run.
EXPLORE(cancel_from_elsewhere, 3) {
  ledger book;
  bool ran = false, cancelled = false;
  {
    timed_loop l(small_loop());
    start("loop", [&] { l.run(); });
    start("armer", [&] {
      const auto id = l.after(1ms, [&] { ran = true; });
      cancelled = l.cancel(id);
      book.post(l, 1);
    });
    book.after(1, [&] { l.close(); });
    play();
  }
  ledger::must(ran != cancelled, "cancel() has said true of a timer that ran, or false of one that did not");
  book.check();
}

// Two threads cancel one timer: one of them, or the loop, has it.
EXPLORE(cancelled_twice, 2) {
  ledger book;
  int outcomes = 0;
  {
    timed_loop l(small_loop(4));
    const auto id = l.after(1ms, [&] { ++outcomes; });
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    for (unsigned who : {1u, 2u}) {
      start(who == 1 ? "one" : "two", [&, who] {
        if (l.cancel(id)) ++outcomes;
        book.post(l, who);
      });
    }
    play();
  }
  ledger::must(outcomes == 1, "a timer was cancelled and ran, or neither, or twice");
  book.check();
}

// Moved by one thread: it runs once, at the new deadline and not before.
EXPLORE(move_from_elsewhere, 2) {
  bool ran = false, known = false;
  {
    timed_loop l(small_loop(4));
    const auto begin = clock::now();
    const auto id = l.at(begin + 1ms, [&] {
      ledger::must(!ran, "a timer has run twice");
      ran = true;
      ledger::must(!known || clock::now() >= begin + 5ms, "a timer has run at a deadline that it had been moved from");
      l.close();
    });
    start("loop", [&] { l.run(); });
    start("mover", [&] { known = l.reschedule(id, begin + 5ms); });
    play();
  }
  ledger::must(ran, "a timer has not run");
}
