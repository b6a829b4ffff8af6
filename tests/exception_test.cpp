// exception_test.cpp - what leaves a callback leaves run(), or goes to on_exception; nothing is lost
#include <doctest/doctest.h>

#include <hybridloop.hpp>

#if defined(__cpp_exceptions)

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/running.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::post_result;
using order = std::vector<int>;

namespace {

struct trouble : std::runtime_error {
  explicit trouble(int which) : std::runtime_error("trouble"), number(which) {}
  int number;
};

std::function<void()> throwing(int number) {
  return [number] { throw trouble(number); };
}

// The number of the trouble that left, or 0.
template <class F>
int leaves(F&& f) {
  try {
    f();
  } catch (const trouble& t) {
    return t.number;
  }
  return 0;
}

// What was kept by a loop's handler.
order& caught() {
  static order numbers;
  return numbers;
}
hybridloop::loop_options catching(hybridloop::loop_options options = {}) {
  caught().clear();
  options.on_exception = [](std::exception_ptr error) {
    caught().push_back(leaves([&] { std::rethrow_exception(error); }));
  };
  return options;
}

const place beds_of_watches[] = {in_poller, in_bare_poller, in_mini};

}  // namespace

TEST_SUITE_BEGIN("exception");

// ---- Out of run() ----

TEST_CASE("an exception out of a task leaves run, and the next run goes on behind it") {
  loop l;
  order ran;
  fate fates;

  must_post(l, [&] { ran.push_back(1); });
  must_post(l, [&, guard = witness<>(fates)] {
    ran.push_back(2);
    throw trouble(2);
  });
  must_post(l, [&] { ran.push_back(3); });

  CHECK(leaves([&] { l.run_until_idle(); }) == 2);
  CHECK(ran == order{1, 2});
  CHECK(fates.destroyed == 1);
  CHECK_FALSE(l.running_in_this_thread());
  CHECK(l.run_until_idle() == 1);
  CHECK(ran == order{1, 2, 3});
  CHECK(l.stats().tasks == 3);
}

TEST_CASE("tasks that throw out of ring, arena and heap are each run once and destroyed once") {
  constexpr int many = 12;
  loop l(tiny(4, 4));
  fate fates;
  order thrown;

  for (int i = 1; i <= many; ++i) {
    must_post(l, [i, guard = witness<>(fates)] { throw trouble(i); });
  }
  for (int i = 0; i < many; ++i) thrown.push_back(leaves([&] { l.run_until_idle(); }));

  CHECK(thrown == order{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  CHECK(fates.destroyed == many);
  CHECK(l.run_until_idle() == 0);
  CHECK(l.stats().arena_in_use == 0);
  CHECK(l.stats().tasks == many);
}

TEST_CASE("another thread may run the loop after an exception has left it") {
  loop l;
  int ran = 0;
  must_post(l, throwing(1));
  must_post(l, [&] { ++ran; });

  int first = 0;
  elsewhere([&] { first = leaves([&] { l.run_until_idle(); }); });
  elsewhere([&] { l.run_until_idle(); });

  CHECK(first == 1);
  CHECK(ran == 1);
}

TEST_CASE("the microtasks of a task that throws run first thing in the next run") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.microtask([&] { ran.push_back(1); });
    throw trouble(1);
  });
  must_post(l, [&] { ran.push_back(2); });

  CHECK(leaves([&] { l.run_until_idle(); }) == 1);
  CHECK(ran.empty());
  CHECK(l.run_until_idle() == 1);
  CHECK(ran == order{1, 2});
}

TEST_CASE("an exception out of a microtask leaves the other microtasks to the next run") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.microtask([&] { ran.push_back(1); });
    l.microtask(throwing(7));
    l.microtask([&] { ran.push_back(2); });
  });

  CHECK(leaves([&] { l.run_until_idle(); }) == 7);
  CHECK(ran == order{1});
  CHECK(l.run_until_idle() == 0);
  CHECK(ran == order{1, 2});
  CHECK(l.stats().tasks == 1);
}

