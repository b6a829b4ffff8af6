// clock_test.cpp - a clock that jumps: ahead, as when a machine was suspended, or back, as none should
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "support/support.hpp"
#include "support/virtual_clock.hpp"

using namespace support;
using hybridloop::fast_path;
using hybridloop::repeat;
using hybridloop::timer_id;
using std::chrono::hours;
using std::chrono::nanoseconds;

namespace {

using time_point = virtual_clock::time_point;

constexpr hours year{24 * 365};

hybridloop::loop_options on(fast_path path) {
  hybridloop::loop_options options;
  options.path = path;
  return options;
}

// In the channel, and in the poller.
constexpr fast_path paths[] = {fast_path::full, fast_path::off};

// ---- A sleep that does not end when it should ----

// How the clock stands to the deadline when the next sleeps end.
std::deque<nanoseconds> surprises;

bool surprised(virtual_clock::time_point deadline) {
  if (surprises.empty()) return false;
  virtual_clock::advance(deadline + surprises.front() - virtual_clock::now());
  surprises.pop_front();
  return true;
}

struct surprising_kernel : virtual_kernel {
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    const bool timed = deadline != hybridloop::detail::never;
    if (timed && surprised(time_point(nanoseconds(deadline)))) return -EINTR;
    return virtual_kernel::futex_wait(word, expected, deadline);
  }
  template <class Event>
  static int epoll_pwait2(int epoll, Event* out, int room, nanos timeout) noexcept {
    if (may_surprise(timeout)) return -EINTR;
    return virtual_kernel::epoll_pwait2(epoll, out, room, timeout);
  }
  template <class Set>
  static int poll(Set* descriptors, std::size_t count, nanos timeout) noexcept {
    if (may_surprise(timeout)) return -EINTR;
    return virtual_kernel::poll(descriptors, count, timeout);
  }
  template <class Packet>
  static int port_wait(hybridloop::native_handle port, Packet* out, int room, nanos timeout) noexcept {
    if (may_surprise(timeout)) return 0;
    return virtual_kernel::port_wait(port, out, room, timeout);
  }

 private:
  static bool may_surprise(nanos timeout) noexcept {
    const bool timed = timeout != 0 && timeout != hybridloop::detail::never;
    return timed && surprised(virtual_clock::now() + nanoseconds(timeout));
  }
};
struct surprising_traits : virtual_traits {
  using kernel = surprising_kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};
using surprised_loop = basic_virtual_loop<surprising_traits>;

// Goes back a little each time that somebody looks; and there are CPUs to look on.
struct sinking_clock : virtual_clock {
  static time_point now() noexcept {
    virtual_clock::advance(-1us);
    return virtual_clock::now();
  }
};
struct two_cpus : surprising_kernel {
  static unsigned usable_cpus() noexcept { return 2; }
};
struct sinking_traits : surprising_traits {
  using clock = sinking_clock;
  using kernel = two_cpus;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};

}  // namespace

TEST_SUITE_BEGIN("clock");

// ---- Ahead ----

TEST_CASE("after a jump ahead what is due runs once, in the order of deadlines, and the rest stays") {
  for (const nanoseconds jump : {nanoseconds(1ms), nanoseconds(1h), nanoseconds(year), nanoseconds(100 * year)}) {
    CAPTURE(jump.count());
    constexpr std::size_t count = 3 * hybridloop::detail::timers_per_turn;
    virtual_loop l;
    std::mt19937_64 random(1);
    std::vector<std::pair<time_point, std::size_t>> armed, ran, before_now;
    bool exact = true;
    std::optional<time_point> jumped_to;
    must_post(l, [&] {
      for (std::size_t i = 0; i < count; ++i) {
        const auto far = static_cast<std::uint64_t>(2 * jump.count()) >> random() % 40;
        const auto due = virtual_clock::now() + nanoseconds(random() % (far + 1) + 1);
        armed.emplace_back(due, i);
        l.at(due, [&, due, i] {
          ran.emplace_back(due, i);
          exact = exact && virtual_clock::now() == (std::max)(due, *jumped_to);
        });
      }
    });
    const timer_id never = l.at((time_point::max)(), [] {});
    l.poll();
    CHECK(ran.empty());

    virtual_clock::advance(jump);
    jumped_to = virtual_clock::now();
    std::size_t turns = 0;
    while (l.poll() != 0) ++turns;

    std::sort(armed.begin(), armed.end());
    for (const auto& one : armed) {
      if (one.first <= *jumped_to) before_now.push_back(one);
    }
    CHECK(ran == before_now);
    CHECK(ran.size() > count / 2);
    CHECK(ran.size() < count);
    CHECK(turns == (ran.size() + hybridloop::detail::timers_per_turn - 1) / hybridloop::detail::timers_per_turn);
    CHECK(l.stats().timers == count + 1 - ran.size());

    l.unref(never);
    l.run_until_idle();

    CHECK(ran == armed);
    CHECK(exact);
  }
}

