// park_test.cpp - posts, stops and wakes aimed at the moment in which a loop goes to sleep
#include <atomic>
#include <cstddef>
#include <cstring>
#include <deque>
#include <thread>

#include "support/race.hpp"
#include "support/running.hpp"
#include "support/support.hpp"

namespace {

using namespace support;
using hybridloop::fence_policy;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::loop_options;
using hybridloop::detail::nanos;
using hybridloop::detail::never;

std::atomic<std::size_t> sleeps_begun{0};
std::atomic<std::size_t> sleeps_capped{0};

// A sleep that would end by itself hides a wake that was lost.
struct endless_kernel : hybridloop::detail::system_kernel {
  using real = hybridloop::detail::system_kernel;

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (deadline != never) ++sleeps_capped;
    return real::futex_wait(word, expected, deadline);
  }
  // Templates, since each system has only its own.
  template <class Event, class Real = real>
  static int epoll_pwait2(int epoll, Event* out, int room, nanos timeout) noexcept {
    ++sleeps_capped;
    return Real::epoll_pwait2(epoll, out, room, timeout);
  }
  template <class Event, class Real = real>
  static int epoll_wait(int epoll, Event* out, int room, int milliseconds) noexcept {
    if (milliseconds > 0) ++sleeps_capped;
    return Real::epoll_wait(epoll, out, room, milliseconds);
  }
  template <class Set, class Real = real>
  static int poll(Set* descriptors, std::size_t count, nanos timeout) noexcept {
    if (timeout != 0 && timeout != never) ++sleeps_capped;
    return Real::poll(descriptors, count, timeout);
  }
  template <class Packet, class Real = real>
  static int port_wait(hybridloop::native_handle port, Packet* out, int room, nanos timeout) noexcept {
    if (timeout != 0 && timeout != never) ++sleeps_capped;
    return Real::port_wait(port, out, room, timeout);
  }
};

// Counts the sleeps that begin and those that would end.
template <fence_policy Fence>
struct endless_traits : watched_traits<> {
  using kernel = endless_kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
  static constexpr fence_policy fence = Fence;

  static void schedule_point(const char* name) noexcept {
    if (std::strcmp(name, "before-sleep") == 0) ++sleeps_begun;
    watched_traits<>::schedule_point(name);
  }
};
template <fence_policy Fence>
using endless_loop = hybridloop::basic_loop<endless_traits<Fence>>;
using watched_loop = hybridloop::basic_loop<watched_traits<>>;
using watched_stuttering_loop = hybridloop::basic_loop<watched_traits<stuttering_traits>>;

loop_options sleepy() {
  loop_options options;
  options.spin = std::chrono::nanoseconds(0);
  return options;
}

template <fence_policy Fence>
void post_at_the_moment_of_parking(const place& where) {
  CAPTURE(where.name);
  const std::size_t rounds = scaled(100000);
  loop_in<endless_loop<Fence>> l(where, sleepy());
  dice chance(1);
  std::size_t posted = 0;
  std::atomic<std::size_t> ran{0};
  reached = up;
  sleeps_begun = 0;
  sleeps_capped = 0;

  {
    const running<endless_loop<Fence>> it(*l);
    while (sleeps_begun < rounds) {
      take_aim(chance);
      must_post(*l, [&ran] {
        reached = up;
        ++ran;
      });
      ++posted;
      while (ran != posted) std::this_thread::yield();
    }
  }

  CHECK(ran == posted);
  CHECK(l->stats().parks == sleeps_begun);
  CHECK(l->stats().rescued == 0);
  CHECK(sleeps_capped == 0);
}

void post_with_every_fence(const place& where) {
  post_at_the_moment_of_parking<fence_policy::symmetric>(where);
  post_at_the_moment_of_parking<fence_policy::asymmetric>(where);
}

}  // namespace

TEST_SUITE_BEGIN("park");

TEST_CASE("a post at the moment of parking wakes a loop in the channel") {
  post_with_every_fence(in_channel);
}

TEST_CASE("a post at the moment of parking wakes a loop in the poller") {
  post_with_every_fence(in_poller);
}

TEST_CASE("a post at the moment of parking wakes a loop that only knows the poller") {
  post_with_every_fence(in_bare_poller);
}