TEST_CASE("an exception out of a deferred task leaves the other deferred tasks to the next run") {
  loop l;
  order ran;

  must_post(l, [&] {
    l.defer([&] { ran.push_back(1); });
    l.defer(throwing(7));
    l.defer([&] { ran.push_back(2); });
  });

  CHECK(leaves([&] { l.run_until_idle(); }) == 7);
  CHECK(ran == order{1});
  CHECK(l.run_until_idle() == 1);
  CHECK(ran == order{1, 2});
}

TEST_CASE("a one-shot timer that throws has run, and the timers behind it fire in the next run") {
  loop l;
  order ran;
  hybridloop::timer_id id;

  must_post(l, [&] {
    id = l.after(0ns, throwing(1));
    l.after(0ns, [&] { ran.push_back(2); });
  });

  CHECK(leaves([&] { l.run_until_idle(); }) == 1);
  CHECK_FALSE(l.cancel(id));
  CHECK(l.run_until_idle() == 1);
  CHECK(ran == order{2});
  CHECK(l.stats().timers == 0);
}

TEST_CASE("a repeating timer that throws repeats") {
  for (const auto how : {hybridloop::repeat::fixed_rate, hybridloop::repeat::fixed_delay,
                         hybridloop::repeat::skip_missed}) {
    loop l;
    int fired = 0;
    const auto id = l.every(
        100us,
        [&] {
          ++fired;
          throw trouble(fired);
        },
        how);

    CHECK(leaves([&] { l.run(); }) == 1);
    CHECK(leaves([&] { l.run(); }) == 2);
    CHECK(leaves([&] { l.run(); }) == 3);

    CHECK(l.cancel(id));
    CHECK(l.run_until_idle() == 0);
  }
}

TEST_CASE("an exception passes through nested runs, and each of them can be run again") {
  loop l;
  order left;

  must_post(l, [&] {
    must_post(l, [&] {
      must_post(l, throwing(1));
      must_post(l, throwing(2));
      left.push_back(leaves([&] { l.run_until_idle(); }));
      l.run_until_idle();
    });
    l.run_until_idle();
  });
  must_post(l, [] {});

  CHECK(leaves([&] { l.run_until_idle(); }) == 2);
  CHECK(left == order{1});
  CHECK_FALSE(l.running_in_this_thread());
  CHECK(l.run_until_idle() == 0);
  CHECK(l.stats().tasks == 5);
}

TEST_CASE("a stop or a close before the exception is heeded by the next run") {
  loop l;
  int ran = 0;

  must_post(l, [&] {
    l.stop();
    throw trouble(1);
  });
  must_post(l, [&] { ++ran; });
  CHECK(leaves([&] { l.run(); }) == 1);
  CHECK(l.run() == 0);
  CHECK(ran == 0);

  must_post(l, [&] {
    l.close();
    throw trouble(2);
  });
  must_post(l, [&] { ++ran; });
  CHECK(leaves([&] { l.run(); }) == 2);
  CHECK(l.run() == 1);
  CHECK(ran == 2);
}

TEST_CASE("an exception lets blocked posters in") {
  loop l(tiny(2, 0, hybridloop::overflow::block));
  must_post(l, throwing(1));
  must_post(l, throwing(2));
  std::atomic<int> accepted{0};

  const scoped_thread poster([&] {
    must_post(l, [] {});
    ++accepted;
  });
  CHECK(leaves([&] { l.run_until_idle(); }) == 1);
  await([&] { return accepted == 1; });

  CHECK(leaves([&] { l.run_until_idle(); }) == 2);
}

// ---- Watches ----