namespace {

// When a timer of a second runs whose first three hours were slept through, counted from the end of them.
std::vector<nanoseconds> runs_after_three_hours(repeat how) {
  virtual_loop l;
  std::vector<nanoseconds> begun;
  const auto end = virtual_clock::now() + 3h + 500ms;
  l.every(
      1s,
      [&] {
        begun.push_back(virtual_clock::now() - end);
        if (begun.back() >= 2s) l.stop();
      },
      how);
  l.poll();
  virtual_clock::advance(3h + 500ms);
  l.run();
  return begun;
}

}  // namespace

TEST_CASE("a repeating timer comes out of a jump ahead as its kind says") {
  std::vector<nanoseconds> each(3 * 3600, 0ns);
  each.insert(each.end(), {500ms, 1500ms, 2500ms});

  CHECK(runs_after_three_hours(repeat::fixed_rate) == each);
  CHECK(runs_after_three_hours(repeat::fixed_delay) == std::vector<nanoseconds>{0s, 1s, 2s});
  CHECK(runs_after_three_hours(repeat::skip_missed) == std::vector<nanoseconds>{0s, 500ms, 1500ms, 2500ms});
}

TEST_CASE("years of runs to make up for starve nobody, and end with a stop or a cancel") {
  virtual_loop l;
  socket_pair pair;
  pair.write_right();
  int runs = 0;
  int others = 0;
  const timer_id beat = l.every(1ms, [&] { ++runs; });
  l.after(1h, [&] { ++others; });
  l.after(year, [&] { ++others; });
  const auto watched = l.watch(pair.left(), hybridloop::interest::readable, [&] { others += pair.drain_left() != 0; });
  l.poll();
  others = 0;
  pair.write_right();
  virtual_clock::advance(50 * year);

  for (int turn = 1; turn <= 5; ++turn) {
    must_post(l, [&] {
      ++others;
      l.defer([&] { ++others; });
    });
    l.poll();
    CHECK(runs == turn);
    CHECK(others == 3 + turn + (turn - 1));
  }
  must_post(l, [&] { l.stop(); });
  l.run();
  CHECK(runs == 6);

  l.unwatch(watched);
  must_post(l, [&] { l.cancel(beat); });
  l.run_until_idle();
  CHECK(runs == 7);
}

// ---- Back ----

TEST_CASE("a clock that was set back makes nothing early, loses nothing and burns no turns") {
  for (const fast_path path : paths) {
    virtual_loop l(on(path));
    std::vector<time_point> due, ran;
    const auto arm = [&](nanoseconds delay) {
      due.push_back(virtual_clock::now() + delay);
      l.after(delay, [&] { ran.push_back(virtual_clock::now()); });
    };
    for (const nanoseconds delay : {1ms, 1000ms, 5000ms}) arm(delay);
    arm(1h);
    arm(year);
    l.run_for(2s);
    CHECK(ran.size() == 2);
    ran.clear();
    due.erase(due.begin(), due.begin() + 2);

    virtual_clock::advance(-3h);
    for (const nanoseconds delay : {0ms, 1ms, 50ms, 5000ms}) arm(delay);
    arm(2h);
    arm(4h);
    const auto turns = l.stats().turns;
    CHECK(l.poll() == 0);  // 0 ms is for the next turn
    CHECK(l.poll() == 1);
    l.run_until_idle();

    std::sort(due.begin(), due.end());
    CHECK(ran == due);
    CHECK(l.stats().turns - turns < 30);
  }
}

