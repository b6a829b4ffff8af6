// mutex_test.cpp - a lock that threads, callbacks and coroutines take in turn
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "support/queues.hpp"
#include "support/running.hpp"

using namespace hybridloop;
using namespace support;

TEST_SUITE_BEGIN("mutex");

namespace {

// Threads and a loop's callbacks add to one number.
template <class Mutex>
void add_up() {
  const std::size_t each = scaled(3000, 100);
  Mutex m;
  std::size_t sum = 0;
  std::size_t called = 0;
  loop l;
  {
    std::vector<scoped_thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (std::size_t i = 0; i < each; ++i) {
          const std::lock_guard<Mutex> hold(m);
          ++sum;
        }
      });
    }
    for (std::size_t i = 0; i < each; ++i) {
      m.async_lock(l, [&](wait_status how) {
        if (how != wait_status::granted) std::abort();
        ++sum;
        m.unlock();
        if (++called == each) l.stop();
      });
    }
    l.run();
  }
  CHECK(sum == 4 * each);
  CHECK(m.try_lock());
}

}  // namespace

TEST_CASE_TEMPLATE("a mutex lets one in at a time", Queue, SUPPORT_QUEUES) { add_up<basic_mutex<Queue>>(); }
TEST_CASE_TEMPLATE("a mutex that barges lets one in at a time", Queue, SUPPORT_QUEUES) {
  add_up<basic_mutex<Queue, sync::barging>>();
}

TEST_CASE_TEMPLATE("a mutex that is locked is not locked again", Queue, SUPPORT_QUEUES) {
  basic_mutex<Queue> m;
  m.lock();

  CHECK_FALSE(m.try_lock());
  CHECK_FALSE(m.try_lock_for(1ms));
  CHECK_FALSE(m.try_lock_until(std::chrono::system_clock::now()));
  elsewhere([&] { m.unlock(); });  // it belongs to no thread
  CHECK(m.try_lock_for(1h));
  m.unlock();
}

TEST_CASE_TEMPLATE("a wait for a mutex is cancelled", Queue, SUPPORT_QUEUES) {
  basic_mutex<Queue> m;
  loop l;
  m.lock();
  wait_status heard = wait_status::granted;
  const auto ticket = m.async_lock(l, [&](wait_status how) { heard = how; });

  CHECK(m.cancel(ticket));
  l.run_until_idle();
  m.unlock();

  CHECK(heard == wait_status::cancelled);
  CHECK(m.try_lock());
}

TEST_CASE_TEMPLATE("a condvar works with a mutex of ours", Queue, SUPPORT_QUEUES) {
  basic_mutex<Queue> m;
  basic_condvar<Queue> c;
  int baton = 0;
  const int passes = static_cast<int>(scaled(1000, 50));
  const auto play = [&](int mine) {
    for (int i = 0; i < passes; ++i) {
      std::unique_lock<basic_mutex<Queue>> hold(m);
      c.wait(hold, [&] { return baton == mine; });
      baton = 1 - mine;
      c.notify_one();
    }
  };
  {
    const scoped_thread other([&] { play(1); });
    play(0);
  }
  CHECK(baton == 0);
}

TEST_SUITE_END();
