// watching.cpp - scenarios: a loop that moves between the channel and the poller
#include "explore/scene.hpp"

using namespace explore;

namespace {

template <class Traits>
void watch_and_post() {
  ledger book;
  bool heard = false;
  {
    hybridloop::basic_loop<Traits> l(small_loop(4));
    const int fd = files::open();
    hybridloop::watch_id id{};
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("watcher", [&] {
      id = l.watch(fd, hybridloop::interest::readable, [&] {
        heard = true;
        l.unwatch(id);
        book.post(l, 1);
      });
      files::write(fd);
    });
    start("poster", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(heard, "a watch was not told");
  book.check();
}

}  // namespace

EXPLORE(watch_and_post_symmetric, 2) { watch_and_post<symmetric_traits>(); }
EXPLORE(watch_and_post_asymmetric, 2) { watch_and_post<asymmetric_traits>(); }

// From the poller back to the channel: the last watch is taken away by another thread.
EXPLORE(unwatch_and_post, 2) {
  ledger book;
  bool gone = false;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop(4));
    const int fd = files::open();
    const auto id = l.watch(fd, hybridloop::interest::readable, [] {});
    book.after(2, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] {
      l.unwatch(id, [&] { gone = true; });
      book.post(l, 1);
    });
    start("two", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(gone, "unwatch() did not say that it was done");
  book.check();
}

// fast_path::mini: a second thread sleeps in the poller and posts what it hears.
EXPLORE(companion, 2) {
  ledger book;
  auto options = small_loop(4);
  options.path = hybridloop::fast_path::mini;
  auto l = std::make_unique<hybridloop::basic_loop<symmetric_traits>>(options);
  const int fd = files::open();
  bool heard = false;
  start("loop", [&] {
    l->watch(fd, hybridloop::interest::readable | hybridloop::interest::oneshot, [&] {
      heard = true;
      book.post(*l, 1);
    });
    l->run();
    l.reset();
  });
  book.after(2, [&] { l->close(); });
  start("other", [&] {
    book.post(*l, 2);
  });
  start("writer", [&] { files::write(fd); });
  play();
  ledger::must(heard, "a watch was not told");
  book.check();
}
