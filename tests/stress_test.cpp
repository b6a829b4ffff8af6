// stress_test.cpp - many producers, watches and timers at once: each task once, and in order
#include <array>
#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>

#include "support/race.hpp"
#include "support/support.hpp"

namespace {

using namespace support;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::loop_options;
using hybridloop::overflow;
using hybridloop::post_result;
using hybridloop::timer_id;
using hybridloop::watch_id;

constexpr std::size_t producers = 8;

// Kept by the loop thread: which number it expects next from each producer. Slow now and then, so
// that a queue builds up, and now and then it has something else to do there.
class ledger {
 public:
  explicit ledger(std::function<void()> aside) : aside_(std::move(aside)) {}

  void enter(std::size_t producer, std::size_t number) {
    if (next_[producer] != number) ++surprises_;
    next_[producer] = number + 1;
    if (number % 64 == 0) dawdle(20000);
    if (number % 1024 == 0) aside_();
  }

  std::size_t surprises() const { return surprises_; }
  std::size_t entries(std::size_t producer) const { return next_[producer]; }

 private:
  const std::function<void()> aside_;
  std::atomic<std::size_t> next_[producers] = {};
  std::size_t surprises_ = 0;
};

template <class Loop, class F>
void post_until_accepted(Loop& l, const F& task) {
  while (l.post(task) != post_result::accepted) std::this_thread::yield();
}

// Runs ahead of the loop by a distance of chance, so that the ring is full now and empty then, and
// sends a closure now and then that fits no slot.
template <class Loop>
void produce(Loop& l, ledger& book, std::size_t me, std::size_t count, std::size_t ring) {
  dice chance(me + 1);
  std::size_t lead = 0;
  for (std::size_t n = 0; n < count; ++n) {
    if (n % 256 == 0) lead = chance.roll(ring);
    while (n - book.entries(me) > lead) std::this_thread::yield();
    if (n % 61 == 0) {
      post_until_accepted(l, [&book, me, n, ballast = std::array<char, 100>()] {
        book.enter(me, n + static_cast<std::size_t>(ballast[n % 100]));
      });
    } else {
      post_until_accepted(l, [&book, me, n] { book.enter(me, n); });
    }
  }
}

// The loop thread: a silent descriptor that is watched every other time. No timer drives it: one
// that ends every sleep would hide a lost wake.
template <class Loop>
class flickering_watch {
 public:
  explicit flickering_watch(Loop& l) : loop_(l) {}
  void flicker() {
    if (id_) {
      loop_.unwatch(id_);
      id_ = {};
    } else {
      std::error_code closed;
      id_ = loop_.watch(wire_.left(), interest::readable, [] {}, closed);
    }
  }

 private:
  Loop& loop_;
  socket_pair wire_;
  watch_id id_;
};

// Any other thread: watches that report, and timers that run or are cancelled.
template <class Loop>
class fidget {
 public:
  fidget(Loop& l, std::uint64_t seed) : loop_(l), chance_(seed) {}

  void until(const std::atomic<bool>& enough) {
    while (!enough) once();
  }

  std::size_t started() const { return started_; }
  std::size_t ended() const { return fired_ + cancelled_; }
  std::size_t missing() const { return missing_; }

 private:
  // One watch from its first report to its end, and one timer.
  void once() {
    dawdle(chance_.roll(2000));
    const auto span = chance_.roll(8) == 0 ? std::chrono::microseconds(chance_.roll(100)) : 1h;
    const timer_id timer = loop_.after(span, [this] { ++fired_; });
    ++started_;
    reported_ = false;
    const watch_id watch = loop_.watch(wire_.left(), interest::readable, [this] {
      wire_.drain_left();
      reported_ = true;
    });
    if (chance_.roll(4) == 0) {
      await([&](auto there) { post_until_accepted(loop_, [there] { *there = true; }); });
    }
    dawdle(chance_.roll(2000));
    wire_.write_right();
    while (!reported_) std::this_thread::yield();
    await([&](auto gone) {
      if (!loop_.unwatch(watch, [gone] { *gone = true; })) ++missing_;
    });
    if (loop_.cancel(timer)) ++cancelled_;
  }

  // start(flag), and then waits until somebody raised it.
  template <class Start>
  static void await(const Start& start) {
    std::atomic<bool> raised{false};
    start(&raised);
    while (!raised) std::this_thread::yield();
  }

