// timer_test.cpp - timers: never early, in order, cancelled exactly, from any thread
#include "support/support.hpp"
#include "support/virtual_clock.hpp"

#include <algorithm>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <utility>

TEST_SUITE_BEGIN("timers");

using namespace support;
using hybridloop::repeat;
using hybridloop::timer_id;
using std::chrono::hours;
using std::chrono::nanoseconds;

namespace {

using time_point = virtual_clock::time_point;

// Which callbacks ran, in which order, and when.
struct journal {
  std::vector<int> who;
  std::vector<time_point> when;

  auto note(int name) {
    return [this, name] {
      who.push_back(name);
      when.push_back(virtual_clock::now());
    };
  }
};

// A loop in real time that a thread of its own runs until the scope ends.
class running_loop {
 public:
  running_loop() : thread_([this] { loop_.run(); }) {}
  ~running_loop() { loop_.close(); }
  hybridloop::loop* operator->() { return &loop_; }

  void finish_what_was_posted() {
    loop_.invoke([] {});
  }
  void wait_until_it_sleeps() {
    const auto before = loop_.stats().parks;
    finish_what_was_posted();
    while (loop_.stats().parks == before) std::this_thread::yield();
  }

 private:
  hybridloop::loop loop_;
  scoped_thread thread_;
};

// Says where and how often the closure that holds it went.
std::shared_ptr<void> tell_when_gone(std::vector<std::thread::id>& where) {
  return {nullptr, [&where](void*) { where.push_back(std::this_thread::get_id()); }};
}

void spin(std::uint32_t times) {
  for (std::uint32_t i = 0; i < times; ++i) hybridloop::detail::cpu_pause();
}

constexpr hours century{24 * 365 * 100};

}  // namespace

// ---- When ----

TEST_CASE("a timer fires at its deadline, for which the loop sleeps once") {
  for (const nanoseconds delay : {1ns, 999ns, 65535ns, 65536ns, 65537ns, 4194304ns, 1000000000ns,
                                  nanoseconds(1001ms), nanoseconds(1h), nanoseconds(century)}) {
    CAPTURE(delay.count());
    virtual_loop loop;
    journal ran;
    const auto begin = virtual_clock::now();
    loop.after(delay, ran.note(1));

    CHECK(loop.run_until_idle() == 1);

    CHECK(ran.when == std::vector<time_point>{begin + delay});
    CHECK(loop.stats().in_channel == 1);
    CHECK(loop.stats().parks == 1);
  }
}

TEST_CASE("a timer beyond a second fires without another wake, in the poller too") {
  hybridloop::loop_options options;
  options.path = hybridloop::fast_path::off;
  virtual_loop loop(options);
  journal ran;
  const auto begin = virtual_clock::now();
  loop.after(1100ms, ran.note(1));
  loop.after(30s, ran.note(2));

  CHECK(loop.run_until_idle() == 2);

  CHECK(ran.when == std::vector<time_point>{begin + 1100ms, begin + 30s});
  CHECK(loop.stats().in_poller == 2);
}

TEST_CASE("deadlines that have passed are met in the next turn, earliest first") {
  virtual_loop loop;
  journal ran;
  const auto now = virtual_clock::now();
  loop.after(0ns, ran.note(6));
  loop.after(-1ns, ran.note(5));
  loop.after(-1h, ran.note(4));
  loop.at(time_point{}, ran.note(3));
  loop.at(time_point(-1ns), ran.note(2));
  loop.at((time_point::min)(), ran.note(1));
  loop.after((hours::min)(), ran.note(1));
  loop.after(std::chrono::duration<double>(-1e300), ran.note(1));
  loop.poll();

  CHECK(loop.poll() == 8);

  CHECK(ran.who == std::vector<int>{1, 1, 1, 2, 3, 4, 5, 6});
  CHECK(virtual_clock::now() == now);
}

TEST_CASE("a deadline of max() never comes") {
  virtual_loop loop;
  journal ran;
  const std::vector<timer_id> ids{
      loop.at((time_point::max)(), ran.note(1)),
      loop.after((nanoseconds::max)(), ran.note(2)),
      loop.after((hours::max)(), ran.note(3)),
      loop.after(std::chrono::duration<double>(1e300), ran.note(4)),
      loop.after(std::chrono::duration<float>(std::numeric_limits<float>::infinity()), ran.note(5)),
      loop.every((nanoseconds::max)(), ran.note(6)),
  };

  CHECK(loop.run_for(century) == 0);

  CHECK(loop.stats().timers == ids.size());
  for (const timer_id id : ids) CHECK(loop.cancel(id));
}

TEST_CASE("a deadline just before max() is as exact as any other") {
  virtual_loop loop;
  journal ran;
  loop.at((time_point::max)() - 1ns, ran.note(2));
  loop.at((time_point::max)() - 65536ns, ran.note(1));

  CHECK(loop.run_until_idle() == 2);

  CHECK(ran.who == std::vector<int>{1, 2});
  CHECK(ran.when == std::vector<time_point>{(time_point::max)() - 65536ns, (time_point::max)() - 1ns});
}

TEST_CASE("what is finer than the clock is rounded up") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  loop.after(std::chrono::duration<double, std::nano>(0.25), ran.note(1));
  loop.after(std::chrono::duration<std::int64_t, std::pico>(1001), ran.note(2));
  loop.after(std::chrono::duration<float, std::micro>(0.0025f), ran.note(3));
  loop.after(std::chrono::duration<double>(0.5), ran.note(4));

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 1ns, begin + 2ns, begin + 3ns, begin + 500ms});
}

TEST_CASE("a delay counts from now, also behind a long task") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  must_post(loop, [&] {
    virtual_clock::advance(1s);
    loop.after(10ms, ran.note(1));
  });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 1010ms});
}

TEST_CASE("a timer that came due during a long task does not wait for another sleep") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  loop.after(10ms, ran.note(1));
  loop.after(1h, ran.note(2));
  must_post(loop, [] { virtual_clock::advance(25ms); });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 25ms, begin + 1h});
}

