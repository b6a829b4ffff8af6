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
using hybridloop::loop;
using hybridloop::loop_options;
using hybridloop::detail::nanos;
using hybridloop::detail::never;
using hybridloop::detail::status::wanted;

// How far the loop thread is on its way to sleep. One loop at a time.
enum step : std::size_t { up, before_park, published, before_sleep, steps };
std::atomic<std::size_t> reached{up};
std::atomic<std::size_t> sleeps_begun{0};
std::atomic<std::size_t> sleeps_capped{0};

// A sleep that would end by itself hides a wake that was lost.
struct capless_kernel : hybridloop::detail::system_kernel {
  using real = hybridloop::detail::system_kernel;

  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    if (deadline != never) ++sleeps_capped;
    return real::futex_wait(word, expected, deadline);
  }
  static int epoll_pwait2(int epoll, epoll_event* out, int room, nanos timeout) noexcept {
    ++sleeps_capped;
    return real::epoll_pwait2(epoll, out, room, timeout);
  }
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    if (milliseconds > 0) ++sleeps_capped;
    return real::epoll_wait(epoll, out, room, milliseconds);
  }
};

template <fence_policy Fence>
struct observed_traits : hybridloop::default_traits {
  using kernel = capless_kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
  static constexpr fence_policy fence = Fence;

  static void schedule_point(const char* name) noexcept {
    if (std::strcmp(name, "before-park") == 0) reached = before_park;
    if (std::strcmp(name, "park-published") == 0) reached = published;
    if (std::strcmp(name, "before-sleep") == 0) {
      ++sleeps_begun;
      reached = before_sleep;
    }
  }
};
template <fence_policy Fence>
using observed_loop = hybridloop::basic_loop<observed_traits<Fence>>;

loop_options sleepy() {
  loop_options options;
  options.spin = std::chrono::nanoseconds(0);
  return options;
}

// Until the loop is at a step of chance, and a moment of chance longer.
void take_aim(dice& chance) {
  const std::size_t target = chance.roll(steps);
  while (reached < target) {
    for (int i = 0; i < 100 && reached < target; ++i) dawdle(1);
    if (reached < target) std::this_thread::yield();
  }
  dawdle(chance.roll(400));
}

template <fence_policy Fence>
void post_at_the_moment_of_parking(const place& where) {
  CAPTURE(where.name);
  const std::size_t rounds = scaled(100000);
  loop_in<observed_loop<Fence>> l(where, sleepy());
  dice chance(1);
  std::size_t posted = 0;
  std::atomic<std::size_t> ran{0};
  reached = up;
  sleeps_begun = 0;
  sleeps_capped = 0;

  {
    const running<observed_loop<Fence>> it(*l);
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

// Counts what the loop pays for its posters.
struct counted_barrier {
  static inline std::size_t issued = 0;
  static bool available() noexcept { return true; }
  static bool issue() noexcept {
    ++issued;
    return true;
  }
  static void issue_last() noexcept {}
};
struct counted_traits : hybridloop::default_traits {
  using barrier = counted_barrier;
};

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

TEST_CASE("a stop at the moment of parking ends run()") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<observed_loop<fence_policy::adaptive>> l(where, sleepy());
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
    loop_in<observed_loop<fence_policy::adaptive>> l(where, sleepy());
    dice chance(3);
    const std::size_t rounds = scaled(20000);
    std::atomic<std::size_t> returned{0};
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

TEST_CASE("posters that counted on the barrier get it, also from a park that is called off") {
  using doorbell = hybridloop::detail::doorbell<counted_traits>;
  doorbell door;
  hybridloop::detail::wakeup<counted_traits> wake(door);
  wake.enter();
  const std::uint64_t posts = 1000000;
  const auto park = [&wake] {
    wake.choose_fence(posts);
    if (!wake.publish(hybridloop::detail::status::in_channel)) return false;
    wake.barrier();
    return wake.wake_self();
  };
  park();
  REQUIRE_FALSE(door.strong());

  bool parked = true;
  while (!door.strong()) {
    door.tell(wanted);
    parked = park();
  }
  const std::size_t before = counted_barrier::issued;
  park();

  CHECK_FALSE(parked);
  CHECK(counted_barrier::issued == before + 1);
}

TEST_SUITE_END();
