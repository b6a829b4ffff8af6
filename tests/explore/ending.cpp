// ending.cpp - scenarios: loops that end while others are still in the middle of a call
#include <memory>

#include "explore/scene.hpp"

using namespace explore;

namespace {

// A loop that its own tasks end, and its next tenant: a doorbell is used again at once.
template <class Traits>
void destroyed_under_a_poster(hybridloop::fast_path path) {
  ledger book, second;
  auto options = small_loop();
  options.path = path;
  using loop_type = hybridloop::basic_loop<Traits>;
  auto l = std::make_unique<loop_type>(options);
  loop_type* const first = l.get();
  book.after(2, [first] { first->close(); });
  start("loop", [&] {
    l->run();
    l.reset();
    loop_type next(options);
    second.after(1, [&] { next.close(); });
    second.post(next, 1);
    next.run();
  });
  start("one", [&] { book.post(*first, 1); });
  start("two", [&] { book.post(*first, 2); });
  play();
  book.check();
  second.check();
}

}  // namespace

EXPLORE(destroyed_under_a_poster_channel, 2) {
  destroyed_under_a_poster<symmetric_traits>(hybridloop::fast_path::full);
}
EXPLORE(destroyed_under_a_poster_asymmetric, 2) {
  destroyed_under_a_poster<asymmetric_traits>(hybridloop::fast_path::full);
}
EXPLORE_ROUSED(destroyed_under_a_poster_poller, 2) {
  destroyed_under_a_poster<symmetric_traits>(hybridloop::fast_path::off);
}

// Through a handle, whenever.
EXPLORE(handle_outlives, 2) {
  ledger book;
  auto l = std::make_unique<hybridloop::basic_loop<asymmetric_traits>>(small_loop());
  auto handle = std::make_unique<hybridloop::basic_handle<asymmetric_traits>>(l->handle());
  auto other = std::make_unique<hybridloop::basic_handle<asymmetric_traits>>(*handle);
  start("loop", [&] {
    l->run();
    l.reset();
  });
  start("one", [&] {
    book.post(*handle, 1);
    handle->stop();
    book.post(*handle, 1);
    handle.reset();
  });
  start("two", [&] {
    book.post(*other, 2);
    other.reset();
  });
  play();
  book.check(false);
}

// run_until_idle() and a post: whoever comes late runs in the next one.
EXPLORE(until_idle, 3) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop());
    start("loop", [&] { l.run_until_idle(); });
    start("poster", [&] {
      book.post(l, 1);
      book.post(l, 1);
    });
    play();
    l.run_until_idle();
    ledger::must(book.ran() == 2, "run_until_idle() has left something");
  }
  book.check();
}

// A guard keeps it; what was posted before the guard goes is run before run_until_idle() returns.
EXPLORE(until_idle_held, 3) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop());
    auto guard = std::make_unique<hybridloop::basic_keep_alive<asymmetric_traits>>(l.hold());
    start("loop", [&] {
      l.run_until_idle();
      ledger::must(book.ran() == 1, "run_until_idle() has returned under a guard");
    });
    start("poster", [&] {
      book.post(l, 1);
      guard.reset();
    });
    play();
  }
  book.check();
}

// Nobody runs the loop when it is destroyed; who waits for room is told.
EXPLORE(destroyed_while_full, 2) {
  ledger book;
  auto options = small_loop(2, 0);
  options.when_full = hybridloop::overflow::block;
  auto l = std::make_unique<hybridloop::basic_loop<symmetric_traits>>(options);
  auto handle = std::make_unique<hybridloop::basic_handle<symmetric_traits>>(l->handle());
  start("owner", [&] { l.reset(); });
  start("poster", [&] {
    for (int i = 0; i < 3; ++i) book.post(*handle, 1);
    handle.reset();
  });
  play();
  book.check(false);
  ledger::must(book.ran() == 0, "a task has run");
}