TEST_CASE("a timer armed by whatever runs in a turn is not slept past") {
  virtual_loop loop;
  journal ran;
  socket_pair pair;
  pair.write_right();
  const auto begin = virtual_clock::now();
  loop.after(1h, ran.note(0));
  const auto arm = [&](int ms) { loop.after(std::chrono::milliseconds(ms), ran.note(ms)); };
  must_post(loop, [&] {
    arm(1);
    loop.defer([&] { arm(2); });
    loop.microtask([&] { arm(3); });
  });
  loop.after(4ms, [&] { arm(1); });
  const auto watched = loop.watch(pair.left(), hybridloop::interest::readable, [&] {
    pair.drain_left();
    arm(6);
  });

  CHECK(loop.run_for(20ms) != 0);
  loop.unwatch(watched);

  CHECK(ran.who == std::vector<int>{1, 2, 3, 1, 6});
  CHECK(ran.when == std::vector<time_point>{begin + 1ms, begin + 2ms, begin + 3ms, begin + 5ms, begin + 6ms});
}

// ---- In which order ----

TEST_CASE("equal deadlines fire in the order they were armed, early or late, here or elsewhere") {
  virtual_loop loop;
  journal ran;
  const auto deadline = virtual_clock::now() + 100ms;
  loop.at(deadline, ran.note(1));
  scoped_thread([&] { loop.at(deadline, ran.note(2)); }).join();
  loop.poll();
  must_post(loop, [&] { loop.at(deadline, ran.note(3)); });
  loop.at(deadline, ran.note(4));
  loop.poll();
  virtual_clock::advance(100ms - 2ns);  // the tick of the deadline has been reached
  loop.poll();
  must_post(loop, [&] { loop.at(deadline, ran.note(5)); });
  scoped_thread([&] { loop.at(deadline, ran.note(6)); }).join();
  loop.poll();

  loop.run_until_idle();

  CHECK(ran.who == std::vector<int>{1, 2, 3, 4, 5, 6});
}

TEST_CASE("a rescheduled timer stands behind its new equals") {
  virtual_loop loop;
  journal ran;
  const auto deadline = virtual_clock::now() + 1s;
  const timer_id first = loop.at(deadline, ran.note(1));
  loop.at(deadline, ran.note(2));
  loop.poll();

  CHECK(loop.reschedule(first, deadline));
  loop.run_until_idle();

  CHECK(ran.who == std::vector<int>{2, 1});
}

TEST_CASE("a great many timers fire in exact order") {
  const std::size_t count = scaled(1000000);
  virtual_loop loop;
  std::mt19937_64 random(1);
  std::uniform_int_distribution<std::int64_t> within(0, nanoseconds(1h).count());
  std::size_t fired = 0;
  bool in_order = true;
  bool in_time = true;
  std::pair<time_point, std::size_t> last{};
  must_post(loop, [&] {
    for (std::size_t i = 0; i < count; ++i) {
      const auto exact = std::chrono::nanoseconds(within(random));
      const auto whole = std::chrono::floor<std::chrono::seconds>(exact);
      const auto deadline = virtual_clock::now() + (i % 4 == 0 ? whole : exact);
      loop.at(deadline, [&, deadline, i] {
        const std::pair<time_point, std::size_t> mine(deadline, i);
        in_order = in_order && last <= mine;
        in_time = in_time && virtual_clock::now() == deadline;
        last = mine;
        ++fired;
      });
    }
  });

  loop.run_until_idle();

  CHECK(fired == count);
  CHECK(in_order);
  CHECK(in_time);
}

// ---- Turns ----

TEST_CASE("a timer that arms itself without delay runs once a turn") {
  for (const nanoseconds ago : {0ns, nanoseconds(1h)}) {
    virtual_loop loop;
    int runs = 0;
    int tasks = 0;
    std::function<void()> again = [&] {
      ++runs;
      loop.at(virtual_clock::now() - ago, again);
    };
    must_post(loop, again);
    loop.poll();

    for (int turn = 0; turn < 5; ++turn) {
      must_post(loop, [&] { ++tasks; });
      CHECK(loop.poll() == 2);
    }

    CHECK(runs == 6);
    CHECK(tasks == 5);
  }
}

TEST_CASE("a new timer that has to wait for the next turn lets older ones pass") {
  virtual_loop loop;
  journal ran;
  loop.after(1ms, [&] {
    ran.note(1)();
    loop.at(time_point{}, ran.note(3));
  });
  loop.after(2ms, ran.note(2));
  loop.poll();
  virtual_clock::advance(3ms);

  CHECK(loop.poll() == 2);
  CHECK(loop.poll() == 1);

  CHECK(ran.who == std::vector<int>{1, 2, 3});
}

TEST_CASE("a turn fires a bounded number of timers, and tasks get their share") {
  constexpr std::size_t bound = hybridloop::detail::timers_per_turn;
  virtual_loop loop;
  std::size_t fired = 0;
  bool task_ran = false;
  must_post(loop, [&] {
    for (std::size_t i = 0; i < 2 * bound + 1; ++i) loop.after(0ns, [&] { ++fired; });
  });
  loop.poll();
  must_post(loop, [&] { task_ran = true; });

  CHECK(loop.poll() == bound + 1);
  CHECK(task_ran);
  CHECK(loop.poll() == bound);
  CHECK(loop.poll() == 1);
  CHECK(fired == 2 * bound + 1);
}

TEST_CASE("a callback never runs before its maker knows the id") {
  virtual_loop loop;
  timer_id id;
  bool known = false;
  bool cancelled = true;
  must_post(loop, [&] {
    id = loop.at(time_point{}, [&] {
      known = static_cast<bool>(id);
      cancelled = loop.cancel(id);
    });
    virtual_clock::advance(1h);
  });

  CHECK(loop.run_until_idle() == 2);

  CHECK(known);
  CHECK_FALSE(cancelled);
}

