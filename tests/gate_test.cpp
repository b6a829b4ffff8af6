// gate_test.cpp - event and latch: who waits until something is so
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "support/queues.hpp"
#include "support/race.hpp"
#include "support/running.hpp"

using namespace hybridloop;
using namespace support;

TEST_SUITE_BEGIN("gate");

namespace {

template <class Queue>
using event_of = basic_event<Queue, sync::manual_reset>;
template <class Queue>
using auto_event_of = basic_event<Queue, sync::auto_reset>;

}  // namespace

TEST_CASE_TEMPLATE("an event that is set lets everybody through until it is reset", Queue, SUPPORT_QUEUES) {
  event_of<Queue> e;

  CHECK_FALSE(e.is_set());
  CHECK_FALSE(e.try_wait());
  CHECK_FALSE(e.wait_for(0ns));
  CHECK_FALSE(e.wait_for(1ms));
  e.set();
  CHECK(e.is_set());
  CHECK(e.try_wait());
  CHECK(e.wait_for(-1s));
  e.wait();
  e.set();
  e.wait();
  e.reset();
  e.reset();
  CHECK_FALSE(e.try_wait());
  CHECK_FALSE(e.wait_until(std::chrono::system_clock::now() + 1ms));
}

TEST_CASE_TEMPLATE("an event may be set from the beginning", Queue, SUPPORT_QUEUES) {
  event_of<Queue> manual(true);
  auto_event_of<Queue> once(true);

  manual.wait();
  once.wait();

  CHECK(manual.is_set());
  CHECK_FALSE(once.is_set());
}

TEST_CASE_TEMPLATE("an event that is set wakes all who wait, threads and callbacks", Queue, SUPPORT_QUEUES) {
  event_of<Queue> e;
  loop l;
  std::atomic<int> through{0};
  int called = 0;
  {
    std::vector<scoped_thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        e.wait();
        ++through;
      });
    }
    for (int i = 0; i < 3; ++i) {
      e.async_wait(l, [&](wait_status how) {
        CHECK(how == wait_status::granted);
        if (++called == 3) l.stop();
      });
    }

    e.set();
    e.reset();
    e.set();
    l.run();
  }
  CHECK(through == 4);
  CHECK(called == 3);
}

TEST_CASE_TEMPLATE("an auto event lets one through for each time it is set, and keeps one", Queue, SUPPORT_QUEUES) {
  auto_event_of<Queue> e;

  e.set();
  e.set();
  CHECK(e.is_set());
  CHECK(e.try_wait());
  CHECK_FALSE(e.try_wait());

  loop l;
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    e.async_wait(l, [&order, i](wait_status) { order.push_back(i); });
  }
  e.set();
  e.set();
  CHECK_FALSE(e.is_set());
  l.run_until_idle();
  CHECK(order == std::vector<int>{0, 1});
  e.set();
  l.run_until_idle();
  CHECK(order == std::vector<int>{0, 1, 2});
}

TEST_CASE_TEMPLATE("a signal is not lost on one who gave up", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(2000, 50);
  auto_event_of<Queue> e;
  std::atomic<std::size_t> heard{0};
  std::size_t given_up = 0;
  {
    const scoped_thread setter([&] {
      for (std::size_t i = 0; i < rounds; ++i) {
        e.set();
        while (heard == i) std::this_thread::yield();
      }
    });
    while (heard != rounds) {
      if (e.wait_for(std::chrono::microseconds(given_up % 50))) ++heard;
      else ++given_up;
    }
  }
  CHECK_FALSE(e.is_set());
}

TEST_CASE_TEMPLATE("a signal for a loop that is gone goes to another", Queue, SUPPORT_QUEUES) {
  auto_event_of<Queue> e;
  fate unheard;
  {
    loop gone;
    e.async_wait(gone, [kept = witness<>(unheard)](wait_status) mutable { kept(); });
    e.set();
    CHECK_FALSE(e.is_set());
  }
  CHECK(unheard.ran == 0);
  CHECK(unheard.destroyed == 1);
  CHECK(e.try_wait());
}

TEST_CASE_TEMPLATE("waits for an event are cancelled and time out", Queue, SUPPORT_QUEUES) {
  event_of<Queue> e;
  loop l;
  std::vector<wait_status> heard;
  const auto hear = [&](wait_status how) {
    heard.push_back(how);
    if (heard.size() == 2) l.stop();
  };
  const auto ticket = e.async_wait(l, hear);
  e.async_wait(l, hear, {1, loop::clock::now() + 1ms});

  CHECK(e.cancel(ticket));
  CHECK_FALSE(e.cancel(ticket));
  l.run();

  std::sort(heard.begin(), heard.end());
  CHECK(heard == std::vector<wait_status>{wait_status::timed_out, wait_status::cancelled});
}

