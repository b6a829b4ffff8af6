// spilling.cpp - scenarios: rings of two, what lies behind them, and posters that wait for room
#include "explore/scene.hpp"

using namespace explore;

namespace {

using small = hybridloop::basic_loop<symmetric_traits>;

hybridloop::loop_options when_full(hybridloop::overflow what, std::size_t arena) {
  auto options = small_loop(2, arena);
  options.when_full = what;
  return options;
}

}  // namespace

// Two of one thread and one of another: one of the three spills, whichever comes last.
EXPLORE(ring_of_two_spills, 2) {
  ledger book;
  {
    small l(small_loop());
    book.after(4, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] {
      for (int i = 0; i < 3; ++i) book.post(l, 1);
    });
    start("two", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 4, "a post was refused");
  book.check();
}

// The same without a loop thread until the posts are over: what was left in ring and spill.
EXPLORE(spilled_then_run, 3) {
  ledger book;
  {
    hybridloop::basic_loop<asymmetric_traits> l(small_loop(2, 1));
    const auto three = [&](unsigned who) {
      for (int i = 0; i < 3; ++i) book.post(l, who);
    };
    start("one", [&] { three(1); });
    start("two", [&] { three(2); });
    play();
    l.close();
    l.run();
    ledger::must(book.ran() == 6, "accepted and not run when run() returned");
  }
  book.check();
}

// If one post happens before another, it runs before it; whether in ring or spill.
EXPLORE(order_across_threads, 2) {
  std::vector<int> order;
  atomic<int> posted{0};
  {
    small l(small_loop());
    const auto put = [&](int n) {
      const auto run = [&order, &l, n] {
        order.push_back(n);
        if (order.size() == 5) l.close();
      };
      if (l.post(run) != hybridloop::post_result::accepted) engine::the().fail("a post was refused");
    };
    put(0);
    start("loop", [&] { l.run(); });
    start("one", [&] {
      put(1);
      put(2);
      posted.store(1, std::memory_order_release);
      put(4);
    });
    start("two", [&] {
      const bool behind = posted.load(std::memory_order_acquire) != 0;
      put(behind ? 3 : 9);
    });
    play();
  }
  const auto at = [&](int n) { return std::find(order.begin(), order.end(), n) - order.begin(); };
  ledger::must(order.size() == 5, "a task was lost");
  ledger::must(at(1) < at(2) && at(2) < at(4), "a task has overtaken one of the same thread");
  ledger::must(at(3) == 5 || at(2) < at(3), "a task has overtaken one that was posted before");
}

// The loop is closed while a ring of two spills.
EXPLORE(close_while_spilling, 2) {
  ledger book;
  {
    small l(small_loop(2, 1));
    start("loop", [&] { l.run(); });
    start("poster", [&] {
      for (int i = 0; i < 4; ++i) book.post(l, 1);
    });
    start("closer", [&] { l.close(); });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

EXPLORE(full_blocks, 2) {
  ledger book;
  {
    small l(when_full(hybridloop::overflow::block, 0));
    book.post(l, 1);
    book.post(l, 1);
    book.after(4, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("one", [&] { book.post(l, 1); });
    start("two", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 4, "a post was refused");
  book.check();
}

EXPLORE(full_blocks_then_closes, 2) {
  ledger book;
  {
    small l(when_full(hybridloop::overflow::block, 0));
    book.post(l, 1);
    book.post(l, 1);
    start("one", [&] { book.post(l, 1); });
    start("two", [&] { book.post(l, 2); });
    start("closer", [&] { l.close(); });
    play();
    l.run();
    ledger::must(book.accepted() == book.ran() && book.ran() == 2, "what was accepted is not what ran");
  }
  book.check();
}

EXPLORE(full_fails, 2) {
  ledger book;
  {
    small l(when_full(hybridloop::overflow::fail, 1));
    start("loop", [&] { l.run(); });
    start("one", [&] {
      for (int i = 0; i < 3; ++i) book.post(l, 1);
    });
    start("two", [&] {
      book.try_post(l, 2);
      l.close();
    });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

// A task posts while its own slot is the oldest, and the ring is full.
EXPLORE(task_posts_into_full_ring, 2) {
  ledger book;
  {
    small l(small_loop());
    const auto outer = [&] {
      book.as_the_loop();
      book.post(l, 3);
      book.post(l, 3);
      l.poll();
      engine::the().breathe("outer");
    };
    struct lives {
      decltype(outer)* f;
      explicit lives(decltype(outer)& g) : f(&g) { engine::the().touch(this, true); }
      lives(lives&& other) noexcept : f(other.f) { engine::the().touch(this, true); }
      lives& operator=(lives&&) = delete;
      ~lives() { engine::the().touch(this, true); }
      void operator()() {
        (*f)();
        engine::the().touch(this, false);
        ledger::must(f != nullptr, "a closure was built over one that runs");
      }
    };
    if (l.post(lives(outer)) != hybridloop::post_result::accepted) engine::the().fail("a post was refused");
    start("loop", [&] { l.run(); });
    start("one", [&] {
      book.post(l, 1);
      book.post(l, 1);
      book.post(l, 1);
      l.close();
    });
    play();
    ledger::must(book.accepted() == book.ran(), "accepted and not run when run() returned");
  }
  book.check();
}

// More than the ring holds: the range looks before it waits for room, or nobody would make any.
EXPLORE(range_into_full_ring, 2) {
  ledger book;
  {
    small l(when_full(hybridloop::overflow::block, 0));
    book.after(3, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    start("ranger", [&] { ledger::must(book.post_range(l, 1, 3) == 3, "a post was refused"); });
    play();
  }
  book.check();
}

// Where posts wait for room, one of the loop's own tasks does not: it would wait for itself.
EXPLORE(task_posts_and_others_wait, 2) {
  ledger book;
  {
    small l(when_full(hybridloop::overflow::block, 0));
    book.after(4, [&] { l.close(); });
    const auto outer = [&] {
      for (int i = 0; i < 3; ++i) book.post(l, 1);
    };
    if (l.post(outer) != hybridloop::post_result::accepted) engine::the().fail("a post was refused");
    start("loop", [&] { l.run(); });
    start("poster", [&] { book.post(l, 2); });
    play();
  }
  ledger::must(book.accepted() == 4, "a post was refused");
  book.check();
}
