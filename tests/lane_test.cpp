// lane_test.cpp - producers with a lane of their own: order, room, close, and how they come and go
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/race.hpp"
#include "support/running.hpp"
#include "support/stage.hpp"
#include "support/support.hpp"


using namespace support;
using hybridloop::errc;
using hybridloop::fence_policy;
using hybridloop::loop;
using hybridloop::loop_options;
using hybridloop::overflow;
using hybridloop::post_result;
using hybridloop::producer;

namespace {

using numbers = std::vector<int>;

numbers range(int first, int last) {
  numbers all;
  for (int n = first; n < last; ++n) all.push_back(n);
  return all;
}

template <class Producer>
void post_number(Producer& p, numbers& ran, int n) {
  must_post(p, [&ran, n] { ran.push_back(n); });
}

template <class Loop>
void run_all(Loop& l) {
  while (l.poll() != 0) {
  }
}

template <class Loop>
void wait_for(Loop& l, const std::atomic<std::size_t>& count, std::size_t wanted) {
  while (count != wanted) {
    l.stats();
    std::this_thread::yield();
  }
}

template <fence_policy Fence>
using fenced_loop = hybridloop::basic_loop<staged_traits<Fence>>;
#define EVERY_FENCE(what)                                                               \
  TEST_CASE_TEMPLATE(what, loop_type, fenced_loop<fence_policy::symmetric>,             \
                     fenced_loop<fence_policy::asymmetric>, fenced_loop<fence_policy::adaptive>)

// How many mappings there are.
struct counting_kernel : hybridloop::detail::system_kernel {
  static inline std::atomic<int> mapped{0};
  static inline std::atomic<bool> refuses{false};
  static void* map(std::size_t bytes) noexcept {
    if (refuses) return nullptr;
    ++mapped;
    return hybridloop::detail::system_kernel::map(bytes);
  }
  static void unmap(void* memory, std::size_t bytes) noexcept {
    --mapped;
    hybridloop::detail::system_kernel::unmap(memory, bytes);
  }
};
struct counting_traits : hybridloop::default_traits {
  using kernel = counting_kernel;
};
using counting_loop = hybridloop::basic_loop<counting_traits>;

constexpr std::size_t spare = hybridloop::detail::task_size;
struct large {
  std::atomic<std::size_t>* ran;
  std::array<unsigned char, spare> padding{};
  void operator()() const { ++*ran; }
};

}  // namespace

TEST_SUITE_BEGIN("lane");

// ---- Order and room ----

TEST_CASE("a lane's posts keep their order from its ring to the arena, to the heap and back to the ring") {
  for (const std::size_t arena : {0u, 3u, 64u}) {
    loop l(tiny(8, arena));
    auto p = l.make_producer(4);
    numbers ran;
    int sent = 0;

    for (int wave = 1; wave <= 40; ++wave) {
      for (int i = 0; i < wave; ++i) post_number(p, ran, sent++);
      for (int turns = wave % 3; turns > 0; --turns) l.poll();
    }
    run_all(l);

    CHECK(ran == range(0, sent));
    CHECK(l.stats().arena_in_use == 0);
  }
}

EVERY_FENCE("each lane's posts run in order while several of them flood a loop that lives elsewhere") {
  constexpr std::size_t lanes = 3;
  const auto posts = static_cast<int>(scaled(40000, 1000));
  for (const overflow policy : {overflow::spill, overflow::block}) {
    CAPTURE(static_cast<int>(policy));
    std::array<int, lanes> next{};
    std::atomic<std::size_t> wrong{0};
    std::atomic<std::size_t> ran{0};
    loop_type l(tiny(16, 32, policy));
    const running<loop_type> runner(l);
    std::deque<scoped_thread> threads;
    for (std::size_t t = 0; t < lanes; ++t) {
      threads.emplace_back([&, t] {
        auto p = l.make_producer(16);
        for (int i = 0; i < posts; ++i) {
          must_post(p, [&, t, i] {
            if (next[t]++ != i) ++wrong;
            ++ran;
          });
        }
      });
    }
    threads.clear();
    wait_for(l, ran, lanes * static_cast<std::size_t>(posts));

    CHECK(wrong == 0);
  }
}

TEST_CASE("fail takes the lane and the arena, and not one more, and the task stays its owner's") {
  loop l(tiny(8, 3, overflow::fail));
  auto p = l.make_producer(4);
  for (int round = 0; round < 3; ++round) {
    std::size_t taken = 0;
    auto kept = std::make_unique<int>(1);
    auto task = [kept = std::move(kept)] {};
    while (p.post([] {}) == post_result::accepted) ++taken;

    CHECK(taken == 4 + 3);
    CHECK(p.post(std::move(task)) == post_result::full);
    CHECK(l.try_post([] {}) == post_result::accepted);
    run_all(l);
  }
}

