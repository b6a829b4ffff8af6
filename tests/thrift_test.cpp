// thrift_test.cpp - what a turn does not do: read a clock, prepare a sleep, look longer than it pays
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include <hybridloop.hpp>

#include "support/race.hpp"
#include "support/running.hpp"
#include "support/support.hpp"
#include "support/virtual_clock.hpp"

using namespace support;
using hybridloop::interest;
using hybridloop::detail::lookout;
using hybridloop::detail::nanos;

namespace {

// ---- A look without a loop ----

// What a look touches; time passes when it is read, and there is never anything to do.
struct stage {
  struct kernel {
    static unsigned usable_cpus() noexcept { return 2; }
  };
  struct nothing {
    bool can_run() const noexcept { return false; }
    bool told(std::uint32_t) const noexcept { return false; }
    void forget(std::uint32_t) const noexcept {}
  };
  struct total {
    std::uint64_t ns = 0;
    void add(std::uint64_t more) noexcept { ns += more; }
  };

  stage() { options.spin = 8000ns; }
  nanos cached_now() const noexcept { return now; }
  void refresh_now() noexcept { now += 100; }

  // How long it looked.
  nanos look() {
    const nanos begin = now;
    CHECK_FALSE(at_work.look(*this, hybridloop::detail::never));
    return now - begin;
  }

  hybridloop::loop_options options;
  nothing in, wake;
  total spun_ns;
  nanos now = 0;
  lookout at_work;
};

// ---- A clock that counts its readers ----

struct counted_clock : virtual_clock {
  using time_point = std::chrono::time_point<counted_clock>;
  static inline std::atomic<std::size_t> reads{0};
  static time_point now() noexcept {
    ++reads;
    return time_point(virtual_clock::now().time_since_epoch());
  }
};
struct counted_traits : virtual_traits {
  using clock = counted_clock;
};
using counted_loop = basic_virtual_loop<counted_traits>;

template <class F>
std::size_t reads_in(const F& f) {
  const std::size_t before = counted_clock::reads;
  f();
  return counted_clock::reads - before;
}

// A token that goes round in two socket pairs, and the loop with it: whenever one is read the other is
// ready.
template <class Loop>
class carousel {
 public:
  explicit carousel(Loop& l) : loop_(l) {
    l.watch(a_.left(), interest::readable, [this] { pass(a_, b_); });
    l.watch(b_.left(), interest::readable, [this] { pass(b_, a_); });
  }
  // Until it has gone `times` times.
  void turn(std::size_t times) {
    left_ = times;
    a_.write_right();
    loop_.run();
  }

 private:
  void pass(const socket_pair& from, const socket_pair& to) {
    CHECK(from.drain_left() == 1);
    if (--left_ == 0) return loop_.stop();
    to.write_right();
  }
  Loop& loop_;
  socket_pair a_, b_;
  std::size_t left_ = 0;
};

}  // namespace

TEST_CASE("a look that found nothing is followed by shorter ones, down to none") {
  stage s;

  CHECK(s.look() >= 8000);
  const nanos second = s.look();
  CHECK(second >= 4000);
  CHECK(second < 8000);
  for (int i = 0; i < 8; ++i) s.look();

  CHECK(s.look() == 0);
}

TEST_CASE("after a sleep that a longer look would have saved, the next look is as long as it may be") {
  stage s;
  for (int i = 0; i < 8; ++i) s.look();
  CHECK(s.look() == 0);

  s.at_work.woken_after(s, 7000);

  CHECK(s.look() >= 8000);
}

TEST_CASE("looks that miss by little shrink as well, where a look as long as it may be would miss too") {
  stage s;
  for (int i = 0; i < 10; ++i) {
    if (s.look() < 8000) return;
    s.at_work.woken_after(s, 7000);
  }
  FAIL("looked for nothing, again and again");
}

TEST_CASE("after a sleep that no look would have saved, the next look is no longer than before") {
  stage s;
  for (int i = 0; i < 8; ++i) s.look();

  s.at_work.woken_after(s, 8000);

  CHECK(s.look() == 0);
}

TEST_CASE("a turn that has no use for the time does not read the clock") {
  counted_loop l;

  CHECK(reads_in([&] {
          must_post(l, [] {});
          l.poll();
        }) == 0);
  CHECK(reads_in([&] {
          must_post(l, [&l] { CHECK(l.now() == l.now()); });
          l.poll();
        }) == 1);
  l.after(1h, [] {});
  CHECK(reads_in([&] { l.poll(); }) == 1);
}