TEST_CASE("a timer may run the loop, in which others fire") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  loop.after(1ms, [&] {
    ran.note(1)();
    loop.at(time_point{}, ran.note(2));
    loop.run_for(5ms);
    ran.note(4)();
    loop.at(time_point{}, ran.note(5));
  });
  loop.after(3ms, ran.note(3));
  loop.after(20ms, ran.note(6));

  loop.run_until_idle();

  CHECK(ran.who == std::vector<int>{1, 2, 3, 4, 5, 6});
  CHECK(ran.when == std::vector<time_point>{begin + 1ms, begin + 1ms, begin + 3ms, begin + 6ms, begin + 6ms,
                                            begin + 20ms});
}

// ---- Again and again ----

namespace {

// The first run takes 35 ms; the beginnings of the first five, counted from the arming.
std::vector<nanoseconds> runs_every_10ms(repeat how) {
  virtual_loop loop;
  std::vector<nanoseconds> begun;
  const auto begin = virtual_clock::now();
  const auto callback = [&] {
    begun.push_back(virtual_clock::now() - begin);
    if (begun.size() == 1) virtual_clock::advance(35ms);
    if (begun.size() == 5) loop.stop();
  };
  loop.every(10ms, callback, how);
  loop.run();
  return begun;
}

}  // namespace

TEST_CASE("fixed_rate makes up for the runs it missed") {
  CHECK(runs_every_10ms(repeat::fixed_rate) == std::vector<nanoseconds>{10ms, 45ms, 45ms, 45ms, 50ms});
}

TEST_CASE("fixed_delay counts from the end of a run") {
  CHECK(runs_every_10ms(repeat::fixed_delay) == std::vector<nanoseconds>{10ms, 55ms, 65ms, 75ms, 85ms});
}

TEST_CASE("skip_missed leaves out the runs it missed and keeps its beat") {
  CHECK(runs_every_10ms(repeat::skip_missed) == std::vector<nanoseconds>{10ms, 50ms, 60ms, 70ms, 80ms});
}

TEST_CASE("a run that ends on the next beat is not late for skip_missed") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  const auto callback = [&] {
    ran.note(1)();
    if (ran.who.size() == 1) virtual_clock::advance(10ms);
    if (ran.who.size() == 2) loop.stop();
  };
  loop.every(10ms, callback, repeat::skip_missed);
  loop.run();

  CHECK(ran.when == std::vector<time_point>{begin + 10ms, begin + 30ms});
}

TEST_CASE("a repeating timer does not drift") {
  virtual_loop loop;
  const auto begin = virtual_clock::now();
  int runs = 0;
  loop.every(3ms, [&] {
    virtual_clock::advance(1ms);
    if (++runs == 1000) loop.stop();
  });

  loop.run();

  CHECK(virtual_clock::now() == begin + 3001ms);
}

TEST_CASE("a repeating timer that cancels itself hears true, and then false") {
  virtual_loop loop;
  std::vector<bool> heard;
  timer_id id;
  id = loop.every(1ms, [&] {
    heard.push_back(loop.cancel(id));
    heard.push_back(loop.cancel(id));
  });

  CHECK(loop.run_until_idle() == 1);

  CHECK(heard == std::vector<bool>{true, false});
  CHECK_FALSE(loop.cancel(id));
}

TEST_CASE("a repeating timer may choose its next deadline, and goes on from there") {
  virtual_loop loop;
  journal ran;
  timer_id id;
  const auto begin = virtual_clock::now();
  id = loop.every(10ms, [&] {
    ran.note(1)();
    if (ran.who.size() == 1) {
      CHECK(loop.reschedule(id, begin + 100ms));
      CHECK(loop.reschedule(id, begin + 15ms));
    }
    if (ran.who.size() == 3) loop.cancel(id);
  });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 10ms, begin + 15ms, begin + 25ms});
}

TEST_CASE("a repeating timer moved into the past makes up for nothing") {
  for (const repeat how : {repeat::fixed_rate, repeat::fixed_delay, repeat::skip_missed}) {
    for (const time_point past : {time_point{}, (time_point::min)()}) {
      virtual_loop loop;
      journal ran;
      const auto begin = virtual_clock::now();
      const timer_id id = loop.every(10ms, ran.note(1), how);
      loop.poll();

      CHECK(loop.reschedule(id, past));
      loop.run_for(20ms);

      CHECK(ran.when == std::vector<time_point>{begin, begin + 10ms, begin + 20ms});
    }
  }
}

// ---- Moved ----

TEST_CASE("a timer that moves fires at the new deadline and not at the old one") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  const timer_id later = loop.after(1ms, ran.note(1));
  const timer_id earlier = loop.after(1h, ran.note(2));
  const timer_id at_once = loop.after(1h, ran.note(3));
  const timer_id never = loop.after(2ms, ran.note(4));
  const timer_id after_all = loop.at((time_point::max)(), ran.note(5));
  loop.poll();

  CHECK(loop.reschedule(later, begin + 30ms));
  CHECK(loop.reschedule(earlier, begin + 10ms));
  CHECK(loop.reschedule(at_once, time_point{}));
  CHECK(loop.reschedule(never, (time_point::max)()));
  CHECK(loop.reschedule(after_all, begin + 20ms));
  loop.run_for(2h);

  CHECK(ran.who == std::vector<int>{3, 2, 5, 1});
  CHECK(ran.when == std::vector<time_point>{begin, begin + 10ms, begin + 20ms, begin + 30ms});
  CHECK(loop.cancel(never));
}

TEST_CASE("a timer that has fired, or is firing for the last time, does not move") {
  virtual_loop loop;
  int runs = 0;
  bool moved = true;
  timer_id id;
  id = loop.after(1ms, [&] {
    ++runs;
    moved = loop.reschedule(id, virtual_clock::now() + 1ms);
  });

  loop.run_until_idle();

  CHECK_FALSE(moved);
  CHECK_FALSE(loop.reschedule(id, virtual_clock::now()));
  CHECK_FALSE(loop.reschedule(timer_id{}, virtual_clock::now()));
  CHECK(loop.run_for(1s) == 0);
  CHECK(runs == 1);
}