TEST_CASE("try_post takes what the lane has and never touches the arena") {
  loop l(tiny(8, 64));
  auto p = l.make_producer(3);  // rounded up
  std::size_t taken = 0;
  while (p.try_post([] {}) == post_result::accepted) ++taken;

  CHECK(taken == 4);
  CHECK(p.try_post([] {}) == post_result::full);
  CHECK(l.stats().arena_high == 0);
}

TEST_CASE("block waits for room in the lane, and a close ends the wait") {
  loop l(tiny(8, 0, overflow::block));
  auto p = l.make_producer(2);
  numbers ran;
  std::atomic<bool> closed{false};
  scoped_thread poster([&] {
    for (int i = 0; i < 50; ++i) post_number(p, ran, i);
    for (;;) {
      const post_result answer = p.post([] {});
      if (answer == post_result::closed) break;
    }
    closed = true;
  });
  while (ran.size() != 50) l.poll();
  l.close();
  l.run();
  poster.join();

  CHECK(closed);
  CHECK(ran == range(0, 50));
}

TEST_CASE("on the loop thread a full lane spills instead of waiting for itself") {
  loop l(tiny(8, 0, overflow::block));
  auto p = l.make_producer(2);
  numbers ran;
  must_post(l, [&] {
    for (int i = 0; i < 20; ++i) post_number(p, ran, i);
  });
  run_all(l);

  CHECK(ran == range(0, 20));
}

TEST_CASE("large closures of a lane are run and given back") {
  loop l(tiny(8, 16));
  std::atomic<std::size_t> ran{0};
  auto p = l.make_producer(4);
  for (int i = 0; i < 100; ++i) must_post(p, large{&ran});
  run_all(l);

  CHECK(ran == 100);
  CHECK(l.stats().arena_in_use == 0);
}

#if defined(__cpp_exceptions)

TEST_CASE("a constructor that throws leaves nothing behind, in the lane's ring or its spill") {
  struct moody {
    numbers* ran;
    int n;
    moody(numbers& r, int i) : ran(&r), n(i) {}
    moody(const moody& other) : ran(other.ran), n(other.n) {
      if (n % 3 == 0) throw std::runtime_error("no");
    }
    void operator()() const { ran->push_back(n); }
  };
  loop l(tiny(8, 4));
  auto p = l.make_producer(4);
  numbers ran;
  numbers sent;
  for (int i = 0; i < 12; ++i) {
    const moody task(ran, i);
    if (i % 3 == 0) {
      CHECK_THROWS_AS(static_cast<void>(p.post(task)), std::runtime_error);
    } else {
      must_post(p, task);
      sent.push_back(i);
    }
  }
  run_all(l);

  CHECK(ran == sent);
}

TEST_CASE("a lane that cannot be made is refused with a reason") {
  loop l;
  std::error_code code;
  try {
    static_cast<void>(l.make_producer((std::size_t{1} << 24) + 1));
  } catch (const std::system_error& error) {
    code = error.code();
  }
  CHECK(code == errc::invalid_argument);

  counting_loop poor;
  counting_kernel::refuses = true;
  try {
    static_cast<void>(poor.make_producer(4));
  } catch (const std::system_error& error) {
    code = error.code();
  }
  counting_kernel::refuses = false;
  CHECK(code == std::errc::not_enough_memory);
  CHECK(poor.make_producer(0).try_post([] {}) == post_result::accepted);
  CHECK(poor.run_until_idle() == 1);
}

#endif  // __cpp_exceptions

TEST_CASE("a closure may post to the lane that it is being posted to") {
  struct eager {
    producer* p;
    numbers* ran;
    int n;
    eager(producer& to, numbers& r, int i) : p(&to), ran(&r), n(i) {}
    eager(const eager& other) : p(other.p), ran(other.ran), n(other.n) { post_number(*p, *ran, n + 1); }
    eager(eager&&) = default;
    void operator()() const { ran->push_back(n); }
  };
  loop l(tiny(8, 8));
  auto p = l.make_producer(4);
  numbers ran;
  for (int i = 0; i < 20; i += 2) {
    const eager task(p, ran, i);
    must_post(p, task);
  }
  run_all(l);

  CHECK(ran == range(0, 20));
}

TEST_CASE("a task of a lane may run the loop, which goes on with the lane") {
  loop l(tiny(8, 8));
  auto p = l.make_producer(4);
  numbers ran;
  must_post(p, [&] {
    ran.push_back(0);
    l.poll();
    ran.push_back(9);
  });
  for (int i = 1; i < 9; ++i) post_number(p, ran, i);
  run_all(l);

  CHECK(ran == range(0, 10));
}