TEST_CASE("an exception out of a watch callback loses no other ready descriptor") {
  constexpr std::size_t wires = 5;
  for (const interest trigger : {interest::none, interest::edge, interest::oneshot}) {
    for (const place& where : beds_of_watches) {
      CAPTURE(where.name);
      CAPTURE(static_cast<unsigned>(trigger));
      std::vector<std::unique_ptr<socket_pair>> pairs;
      loop_in<> l(where);
      std::vector<int> heard(wires, 0);
      int thrown = 0;
      for (std::size_t i = 0; i < wires; ++i) {
        pairs.push_back(std::make_unique<socket_pair>());
        l->watch(pairs[i]->left(), interest::readable | trigger, [&, i] {
          pairs[i]->drain_left();
          ++heard[i];
          throw trouble(static_cast<int>(i));
        });
        pairs[i]->write_right();
      }

      while (std::count(heard.begin(), heard.end(), 0) != 0) {
        try {
          l->run();
        } catch (const trouble&) {
          ++thrown;
        }
      }

      CHECK(thrown >= static_cast<int>(wires));
      CHECK(l->stats().tasks >= wires);
    }
  }
}

TEST_CASE("of several watches of one descriptor, one that throws keeps nothing from the others") {
  for (const interest trigger : {interest::none, interest::edge}) {
    for (const place& where : beds_of_watches) {
      CAPTURE(where.name);
      CAPTURE(static_cast<unsigned>(trigger));
      socket_pair wire;
      loop_in<> l(where);
      order heard(3, 0);
      for (std::size_t i = 0; i < 3; ++i) {
        l->watch(wire.left(), interest::readable | trigger, [&, i] {
          ++heard[i];
          throw trouble(1);
        });
      }
      wire.write_right();

      while (std::count(heard.begin(), heard.end(), 0) != 0) CHECK(leaves([&] { l->run(); }) == 1);
    }
  }
}

TEST_CASE("a level-triggered descriptor is reported again after its callback threw") {
  for (const place& where : beds_of_watches) {
    CAPTURE(where.name);
    socket_pair wire;
    loop_in<> l(where);
    int heard = 0;
    l->watch(wire.left(), interest::readable, [&] {
      if (++heard == 3) {
        wire.drain_left();
        l->stop();
        return;
      }
      throw trouble(heard);
    });
    wire.write_right();

    CHECK(leaves([&] { l->run(); }) == 1);
    CHECK(leaves([&] { l->run(); }) == 2);
    CHECK(l->run() == 1);
    CHECK(heard == 3);
  }
}

TEST_CASE("an edge-triggered descriptor hears of what comes after its callback threw") {
  for (const place& where : beds_of_watches) {
    CAPTURE(where.name);
    socket_pair wire;
    loop_in<> l(where);
    std::size_t bytes = 0;
    l->watch(wire.left(), interest::readable | interest::edge, [&] {
      bytes += wire.drain_left();
      throw trouble(1);
    });

    for (std::size_t i = 1; i <= 3; ++i) {
      wire.write_right();
      while (bytes < i) CHECK(leaves([&] { l->run(); }) == 1);
    }
  }
}

TEST_CASE("a watch may take itself off and throw") {
  for (const place& where : beds_of_watches) {
    CAPTURE(where.name);
    socket_pair wire;
    loop_in<> l(where);
    fate fates;
    hybridloop::watch_id id;
    id = l->watch(wire.left(), interest::readable, [&, guard = witness<>(fates)] {
      l->unwatch(id);
      throw trouble(1);
    });
    wire.write_right();

    CHECK(leaves([&] { l->run(); }) == 1);
    CHECK(fates.destroyed == 1);
    CHECK(l->run_until_idle() == 0);
  }
}

// ---- Constructors ----

namespace {
struct throws_when_copied {
  throws_when_copied() = default;
  throws_when_copied(const throws_when_copied&) { throw trouble(9); }
  throws_when_copied(throws_when_copied&&) noexcept {}
  throws_when_copied& operator=(const throws_when_copied&) = delete;
  ~throws_when_copied() = default;
  void operator()() const {}
};
struct large_and_throws_when_copied : throws_when_copied {
  char ballast[200] = {};
};
}  // namespace