TEST_CASE("the loop may move a timer of another thread before it has heard of it") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  must_post(loop, [&] {
    timer_id id;
    scoped_thread([&] { id = loop.after(1h, ran.note(1)); }).join();
    CHECK(loop.reschedule(id, begin + 5ms));
  });

  CHECK(loop.run_until_idle() == 2);

  CHECK(ran.when == std::vector<time_point>{begin + 5ms});
  CHECK(loop.stats().timers == 0);
}

TEST_CASE("of several moves on their way to the loop the last one counts") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  timer_id id = loop.after(1ms, ran.note(1));
  loop.poll();
  must_post(loop, [&] {
    const auto move_elsewhere = [&](time_point deadline) {
      scoped_thread([&] { CHECK(loop.reschedule(id, deadline)); }).join();
    };
    move_elsewhere(begin + 7ms);
    move_elsewhere(begin);
    move_elsewhere(begin + 9ms);
    move_elsewhere(begin + 5ms);
  });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 5ms});
}

TEST_CASE("the loop's own move overrides one that is on its way") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  timer_id id = loop.after(1ms, ran.note(1));
  loop.poll();
  must_post(loop, [&] {
    scoped_thread([&] { CHECK(loop.reschedule(id, begin + 1h)); }).join();
    CHECK(loop.reschedule(id, begin + 5ms));
  });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 5ms});
}

TEST_CASE("a timer whose move is on its way does not fire at the old deadline") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  const timer_id once = loop.after(1ms, ran.note(1));
  const timer_id often = loop.every(1ms, ran.note(2));
  loop.poll();
  scoped_thread([&] {
    CHECK(loop.reschedule(once, begin + 5ms));
    CHECK(loop.reschedule(often, begin + 6ms));
  }).join();
  virtual_clock::advance(2ms);

  loop.run_until(begin + 6ms);

  CHECK(ran.who == std::vector<int>{1, 2});
  CHECK(ran.when == std::vector<time_point>{begin + 5ms, begin + 6ms});
  CHECK(loop.cancel(often));
}

TEST_CASE("a repeating timer can be moved and cancelled from elsewhere while it runs") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  timer_id id;
  id = loop.every(1ms, [&] {
    ran.note(1)();
    scoped_thread([&, last = ran.who.size() == 2] {
      CHECK((last ? loop.cancel(id) : loop.reschedule(id, begin + 30ms)));
    }).join();
  });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 1ms, begin + 30ms});
}

TEST_CASE("a repeating timer moved here and elsewhere while it runs keeps its beat from the last one") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  timer_id id;
  id = loop.every(1ms, [&] {
    ran.note(1)();
    if (ran.who.size() == 1) {
      CHECK(loop.reschedule(id, begin + 10ms));
      scoped_thread([&] { CHECK(loop.reschedule(id, begin + 30ms)); }).join();
    }
    if (ran.who.size() == 3) loop.cancel(id);
  });

  loop.run_until_idle();

  CHECK(ran.when == std::vector<time_point>{begin + 1ms, begin + 30ms, begin + 31ms});
}

// ---- Cancelled ----

TEST_CASE("a cancelled timer does not run, wherever it stands") {
  virtual_loop loop;
  journal ran;
  const timer_id before_the_first_turn = loop.after(1ms, ran.note(1));
  CHECK(loop.cancel(before_the_first_turn));
  const std::vector<timer_id> ids{loop.after(0ns, ran.note(2)), loop.after(1us, ran.note(3)),
                                  loop.after(1ms, ran.note(4)), loop.after(1h, ran.note(5)),
                                  loop.at((time_point::max)(), ran.note(6)), loop.every(1ms, ran.note(7))};
  loop.poll();

  for (const timer_id id : ids) CHECK(loop.cancel(id));

  CHECK(loop.run_until_idle() == 0);
  CHECK(ran.who.empty());
  for (const timer_id id : ids) CHECK_FALSE(loop.cancel(id));
}

TEST_CASE("a timer that is due, and whose turn it nearly is, can still be cancelled or moved") {
  virtual_loop loop;
  journal ran;
  std::vector<std::thread::id> gone;
  timer_id second, third;
  loop.after(1ms, [&] {
    ran.note(1)();
    CHECK(loop.cancel(second));
    CHECK(gone.size() == 1);
    CHECK(loop.reschedule(third, virtual_clock::now() + 1h));
  });
  second = loop.after(2ms, [&ran, guard = tell_when_gone(gone)] { ran.note(2)(); });
  third = loop.after(3ms, ran.note(3));
  loop.after(4ms, ran.note(4));
  loop.poll();
  virtual_clock::advance(5ms);

  CHECK(loop.poll() == 2);

  CHECK(ran.who == std::vector<int>{1, 4});
  CHECK(loop.run_until_idle() == 1);
  CHECK(ran.who == std::vector<int>{1, 4, 3});
}

TEST_CASE("ids that name nobody are answered false") {
  virtual_loop loop;
  journal ran;
  const timer_id fired = loop.after(1ms, ran.note(1));
  loop.run_until_idle();
  const timer_id heir = loop.after(1ms, ran.note(2));
  loop.poll();

  CHECK(heir.index() == fired.index());
  CHECK(heir != fired);
  CHECK_FALSE(loop.cancel(fired));
  CHECK_FALSE(loop.reschedule(fired, virtual_clock::now() + 1h));
  CHECK_FALSE(loop.cancel(timer_id{}));
  CHECK_FALSE(loop.cancel(timer_id(heir.index(), 0)));
  CHECK_FALSE(loop.cancel(timer_id(heir.index() + 1, heir.generation())));
  CHECK_FALSE(loop.cancel(timer_id(1000000, 1)));
  CHECK_FALSE(loop.cancel(timer_id(0xffffffff, 0xffffffff)));
  loop.unref(fired);
  CHECK(loop.run_until_idle() == 1);
  CHECK(ran.who == std::vector<int>{1, 2});
}

