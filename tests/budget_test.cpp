// budget_test.cpp - run_budget(): what fits into a frame runs, no more, and nobody is left out
#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <vector>

#include "support/interrupt.hpp"
#include "support/race.hpp"
#include "support/running.hpp"
#include "support/support.hpp"
#include "support/virtual_clock.hpp"

namespace {

using namespace support;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::loop_options;

// A task that takes so long, by the clock of the tests.
auto lasting(virtual_clock::duration span) {
  return [span] { virtual_clock::advance(span); };
}

void post_many(virtual_loop& l, std::size_t count, virtual_clock::duration each) {
  for (std::size_t i = 0; i < count; ++i) must_post(l, lasting(each));
}

// Teaches the loop what a task costs.
void get_used_to(virtual_loop& l, virtual_clock::duration each) {
  post_many(l, 100, each);
  while (l.run_budget(1s).pending != 0) {
  }
}

// Counts the calls that reach the kernel.
std::size_t calls = 0;
struct counting_kernel : virtual_kernel {
  static int futex_wait(const void* w, std::uint32_t e, nanos d) noexcept {
    ++calls;
    return virtual_kernel::futex_wait(w, e, d);
  }
  static int futex_wake(const void* w, int n) noexcept {
    ++calls;
    return real::futex_wake(w, n);
  }
  template <class Real = real>
  static int membarrier(int what) noexcept {
    ++calls;
    return Real::membarrier(what);
  }
  static void yield() noexcept {
    ++calls;
    real::yield();
  }
};
struct counting_traits : virtual_traits {
  using kernel = counting_kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};

}  // namespace

TEST_SUITE_BEGIN("budget");

TEST_CASE("a frame with nothing to do runs nothing and says so") {
  virtual_loop l;

  const auto report = l.run_budget(1ms);

  CHECK(report.ran == 0);
  CHECK(report.pending == 0);
  CHECK_FALSE(report.next_deadline.has_value());
  CHECK(report.over_by == 0ns);
}

TEST_CASE("a frame that is long enough runs everything that is ready, however it came") {
  virtual_loop l;
  std::size_t ran = 0;
  const auto count = [&ran] { ++ran; };
  must_post(l, [&] {
    l.after(0s, count);
    l.defer(count);
    l.microtask(count);
    must_post(l, count);
  });

  const auto report = l.run_budget(1s);

  CHECK(ran == 4);
  CHECK(report.ran == 4);  // microtasks are not counted
  CHECK(report.pending == 0);
}

TEST_CASE("a frame never sleeps and leaves timers that are not due") {
  virtual_loop l;
  bool fired = false;
  must_post(l, [&] { l.after(5ms, [&fired] { fired = true; }); });
  const auto begin = virtual_clock::now();

  const auto report = l.run_budget(1s);

  CHECK_FALSE(fired);
  CHECK(virtual_clock::now() == begin);
  CHECK(report.next_deadline == begin + 5ms);
}

TEST_CASE("a frame ends before the task that is expected to overrun it") {
  virtual_loop l;
  get_used_to(l, 100us);
  post_many(l, 50, 100us);

  const auto report = l.run_budget(1ms);

  CHECK(report.ran == 10);
  CHECK(report.pending == 40);
  CHECK(report.over_by == 0ns);
}

TEST_CASE("a frame runs one task, however short it is") {
  virtual_loop l;
  get_used_to(l, 1ms);
  post_many(l, 5, 1ms);

  for (const auto budget : {0ns, -5ns, 1ns, (std::chrono::nanoseconds::min)()}) {
    CHECK(l.run_budget(budget).ran == 1);
  }

  CHECK(l.run_budget(0ns).over_by == 1ms);
}

TEST_CASE("a budget without bounds ends with the work") {
  virtual_loop l;
  post_many(l, 5000, 1us);

  const auto report = l.run_budget((std::chrono::hours::max)());

  CHECK(report.ran == 5000);
  CHECK(report.over_by == 0ns);
}