// ---- Wakes ----

EVERY_FENCE("a post to a lane wakes the loop, wherever it sleeps") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<loop_type> l(where);
    const running<loop_type> runner(*l);
    auto p = l->make_producer(4);
    std::atomic<std::size_t> ran{0};
    const std::size_t rounds = scaled(2000, 200);
    dice chance(rounds);
    for (std::size_t i = 1; i <= rounds; ++i) {
      must_post(p, [&ran] { ++ran; });
      while (ran != i) std::this_thread::yield();
      dawdle(chance.roll(3000));
    }
  }
}

TEST_CASE("a lane that joins and is posted to at any moment of the loop's going to sleep is heard") {
  for (const char* point : {"before-park", "park-published", "before-sleep"}) {
    for (const bool joined_before : {false, true}) {
      CAPTURE(point);
      staged_loop l;
      std::optional<hybridloop::basic_producer<staged_traits<>>> p;
      if (joined_before) p.emplace(l.make_producer(4));
      const stage meanwhile(point, [&] {
        scoped_thread other([&] {
          if (!p) p.emplace(l.make_producer(4));
          must_post(*p, [&l] { l.stop(); });
        });
      });

      l.run();

      CHECK(meanwhile.entered());
    }
  }
}

TEST_CASE("a foreign loop that waits for the handle hears a post to a lane") {
  loop l;
  auto p = l.make_producer(4);
  std::error_code refused;
  const auto handle = l.backend_handle(refused);
  if (refused == errc::unsupported) return;  // poll(2) has none
  std::size_t ran = 0;
  for (std::size_t i = 1; i <= 100; ++i) {
    while (l.poll() != 0) {
    }
    scoped_thread other([&] { must_post(p, [&ran] { ++ran; }); });
    while (ran != i) {
      becomes_readable(handle, -1);
      l.poll();
    }
  }
}

TEST_CASE("run_until_idle runs what is in a lane, and does not wait for its producer") {
  loop l;
  auto p = l.make_producer(4);
  numbers ran;
  CHECK(l.run_until_idle() == 0);
  for (int i = 0; i < 10; ++i) post_number(p, ran, i);

  CHECK(l.run_until_idle() == 10);
  CHECK(ran == range(0, 10));
  CHECK(l.stats().posts == 10);
}

TEST_CASE("run_until_idle returns though the poster of the last task is not out of its post yet") {
  staged_loop l;
  auto p = l.make_producer(4);
  std::optional<hybridloop::basic_keep_alive<staged_traits<>>> keep;
  gate stalled;
  gate go;
  const stage meanwhile("published", [&] {
    stalled.open();
    go.pass();
  });
  keep.emplace(l.hold());
  scoped_thread poster([&] { must_post(p, [&keep] { keep.reset(); }); });
  stalled.pass();

  CHECK(l.run_until_idle() == 1);
  go.open();
}

TEST_CASE("run_once does what it was woken for, also in a lane that joined meanwhile") {
  for (const bool joined_before : {false, true}) {
    loop l;
    std::optional<producer> p;
    if (joined_before) p.emplace(l.make_producer(4));
    l.poll();
    const scoped_thread other([&] {
      await_parks(l, 1);
      if (!p) p.emplace(l.make_producer(4));
      must_post(*p, [] {});
    });

    CHECK(l.run_once() == 1);
  }
}

// ---- Whose turn it is ----

TEST_CASE("a flood on one queue starves no other, in whole turns or in frames") {
  for (const bool frames : {false, true}) {
    CAPTURE(frames);
    constexpr int lanes = 5;
    loop l(tiny(1 << 12, 0));
    std::vector<producer> all;
    std::array<int, lanes + 1> ran{};
    for (int i = 0; i < lanes; ++i) all.push_back(l.make_producer(1 << 12));
    for (int n = 0; n < 1 << 12; ++n) {
      for (int i = 0; i < lanes; ++i) {
        must_post(all[static_cast<std::size_t>(i)], [&ran, i] { ++ran[static_cast<std::size_t>(i)]; });
      }
      must_post(l, [&ran] { ++ran[lanes]; });
    }

    // A frame without a budget runs one task.
    for (int turn = 0; turn < 40; ++turn) frames ? void(l.run_budget(0ns)) : void(l.poll());

    const auto least = *std::min_element(ran.begin(), ran.end());
    CHECK(least > 0);
    run_all(l);
  }
}

// ---- The end ----

