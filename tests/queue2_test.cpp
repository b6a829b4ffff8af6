// queue2_test.cpp - cells: what waits, leaves and tokens do to each other without a lock
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "support/race.hpp"
#include "support/support.hpp"

using namespace support;
using namespace std::chrono_literals;
using hybridloop::wait_status;
namespace phases = hybridloop::sync;

namespace {

// Threads lose their CPU in the windows, and segments are counted. They are given back to the heap, so that
// a sanitizer sees who looks at one too late.
struct counted_traits : stuttering_traits {};
struct kept_traits : hybridloop::default_traits {};

std::atomic<std::ptrdiff_t> alive{0};
std::atomic<std::ptrdiff_t> most_alive{0};
std::atomic<std::size_t> taken{0};
std::atomic<int> refusals{0};

struct counted_memory {
  static void* take(std::size_t bytes, std::size_t alignment) noexcept {
    if (refusals > 0 && refusals-- > 0) return nullptr;
    ++taken;
    const std::ptrdiff_t now = ++alive;
    std::ptrdiff_t most = most_alive;
    while (most < now && !most_alive.compare_exchange_weak(most, now)) {
    }
    return hybridloop::detail::heap_take(bytes, alignment);
  }
  static void give(void* memory, std::size_t, std::size_t alignment) noexcept {
    --alive;
    hybridloop::detail::heap_give(memory, alignment);
  }
};

// A thread that is a victim stops where it is told to, until it is let go.
struct freezing_traits : hybridloop::default_traits {
  static inline std::atomic<const char*> where{nullptr};
  static inline std::atomic<bool> frozen{false};
  static inline thread_local bool victim = false;
  static void schedule_point(const char* name) noexcept {
    const char* const here = victim ? where.load() : nullptr;
    if (here == nullptr || std::strcmp(here, name) != 0) return;
    frozen = true;
    while (where.load() == here) std::this_thread::sleep_for(std::chrono::microseconds(100));
    frozen = false;
  }
};

using freezing_queue = phases::basic_queue2<freezing_traits, 2>;
// All that a wait for one comes through, its token and its leave; and where one for several is.
constexpr const char* windows[] = {"joining", "cells-claimed", "sending", "token-in-hand", "cell-seen", "reserving", "leaving", "withdrawn",
                                   "pointer-moves", "segment-over", "segment-made", "sweeping", "epoch-ends", "spare-seen", "joined"};
constexpr std::size_t of_one = 14, of_all = 15;

// A thread does `one` to what `make` made until it is stopped in a window; meanwhile four others do 500 `rounds` of theirs.
template <class Make, class One, class Round, class Check>
void for_each_window(std::size_t count, const Make& make, One one, Round round, Check check) {
  for (std::size_t at = 0; at < count; ++at) {
    const char* const where = windows[at];
    const std::string point = where;
    CAPTURE(point);
    const auto what = make();
    std::atomic<bool> enough{false};
    std::atomic<std::size_t> rounds{0};
    freezing_traits::where = where;
    scoped_thread victim([&] {
      freezing_traits::victim = true;
      dice chance(11);
      while (!enough) one(*what, chance);
    });
    std::vector<scoped_thread> others;
    for (std::size_t k = 0; k < 4; ++k) {
      others.emplace_back([&, k] {
        dice chance(k);
        while (!enough) {
          round(*what, chance);
          if (freezing_traits::frozen) ++rounds;
        }
      });
    }
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (rounds < 500 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
    CHECK(rounds >= 500);
    enough = true;
    freezing_traits::where = nullptr;
    others.clear();
    victim.join();
    check(*what);
  }
}

// What others do in a window, done there by the thread itself.
struct nested_traits : hybridloop::default_traits {
  static inline const char* where = nullptr;
  static inline std::function<void()> what;
  static void schedule_point(const char* name) noexcept {
    if (where == nullptr || std::strcmp(where, name) != 0) return;
    where = nullptr;
    std::exchange(what, nullptr)();
  }
  static void in(const char* window, std::function<void()> act) {
    what = std::move(act);
    where = window;
  }
};

}  // namespace

template <>
struct hybridloop::detail::epoch_memory<counted_traits> : counted_memory {
  static constexpr bool reuses = false;
};
template <>
struct hybridloop::detail::epoch_memory<kept_traits> : counted_memory {
  static constexpr bool reuses = true;
};

namespace {

template <class Queue>
using semaphore_on = hybridloop::basic_semaphore<Queue, phases::fifo>;

using counted_queue = phases::basic_queue2<counted_traits, 4>;
using kept_queue = phases::basic_queue2<kept_traits>;

template <class F>
void on_threads(std::size_t count, const F& body) {
  std::vector<std::thread> threads;
  for (std::size_t k = 0; k < count; ++k) threads.emplace_back([&body, k] { body(k); });
  for (std::thread& t : threads) t.join();
}

// One that waits without a thread.
template <class Queue>
struct bystander : Queue::node {
  using waiter = hybridloop::detail::waiter<typename Queue::traits>;
  bystander() : Queue::node([](waiter& w, auto&) noexcept { ++static_cast<bystander&>(w).told; }) {}
  int told = 0;
};
template <class Queue>
using core_on = hybridloop::detail::primitive<Queue, hybridloop::detail::permit_account<typename Queue::traits>>;

template <class Queue>
void wait_in(core_on<Queue>& core, bystander<Queue>& w, std::ptrdiff_t n = 1) {
  w.begin(n, core.account.take(n));
  core.join(w);
}

// Threads that take, with and without a deadline, alone and in batches, and give back.
template <class Queue>
void mingle(std::size_t threads, std::size_t rounds, std::ptrdiff_t permits) {
  semaphore_on<Queue> s(permits);
  std::atomic<std::ptrdiff_t> held{0};
  std::atomic<bool> too_many{false};
  on_threads(threads, [&](std::size_t k) {
    dice chance(k + 1);
    for (std::size_t r = 0; r < rounds; ++r) {
      const auto n = static_cast<std::ptrdiff_t>(1 + chance.roll(static_cast<std::size_t>(permits)));
      const bool had = chance.roll(2) == 0
                           ? s.acquire(n) == wait_status::granted
                           : s.try_acquire_for(std::chrono::nanoseconds(chance.roll(30000)), n);
      if (!had) continue;
      if ((held += n) > permits) too_many = true;
      dawdle(chance.roll(200));
      held -= n;
      s.release(n);
    }
  });
  CHECK_FALSE(too_many);
  CHECK(s.available() == permits);
  CHECK(s.try_acquire(permits));
}

}  // namespace

TEST_SUITE_BEGIN("queue2");

TEST_CASE("permits are neither lost nor made, whoever waits, leaves and comes back") {
  mingle<phases::queue2>(4, scaled(20000), 1);
  mingle<phases::queue2>(4, scaled(20000), 3);
  mingle<counted_queue>(4, scaled(5000), 1);
  mingle<counted_queue>(6, scaled(5000), 5);
}

TEST_CASE("those who wait are served in the order in which they came") {
  core_on<phases::queue2> core(std::ptrdiff_t{0});
  std::array<bystander<phases::queue2>, 100> all;
  for (auto& w : all) wait_in(core, w);
  for (std::size_t k = 0; k < all.size(); ++k) {
    core.send(core.account.give(1), wait_status::granted);
    CHECK(all[k].told == 1);
    CHECK(all[k].status == wait_status::granted);
    if (k + 1 < all.size()) CHECK(all[k + 1].told == 0);
  }
}

TEST_CASE("a batch is served in its turn, whole, and those behind it wait until then") {
  core_on<phases::queue2> core(std::ptrdiff_t{0});
  bystander<phases::queue2> batch, single;
  wait_in(core, batch, 70);
  wait_in(core, single);

  core.send(core.account.give(69), wait_status::granted);
  CHECK(batch.told == 0);
  CHECK(single.told == 0);
  core.send(core.account.give(1), wait_status::granted);
  CHECK(batch.told == 1);
  CHECK(batch.held == 70);
  CHECK(single.told == 0);
  core.send(core.account.give(1), wait_status::granted);
  CHECK(single.told == 1);
}

TEST_CASE("a batch that leaves gives what it had to the next one") {
  core_on<phases::queue2> core(std::ptrdiff_t{0});
  bystander<phases::queue2> batch, single;
  wait_in(core, batch, 70);
  wait_in(core, single);
  core.send(core.account.give(40), wait_status::granted);

  CHECK(core.leave(batch, wait_status::cancelled));

  CHECK(batch.told == 1);
  CHECK(batch.status == wait_status::cancelled);
  CHECK(single.told == 1);
  CHECK(single.status == wait_status::granted);
  CHECK(core.account.available() == 39);
  CHECK_FALSE(core.leave(batch, wait_status::cancelled));
}

TEST_CASE("who has been told cannot leave any more") {
  core_on<phases::queue2> core(std::ptrdiff_t{0});
  bystander<phases::queue2> w;
  CHECK_FALSE(core.leave(w, wait_status::timed_out));
  wait_in(core, w);
  core.send(core.account.give(1), wait_status::granted);
  CHECK_FALSE(core.leave(w, wait_status::timed_out));
  CHECK(w.told == 1);
  CHECK(w.status == wait_status::granted);
}

TEST_CASE("a batch that is served while it leaves finds its middle segments gone") {
  using queue = phases::basic_queue2<nested_traits, 2>;
  core_on<queue> core(std::ptrdiff_t{0});
  bystander<queue> single, batch;
  wait_in(core, single);
  wait_in(core, batch, 4);
  bool left = true;

  nested_traits::in("token-in-hand", [&] {
    nested_traits::in("reserving", [&] { core.send(core.account.give(4), wait_status::granted); });
    left = core.leave(batch, wait_status::cancelled);
  });
  core.send(core.account.give(1), wait_status::granted);

  CHECK_FALSE(left);
  CHECK(single.told == 1);
  CHECK(batch.told == 1);
  CHECK(batch.status == wait_status::granted);
  CHECK(batch.held == 4);
}

TEST_CASE("a wait that races with a close is told so, or has its permits, and none is lost") {
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    semaphore_on<counted_queue> s(0);
    std::atomic<std::ptrdiff_t> got{0};
    on_threads(4, [&](std::size_t k) {
      if (k == 0) {
        s.release(2);
        s.close();
      } else if (k == 1) {
        if (s.acquire(2) == wait_status::granted) got += 2;
      } else if (s.acquire() == wait_status::granted) {
        ++got;
      }
    });
    CHECK(got + s.available() == 2);
  }
}