TEST_CASE("a frame overruns by less than its longest task") {
  virtual_loop l;
  dice chance(1);
  for (std::size_t i = 0; i < 10000; ++i) {
    must_post(l, lasting(std::chrono::nanoseconds(1000 + chance.roll(49000))));
  }
  std::size_t frames = 0;
  std::size_t ran = 0;
  auto most = 0ns;

  for (auto report = l.run_budget(1ms); report.ran != 0; report = l.run_budget(1ms)) {
    ++frames;
    ran += report.ran;
    if (report.over_by > most) most = report.over_by;
    if (ran + report.pending != 10000) FAIL_CHECK("a report that does not add up");
  }

  CHECK(ran == 10000);
  CHECK(most < 50us);
  CHECK(frames < 300);  // 255 ms of work: frames that end too soon would be more
}

TEST_CASE("what is pending is told exactly, over ring, spill, deferred and due timers") {
  virtual_loop l(tiny(4, 4));
  get_used_to(l, 1ms);
  must_post(l, [&] {
    for (int i = 0; i < 3; ++i) l.after(0s, lasting(1ms));
    for (int i = 0; i < 5; ++i) l.defer(lasting(1ms));
    for (int i = 0; i < 2; ++i) l.after(1h, lasting(1ms));
    post_many(l, 20, 1ms);
    virtual_clock::advance(1us);
  });
  std::size_t left = 29;

  for (std::size_t i = 0; i < 29; ++i) {
    const auto report = l.run_budget(0ns);
    left -= report.ran;
    if (report.pending != left) FAIL_CHECK("told ", report.pending, " of ", left);
  }

  CHECK(left == 0);
  CHECK(l.run_budget(1s).ran == 0);
}

TEST_CASE("the next deadline is told exactly, among many and behind what left") {
  virtual_loop l;
  const auto start = virtual_clock::now();
  std::vector<hybridloop::timer_id> ids;
  must_post(l, [&] {
    for (int i = 100; i > 0; --i) ids.push_back(l.at(start + 1h + i * 1us, [] {}));
  });
  CHECK(l.run_budget(1s).next_deadline == start + 1h + 1us);

  for (int i = 2; i <= 100; ++i) {
    l.cancel(ids.back());
    ids.pop_back();
    if (l.run_budget(1s).next_deadline != start + 1h + i * 1us) FAIL_CHECK("wrong for ", i);
  }
  l.cancel(ids.back());

  CHECK_FALSE(l.run_budget(1s).next_deadline.has_value());
}

TEST_CASE("a timer that is armed earlier becomes the next deadline") {
  virtual_loop l;
  const auto start = virtual_clock::now();
  for (const auto delay : {3h, 2h, 5h, 1h, 4h}) {
    must_post(l, [&, delay] { l.at(start + delay, [] {}); });
    l.run_budget(1s);
  }

  CHECK(l.run_budget(1s).next_deadline == start + 1h);
}

TEST_CASE(
    "over the frames, endless posts, timers, deferred tasks and descriptors all get their turns") {
  virtual_loop l;
  std::size_t posts = 0;
  std::size_t deferred = 0;
  std::size_t timers = 0;
  std::size_t events = 0;
  const socket_pair wire;
  wire.write_right();
  struct again {
    virtual_loop& l;
    std::size_t& count;
    int how;
    void operator()() {
      ++count;
      virtual_clock::advance(100us);
      if (how == 0) must_post(l, *this);
      if (how == 1) l.defer(*this);
      if (how == 2) l.after(0s, *this);
    }
  };
  l.watch(wire.left(), interest::readable, again{l, events, 3});
  must_post(l, [&] {
    must_post(l, again{l, posts, 0});
    l.defer(again{l, deferred, 1});
    l.after(0s, again{l, timers, 2});
  });

  for (int frame = 0; frame < 100; ++frame) l.run_budget(1ms);

  for (const std::size_t turns : {posts, deferred, timers, events}) CHECK(turns > 150);
}