TEST_CASE("however the clock jumps, a turn fires what is due then, in order, and nothing else") {
  for (std::uint64_t seed = 0; seed < scaled(200, 10); ++seed) {
    CAPTURE(seed);
    virtual_loop l(on(paths[seed % 2]));
    std::mt19937_64 random(seed);
    const auto span = [&] { return nanoseconds(random() >> (random() % 44 + 8)); };  // up to two years
    using key = std::pair<time_point, std::uint64_t>;
    std::map<key, timer_id> armed;
    std::vector<key> ran;
    std::uint64_t number = 0;
    bool agree = true;
    bool in_time = true;

    for (int step = 0; step < 300 && agree; ++step) {
      const auto now = virtual_clock::now();
      switch (random() % 6) {
        case 0: case 1: case 2: {
          const key mine{random() % 8 == 0 ? now - span() : now + span(), ++number};
          armed[mine] = l.at(mine.first, [&ran, mine] { ran.push_back(mine); });
          break;
        }
        case 3:
          if (armed.empty()) break;
          agree = l.cancel(armed.begin()->second);
          armed.erase(armed.begin());
          break;
        case 4: virtual_clock::advance(span()); break;
        default: virtual_clock::advance(-(std::min)(span(), now.time_since_epoch()));
      }
      const auto earliest = armed.empty() ? (time_point::max)() : armed.begin()->first.first;
      const auto wait = l.next_timeout();
      const auto from = virtual_clock::now();
      in_time = in_time && (armed.empty() || (wait && from + *wait <= (std::max)(earliest, from)));
      for (int idle = 0; idle != 2; idle = ran.empty() ? idle + 1 : 0) {  // what is new is known after a turn
        ran.clear();
        l.poll();
        for (const key& one : ran) {
          agree = agree && !armed.empty() && armed.begin()->first == one && one.first <= virtual_clock::now();
          armed.erase(one);
        }
      }
      agree = agree && (armed.empty() || armed.begin()->first.first > virtual_clock::now());
    }
    ran.clear();
    l.run_until_idle();
    std::vector<key> rest;
    for (const auto& one : armed) rest.push_back(one.first);

    CHECK(agree);
    CHECK(in_time);
    CHECK(ran == rest);
  }
}

namespace {

// The first run sets the clock back by an hour; the beginnings of the first three, counted from the arming.
std::vector<nanoseconds> runs_set_back(repeat how) {
  virtual_loop l;
  std::vector<nanoseconds> begun;
  const auto begin = virtual_clock::now();
  l.every(
      10ms,
      [&] {
        begun.push_back(virtual_clock::now() - begin);
        if (begun.size() == 1) virtual_clock::advance(-1h);
        if (begun.size() == 3) l.stop();
      },
      how);
  l.run();
  CHECK(l.stats().turns < 10);
  return begun;
}

}  // namespace

TEST_CASE("a repeating timer keeps its beat when the clock is set back, or counts from the new time") {
  CHECK(runs_set_back(repeat::fixed_rate) == std::vector<nanoseconds>{10ms, 20ms, 30ms});
  CHECK(runs_set_back(repeat::skip_missed) == std::vector<nanoseconds>{10ms, 20ms, 30ms});
  CHECK(runs_set_back(repeat::fixed_delay) == std::vector<nanoseconds>{10ms, 20ms - 1h, 30ms - 1h});
}

TEST_CASE("who arms without delay while the clock goes back and forth runs once a turn") {
  virtual_loop l;
  int runs = 0;
  const auto again = [&](const auto& self) -> void {
    virtual_clock::advance(++runs % 2 == 0 ? 1h : -1h);
    l.after(0ns, [&] { self(self); });
  };
  must_post(l, [&] { again(again); });

  for (int turn = 1; turn <= 10; ++turn) {
    l.poll();
    CHECK(runs <= turn);
  }
  CHECK(runs >= 5);
}

TEST_CASE("a nested run on a clock that was set back does not wait for the outer one's time") {
  virtual_loop l;
  std::vector<nanoseconds> ran;
  const auto begin = virtual_clock::now();
  const auto note = [&] { ran.push_back(virtual_clock::now() - begin); };
  l.after(1s, [&] {
    virtual_clock::advance(-1h);
    must_post(l, [&] { l.after(10ms, note); });
    l.run_for(20ms);
    note();
  });

  l.run_until_idle();

  CHECK(ran == std::vector<nanoseconds>{1010ms - 1h, 1020ms - 1h});
  CHECK(l.stats().turns < 10);
}

// ---- Either ----

