// looking.cpp - scenarios: a loop that looks before it sleeps, a poster that looks before it waits for room
#include <memory>

#include "explore/scene.hpp"

using namespace explore;

namespace {

template <class Traits>
using looking_loop = hybridloop::basic_loop<looking<Traits>>;

// One round of looks, then a sleep; after that it looks again where that would have paid.
hybridloop::loop_options looks(std::size_t ring = 4, std::size_t arena = 4) {
  auto options = small_loop(ring, arena);
  options.spin = std::chrono::nanoseconds(moving_clock::reading);
  return options;
}

// Before the look, during it, and on its edge to the sleep.
template <class Traits>
void post_while_it_looks() {
  ledger book;
  {
    looking_loop<Traits> l(looks());
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("poster", [&] {
      book.post(l, 1);
      book.post(l, 1);
    });
    play();
  }
  ledger::must(book.accepted() == 2, "a post was refused");
  book.check();
}

}  // namespace

EXPLORE(post_while_it_looks_symmetric, 3) { post_while_it_looks<symmetric_traits>(); }
EXPLORE(post_while_it_looks_asymmetric, 3) { post_while_it_looks<asymmetric_traits>(); }

EXPLORE(stop_while_it_looks, 2) {
  ledger book;
  {
    looking_loop<symmetric_traits> l(looks());
    start("loop", [&] { l.run(); });
    start("poster", [&] { book.post(l, 1); });
    start("stopper", [&] { l.stop(); });
    play();
  }
  book.check(false);
}

// A guard that goes ends run_until_idle(), also when the loop looks.
EXPLORE(guard_goes_while_it_looks, 3) {
  looking_loop<asymmetric_traits> l(looks());
  auto guard = std::make_unique<hybridloop::basic_keep_alive<looking<asymmetric_traits>>>(l.hold());
  start("loop", [&] { l.run_until_idle(); });
  start("holder", [&] { guard.reset(); });
  play();
}

// Two that look for room, and wait for it when that has taken too long.
EXPLORE(full_blocks_patiently, 1) {
  ledger book;
  {
    auto options = looks(2, 0);
    options.when_full = hybridloop::overflow::block;
    looking_loop<symmetric_traits> l(options);
    book.after(5, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] {
      for (int i = 0; i < 3; ++i) book.post(l, 1);
    });
    start("two", [&] {
      for (int i = 0; i < 2; ++i) book.post(l, 2);
    });
    play();
  }
  ledger::must(book.accepted() == 5, "a post was refused");
  book.check();
}

// The loop is stopped while somebody looks for room: nobody will make any.
EXPLORE(full_and_stopped, 2) {
  ledger book;
  {
    looking_loop<symmetric_traits> l(looks(2));
    book.after(1, [&] { l.stop(); });
    start("loop", [&] { l.run(); });
    start("poster", [&] {
      for (int i = 0; i < 3; ++i) book.post(l, 1);
    });
    play();
    l.close();
    l.run();
    ledger::must(book.ran() == 3, "accepted and not run when run() returned");
  }
  book.check();
}