TEST_CASE("with a budget for one task a frame, every source is served in turn") {
  virtual_loop l;
  get_used_to(l, 1ms);
  const socket_pair wire;
  wire.write_right();
  std::vector<char> served;
  const auto serve = [&served](char who) {
    return [&served, who] {
      served.push_back(who);
      virtual_clock::advance(1ms);
    };
  };
  l.watch(wire.left(), interest::readable, serve('e'));
  bool ready = false;
  must_post(l, [&] {
    ready = true;
    for (int i = 0; i < 4; ++i) {
      l.after(0s, serve('t'));
      l.defer(serve('d'));
      must_post(l, serve('p'));
    }
  });
  while (!ready) l.run_budget(0s);
  served.clear();

  for (int frame = 0; frame < 16; ++frame) l.run_budget(0s);

  for (const char who : {'t', 'd', 'p', 'e'}) {
    std::size_t turns = 0;
    for (const char s : served) turns += s == who ? 1u : 0u;
    CAPTURE(who);
    CHECK(turns == 4);
  }
}

TEST_CASE("a frame of a loop that watches nothing makes no system call") {
  basic_virtual_loop<counting_traits> l;
  std::size_t ran = 0;
  for (std::size_t i = 0; i < 10000; ++i) must_post(l, [&ran] { ++ran; });
  calls = 0;

  while (l.run_budget(1ms).pending != 0) {
  }

  CHECK(ran == 10000);
  CHECK(calls == 0);
}

TEST_CASE("events that a frame leaves behind are told in the next ones, edges too") {
  for (const interest what : {interest::readable, interest::readable | interest::edge,
                              interest::readable | interest::oneshot}) {
    virtual_loop l;
    get_used_to(l, 1ms);
    std::deque<socket_pair> wires(20);
    std::vector<std::size_t> told(wires.size());
    for (std::size_t i = 0; i < wires.size(); ++i) {
      l.watch(wires[i].left(), what, [&, i] {
        ++told[i];
        wires[i].drain_left();
        virtual_clock::advance(1ms);
      });
      wires[i].write_right();
    }

    for (std::size_t frame = 0; frame < 4 * wires.size(); ++frame) l.run_budget(0s);

    CHECK(told == std::vector<std::size_t>(wires.size(), 1));
  }
}

TEST_CASE("a frame heeds a stop before anything, and after each task") {
  virtual_loop l;
  std::size_t ran = 0;
  const auto count = [&ran] { ++ran; };
  must_post(l, count);
  l.stop();
  CHECK(l.run_budget(1s).ran == 0);

  must_post(l, [&] { l.stop(); });
  must_post(l, count);
  const auto stopped = l.run_budget(1s);

  CHECK(stopped.ran == 2);
  CHECK(stopped.pending == 1);
  CHECK(l.run_budget(1s).ran == 1);
  CHECK(ran == 2);
}

TEST_CASE("a closed loop runs what it accepted, frame by frame, and ends its timers") {
  virtual_loop l;
  get_used_to(l, 1ms);
  bool fired = false;
  must_post(l, [&] { l.after(0s, [&fired] { fired = true; }); });
  l.run_budget(0s);
  post_many(l, 3, 1ms);
  l.close();

  for (std::size_t left = 3; left != 0; --left) CHECK(l.run_budget(0s).pending == left - 1);

  CHECK_FALSE(fired);
  CHECK(l.run_budget(1s).ran == 0);
  CHECK(l.run() == 0);
}

TEST_CASE("a frame may run inside a task, and reports its own") {
  virtual_loop l;
  typename virtual_loop::frame_report inner;
  must_post(l, [&] { inner = l.run_budget(1s); });
  post_many(l, 5, 1us);

  const auto outer = l.run_budget(1s);

  CHECK(inner.ran == 5);
  CHECK(outer.ran == 1);
}

TEST_CASE("microtasks beyond a turn's share are run in the same frame, if there is time") {
  virtual_loop l;
  std::size_t ran = 0;
  must_post(l, [&] {
    for (int i = 0; i < 3000; ++i) l.microtask([&ran] { ++ran; });
  });

  const auto report = l.run_budget(1s);

  CHECK(ran == 3000);
  CHECK(report.ran == 1);
  CHECK(report.pending == 0);
}