  Loop& loop_;
  dice chance_;
  socket_pair wire_;
  std::size_t started_ = 0;
  std::size_t cancelled_ = 0;
  std::size_t missing_ = 0;
  std::atomic<std::size_t> fired_{0};
  std::atomic<bool> reported_{false};
};

struct load {
  fast_path path;
  overflow when_full;
  std::size_t ring;
  std::size_t tasks;
};

template <class Loop>
void bear(const load& given) {
  CAPTURE(static_cast<int>(given.path));
  CAPTURE(static_cast<int>(given.when_full));
  CAPTURE(given.ring);
  loop_options options;
  options.path = given.path;
  options.when_full = given.when_full;
  options.ring_capacity = given.ring;
  options.arena_capacity = given.ring / 8;
  Loop l(options);
  flickering_watch<Loop> silent(l);
  ledger book([&silent] { silent.flicker(); });
  fidget<Loop> other(l, given.ring);
  std::atomic<bool> enough{false};
  const std::size_t each = given.tasks / producers;

  scoped_thread runner([&] { l.run(); });
  scoped_thread fidgeter([&] { other.until(enough); });
  std::deque<scoped_thread> crowd;
  for (std::size_t p = 0; p < producers; ++p) {
    crowd.emplace_back([&, p] { produce(l, book, p, each, given.ring); });
  }
  crowd.clear();
  enough = true;
  fidgeter.join();
  l.close();
  runner.join();

  CHECK(book.surprises() == 0);
  for (std::size_t p = 0; p < producers; ++p) CHECK(book.entries(p) == each);
  CHECK(other.missing() == 0);
  CHECK(other.ended() == other.started());
  CHECK(l.stats().rescued == 0);
}

void bear_every_policy(fast_path path) {
  for (const overflow policy : {overflow::spill, overflow::block, overflow::fail}) {
    bear<loop>({path, policy, 4096, scaled(1000000)});
    bear<loop>({path, policy, 2, scaled(120000)});
  }
}

// Four that post and wait for each task, three that add and remove watches.
template <class Run>
void bear_fidgets(loop& l, const Run& run) {
  const std::size_t each = scaled(20000);
  ledger book([] {});
  std::deque<fidget<loop>> fidgets;
  for (std::size_t i = 0; i < 3; ++i) fidgets.emplace_back(l, i);
  std::atomic<bool> enough{false};

  scoped_thread runner([&] { run(); });
  std::deque<scoped_thread> restless;
  for (fidget<loop>& f : fidgets) restless.emplace_back([&] { f.until(enough); });
  std::deque<scoped_thread> posters;
  for (std::size_t p = 0; p < 4; ++p) {
    posters.emplace_back([&, p] { produce(l, book, p, each, 1); });
  }
  posters.clear();
  enough = true;
  restless.clear();
  l.close();
  runner.join();

  CHECK(book.surprises() == 0);
  for (std::size_t p = 0; p < 4; ++p) CHECK(book.entries(p) == each);
  for (const fidget<loop>& f : fidgets) {
    CHECK(f.started() > 0);
    CHECK(f.missing() == 0);
    CHECK(f.ended() == f.started());
  }
}

}  // namespace

TEST_SUITE_BEGIN("stress");

TEST_CASE("a loop that changes between channel and poller runs every task once and in order") {
  bear_every_policy(fast_path::full);
}

TEST_CASE("a loop with a companion runs every task once and in order") {
  bear_every_policy(fast_path::mini);
}

TEST_CASE("a loop that only knows the poller runs every task once and in order") {
  bear_every_policy(fast_path::off);
}

TEST_CASE("a loop whose threads are held up in every window runs every task once and in order") {
  for (const fast_path path : {fast_path::full, fast_path::mini, fast_path::off}) {
    for (const overflow policy : {overflow::spill, overflow::block, overflow::fail}) {
      bear<stuttering_loop>({path, policy, 2, scaled(20000)});
      bear<stuttering_loop>({path, policy, 64, scaled(40000)});
    }
  }
}

TEST_CASE("no task is stranded by threads that add and remove watches") {
  for (const fast_path path : {fast_path::full, fast_path::mini, fast_path::off}) {
    CAPTURE(static_cast<int>(path));
    loop_options options;
    options.path = path;
    loop l(options);

    bear_fidgets(l, [&l] { l.run(); });
  }
}

TEST_CASE("no task is stranded while run() comes and goes and watches borrow the loop") {
  for (const fast_path path : {fast_path::full, fast_path::mini, fast_path::off}) {
    CAPTURE(static_cast<int>(path));
    loop_options options;
    options.path = path;
    loop l(options);
    dice chance(7);

    bear_fidgets(l, [&l, &chance] {
      while (!l.closed()) l.run_for(std::chrono::microseconds(chance.roll(50)));
      l.run();
    });
  }
}

TEST_SUITE_END();