TEST_CASE("timeouts that race with releases take nothing") {
  semaphore_on<counted_queue> s(0);
  const std::size_t rounds = scaled(10000);
  std::atomic<std::size_t> got{0};
  on_threads(4, [&](std::size_t k) {
    dice chance(k + 7);
    for (std::size_t r = 0; r < rounds; ++r) {
      if (k == 0) {
        s.release();
        dawdle(chance.roll(500));
      } else if (s.try_acquire_for(std::chrono::nanoseconds(chance.roll(5000)))) {
        ++got;
      }
    }
  });
  CHECK(got + static_cast<std::size_t>(s.available()) == rounds);
}

TEST_CASE("a semaphore on the stack is destroyed by the one it told, while the release is on its way out") {
  std::atomic<semaphore_on<counted_queue>*> shown{nullptr};
  const std::size_t rounds = scaled(100000);
  std::thread sender([&] {
    for (std::size_t r = 0; r < rounds; ++r) {
      semaphore_on<counted_queue>* s = nullptr;
      while ((s = shown.exchange(nullptr)) == nullptr) std::this_thread::yield();
      s->release();
    }
  });
  for (std::size_t r = 0; r < rounds; ++r) {
    semaphore_on<counted_queue> s(0);
    shown = &s;
    static_cast<void>(s.acquire());
  }
  sender.join();
}