TEST_CASE("a post at the moment of parking wakes a loop with a companion") {
  post_with_every_fence(in_mini);
}

TEST_CASE("posts that spill at the moment of parking wake the loop") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_options options = tiny(2);
    options.spin = std::chrono::nanoseconds(0);
    loop_in<watched_stuttering_loop> l(where, options);
    const std::size_t rounds = scaled(20000);
    rendezvous meeting(2);
    std::atomic<std::size_t> ran{0};
    reached = up;
    const auto post_three = [&](dice& chance) {
      take_aim(chance);
      for (int i = 0; i < 3; ++i) {
        must_post(*l, [&ran] {
          reached = up;
          ++ran;
        });
      }
    };

    {
      const running<watched_stuttering_loop> it(*l);
      const scoped_thread other([&] {
        dice chance(5);
        for (std::size_t i = 0; i < rounds; ++i) {
          meeting.meet();
          post_three(chance);
          meeting.meet();
        }
      });
      dice chance(6);
      for (std::size_t i = 0; i < rounds; ++i) {
        meeting.meet();
        post_three(chance);
        meeting.meet();
        while (ran != 6 * (i + 1)) std::this_thread::yield();
      }
    }

    CHECK(ran == 6 * rounds);
    CHECK(l->stats().spilled > 0);
  }
}

TEST_CASE("a descriptor that is ready at the moment of parking ends the sleep") {
  for (const place& where : {in_poller, in_bare_poller, in_mini}) {
    CAPTURE(where.name);
    const socket_pair wire;
    loop_in<watched_loop> l(where, sleepy());
    const std::size_t rounds = scaled(50000);
    dice chance(7);
    std::atomic<std::size_t> heard{0};
    l->watch(wire.left(), interest::readable, [&] {
      reached = up;
      heard += wire.drain_left();
    });
    reached = up;

    {
      const running<watched_loop> it(*l);
      for (std::size_t i = 0; i < rounds; ++i) {
        take_aim(chance);
        wire.write_right();
        while (heard == i) std::this_thread::yield();
      }
    }

    CHECK(heard == rounds);
  }
}

TEST_CASE("a stop at the moment of parking ends run()") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<watched_loop> l(where, sleepy());
    dice chance(2);
    const std::size_t rounds = scaled(20000);
    std::atomic<std::size_t> returned{0};
    reached = up;

    const scoped_thread runner([&] {
      for (std::size_t i = 0; i < rounds; ++i) {
        l->run();
        reached = up;
        ++returned;
      }
    });
    for (std::size_t i = 0; i < rounds; ++i) {
      take_aim(chance);
      l->stop();
      while (returned == i) std::this_thread::yield();
    }

    CHECK(returned == rounds);
  }
}

TEST_CASE("a wake at the moment of parking ends run_once()") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<watched_loop> l(where, sleepy());
    dice chance(3);
    const std::size_t rounds = scaled(20000);
    std::atomic<std::size_t> returned{0};
    l->poll();
    reached = up;

    const scoped_thread runner([&] {
      for (std::size_t i = 0; i < rounds; ++i) {
        l->run_once();
        reached = up;
        ++returned;
      }
    });
    for (std::size_t i = 0; i < rounds; ++i) {
      take_aim(chance);
      l->wake();
      while (returned == i) std::this_thread::yield();
    }

    CHECK(returned == rounds);
  }
}

TEST_CASE("the first post to a fresh loop is run, whenever it comes") {
  dice chance(4);
  std::size_t ran = 0;
  const std::size_t loops = scaled(2000, 200);

  for (std::size_t i = 0; i < loops; ++i) {
    loop l;
    const running<loop> it(l);
    dawdle(chance.roll(100000));
    l.invoke([&ran] { ++ran; });
  }

  CHECK(ran == loops);
}

TEST_CASE("ten threads that wait for each of their tasks are all served") {
  loop l;
  const std::size_t each = scaled(40000);
  std::size_t ran = 0;

  {
    const running<loop> it(l);
    std::deque<scoped_thread> crowd;
    for (int t = 0; t < 10; ++t) {
      crowd.emplace_back([&] {
        for (std::size_t i = 0; i < each; ++i) l.invoke([&ran] { ++ran; });
      });
    }
  }

  CHECK(ran == 10 * each);
}

TEST_SUITE_END();