TEST_CASE_TEMPLATE("a signal, a deadline and two cancels meet: a wait is told once, and no signal is lost", Queue, SUPPORT_QUEUES) {
  const std::size_t rounds = scaled(1000, 50);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < rounds; ++i) {
    auto_event_of<Queue> e;
    basic_latch<Queue> open(1);
    loop l;
    wait_status of_event{}, of_latch{};
    int told = 0;
    typename auto_event_of<Queue>::ticket first, second;
    std::atomic<int> cancelled{0};
    {
      rendezvous start(4);
      const auto cancel = [&] { start.meet(), dawdle(i % 5 * 4000), cancelled += e.cancel(first) + 16 * open.cancel(second); };
      const scoped_thread setter([&] { start.meet(), dawdle(i % 3 * 4000), e.set(), open.count_down(); });
      const scoped_thread one(cancel), other(cancel);
      const wait_options how{1, loop::clock::now() + std::chrono::microseconds(10 * (1 + i % 8))};
      first = e.async_wait(l, [&](wait_status s) { of_event = s, ++told; }, how);
      second = open.async_wait(l, [&](wait_status s) { of_latch = s, ++told; }, how);
      start.meet();
      while (told != 2) l.run_once();
    }
    l.run_until_idle();

    wrong += told != 2;
    wrong += (of_event == wait_status::cancelled) != (cancelled % 16 == 1) || cancelled % 16 > 1;
    wrong += (of_latch == wait_status::cancelled) != (cancelled / 16 == 1) || cancelled / 16 > 1;
    wrong += e.is_set() == (of_event == wait_status::granted);
    wrong += !open.try_wait();
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("a wait whose deadline has passed is over at once", Queue, SUPPORT_QUEUES) {
  loop l;
  std::vector<wait_status> heard;
  const auto hear = [&](wait_status how) { heard.push_back(how); };
  const wait_options past{1, loop::clock::now() - 1s};
  event_of<Queue> e;
  basic_latch<Queue> open(0);
  basic_condvar<Queue> c;

  e.async_wait(l, hear, past);
  e.set();
  e.async_wait(l, hear, past);
  open.async_wait(l, hear, past);
  c.async_wait(l, hear, past);
  l.run_until_idle();

  CHECK(heard == std::vector<wait_status>{wait_status::timed_out, wait_status::granted, wait_status::granted, wait_status::timed_out});
}

TEST_CASE_TEMPLATE("an open latch and a set event need no loop", Queue, SUPPORT_QUEUES) {
  event_of<Queue> e(true);
  basic_latch<Queue> open(0);
  {
    loop gone;
    open.async_wait(gone, [](wait_status) { std::abort(); });
    e.async_wait(gone, [](wait_status) { std::abort(); });
  }
  CHECK(e.is_set());
  CHECK(open.try_wait());
}

TEST_CASE_TEMPLATE("what was done before an event was set is seen by who has waited", Queue, SUPPORT_QUEUES) {
  for (std::size_t i = 0; i < scaled(300, 20); ++i) {
    event_of<Queue> e;
    int value = 0;
    const scoped_thread writer([&] {
      value = 42;
      e.set();
    });
    e.wait();
    CHECK(value == 42);
  }
}

TEST_CASE_TEMPLATE("a latch opens when it is counted down, and stays open", Queue, SUPPORT_QUEUES) {
  basic_latch<Queue> done(3);

  CHECK_FALSE(done.try_wait());
  done.count_down();
  done.count_down(0);
  CHECK_FALSE(done.wait_for(1ms));
  done.count_down(2);
  CHECK(done.try_wait());
  done.wait();
  CHECK(done.wait_for(0ns));

  basic_latch<Queue> nothing(0);
  nothing.wait();
}

TEST_CASE_TEMPLATE("threads that arrive and wait leave together, and the last may destroy the latch", Queue, SUPPORT_QUEUES) {
  for (std::size_t i = 0; i < scaled(200, 20); ++i) {
    std::atomic<int> arrived{0};
    basic_latch<Queue> here(3);
    std::vector<scoped_thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        ++arrived;
        here.arrive_and_wait();
        if (arrived != 3) std::abort();
      });
    }
  }
}

TEST_CASE_TEMPLATE("a latch on the stack is gone as soon as its waiter has been told", Queue, SUPPORT_QUEUES) {
  loop l;
  {
    const running<loop> runner(l);
    for (std::size_t i = 0; i < scaled(3000, 100); ++i) {
      basic_latch<Queue> done(1);
      must_post(l, [&] { done.count_down(); });
      done.wait();
    }
  }
}

TEST_CASE_TEMPLATE("callbacks wait for a latch", Queue, SUPPORT_QUEUES) {
  basic_latch<Queue> done(2);
  loop l;
  int called = 0;
  for (int i = 0; i < 2; ++i) {
    done.async_wait(l, [&](wait_status how) {
      CHECK(how == wait_status::granted);
      if (++called == 3) l.stop();
    });
  }
  const scoped_thread other([&] { done.count_down(2); });
  done.async_wait(l, [&](wait_status) {
    if (++called == 3) l.stop();
  });
  l.run();
  CHECK(called == 3);
}

TEST_SUITE_END();