TEST_CASE("a million that leave behind one that stays cost no memory") {
  using queue = counted_queue;
  core_on<queue> core(std::ptrdiff_t{0});
  bystander<queue> first;
  wait_in(core, first);
  bystander<queue> w;
  wait_in(core, w);
  CHECK(core.leave(w, wait_status::cancelled));
  const std::ptrdiff_t before = alive;
  most_alive = before;

  for (std::size_t k = 0; k < scaled(1000000); ++k) {
    wait_in(core, w);
    CHECK_UNARY(core.leave(w, wait_status::cancelled));
  }

  CHECK(most_alive <= before + 6);  // the last one, and three epochs of those that are over
  core.send(core.account.give(1), wait_status::granted);
  CHECK(first.told == 1);
  CHECK(w.told == 1 + static_cast<int>(scaled(1000000)));
}

TEST_CASE("those that leave in any order leave no memory behind") {
  using queue = counted_queue;
  core_on<queue> core(std::ptrdiff_t{0});
  const std::size_t many = scaled(20000, 100);
  const std::ptrdiff_t before = alive;
  {
    auto all = std::make_unique<bystander<queue>[]>(many);
    for (std::size_t k = 0; k < many; ++k) wait_in(core, all[k]);
    for (std::size_t step : {3u, 7u, 1u}) {
      for (std::size_t k = 0; k < many; k += step) core.leave(all[k], wait_status::cancelled);
    }
    std::size_t told = 0;
    for (std::size_t k = 0; k < many; ++k) told += static_cast<std::size_t>(all[k].told);
    CHECK(told == many);
  }
  for (int k = 0; k < 20; ++k) {
    bystander<queue> w;
    wait_in(core, w);
    CHECK(core.leave(w, wait_status::cancelled));
  }
  CHECK(alive <= before + 6);
}

