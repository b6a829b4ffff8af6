// host.hpp - what hybridloop promises inside a foreign loop, whichever that is
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <thread>

#include "support/proc.hpp"
#include "support/race.hpp"
#include "support/support.hpp"

namespace foreign {

using namespace support;
using hybridloop::interest;
using hybridloop::loop;
using clock_type = loop::clock;
using callback = std::function<void()>;

// For loops that count in milliseconds.
inline int whole_milliseconds(loop::duration span) {
  const auto up = std::chrono::ceil<std::chrono::milliseconds>(span);
  return static_cast<int>((std::min)(up, std::chrono::milliseconds(1h)).count());
}

// A Host is a foreign loop that a hybridloop lives in:
//
//   Host(loop&)               waits for the handle and for next_timeout(), and calls poll()
//   every(milliseconds, f)    a timer of its own
//   watch(fd, f)              a descriptor of its own that is readable
//   run()  quit()             quit() is for what runs inside of run()
//   turns()                   how often it came back from its wait

template <class Host>
void serves_both_worlds() {
  constexpr std::size_t producers = 4;
  const std::size_t each = scaled(50000);
  const std::size_t letters = scaled(200);
  const socket_pair wire;
  const socket_pair own_wire;
  loop guest;
  Host host(guest);
  std::array<std::size_t, producers> next{};
  std::size_t ran = 0;
  std::size_t surprises = 0;
  std::size_t ticks = 0;
  std::size_t own_ticks = 0;
  std::size_t heard = 0;
  std::size_t own_heard = 0;

  guest.every(2ms, [&ticks] { ++ticks; });
  guest.watch(wire.left(), interest::readable, [&] { heard += wire.drain_left(); });
  host.watch(own_wire.left(), [&] { own_heard += own_wire.drain_left(); });
  host.every(3ms, [&] {
    ++own_ticks;
    const bool all = ran == producers * each && heard == letters && own_heard == letters;
    if (all && ticks >= 20 && own_ticks >= 20) host.quit();
  });
  std::deque<scoped_thread> crowd;
  for (std::size_t p = 0; p < producers; ++p) {
    crowd.emplace_back([&, p] {
      for (std::size_t n = 0; n < each; ++n) {
        must_post(guest, [&, p, n] {
          surprises += next[p]++ != n;
          ++ran;
        });
      }
    });
  }
  crowd.emplace_back([&] {
    for (std::size_t n = 0; n < letters; ++n) {
      wire.write_right();
      own_wire.write_right();
      std::this_thread::sleep_for(50us);
    }
  });
  host.run();

  CHECK(surprises == 0);
  CHECK(next == std::array<std::size_t, producers>{each, each, each, each});
  CHECK(heard == letters);
  CHECK(own_heard == letters);
  CHECK(guest.stats().parks == 0);
  CHECK(host.turns() <= ran + 3 * (ticks + own_ticks) + 2 * (heard + own_heard) + 100);
}

template <class Host>
void hears_each_post() {
  const std::size_t rounds = scaled(20000);
  loop guest;
  Host host(guest);
  std::atomic<std::size_t> ran{0};

  const scoped_thread poster([&] {
    dice chance(1);
    for (std::size_t i = 0; i < rounds; ++i) {
      dawdle(chance.roll(2000));
      must_post(guest, [&] {
        if (++ran == rounds) host.quit();
      });
      while (ran == i) std::this_thread::yield();
    }
  });
  host.run();

  CHECK(ran == rounds);
  CHECK(host.turns() <= 3 * rounds + 10);
}

// Of a loop that was busy before, watches something and has a timer in an hour.
template <class Host>
void sleeps_while_idle(bool closed) {
  const socket_pair wire;
  loop guest;
  Host host(guest);
  guest.watch(wire.left(), interest::readable, [&wire] { wire.drain_left(); });
  guest.after(1h, [] {});
  wire.write_right();
  for (int i = 0; i < 1000; ++i) must_post(guest, [] {});
  std::size_t before = 0;
  std::size_t turns = 0;
  int calls = 0;

  host.every(300ms, [&] {
    if (++calls == 1) before = host.turns();
    if (calls == 1 && closed) guest.close();
    if (calls == 2) {
      turns = host.turns() - before;
      host.quit();
    }
  });
  host.run();

  CHECK(turns < 10);
}

template <class Host>
void keeps_deadlines() {
  loop guest;
  Host host(guest);
  dice chance(2);
  const std::size_t timers = 300;
  std::size_t fired = 0;
  auto earliest = loop::duration::max();
  auto latest = loop::duration::min();
  for (std::size_t i = 0; i < timers; ++i) {
    const auto deadline = clock_type::now() + std::chrono::microseconds(chance.roll(300000));
    guest.at(deadline, [&, deadline] {
      const auto late = clock_type::now() - deadline;
      earliest = (std::min)(earliest, late);
      latest = (std::max)(latest, late);
      if (++fired == timers) host.quit();
    });
  }

  host.run();

  CHECK(earliest >= 0ns);
  if (!sanitized) CHECK(latest < 100ms);
  CHECK(host.turns() <= 4 * timers);
}

// A deadline that another thread brings forward while the foreign loop waits for a later one.
template <class Host>
void hears_of_earlier_deadlines() {
  loop guest;
  Host host(guest);
  bool late = false;
  const auto far = guest.after(1h, [&] {
    late = true;
    host.quit();
  });
  const scoped_thread other([&] {
    std::this_thread::sleep_for(20ms);
    guest.reschedule(far, clock_type::now() + 5ms);
  });

  host.run();

  CHECK(late);
}

}  // namespace foreign

#define PROMISES_INSIDE(host, name)                                               \
  TEST_CASE(name " serves posts, timers and sockets, its own and the guest's") {  \
    foreign::serves_both_worlds<host>();                                          \
  }                                                                               \
  TEST_CASE(name " hears each post that it waits for") {                          \
    foreign::hears_each_post<host>();                                             \
  }                                                                               \
  TEST_CASE(name " sleeps while its guest has nothing to do, or has ended") {     \
    for (const bool closed : {false, true}) {                                     \
      CAPTURE(closed);                                                            \
      foreign::sleeps_while_idle<host>(closed);                                   \
    }                                                                             \
  }                                                                               \
  TEST_CASE(name " keeps its guest's deadlines") {                                \
    foreign::keeps_deadlines<host>();                                             \
  }                                                                               \
  TEST_CASE(name " hears of a deadline that another thread brings forward") {     \
    foreign::hears_of_earlier_deadlines<host>();                                  \
  }
