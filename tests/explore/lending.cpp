// lending.cpp - scenarios: callers of invoke() that are the loop, while its thread sleeps
#include "explore/scene.hpp"

using namespace explore;

namespace {

using lent_loop = hybridloop::basic_loop<symmetric_traits>;

hybridloop::loop_options lending(std::size_t ring = 4) {
  auto options = small_loop(ring);
  options.caller_runs = true;
  return options;
}

}  // namespace

EXPLORE(lend_and_post, 2) {
  ledger book;
  {
    lent_loop l(lending());
    book.after(3, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("caller", [&] {
      book.post(l, 1);
      book.invoke(l, 1);
    });
    start("poster", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 3, "a call was refused");
  book.check();
}

EXPLORE(two_callers, 2) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(lending());
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] { book.invoke(l, 1); });
    start("two", [&] { book.invoke(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 2, "a call was refused");
  book.check();
}

EXPLORE_ROUSED(lend_and_stop, 2) {
  ledger book;
  {
    lent_loop l(lending());
    start("loop", [&] { l.run(); });
    start("caller", [&] {
      book.invoke(l, 1);
      l.stop();
    });
    play();
  }
  book.check(false);
}

EXPLORE(lend_and_close, 2) {
  ledger book;
  {
    lent_loop l(lending());
    start("loop", [&] { l.run(); });
    start("caller", [&] { book.invoke(l, 1); });
    start("closer", [&] { l.close(); });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

// The sleeper's own deadline comes while the loop is lent, and f arms an earlier one: nobody sleeps past it.
EXPLORE(lend_and_deadline, 2) {
  using namespace std::chrono_literals;
  ledger book;
  bool near = false, told = false;
  {
    lent_loop l(lending());
    const auto far = l.after(10ms, [] {});
    start("loop", [&] { l.run(); });
    start("caller", [&] {
      clock::time_point due;
      book.invoke(l, 1, [&] {
        due = l.now() + 1ms;
        l.at(due, [&, due] {
          book.as_the_loop();
          near = true;
          ledger::must(!told || clock::now() <= due, "a timer is late");
          l.close();
        });
      });
      told = clock::now() < due;
    });
    play();
    ledger::must(!l.cancel(far), "a closed loop has timers");
  }
  ledger::must(near, "a timer has not run");
  book.check();
}

// f leaves something behind that forbids sleeping on.
EXPLORE(lend_and_defer, 2) {
  ledger book;
  {
    lent_loop l(lending());
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("caller", [&] {
      book.invoke(l, 1, [&] {
        l.defer([&] { book.post(l, 1); });
      });
    });
    play();
  }
  book.check();
}

// f runs the loop itself, and may have to sleep in its thread's place.
EXPLORE(lend_and_keep, 2) {
  ledger book;
  {
    lent_loop l(lending());
    book.after(3, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("caller", [&] {
      book.invoke(l, 1, [&] { l.run_once(); });
    });
    start("poster", [&] {
      book.post(l, 2);
      book.post(l, 2);
    });
    play();
  }
  book.check();
}

// Nobody runs the loop: it is borrowed for a watch while another thread enters it.
EXPLORE(borrow_idle, 2) {
  ledger book;
  {
    lent_loop l(small_loop());
    const int fd = files::open();
    book.after(1, [&] { l.close(); });
    start("loop", [&] {
      book.post(l, 1);
      l.run();
    });
    start("watcher", [&] {
      std::error_code refused;
      const auto id = l.watch(fd, hybridloop::interest::readable, [] {}, refused);
      if (!refused) l.unwatch(id);
    });
    play();
  }
  book.check();
}