TEST_CASE("now() is the time of the turn, and follows the clock in the next one, back too") {
  for (const nanoseconds jump : {nanoseconds(10 * year), nanoseconds(-1h)}) {
    virtual_loop l;
    const auto begin = virtual_clock::now();
    std::vector<time_point> seen;
    must_post(l, [&] {
      seen.push_back(l.now());
      virtual_clock::advance(jump);
      seen.push_back(l.now());
      l.defer([&] { seen.push_back(l.now()); });
    });

    l.run_until_idle();

    CHECK(seen == std::vector<time_point>{begin, begin, begin + jump});
    CHECK(l.now() == begin + jump);
  }
}

TEST_CASE("a run until a deadline ends when the clock says so, however it came there") {
  for (const fast_path path : paths) {
    for (const nanoseconds jump : {nanoseconds(10 * year), nanoseconds(-1h)}) {
      virtual_loop l(on(path));
      const auto begin = virtual_clock::now();
      const auto end = (std::max)(begin + jump, begin + 1s);
      const auto leap = [jump] { virtual_clock::advance(jump); };
      l.after(100 * year, [] {});

      must_post(l, leap);
      CHECK(l.run_for(1s) == 1);
      CHECK(virtual_clock::now() == end);

      must_post(l, leap);
      CHECK(l.run_until(end + 1s) == 1);
      CHECK(virtual_clock::now() == (std::max)(end + jump, end + 1s));
      CHECK(l.stats().turns < 10);
    }
  }
}

TEST_CASE("a frame in which the clock jumps ahead is over, and says by how much") {
  virtual_loop l;
  must_post(l, [] { virtual_clock::advance(year); });
  for (int i = 0; i < 100; ++i) must_post(l, [] {});

  const auto report = l.run_budget(1ms);

  CHECK(report.ran == 1);
  CHECK(report.over_by == year - 1ms);
  CHECK(l.run_budget(1ms).ran == 100);
}

TEST_CASE("a frame in which the clock is set back is as long as any other, and as fair") {
  for (const nanoseconds back : {nanoseconds(1ms), nanoseconds(1h)}) {
    for (const bool between_tasks : {false, true}) {
      virtual_loop l;
      socket_pair pair;
      pair.write_right();
      int told = 0;
      const auto watched = l.watch(pair.left(), hybridloop::interest::readable, [&told] {
        ++told;
        virtual_clock::advance(10us);
      });
      const auto work = [&l](const auto& self) -> void {
        virtual_clock::advance(10us);
        must_post(l, [&self] { self(self); });
      };
      must_post(l, [&work] { work(work); });
      while (l.run_budget(1ms).ran < 50) {
      }
      const auto jump = [back] { virtual_clock::advance(-back); };
      must_post(l, [&, jump] {
        if (!between_tasks) return jump();
        for (std::size_t i = 0; i < hybridloop::detail::microtasks_per_turn; ++i) l.microtask([] {});
        l.microtask(jump);  // too many for this turn
      });
      told = 0;

      const auto report = l.run_budget(1ms);

      CHECK(report.ran > 50);
      CHECK(report.ran < 150);
      CHECK(told > 5);
      CHECK(report.over_by == 0ns);
      l.unwatch(watched);
    }
  }
}

// ---- During a sleep ----

TEST_CASE("a sleep that ends early, late or with the clock set back fires what is due then") {
  for (const fast_path path : paths) {
    surprised_loop l(on(path));
    const auto begin = virtual_clock::now();
    std::vector<nanoseconds> ran;
    for (const nanoseconds due : {10ms, 20ms, 30ms, 1000ms}) {
      l.after(due, [&, begin] { ran.push_back(virtual_clock::now() - begin); });
    }
    surprises = {-1ns, -5ms, -1h, -1ns, 10ms, -30ms, 1h};

    CHECK(l.run_until_idle() == 4);

    CHECK(surprises.empty());
    CHECK(ran == std::vector<nanoseconds>{20ms, 20ms, 1h + 30ms, 1h + 30ms});
    CHECK(l.stats().parks == 7);
    CHECK(l.stats().turns < 20);
  }
}

TEST_CASE("on a clock that goes back no look and no sleep took less than no time") {
  virtual_clock::reset();
  hybridloop::loop_options options;
  options.spin = 1ms;
  hybridloop::basic_loop<sinking_traits> l(options);
  l.after(1s, [] {});
  l.poll();
  surprises = {-1h};

  CHECK(l.run_once() == 0);

  CHECK(l.stats().parks == 1);
  CHECK(l.stats().spun_ns == 0);
  CHECK(l.stats().parked_ns == 0);
}

TEST_SUITE_END();