TEST_CASE("the loop may cancel a timer of another thread before it has heard of it") {
  virtual_loop loop;
  journal ran;
  must_post(loop, [&] {
    timer_id id;
    scoped_thread([&] { id = loop.after(0ns, ran.note(1)); }).join();
    CHECK(loop.cancel(id));
    loop.after(1ms, ran.note(2));
  });

  loop.run_until_idle();

  CHECK(ran.who == std::vector<int>{2});
}

TEST_CASE("a closure is destroyed once, on the loop thread") {
  std::vector<std::thread::id> gone;
  std::thread::id home;
  {
    running_loop loop;
    home = loop->invoke([] { return std::this_thread::get_id(); });
    const auto guarded = [&gone] { return [guard = tell_when_gone(gone)] {}; };
    const timer_id cancelled = loop->after(1h, guarded());
    const timer_id repeating = loop->every(1h, guarded());
    loop->after(0s, guarded());
    loop->after(1h, guarded());

    CHECK(loop->cancel(cancelled));
    CHECK(loop->cancel(repeating));
    loop.finish_what_was_posted();
    while (loop->invoke([&] { return gone.size(); }) != 3) std::this_thread::yield();
  }

  CHECK(gone == std::vector<std::thread::id>(4, home));
}

TEST_CASE("a closure that fired is gone before the next one runs, large or small") {
  virtual_loop loop;
  std::vector<std::thread::id> gone;
  std::size_t seen = 0;
  struct large {
    std::shared_ptr<void> guard;
    char rest[200];
    void operator()() const {}
  };
  loop.after(1ms, [guard = tell_when_gone(gone)] {});
  loop.after(1ms, large{tell_when_gone(gone), {}});
  loop.after(1ms, [&] { seen = gone.size(); });

  loop.run_until_idle();

  CHECK(seen == 2);
  CHECK(loop.stats().arena_in_use == 0);
}