TEST_CASE("timers that are due are counted, wherever they stand") {
  virtual_loop l;
  get_used_to(l, 1ms);
  must_post(l, [&] {
    for (int i = 1; i <= 1000; ++i) l.after(i * 100us, lasting(1ns));
    l.after(1h, [] {});
  });
  l.run_budget(1s);
  virtual_clock::advance(50050us);

  for (std::size_t left = 500; left != 0; --left) {
    const auto report = l.run_budget(0ns);
    if (report.ran != 1 || report.pending != left - 1) FAIL_CHECK("wrong with ", left, " due");
  }

  CHECK(l.run_budget(1s).ran == 0);
}

TEST_CASE("a timer that waits for the next turn is counted by a frame inside the one before") {
  virtual_loop l;
  typename virtual_loop::frame_report inside;
  must_post(l, [&] {
    l.after(0ns, [&] {
      l.stop();
      l.at({}, [] {});
      inside = l.run_budget(1s);
    });
  });

  l.run_until_idle();

  CHECK(inside.ran == 0);
  CHECK(inside.pending == 1);
}

TEST_CASE("one task that took long does not spoil the frames behind it") {
  virtual_loop l;
  get_used_to(l, 10us);
  must_post(l, lasting(60ms));
  l.run_budget(1ms);
  post_many(l, 100, 10us);

  CHECK(l.run_budget(1ms).ran > 80);
}

TEST_CASE("a file that is always ready leaves frames to descriptors") {
  for (const auto each : {200us, 1000us}) {
    virtual_loop l;
    const descriptor always = open_file();
    const socket_pair wire;
    wire.write_right();
    std::size_t told = 0;
    l.watch(always, interest::readable, [each] { virtual_clock::advance(each); });
    l.watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });

    for (int frame = 0; frame < 20; ++frame) l.run_budget(1ms);

    CHECK(told == 1);
    close_file(always);
  }
}

TEST_CASE("microtasks without end do not hold a frame") {
  virtual_loop l;
  std::size_t ran = 0;
  struct chain {
    virtual_loop& l;
    std::size_t& ran;
    void operator()() {
      ++ran;
      virtual_clock::advance(1us);
      l.microtask(*this);
    }
  };
  must_post(l, [&] { l.microtask(chain{l, ran}); });
  l.run_budget(1ms);
  const std::size_t before = ran;

  l.run_budget(1ms);

  CHECK(ran - before < 20 * hybridloop::detail::microtasks_per_turn);
}

TEST_CASE("a clock that was set back does not make frames longer") {
  virtual_loop l;
  get_used_to(l, 100us);
  must_post(l, [] { virtual_clock::advance(-10s); });
  l.run_budget(1ms);
  post_many(l, 200, 100us);

  for (int frame = 0; frame < 5; ++frame) CHECK(l.run_budget(1ms).ran < 20);
}

TEST_CASE("a first task that took long does not spoil the frames behind it") {
  virtual_loop l;
  must_post(l, lasting(2s));
  l.run_budget(16ms);
  post_many(l, 1000, 10us);

  CHECK(l.run_budget(16ms).ran > 100);
}

#if defined(__cpp_exceptions)
TEST_CASE("an exception leaves the frame, and the next one goes on behind it") {
  virtual_loop l;
  std::size_t ran = 0;
  must_post(l, [] { throw std::runtime_error("task"); });
  must_post(l, [&ran] { ++ran; });

  CHECK_THROWS_AS(l.run_budget(1s), std::runtime_error);
  CHECK(ran == 0);

  CHECK(l.run_budget(1s).ran == 1);
}
#endif

TEST_CASE("posts of other threads between and during frames all run, in order") {
  constexpr std::size_t producers = 4;
  const std::size_t each = scaled(50000);
  loop l(tiny(64, 64));
  std::size_t next[producers] = {};
  std::size_t surprises = 0;
  std::deque<scoped_thread> crowd;
  for (std::size_t p = 0; p < producers; ++p) {
    crowd.emplace_back([&, p] {
      for (std::size_t n = 0; n < each; ++n)
        must_post(l, [&, p, n] { surprises += next[p]++ != n; });
    });
  }
  std::size_t ran = 0;

  while (ran != producers * each) ran += l.run_budget(100us).ran;

  CHECK(surprises == 0);
  CHECK(l.run_budget(1ms).pending == 0);
}

TEST_SUITE_END();