TEST_CASE_TEMPLATE("a closure whose constructor throws is not posted, and the loop sleeps and ends as ever",
                   closure, throws_when_copied, large_and_throws_when_copied) {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where, tiny(2, 4));
    const closure task{};
    order ran;
    const auto refused = [&] {
      CHECK(leaves([&] { static_cast<void>(l->post(task)); }) == 9);
    };

    refused();
    must_post(*l, [&] { ran.push_back(1); });
    refused();
    refused();
    must_post(*l, [&] { ran.push_back(2); });
    CHECK(l->run_until_idle() == 2);
    CHECK(ran == order{1, 2});
    CHECK(l->stats().arena_in_use == 0);

    refused();
    CHECK(l->run_until_idle() == 0);
    scoped_thread other([&, parks = l->stats().parks] {
      await_parks(*l, parks + 1);
      refused();
      l->close();
    });
    CHECK(l->run() == 0);
    other.join();
    CHECK(l->stats().tasks == 2);
  }
}

TEST_CASE("timers, watches, deferred tasks and microtasks whose closure cannot be made are not there") {
  loop l;
  socket_pair wire;
  const throws_when_copied small;
  const large_and_throws_when_copied large;

  const auto try_all = [&](const auto& task) {
    CHECK(leaves([&] { l.after(0ns, task); }) == 9);
    CHECK(leaves([&] { l.every(1ms, task); }) == 9);
    CHECK(leaves([&] { l.watch(wire.left(), interest::readable, task); }) == 9);
    must_post(l, [&] {
      CHECK(leaves([&] { l.defer(task); }) == 9);
      CHECK(leaves([&] { l.microtask(task); }) == 9);
    });
  };
  try_all(small);
  try_all(large);

  CHECK(l.run_until_idle() == 2);
  CHECK(l.stats().timers == 0);
  CHECK(l.stats().watches == 0);
  CHECK(l.stats().arena_in_use == 0);
}

// ---- Into on_exception ----

TEST_CASE("on_exception takes what tasks, timers, deferred tasks and microtasks throw, and run goes on") {
  loop l(catching());
  order ran;

  must_post(l, [&] {
    l.after(0ns, throwing(3));
    l.after(0ns, [&] { ran.push_back(3); });
    l.defer(throwing(4));
    l.defer([&] { ran.push_back(4); });
    l.microtask(throwing(2));
    l.microtask([&] { ran.push_back(2); });
    ran.push_back(1);
    throw trouble(1);
  });

  CHECK(l.run_until_idle() == 5);
  CHECK(caught() == order{1, 2, 3, 4});
  CHECK(ran == order{1, 2, 3, 4});
}

TEST_CASE("on_exception takes what watch callbacks throw, and the others are told in the same turn") {
  for (const place& where : beds_of_watches) {
    CAPTURE(where.name);
    socket_pair one;
    socket_pair two;
    loop_in<> l(where, catching());
    int heard = 0;
    for (const socket_pair* wire : {&one, &two}) {
      wire->write_right();
      l->watch(wire->left(), interest::readable | interest::oneshot, [&] {
        if (++heard == 2) l->stop();
        throw trouble(heard);
      });
    }

    CHECK(l->run() == 2);
    CHECK(caught() == order{1, 2});
  }
}

TEST_CASE("a repeating timer that throws into on_exception repeats") {
  loop l(catching());
  int fired = 0;
  hybridloop::timer_id id;
  id = l.every(100us, [&] {
    if (++fired == 3) l.cancel(id);
    throw trouble(fired);
  });

  CHECK(l.run_until_idle() == 3);
  CHECK(caught() == order{1, 2, 3});
}

TEST_CASE("what on_exception throws itself leaves run") {
  hybridloop::loop_options options;
  options.on_exception = [](std::exception_ptr) { throw trouble(100); };
  loop l(options);
  int ran = 0;

  must_post(l, throwing(1));
  must_post(l, [&] { ++ran; });

  CHECK(leaves([&] { l.run_until_idle(); }) == 100);
  CHECK(l.run_until_idle() == 1);
  CHECK(ran == 1);
}

TEST_CASE("on_exception has nothing to do with a dispatch at once, whose exception is its caller's") {
  loop l(catching());
  int left = 0;

  must_post(l, [&] { left = leaves([&] { static_cast<void>(l.dispatch(throwing(5))); }); });
  l.run_until_idle();

  CHECK(left == 5);
  CHECK(caught().empty());
}

TEST_SUITE_END();

#endif  // __cpp_exceptions
