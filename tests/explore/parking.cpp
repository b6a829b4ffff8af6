// parking.cpp - scenarios: a loop that goes to sleep while others give it work, stop it or wake it
#include "explore/scene.hpp"

using namespace explore;

namespace {

template <class Traits>
void two_posters() {
  ledger book;
  {
    hybridloop::basic_loop<Traits> l(small_loop());
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] { book.post(l, 1); });
    start("two", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 2, "a post was refused");
  book.check();
}

}  // namespace

EXPLORE(two_posters_symmetric, 2) { two_posters<symmetric_traits>(); }
EXPLORE(two_posters_asymmetric, 2) { two_posters<asymmetric_traits>(); }

// The first park changes to the barrier, later posts rely on it.
EXPLORE(one_poster_asymmetric, 3) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop(4));
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("poster", [&] {
      book.post(l, 1);
      book.post(l, 1);
    });
    play();
  }
  book.check();
}

EXPLORE(sleepers_that_stir, 2) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop());
    book.after(1, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("poster", [&] { book.post(l, 1); });
    start("waker", [&] { l.wake(); });
    play();
  }
  book.check();
}

EXPLORE_ROUSED(post_and_stop, 2) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop());
    start("loop", [&] { l.run(); });
    start("poster", [&] { book.post(l, 1); });
    start("stopper", [&] { l.stop(); });
    play();
  }
  book.check(false);
}

EXPLORE(post_and_close, 2) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop());
    start("loop", [&] { l.run(); });
    start("poster", [&] {
      book.post(l, 1);
      book.post(l, 1);
    });
    start("closer", [&] { l.close(); });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

// Where it sleeps in the poller, and rings and signals meet.
EXPLORE_ROUSED(two_posters_poller, 2) {
  ledger book;
  {
    auto options = small_loop();
    options.path = hybridloop::fast_path::off;
    hybridloop::basic_loop<asymmetric_traits> l(options);
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] { book.post(l, 1); });
    start("two", [&] { book.post(l, 2); });
    play();
  }
  book.check();
}

// Several claims and one look behind them.
EXPLORE(two_ranges, 2) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop(4));
    book.after(3, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] { book.post_range(l, 1, 2); });
    start("two", [&] { book.post_range(l, 2, 1); });
    play();
  }
  ledger::must(book.accepted() == 3, "a post was refused");
  book.check();
}