TEST_CASE("now() is the time of the turn, however often it is asked, and of the next one in the next") {
  virtual_loop l;
  virtual_loop::time_point first, again, next;

  must_post(l, [&] {
    first = l.now();
    virtual_clock::advance(1ms);
    again = l.now();
  });
  l.poll();
  must_post(l, [&] { next = l.now(); });
  l.poll();

  CHECK(first == again);
  CHECK(next == first + 1ms);
}

TEST_CASE("who does not run the loop is told the true time, however long ago the last turn was") {
  virtual_loop l;
  l.poll();
  virtual_clock::advance(1h);

  CHECK(l.now() == virtual_clock::now());
}

TEST_CASE("what came at once is judged by how much came") {
  using hybridloop::detail::came_at_once;
  CHECK(came_at_once(4000, 1));
  CHECK_FALSE(came_at_once(5000, 1));
  CHECK(came_at_once(20000, 50));
  CHECK_FALSE(came_at_once(30000, 50));
  CHECK_FALSE(came_at_once(0, 0));
}

TEST_CASE("while descriptors are ready at once the loop prepares no sleep between them") {
  virtual_loop l;
  carousel<virtual_loop> round(l);

  round.turn(1000);

  CHECK(l.stats().parks <= 2);
}

TEST_CASE("who hooks into the loop's sleeps hears of every round, descriptors that are ready or not") {
  virtual_loop l;
  carousel<virtual_loop> round(l);
  int prepared = 0;
  l.on_prepare([&prepared] { ++prepared; });

  round.turn(1000);

  CHECK(prepared >= 900);
}

TEST_CASE("descriptors that fall silent let the loop sleep, and a post wakes it") {
  hybridloop::loop l;
  carousel<hybridloop::loop> round(l);
  for (int i = 0; i < 20; ++i) {
    round.turn(100);
    const std::uint64_t parks = l.stats().parks;
    {
      const scoped_thread runner([&l] { l.run(); });
      while (l.stats().parks == parks) std::this_thread::sleep_for(50us);
      must_post(l, [&l] { l.stop(); });
    }
  }
}

TEST_CASE("while descriptors are all there is to do, a turn goes round between them and the poller alone") {
  virtual_clock::reset();
  virtual_loop l;
  carousel<virtual_loop> busy(l);
  busy.turn(100);  // from here on it knows

  const std::uint64_t before = l.stats().turns;
  busy.turn(1000);

  CHECK(l.stats().turns - before < 50);
  CHECK(l.stats().tasks == 1100);
}

TEST_CASE("what comes while descriptors are busy is not kept waiting by them") {
  virtual_clock::reset();
  virtual_loop l;
  const socket_pair busy;
  std::size_t rounds = 0;
  std::size_t posted = 0, from_outside = 0, deferred = 0, due = 0;
  std::atomic<bool> post_it{false};
  const scoped_thread other([&] {
    while (!post_it) std::this_thread::yield();
    must_post(l, [&] { from_outside = rounds; });
    post_it = false;
  });
  l.watch(busy.left(), interest::readable, [&] {
    ++rounds;
    if (rounds == 20) must_post(l, [&] { posted = rounds; });
    if (rounds == 30) l.defer([&] { deferred = rounds; });
    if (rounds == 40) l.after(0ns, [&] { due = rounds; });
    if (rounds == 50) {
      post_it = true;
      while (post_it) std::this_thread::yield();
    }
    if (rounds == 60) l.stop();
  });
  busy.write_right();
  l.run();

  CHECK(posted == 20);
  CHECK(deferred == 30);
  CHECK(due == 40);
  CHECK(from_outside == 50);
}

TEST_CASE("while descriptors are busy each callback's microtasks run behind it") {
  constexpr std::size_t many = 100;
  virtual_clock::reset();
  virtual_loop l;
  const std::vector<socket_pair> busy(many);
  std::size_t told = 0, waiting = 0, most_waiting = 0;
  for (const socket_pair& one : busy) {
    l.watch(one.left(), interest::readable, [&] {
      most_waiting = (std::max)(most_waiting, waiting++);
      l.microtask([&] { --waiting; });
      if (++told == 40 * many) l.stop();
    });
    one.write_right();
  }

  l.run();

  CHECK(most_waiting == 0);
  CHECK(l.stats().microtasks_deferred == 0);
}