EVERY_FENCE("what a lane accepted is run, whenever the close comes, and the rest is refused") {
  constexpr std::size_t posters = 3;
  const std::size_t rounds = scaled(3000, 100);
  dice chance(rounds);
  std::size_t wrong = 0;
  std::size_t undestroyed = 0;
  rendezvous meeting(posters + 2);
  std::optional<loop_type> l;
  std::atomic<std::size_t> accepted{0};
  std::atomic<std::size_t> executed{0};
  const auto alive = std::make_shared<int>(0);
  std::deque<scoped_thread> threads;
  for (std::size_t t = 0; t < posters; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t round = 0; round < rounds; ++round) {
        meeting.meet();
        std::size_t mine = 0;
        for (bool closed = false; !closed;) {  // lanes of short lives, and one of a long one
          auto p = l->make_producer(4);
          for (std::size_t i = 0; i < (t == 0 ? ~std::size_t{0} : 10) && !closed; ++i) {
            const auto answer = p.post([&executed, alive] { ++executed; });
            if (answer == post_result::accepted) ++mine;
            closed = answer == post_result::closed;
            if (i % 8 == 7) std::this_thread::yield();
          }
        }
        accepted += mine;
        meeting.meet();
        meeting.meet();
      }
    });
  }
  threads.emplace_back([&] {
    for (std::size_t round = 0; round < rounds; ++round) {
      meeting.meet();
      l->run();
      meeting.meet();
      meeting.meet();
    }
  });

  for (std::size_t round = 0; round < rounds; ++round) {
    const auto policy = round % 3 == 0 ? overflow::spill : round % 3 == 1 ? overflow::block : overflow::fail;
    l.emplace(tiny(8, 4, policy));
    meeting.meet();
    dawdle(chance.roll(20000));
    l->close();
    meeting.meet();
    if (accepted != executed) ++wrong;
    l.reset();
    if (alive.use_count() != 1) ++undestroyed;
    meeting.meet();
  }
  threads.clear();

  CHECK(wrong == 0);
  CHECK(undestroyed == 0);
}

TEST_CASE("a poster that stalls before it looks whether the loop is closed holds up its end, and is refused") {
  staged_loop l;
  auto p = l.make_producer(4);
  gate stalled;
  gate go;
  std::atomic<bool> ended{false};
  stage meanwhile("lane-busy", [&] {
    stalled.open();
    go.pass();
  });
  std::optional<post_result> answer;
  scoped_thread poster([&] { answer = p.post([] {}); });
  stalled.pass();
  scoped_thread runner([&] {
    l.run();
    ended = true;
  });
  l.close();
  std::this_thread::sleep_for(2ms);
  const bool ended_early = ended;
  go.open();
  poster.join();
  runner.join();

  CHECK_FALSE(ended_early);
  CHECK(*answer == post_result::closed);
}

TEST_CASE("a poster that stalls before it publishes holds up the end, and its task runs") {
  staged_loop l;
  auto p = l.make_producer(4);
  gate stalled;
  gate go;
  std::atomic<bool> ran{false};
  stage meanwhile("claimed", [&] {
    stalled.open();
    go.pass();
  });
  scoped_thread poster([&] { must_post(p, [&ran] { ran = true; }); });
  stalled.pass();
  scoped_thread runner([&] { l.run(); });
  l.close();
  go.open();
  poster.join();
  runner.join();

  CHECK(ran);
}

TEST_CASE("a loop that is destroyed destroys what lies in lanes, and their producers are told") {
  const auto alive = std::make_shared<int>(0);
  std::optional<producer> kept;
  {
    loop l(tiny(8, 2));
    kept.emplace(l.make_producer(4));
    auto dropped = l.make_producer(4);
    for (int i = 0; i < 20; ++i) must_post(*kept, [alive] {});
    for (int i = 0; i < 20; ++i) must_post(dropped, [alive] {});
    CHECK_FALSE(kept->closed());
  }

  CHECK(alive.use_count() == 1);
  CHECK(kept->closed());
  CHECK(kept->post([alive] {}) == post_result::closed);
  CHECK(kept->try_post([alive] {}) == post_result::closed);
  CHECK(alive.use_count() == 1);
}

TEST_CASE("a producer of a closed loop, and one that was moved from, answer closed") {
  loop l;
  auto one = l.make_producer(4);
  auto two = std::move(one);
  CHECK(two.post([] {}) == post_result::accepted);
  CHECK(one.post([] {}) == post_result::closed);
  CHECK(one.closed());
  one = std::move(two);
  CHECK(one.post([] {}) == post_result::accepted);
  l.close();

  CHECK(one.post([] {}) == post_result::closed);
  CHECK(l.make_producer(4).post([] {}) == post_result::closed);
  CHECK(l.run() == 2);
}

