// keep_alive_test.cpp - promises about guards, and about counters of a loop at rest

#include "support/support.hpp"

using namespace support;

namespace {

thread_local bool dawdles = false;

// Takes its time before it is read, on a thread that dawdles.
template <class T>
struct slow_atomic : std::atomic<T> {
  using std::atomic<T>::atomic;
  T load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    const auto end = std::chrono::steady_clock::now() + (dawdles ? 1us : 0us);
    while (dawdles && std::chrono::steady_clock::now() < end) continue;
    return std::atomic<T>::load(order);
  }
};
struct slow_traits : hybridloop::default_traits {
  template <class T>
  using atomic = slow_atomic<T>;
};
using slow_loop = hybridloop::basic_loop<slow_traits>;

}  // namespace

TEST_SUITE_BEGIN("keep_alive");

TEST_CASE("what was posted before the last guard went runs before run_until_idle returns") {
  const std::size_t rounds = scaled(1500);
  std::size_t lost = 0;

  for (std::size_t i = 0; i < rounds; ++i) {
    hybridloop::loop_options small;
    small.ring_capacity = 16;
    small.arena_capacity = 16;
    slow_loop loop(small);
    bool ran = false;
    std::atomic<bool> there{false};
    scoped_thread worker([&, guard = loop.hold()]() mutable {
      there = true;
      for (std::size_t pause = 0; pause < i % 500; ++pause) there = true;
      must_post(loop, [&ran] { ran = true; });
      const auto gone = std::move(guard);
    });
    while (!there) continue;
    dawdles = true;
    loop.run_until_idle();
    dawdles = false;
    if (!ran) ++lost;
    worker.join();
  }

  CHECK(lost == 0);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("stats");

TEST_CASE("counts of tasks, timers and watches are true while the loop sleeps and after it has closed") {
  hybridloop::loop loop;
  socket_pair pair;
  loop.watch(pair.left(), hybridloop::interest::readable, [] {});
  CHECK(loop.stats().watches == 1);
  loop.after(std::chrono::hours(1), [] {});
  std::size_t ran = 0;
  scoped_thread runner([&] { ran = loop.run(); });

  for (int i = 0; i < 100; ++i) must_post(loop, [] {});
  while (loop.stats().tasks != 100) std::this_thread::yield();
  while (loop.stats().timers != 1) std::this_thread::yield();
  loop.close();
  runner.join();

  CHECK(ran == 100);
  CHECK(loop.stats().tasks == 100);
  CHECK(loop.stats().timers == 0);
  CHECK(loop.stats().watches == 0);
}

TEST_SUITE_END();