#if SUPPORT_POSIX
TEST_CASE("the child of a fork does not wait for what threads had pinned that are not there") {
  using queue = counted_queue;
  static_cast<void>(counted_traits::kernel::forks());
  rendezvous both(2);
  std::thread other([&] {
    const queue::memory::pin here;
    both.meet();
    both.meet();
  });
  both.meet();
  const ::pid_t child = ::fork();
  if (child == 0) {
    core_on<queue> core(std::ptrdiff_t{0});
    const std::ptrdiff_t before = alive;
    for (int k = 0; k < 1000; ++k) {
      bystander<queue> w;
      wait_in(core, w);
      core.send(core.account.give(1), wait_status::granted);
    }
    ::_exit(alive <= before + 8 ? 0 : 1);
  }
  both.meet();
  other.join();
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
#endif

TEST_CASE("segments are used again: after the first round no wait takes memory") {
  using queue = kept_queue;
  core_on<queue> core(std::ptrdiff_t{0});
  bystander<queue> w;
  auto round = [&] {
    for (int k = 0; k < 1000; ++k) {
      wait_in(core, w);
      core.send(core.account.give(1), wait_status::granted);
    }
  };
  round();
  const std::size_t before = taken;
  round();
  CHECK(taken == before);
}

TEST_CASE("a wait and a token that find no memory are late, and not lost") {
  using queue = counted_queue;
  core_on<queue> core(std::ptrdiff_t{0});
  std::array<bystander<queue>, 20> all;
  for (auto& w : all) {
    refusals = 3;
    wait_in(core, w);
  }
  refusals = 3;
  core.send(core.account.give(20), wait_status::granted);
  refusals = 0;
  for (auto& w : all) CHECK(w.told == 1);
}

TEST_CASE("while a thread is stopped in any window the others go on") {
  // Two permits may be what the victim has in hand, or wait for that; the third goes round among the others.
  for_each_window(of_all, [] {
    return std::make_unique<semaphore_on<freezing_queue>>(3);
  }, [](auto& s, dice& chance) {
    const auto n = static_cast<std::ptrdiff_t>(1 + chance.roll(2));
    if (s.try_acquire_for(std::chrono::nanoseconds(chance.roll(20000)), n)) s.release(n);
  }, [](auto& s, dice& chance) {
    static_cast<void>(s.acquire());
    dawdle(chance.roll(300));
    if (chance.roll(8) == 0) std::this_thread::yield();
    s.release();
  }, [](auto& s) { CHECK(s.available() == 3); });
}

TEST_CASE("while a thread is stopped in any window of a channel the others send and receive") {
  for_each_window(of_one, [] {
    auto c = std::make_unique<hybridloop::basic_channel<int, freezing_queue>>(4u);
    for (int value = 0; value < 3; ++value) REQUIRE(c->try_send(int{value}));
    return c;
  }, [](auto& c, dice& chance) {
    if (auto value = c.try_receive_for(std::chrono::nanoseconds(chance.roll(20000)))) static_cast<void>(c.send(std::move(*value)));
  }, [](auto& c, dice& chance) {
    auto value = c.receive();
    dawdle(chance.roll(300));
    if (chance.roll(8) == 0) std::this_thread::yield();
    static_cast<void>(c.send(std::move(*value)));
  }, [](auto& c) {
    int left = 0;
    while (c.try_receive()) ++left;
    CHECK(left == 3);
  });
}

TEST_CASE("while a thread is stopped in any window of an event no call of another waits for it") {
  for_each_window(of_one, [] {
    return std::make_unique<hybridloop::basic_event<freezing_queue, hybridloop::sync::auto_reset>>();
  }, [](auto& e, dice& chance) {
    static_cast<void>(e.wait_for(std::chrono::nanoseconds(chance.roll(20000))));
    e.set();
  }, [](auto& e, dice& chance) {
    e.set();
    static_cast<void>(e.wait_for(std::chrono::nanoseconds(chance.roll(20000))));
  }, [](auto& e) {
    e.set();
    CHECK(e.try_wait());
  });
}

TEST_CASE("a condvar's notifications reach those who wait, whoever times out meanwhile") {
  hybridloop::basic_condvar<counted_queue> changed;
  std::mutex lock;
  std::ptrdiff_t there = 0;
  const std::size_t rounds = scaled(10000);
  std::atomic<std::size_t> taken_out{0};
  on_threads(4, [&](std::size_t k) {
    if (k == 0) {
      for (std::size_t r = 0; r < rounds; ++r) {
        {
          const std::lock_guard<std::mutex> hold(lock);
          ++there;
        }
        changed.notify_one();
      }
      const std::lock_guard<std::mutex> hold(lock);
      there += 3;
      changed.notify_all();
      return;
    }
    dice chance(k);
    std::unique_lock<std::mutex> hold(lock);
    for (;;) {
      while (there == 0) {
        if (chance.roll(2) == 0) {
          static_cast<void>(changed.wait_for(hold, std::chrono::nanoseconds(chance.roll(20000))));
        } else {
          changed.wait(hold);
        }
      }
      --there;
      if (++taken_out > rounds) return;
    }
  });
  CHECK(taken_out == rounds + 3);
  CHECK(there == 0);
}

TEST_CASE("notify_all reaches everybody who waits, through many segments") {
  hybridloop::basic_condvar<phases::queue2> changed;
  std::mutex lock;
  std::size_t waiting = 0, through = 0;
  bool open = false;
  on_threads(40, [&](std::size_t k) {
    std::unique_lock<std::mutex> hold(lock);
    if (k != 0) {
      ++waiting;
      changed.wait(hold, [&] { return open; });
      ++through;
      return;
    }
    while (waiting != 39) {
      hold.unlock();
      std::this_thread::yield();
      hold.lock();
    }
    open = true;
    changed.notify_all();
  });
  CHECK(through == 39);
}

TEST_SUITE_END();