// ---- Coming and going ----

TEST_CASE("a lane that is destroyed with tasks in it still runs them") {
  loop l(tiny(8, 4));
  numbers ran;
  {
    auto p = l.make_producer(4);
    for (int i = 0; i < 30; ++i) post_number(p, ran, i);
  }
  run_all(l);

  CHECK(ran == range(0, 30));
}

TEST_CASE("a spilled task that ran the loop gives its block back, and its lane goes, in nested runs too") {
  const int mapped_before = counting_kernel::mapped;
  counting_loop l(tiny(8, 8));
  const auto use_up_lanes = [&l] {
    for (int i = 0; i < 50; ++i) {
      auto p = l.make_producer(2);
      must_post(p, [] {});
      must_post(p, [] {});
      must_post(p, [&l] { l.poll(); });
      run_all(l);
    }
    run_all(l);
  };
  use_up_lanes();
  must_post(l, use_up_lanes);
  run_all(l);

  CHECK(l.stats().arena_in_use == 0);
  CHECK(l.stats().heap_tasks == 0);
  CHECK(counting_kernel::mapped == mapped_before + 1);
}

TEST_CASE("a task may destroy the producer that posted it") {
  loop l;
  std::size_t ran = 0;
  for (int i = 0; i < 100; ++i) {
    auto p = std::make_shared<producer>(l.make_producer(4));
    must_post(*p, [&ran, &p] {
      ++ran;
      p.reset();
    });
    run_all(l);
  }

  CHECK(ran == 100);
}

TEST_CASE("a lane whose turn is next may go, and the one behind it has its turn") {
  for (const std::size_t one : {0u, 1u}) {
    loop l;
    numbers ran;
    std::array<std::optional<producer>, 3> all;
    for (auto& p : all) p.emplace(l.make_producer(4));
    run_all(l);

    must_post(*all[one], [&] {
      all[one + 1].reset();
      if (one == 1) all[0].reset();
      l.stop();
    });
    run_all(l);
    for (int i = 0; i < 4; ++i) post_number(*all[one], ran, i);
    run_all(l);

    CHECK(ran == range(0, 4));
  }
}

TEST_CASE("lanes come and go while the loop runs, sleeps and spins, and leave no memory behind") {
  const int mapped_before = counting_kernel::mapped;
  const std::size_t each = scaled(2000, 100);
  std::atomic<std::size_t> ran{0};
  {
    counting_loop l;
    const running<counting_loop> runner(l);
    std::deque<scoped_thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        dice chance(static_cast<std::uint64_t>(t) + 1);
        for (std::size_t i = 0; i < each; ++i) {
          auto p = l.make_producer(2);
          for (std::size_t n = 0; n < i % 4; ++n) must_post(p, [&ran] { ++ran; });
          if (chance.roll(8) == 0) dawdle(chance.roll(40000));
        }
      });
    }
    threads.clear();
    wait_for(l, ran, 3 * (each / 4 * 6 + (each % 4) * ((each % 4) - (each % 4 != 0)) / 2));
    // All are gone, also those that nothing was posted to, without a further post.
    while (counting_kernel::mapped != mapped_before + 1) std::this_thread::yield();
  }

  CHECK(counting_kernel::mapped == mapped_before);
}

TEST_CASE("a producer may go from thread to thread") {
  loop l(tiny(8, 4));
  const running<loop> runner(l);
  auto p = l.make_producer(4);
  std::vector<int> seen;
  std::atomic<std::size_t> ran{0};
  for (int i = 0; i < 100; ++i) {
    scoped_thread next([&] {
      must_post(p, [&, i] {
        seen.push_back(i);
        ++ran;
      });
    });
  }
  wait_for(l, ran, 100);

  CHECK(seen == range(0, 100));
}

#if SUPPORT_POSIX
TEST_CASE("the child of a fork has the lanes too") {
  loop l(tiny(8, 4));
  auto p = l.make_producer(4);
  auto dropped = std::make_unique<producer>(l.make_producer(4));
  std::size_t ran = 0;
  for (int i = 0; i < 10; ++i) must_post(p, [&ran] { ++ran; });
  const pid_t child = ::fork();
  if (child == 0) {
    dropped.reset();
    l.after_fork_child();
    must_post(p, [&ran] { ++ran; });
    l.run_until_idle();
    ::_exit(ran == 11 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  run_all(l);

  CHECK(WEXITSTATUS(status) == 0);
  CHECK(ran == 10);
}
#endif

TEST_SUITE_END();
