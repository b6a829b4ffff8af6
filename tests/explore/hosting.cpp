// hosting.cpp - scenarios: a loop inside a foreign one, and loops that are borrowed while nobody runs them
#include "explore/scene.hpp"

using namespace explore;

namespace {

// Waits for the handle and the timeout, as a foreign loop does, until the loop is closed.
template <class Loop>
void host(Loop& l, bool asks_for_timeouts) {
  const int handle = l.backend_handle();
  while (!l.closed()) {
    const auto left = asks_for_timeouts ? l.next_timeout() : std::nullopt;
    if (!left) files::await(handle);
    l.poll();
  }
  l.run();
}

template <class Traits>
void away_and_posts() {
  ledger book;
  {
    hybridloop::basic_loop<Traits> l(small_loop(4));
    book.after(2, [&] { l.close(); });
    start("host", [&] { host(l, false); });
    start("one", [&] { book.post(l, 1); });
    start("two", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 2, "a post was refused");
  book.check();
}

}  // namespace

EXPLORE(away_and_posts_symmetric, 2) { away_and_posts<symmetric_traits>(); }
EXPLORE(away_and_posts_asymmetric, 2) { away_and_posts<asymmetric_traits>(); }

// The host asks how long to wait, and borrows the loop for that.
EXPLORE(away_and_close, 2) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop(4));
    start("host", [&] { host(l, true); });
    start("poster", [&] { book.post(l, 1); });
    start("closer", [&] {
      l.wake();
      l.close();
    });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

// Another thread borrows the loop while its host waits.
EXPLORE(away_and_borrowed, 2) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop(4));
    const int fd = files::open();
    book.after(1, [&] { l.close(); });
    start("host", [&] { host(l, false); });
    start("watcher", [&] {
      std::error_code closed;
      l.watch(fd, hybridloop::interest::readable, [] {}, closed);
    });
    start("poster", [&] { book.post(l, 1); });
    play();
  }
  book.check();
}

// What a borrower has written, the next one who is the loop reads.
EXPLORE(borrowed_and_handed_on, 2) {
  bool heard = false;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop(4));
    const int fd = files::open();
    start("loop", [&] { l.run(); });
    start("watcher", [&] {
      engine::the().touch(&heard, true);
      l.watch(fd, hybridloop::interest::readable, [&] {
        engine::the().touch(&heard, true);
        heard = true;
        l.close();
      });
      files::write(fd);
    });
    play();
  }
  ledger::must(heard, "a watch was not told");
}

// Three that would be the loop at once: each waits for a borrower, and is told when somebody runs it.
EXPLORE(entered_while_borrowed, 2) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop(4));
    book.after(1, [&] { l.close(); });
    start("loop", [&] {
      book.post(l, 1);
      l.run();
    });
    for (const char* who : {"one", "two"}) {
      start(who, [&] {
        std::error_code busy;
        static_cast<void>(l.backend_handle(busy));
      });
    }
    play();
  }
  book.check();
}