TEST_CASE("while descriptors are busy the counters of the loop follow") {
  virtual_clock::reset();
  virtual_loop l;
  const socket_pair busy;
  std::uint64_t rounds = 0, most_behind = 0;
  l.watch(busy.left(), interest::readable, [&] {
    most_behind = (std::max)(most_behind, rounds++ - l.stats().tasks);
    if (rounds == 300) l.stop();
  });
  busy.write_right();

  l.run();

  CHECK(most_behind <= 1);
}

TEST_CASE("a run until idle does not stay with descriptors that nobody waits for any more") {
  virtual_clock::reset();
  virtual_loop l;
  const socket_pair busy;
  std::size_t rounds = 0;
  hybridloop::watch_id id;
  id = l.watch(busy.left(), interest::readable, [&] {
    if (++rounds == 100) l.stop();
    if (rounds == 103) l.unref(id);
  });
  busy.write_right();
  l.run();
  REQUIRE(rounds == 100);

  l.run_until_idle();

  CHECK(rounds == 103);
}

TEST_CASE("a run that has an end does not stay with its descriptors beyond it") {
  virtual_clock::reset();
  virtual_loop l;
  const socket_pair busy;
  std::size_t rounds = 0;
  std::size_t until = 100;
  l.watch(busy.left(), interest::readable, [&] {
    virtual_clock::advance(1us);
    if (++rounds == until) l.stop();
  });
  busy.write_right();
  l.run();
  REQUIRE(rounds == 100);
  until = 0;

  l.run_once();
  CHECK(rounds == 101);
  l.run_for(5us);
  CHECK(rounds <= 107);
  l.poll();
  CHECK(rounds <= 108);
}

TEST_CASE("the ring's high-water mark tells what was waiting, though the loop did not ask the producers") {
  hybridloop::loop_options options;
  options.ring_capacity = 128;
  virtual_loop l(options);
  l.poll();

  const auto post = [&l](int times) {
    for (int i = 0; i < times; ++i) must_post(l, [] {});
  };
  scoped_thread runner([&l] { l.run(); });
  while (l.stats().parks == 0) std::this_thread::sleep_for(50us);
  std::atomic<bool> held{false}, go{false};
  must_post(l, [&] {
    held = true;
    while (!go) std::this_thread::yield();
  });
  while (!held) std::this_thread::yield();
  post(9);
  go = true;
  must_post(l, [&l] { l.stop(); });
  runner.join();

  CHECK(l.stats().ring_high >= 10);
  CHECK(l.stats().ring_high <= 12);
}

TEST_CASE("the ring's high-water mark tells of a burst that wakes the loop") {
  virtual_loop l;
  const scoped_thread runner([&l] { l.run(); });
  while (l.stats().parks == 0) std::this_thread::sleep_for(50us);
  std::vector<void (*)()> many(300, [] {});

  CHECK(l.post_range(many.begin(), many.end()).accepted == 300);
  while (l.stats().tasks != 300) std::this_thread::sleep_for(50us);
  l.stop();

  CHECK(l.stats().ring_high >= 64);
}

TEST_CASE("tasks beyond the arena are counted, run in order, and their memory serves again") {
  hybridloop::loop_options options;
  options.ring_capacity = 2;
  options.arena_capacity = 2;
  hybridloop::loop l(options);
  const std::size_t beyond = 500;
  for (int round = 0; round < 5; ++round) {
    std::size_t ran = 0;
    bool in_order = true;
    for (std::size_t i = 0; i < beyond + 4; ++i) {
      must_post(l, [&, i] { in_order = in_order && i == ran++; });
    }
    l.poll();
    CHECK(in_order);
    CHECK(ran == beyond + 4);
  }
  CHECK(l.stats().heap_tasks == 5 * beyond);
}

TEST_CASE("a caller that runs the loop while it sleeps is told the time of its own call") {
  hybridloop::loop_options options;
  options.caller_runs = true;
  hybridloop::loop l(options);
  const running<hybridloop::loop> runner(l);
  while (l.stats().loans < 4) {
    while (l.stats().parks == 0) std::this_thread::sleep_for(50us);
    for (int i = 0; i < 2; ++i) {
      std::this_thread::sleep_for(2ms);
      const auto before = hybridloop::loop::clock::now();
      CHECK(l.invoke([&l] { return l.now(); }) >= before);
    }
  }
}
