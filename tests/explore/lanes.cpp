// lanes.cpp - scenarios: private ways in, which come and go
#include <memory>
#include <optional>

#include "explore/scene.hpp"

using namespace explore;

namespace {

// A lane is made while the loop runs, and left with tasks in it. Others post meanwhile, or do not.
template <class Traits>
void lane_comes_and_goes(std::size_t capacity, unsigned others) {
  ledger book;
  {
    hybridloop::basic_loop<Traits> l(small_loop());
    book.after(3 + others, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("lane", [&] {
      auto mine = l.make_producer(capacity);
      for (int i = 0; i < 3; ++i) book.post(mine, 1);
    });
    if (others != 0) start("poster", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 3 + others, "a post was refused");
  book.check();
}

template <class Traits>
void lane_and_close() {
  ledger book;
  {
    hybridloop::basic_loop<Traits> l(small_loop());
    auto mine = std::make_unique<hybridloop::basic_producer<Traits>>(l.make_producer(2));
    start("loop", [&] { l.run(); });
    start("lane", [&] {
      book.post(*mine, 1);
      book.post(*mine, 1);
      mine.reset();
    });
    start("closer", [&] { l.close(); });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

}  // namespace

EXPLORE(lane_comes_and_goes_symmetric, 2) { lane_comes_and_goes<symmetric_traits>(4, 1); }
EXPLORE(lane_comes_and_goes_asymmetric, 2) { lane_comes_and_goes<asymmetric_traits>(2, 0); }
EXPLORE(lane_and_close_symmetric, 2) { lane_and_close<symmetric_traits>(); }
EXPLORE(lane_and_close_asymmetric, 2) { lane_and_close<asymmetric_traits>(); }

// Nothing but its one post tells the loop of it.
EXPLORE(lane_joins_and_stays, 3) {
  ledger book;
  {
    using loop_type = hybridloop::basic_loop<asymmetric_traits>;
    loop_type l(small_loop());
    std::optional<loop_type::producer_type> mine;
    book.after(1, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("lane", [&] {
      mine.emplace(l.make_producer(2));
      book.post(*mine, 1);
    });
    play();
  }
  book.check();
}

// It joins a loop that closes.
EXPLORE(lane_joins_late, 2) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop());
    start("loop", [&] { l.run(); });
    start("lane", [&] {
      auto mine = l.make_producer(2);
      book.post(mine, 1);
    });
    start("closer", [&] { l.close(); });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

// Destruction takes a lane's tasks with it, and the lane outlives the loop.
EXPLORE(lane_outlives, 3) {
  ledger book;
  auto l = std::make_unique<hybridloop::basic_loop<asymmetric_traits>>(small_loop());
  auto mine = std::make_unique<hybridloop::basic_producer<asymmetric_traits>>(l->make_producer(2));
  start("owner", [&] { l.reset(); });
  start("lane", [&] {
    for (int i = 0; i < 3; ++i) book.post(*mine, 1);
    mine.reset();
  });
  play();
  book.check(false);
  ledger::must(book.ran() == 0, "a task has run");
}