TEST_CASE("a closure may arm and cancel timers when it is destroyed") {
  virtual_loop loop;
  journal ran;
  struct last_wish {
    virtual_loop* loop;
    journal* ran;
    timer_id other;
    ~last_wish() {
      loop->cancel(other);
      loop->after(1ms, ran->note(3));
    }
  };
  const timer_id other = loop.after(5ms, ran.note(2));
  auto wish = std::make_unique<last_wish>(last_wish{&loop, &ran, timer_id{}});
  wish->other = other;
  const timer_id id = loop.after(1h, [wish = std::move(wish)] {});
  ran.who.clear();
  loop.poll();
  must_post(loop, [&, id] { CHECK(loop.cancel(id)); });

  loop.run_for(10ms);

  CHECK(ran.who.back() == 3);
  CHECK(std::count(ran.who.begin(), ran.who.end(), 2) == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("a timer that throws counts as run, and the others keep their time") {
  virtual_loop loop;
  journal ran;
  const auto begin = virtual_clock::now();
  loop.after(1ms, [] { throw 1; });
  loop.after(1ms, ran.note(1));
  const timer_id often = loop.every(2ms, [&] {
    ran.note(2)();
    if (ran.who.size() == 2) throw 2;
  });

  CHECK_THROWS_AS(loop.run(), int);
  CHECK_THROWS_AS(loop.run(), int);
  loop.run_until(begin + 4ms);

  CHECK(ran.who == std::vector<int>{1, 2, 2});
  CHECK(ran.when == std::vector<time_point>{begin + 1ms, begin + 2ms, begin + 4ms});
  CHECK(loop.cancel(often));
  CHECK(loop.run_until_idle() == 0);
}

TEST_CASE("a closure whose constructor throws arms nothing") {
  virtual_loop loop;
  struct refuses {
    refuses() = default;
    refuses(const refuses&) { throw 1; }
    void operator()() const {}
  };
  const refuses f;

  CHECK_THROWS_AS(loop.after(1ms, f), int);

  CHECK(loop.run_until_idle() == 0);
  CHECK(loop.stats().arena_in_use == 0);
}
#endif

// ---- Ended ----

TEST_CASE("close ends all timers without running them, and answers new ones with an empty id") {
  virtual_loop loop;
  journal ran;
  std::vector<std::thread::id> gone;
  const timer_id far = loop.after(1h, [guard = tell_when_gone(gone)] {});
  const timer_id often = loop.every(1ms, [guard = tell_when_gone(gone)] {});
  loop.poll();
  const timer_id on_its_way = loop.after(0ns, [guard = tell_when_gone(gone)] {});
  loop.close();

  CHECK(loop.run() == 0);

  CHECK(gone.size() == 3);
  CHECK_FALSE(loop.after(0ns, ran.note(1)));
  CHECK_FALSE(loop.every(1ms, ran.note(1)));
  for (const timer_id id : {far, often, on_its_way}) {
    CHECK_FALSE(loop.cancel(id));
    CHECK_FALSE(loop.reschedule(id, virtual_clock::now()));
  }
  CHECK(ran.who.empty());
}

TEST_CASE("a timer that closes its loop ends, and its closure lives until it returns") {
  for (const bool repeats : {false, true}) {
    virtual_loop loop;
    std::vector<std::thread::id> gone;
    std::size_t gone_inside = 99;
    auto callback = [&, guard = tell_when_gone(gone)] {
      loop.close();
      loop.run();
      gone_inside = gone.size();
    };
    if (repeats) {
      loop.every(1ms, std::move(callback));
    } else {
      loop.after(1ms, std::move(callback));
    }
    loop.after(1h, [guard = tell_when_gone(gone)] {});

    CHECK(loop.run() == 1);

    CHECK(gone_inside == 1);
    CHECK(gone.size() == 2);
  }
}

TEST_CASE("a loop destroyed with timers destroys their closures and runs none") {
  std::vector<std::thread::id> gone;
  journal ran;
  {
    virtual_loop loop;
    const auto guarded = [&] { return [note = ran.note(1), guard = tell_when_gone(gone)] { note(); }; };
    loop.after(0ns, guarded());
    loop.every(1ms, guarded());
    loop.poll();
    loop.after(0ns, guarded());
    CHECK(loop.cancel(loop.after(0ns, guarded())));
    virtual_clock::advance(1h);
  }

  CHECK(gone.size() == 4);
  CHECK(ran.who.empty());
}

// ---- What keeps run_until_idle() ----

TEST_CASE("a loop with unreferenced timers alone is idle") {
  virtual_loop loop;
  journal ran;
  const timer_id often = loop.every(1ms, ran.note(1));
  const timer_id far = loop.after(1h, ran.note(2));
  loop.unref(often);
  loop.unref(far);
  loop.unref(far);
  loop.after(3ms, ran.note(3));

  CHECK(loop.run_until_idle() == 4);

  CHECK(ran.who == std::vector<int>{1, 1, 3, 1});
  CHECK(loop.run_until_idle() == 0);
  loop.ref(far);
  loop.ref(far);
  CHECK(loop.cancel(often));
  CHECK(loop.run_until_idle() == 1);
  CHECK(ran.who.back() == 2);
  CHECK(loop.run_until_idle() == 0);
}

TEST_CASE("the loop may unreference a timer of another thread before it has heard of it") {
  virtual_loop loop;
  journal ran;
  must_post(loop, [&] {
    timer_id id;
    scoped_thread([&] { id = loop.after(1h, ran.note(1)); }).join();
    loop.unref(id);
  });

  CHECK(loop.run_until_idle() == 1);

  CHECK(ran.who.empty());
}

TEST_CASE("cancelling an unreferenced timer releases nobody else") {
  virtual_loop loop;
  journal ran;
  const timer_id id = loop.after(1ms, ran.note(1));
  loop.after(2ms, ran.note(2));
  loop.unref(id);
  loop.poll();

  CHECK(loop.cancel(id));

  CHECK(loop.run_until_idle() == 1);
  CHECK(ran.who == std::vector<int>{2});
}

TEST_CASE("the last timer cancelled or unreferenced from elsewhere lets run_until_idle() return") {
  for (const bool unref : {false, true}) {
    hybridloop::loop loop;
    const timer_id id = loop.after(1h, [] {});
    scoped_thread runner([&] { loop.run_until_idle(); });
    while (loop.stats().parks == 0) std::this_thread::yield();

    if (unref) {
      loop.unref(id);
    } else {
      CHECK(loop.cancel(id));
    }
    runner.join();
    CHECK(loop.stats().timers == (unref ? 1 : 0));
  }
}

// ---- Other threads ----

TEST_CASE("a timer armed or moved from elsewhere ends a sleep for a later one") {
  running_loop loop;
  std::promise<void> armed, moved;
  const timer_id far = loop->after(1h, [&] { moved.set_value(); });
  loop.wait_until_it_sleeps();

  loop->after(1ms, [&] { armed.set_value(); });
  armed.get_future().wait();
  loop.wait_until_it_sleeps();
  CHECK(loop->reschedule(far, hybridloop::loop::clock::now() + 1ms));
  moved.get_future().wait();
}

TEST_CASE("timers from many threads are never early") {
  const std::size_t each = scaled(2000, 100);
  running_loop loop;
  std::atomic<std::size_t> fired{0};
  std::atomic<std::size_t> early{0};
  const auto produce = [&](unsigned seed) {
    std::minstd_rand random(seed);
    for (std::size_t i = 0; i < each; ++i) {
      const auto delay = nanoseconds(random() % 1000000);
      const auto deadline = hybridloop::loop::clock::now() + delay;
      loop->after(delay, [&, deadline] {
        early += hybridloop::loop::clock::now() < deadline ? 1 : 0;
        ++fired;
      });
    }
  };
  {
    scoped_thread a([&] { produce(1); });
    scoped_thread b([&] { produce(2); });
    scoped_thread c([&] { produce(3); });
  }

  while (fired != 3 * each) std::this_thread::yield();

  CHECK(early == 0);
}

TEST_CASE("a cancel that races with the firing is told the truth") {
  const std::size_t rounds = scaled(100000);
  running_loop loop;
  std::vector<std::atomic<int>> ran(rounds);
  std::vector<int> cancelled(rounds);
  std::minstd_rand random(4);

  for (std::size_t i = 0; i < rounds; ++i) {
    auto& mine = ran[i];
    const timer_id id = loop->after(nanoseconds(random() % 4096), [&mine] { ++mine; });
    spin(random() % 128);
    cancelled[i] = loop->cancel(id) ? 1 : 0;
  }
  loop.finish_what_was_posted();

  std::size_t lies = 0;
  for (std::size_t i = 0; i < rounds; ++i) if (ran[i] + cancelled[i] != 1) ++lies;
  CHECK(lies == 0);
}

TEST_CASE("of all who cancel a timer one hears true, or it ran") {
  const std::size_t rounds = scaled(500, 20);
  constexpr std::size_t timers = 64;
  running_loop loop;
  std::atomic<std::size_t> ran{0};
  std::atomic<std::size_t> cancelled{0};
  std::atomic<std::size_t> arrived{0};
  std::vector<timer_id> ids(timers);
  const auto cancel_all = [&] {
    for (const timer_id id : ids) cancelled += loop->cancel(id) ? 1 : 0;
  };
  const auto meet = [&](std::size_t nth) {
    ++arrived;
    while (arrived < nth) std::this_thread::yield();
  };
  scoped_thread rival([&] {
    for (std::size_t round = 1; round <= rounds; ++round) {
      meet(4 * round - 2);
      cancel_all();
      meet(4 * round);
    }
  });

  for (std::size_t round = 1; round <= rounds; ++round) {
    for (timer_id& id : ids) id = loop->after(5us, [&] { ++ran; });
    meet(4 * round - 2);
    cancel_all();
    meet(4 * round);
  }
  loop.finish_what_was_posted();

  CHECK(ran + cancelled == rounds * timers);
}

TEST_CASE("after a repeating timer is cancelled no other run begins") {
  const std::size_t rounds = scaled(5000, 100);
  running_loop loop;
  std::size_t late = 0;
  std::size_t unheard = 0;
  std::minstd_rand random(5);

  for (std::size_t i = 0; i < rounds; ++i) {
    std::atomic<bool> over{false};
    std::atomic<std::size_t> begun_after{0};
    std::atomic<std::size_t> begun{0};
    const timer_id id = loop->every(1us, [&] {
      ++begun;
      if (over) ++begun_after;
    });
    if (i % 2 == 0) {
      while (begun == 0) std::this_thread::yield();
    }
    spin(random() % 64);
    if (!loop->cancel(id)) ++unheard;
    over = true;
    loop.finish_what_was_posted();
    if (begun_after > 1) ++late;
  }

  CHECK(unheard == 0);
  CHECK(late == 0);
}

TEST_CASE("a move that races with the firing is told the truth") {
  const std::size_t rounds = scaled(50000);
  running_loop loop;
  std::vector<std::atomic<int>> ran(rounds);
  std::vector<int> moved(rounds);
  std::size_t lost = 0;
  std::minstd_rand random(6);

  for (std::size_t i = 0; i < rounds; ++i) {
    auto& mine = ran[i];
    const timer_id id = loop->after(nanoseconds(random() % 4096), [&mine] { ++mine; });
    spin(random() % 128);
    moved[i] = loop->reschedule(id, hybridloop::loop::clock::now() + 1h) ? 1 : 0;
    if (moved[i] != 0 && !loop->cancel(id)) ++lost;
  }
  loop.finish_what_was_posted();

  std::size_t lies = 0;
  for (std::size_t i = 0; i < rounds; ++i) if (ran[i] + moved[i] != 1) ++lies;
  CHECK(lies == 0);
  CHECK(lost == 0);
}

TEST_CASE("a repeating timer that many threads move keeps running") {
  const std::size_t moves = scaled(20000, 100);
  running_loop loop;
  std::atomic<std::size_t> runs{0};
  std::atomic<std::size_t> refused{0};
  const timer_id id = loop->every(1us, [&] { ++runs; });
  const auto move = [&] {
    for (std::size_t i = 0; i < moves; ++i) {
      refused += loop->reschedule(id, hybridloop::loop::clock::now() + nanoseconds(i % 2048)) ? 0 : 1;
    }
  };
  {
    scoped_thread a(move);
    scoped_thread b(move);
  }

  const std::size_t before = runs;
  while (runs < before + 3) std::this_thread::yield();

  CHECK(refused == 0);
  CHECK(loop->cancel(id));
}

// ---- Wherever another thread cuts in ----

namespace {

// Counts the accesses to atomics by the thread that has `left` set; at the last of them another
// thread comes and goes.
struct cut {
  static inline thread_local std::size_t left = 0;
  static inline std::function<void()> other;

  static void access() {
    if (left != 0 && --left == 0) scoped_thread([] { other(); }).join();
  }
};

template <class T>
struct interrupted_atomic : std::atomic<T> {
  using base = std::atomic<T>;
  using base::base;

  T load(std::memory_order order) const noexcept {
    cut::access();
    return base::load(order);
  }
  void store(T value, std::memory_order order) noexcept {
    cut::access();
    base::store(value, order);
  }
  T fetch_or(T value, std::memory_order order) noexcept {
    cut::access();
    return base::fetch_or(value, order);
  }
  template <class... Orders>
  bool compare_exchange_weak(T& expected, T wanted, Orders... orders) noexcept {
    cut::access();
    return base::compare_exchange_weak(expected, wanted, orders...);
  }
};

struct interrupted_traits : virtual_traits {
  template <class T>
  using atomic = interrupted_atomic<T>;
};
using interrupted_loop = basic_virtual_loop<interrupted_traits>;

// Plays a scene again and again: interrupt(act, other) has `other` done, by another thread, before
// the first access to an atomic in `act`, then before the second, until there are no more.
template <class Scene>
void at_every_access(const Scene& scene) {
  bool cut_in = true;
  std::size_t nth = 0;
  while (cut_in) {
    ++nth;
    CAPTURE(nth);
    scene([&](auto act, auto other) {
      cut::other = other;
      cut::left = nth;
      act();
      cut_in = cut::left == 0;
      cut::left = 0;
    });
  }
}

}  // namespace

TEST_CASE("a cancel that cuts into the firing, or is cut by it, is told the truth") {
  for (const bool cancel_is_cut : {false, true}) {
    at_every_access([&](auto interrupt) {
      interrupted_loop loop;
      int ran = 0;
      int cancelled = 0;
      const timer_id id = loop.after(1ms, [&] { ++ran; });
      loop.poll();
      virtual_clock::advance(1ms);
      const auto fire = [&] { loop.poll(); };
      const auto cancel = [&] { cancelled = loop.cancel(id) ? 1 : 0; };

      if (cancel_is_cut) {
        interrupt(cancel, fire);
      } else {
        interrupt(fire, cancel);
      }
      loop.poll();
      loop.poll();

      CHECK(ran + cancelled == 1);
      CHECK_FALSE(loop.cancel(id));
      CHECK(loop.run_until_idle() == 0);
    });
  }
}

TEST_CASE("a move that cuts into the firing, or is cut by it, is told the truth") {
  for (const bool move_is_cut : {false, true}) {
    at_every_access([&](auto interrupt) {
      interrupted_loop loop;
      journal ran;
      bool moved = false;
      const auto begin = virtual_clock::now();
      const timer_id id = loop.after(1ms, ran.note(1));
      loop.poll();
      virtual_clock::advance(1ms);
      const auto fire = [&] { loop.poll(); };
      const auto move = [&] { moved = loop.reschedule(id, begin + 1h); };

      if (move_is_cut) {
        interrupt(move, fire);
      } else {
        interrupt(fire, move);
      }
      loop.run_until_idle();

      CHECK(ran.when == std::vector<time_point>{begin + (moved ? nanoseconds(1h) : nanoseconds(1ms))});
    });
  }
}

TEST_CASE("a repeating timer that is cancelled at any point of a run does not run again") {
  at_every_access([](auto interrupt) {
    interrupted_loop loop;
    int runs = 0;
    bool cancelled = false;
    const timer_id id = loop.every(1ms, [&] { ++runs; });
    loop.poll();
    virtual_clock::advance(1ms);

    interrupt([&] { loop.poll(); }, [&] { cancelled = loop.cancel(id); });
    if (!cancelled) loop.cancel(id);
    loop.run_until_idle();

    CHECK(runs <= 1);
    CHECK(loop.stats().timers == 0);
  });
}

TEST_CASE("a repeating timer that is moved at any point of a run goes on at the new deadline") {
  at_every_access([](auto interrupt) {
    interrupted_loop loop;
    journal ran;
    bool moved = false;
    const auto begin = virtual_clock::now();
    const timer_id id = loop.every(1ms, ran.note(1));
    loop.poll();
    virtual_clock::advance(1ms);

    interrupt([&] { loop.poll(); }, [&] { moved = loop.reschedule(id, begin + 10500us); });
    loop.run_until(begin + 12ms);

    std::vector<time_point> after_the_first = ran.when;
    if (after_the_first.front() == begin + 1ms) after_the_first.erase(after_the_first.begin());
    if (moved) {
      CHECK(after_the_first == std::vector<time_point>{begin + 10500us, begin + 11500us});
    } else {
      CHECK(ran.when.size() == 12);
    }
    CHECK(loop.cancel(id));
  });
}

TEST_CASE("a timer can be cancelled or moved at any point of its start") {
  for (const bool cancels : {false, true}) {
    at_every_access([&](auto interrupt) {
      interrupted_loop loop;
      journal ran;
      bool heard = false;
      const auto begin = virtual_clock::now();
      const timer_id id = loop.after(1ms, ran.note(1));

      interrupt([&] { loop.poll(); },
                [&] { heard = cancels ? loop.cancel(id) : loop.reschedule(id, begin + 5ms); });
      loop.run_until_idle();

      std::vector<time_point> expected{begin + 1ms};
      if (heard) expected = {begin + 5ms};
      if (heard && cancels) expected.clear();
      CHECK(ran.when == expected);
    });
  }
}

TEST_CASE("who comes late with the id of an ended timer touches no later one") {
  for (const bool cancels : {false, true}) {
    at_every_access([&](auto interrupt) {
      interrupted_loop loop;
      journal ran;
      const timer_id ended = loop.after(1h, ran.note(1));
      loop.poll();
      timer_id heir;

      const auto come_late = [&] {
        return cancels ? loop.cancel(ended) : loop.reschedule(ended, (time_point::max)());
      };
      const auto replace = [&] {
        must_post(loop, [&] { loop.cancel(ended); });
        loop.poll();
        heir = loop.after(2h, ran.note(2));
        loop.poll();
        loop.reschedule(heir, time_point{});
      };
      interrupt(come_late, replace);
      loop.poll();
      loop.poll();

      if (heir) CHECK(ran.who == std::vector<int>{2});
    });
  }
}

TEST_CASE("a loop that closes at any point of an arming keeps nothing") {
  at_every_access([](auto interrupt) {
    std::vector<std::thread::id> gone;
    journal ran;
    {
      interrupted_loop loop;
      interrupt([&] { loop.after(0ns, [note = ran.note(1), guard = tell_when_gone(gone)] { note(); }); },
                [&] { loop.close(); });
      loop.close();
      loop.run();
    }

    CHECK(gone.size() == 1);
    CHECK(ran.who.empty());
  });
}

TEST_CASE("what on_prepare arms for the past is not slept past, inside a timer either") {
  virtual_loop loop;
  bool inside = false;
  virtual_clock::time_point fired;
  loop.on_prepare([&] {
    if (std::exchange(inside, false)) loop.at({}, [&] { fired = virtual_clock::now(); });
  });
  const auto begin = virtual_clock::now();
  loop.after(1ms, [&] {
    inside = true;
    loop.run_for(1h);
    loop.stop();
  });

  loop.run();

  CHECK(fired == begin + 1ms);
}

TEST_CASE("next_timeout() counts a timer that waits for the next turn") {
  virtual_loop loop;
  std::optional<nanoseconds> timeout;
  loop.after(1ms, [&] {
    loop.at({}, [] {});
    timeout = loop.next_timeout();
    loop.stop();
  });

  loop.run();

  CHECK(timeout == std::optional<nanoseconds>(0ns));
}

TEST_CASE("a span of any unit is rounded up, and what does not fit never comes") {
  using hybridloop::detail::long_ago;
  using hybridloop::detail::never;
  using hybridloop::detail::to_nanos;
  using frames = std::chrono::duration<int, std::ratio<1, 60>>;
  using film = std::chrono::duration<long, std::ratio<1001, 30000>>;
  using ticks = std::chrono::duration<std::uint64_t, std::nano>;
  using pico = std::chrono::duration<std::int64_t, std::pico>;

  CHECK(to_nanos(frames(1)) == 16666667);
  CHECK(to_nanos(frames(60)) == 1000000000);
  CHECK(to_nanos(frames(-1)) == -16666666);
  CHECK(to_nanos(film(1)) == 33366667);
  CHECK(to_nanos(pico(1)) == 1);
  CHECK(to_nanos(pico(1001)) == 2);
  CHECK(to_nanos(pico(-1001)) == -1);
  CHECK(to_nanos((ticks::max)()) == never);
  CHECK(to_nanos((hours::max)()) == never);
  CHECK(to_nanos((hours::min)()) == long_ago);
  CHECK(to_nanos(nanoseconds(never - 1)) == never - 1);

  virtual_loop loop;
  const auto begin = virtual_clock::now();
  loop.after(frames(1), [] {});
  loop.run_until_idle();
  CHECK(virtual_clock::now() == begin + 16666667ns);
}

TEST_SUITE_END();
