// barging_test.cpp - permits that are put back and fought for: nobody is lost, robbed or not
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "support/queues.hpp"
#include "support/running.hpp"

using namespace hybridloop;
using namespace support;

TEST_SUITE_BEGIN("barging");

namespace {

template <class Queue>
using barging_of = basic_semaphore<Queue, sync::barging>;

}  // namespace

TEST_CASE_TEMPLATE("permits are counted, taken whole, forgotten and closed", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(3);

  CHECK(s.try_acquire(2));
  CHECK_FALSE(s.try_acquire(2));
  CHECK(s.available() == 1);
  CHECK(s.forget(5) == 1);
  CHECK(s.forget(1) == 0);
  s.release(2);
  CHECK(s.acquire(2) == wait_status::granted);
  CHECK_FALSE(s.try_acquire_for(0ns));
  CHECK_FALSE(s.try_acquire_for(1ms));
  CHECK_FALSE(s.closed());
  s.close();
  CHECK(s.closed());
  s.release(4);
  CHECK(s.available() == 4);
  CHECK(s.acquire() == wait_status::closed);
  CHECK(s.acquire(0) == wait_status::closed);
  CHECK_FALSE(s.try_acquire());
  CHECK_FALSE(s.try_acquire_for(1h));
  CHECK_FALSE(s.hold());
}

TEST_CASE_TEMPLATE("threads that fight for permits keep their number, with batches and timeouts", Queue, SUPPORT_QUEUES) {
  const std::size_t passes = scaled(4000, 200);
  for (const std::ptrdiff_t permits : {1, 2, 3}) {
    barging_of<Queue> s(permits);
    std::atomic<std::ptrdiff_t> inside{0};
    {
      std::vector<scoped_thread> threads;
      for (std::size_t t = 0; t < 5; ++t) {
        threads.emplace_back([&, t] {
          for (std::size_t i = 0; i < passes; ++i) {
            const std::ptrdiff_t n = permits == 3 && i % 5 == 0 ? 2 : 1;
            if ((i + t) % 7 == 0) {
              if (!s.try_acquire_for(std::chrono::microseconds(i % 30), n)) continue;
            } else if (s.acquire(n) != wait_status::granted) {
              std::abort();
            }
            if ((inside += n) > permits) std::abort();
            inside -= n;
            s.release(n);
          }
        });
      }
    }
    CHECK(s.available() == permits);
  }
}

TEST_CASE_TEMPLATE("who waits is woken for each permit that is left, one by the other", Queue, SUPPORT_QUEUES) {
  for (std::size_t i = 0; i < scaled(50, 5); ++i) {
    barging_of<Queue> s(0);
    std::vector<scoped_thread> threads;
    for (int t = 0; t < 6; ++t) {
      threads.emplace_back([&] {
        if (s.acquire() != wait_status::granted) std::abort();
      });
    }
    s.release(6);
    for (auto& t : threads) t.join();
    CHECK(s.available() == 0);
  }
}

TEST_CASE_TEMPLATE("a close that meets waiters of every kind leaves nobody behind", Queue, SUPPORT_QUEUES) {
  for (std::size_t i = 0; i < scaled(200, 20); ++i) {
    barging_of<Queue> s(0);
    std::atomic<std::ptrdiff_t> had{0};
    {
      std::vector<scoped_thread> threads;
      for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
          if (s.acquire() == wait_status::granted) ++had;
        });
      }
      threads.emplace_back([&] { s.release(2); });
      s.close();
    }
    CHECK(had + s.available() == 2);
  }
}

TEST_CASE_TEMPLATE("callbacks are served in order when nobody robs them", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(0);
  loop l;
  std::vector<int> order;
  for (int i = 0; i < 4; ++i) {
    s.async_acquire(l, [&order, i](wait_status how) {
      CHECK(how == wait_status::granted);
      order.push_back(i);
    });
  }
  s.release(4);
  l.run_until_idle();
  CHECK(order == std::vector<int>{0, 1, 2, 3});
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a callback that was robbed waits in front, and is served, cancelled, timed out or closed there", Queue, SUPPORT_QUEUES) {
  enum end { served, cancelled, timed_out, closed };
  for (const end how : {served, cancelled, timed_out, closed}) {
    barging_of<Queue> s(0);
    loop l;
    std::vector<wait_status> first, second;
    wait_options options;
    if (how == timed_out) options.deadline = loop::clock::now() + 300ms;
    const auto ticket = s.async_acquire(l, [&](wait_status st) { first.push_back(st); }, options);
    s.async_acquire(l, [&](wait_status st) { second.push_back(st); });

    s.release();
    REQUIRE(s.try_acquire());  // the robber
    l.poll();                  // the one in front has looked in vain
    CHECK(first.empty());
    switch (how) {
      case served: s.release(); break;
      case cancelled: CHECK(s.cancel(ticket)); break;
      case timed_out:
        while (first.empty()) l.run_once();
        break;
      case closed: s.close(); break;
    }
    l.poll();
    l.poll();

    constexpr wait_status ends[] = {wait_status::granted, wait_status::cancelled, wait_status::timed_out, wait_status::closed};
    CHECK(first == std::vector<wait_status>{ends[how]});
    CHECK_FALSE(s.cancel(ticket));
    if (how == closed) continue;
    CHECK(second.empty());
    s.release();
    l.poll();
    l.poll();
    CHECK(second == std::vector<wait_status>{wait_status::granted});
    CHECK(s.available() == 0);
  }
}

TEST_CASE_TEMPLATE("a callback that is cancelled on its way gives way to the next", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(0);
  loop l;
  std::vector<wait_status> first, second;
  const auto ticket = s.async_acquire(l, [&](wait_status st) { first.push_back(st); });
  s.async_acquire(l, [&](wait_status st) { second.push_back(st); });

  s.release();
  CHECK(s.cancel(ticket));
  l.run_until_idle();

  CHECK(first == std::vector<wait_status>{wait_status::cancelled});
  CHECK(second == std::vector<wait_status>{wait_status::granted});
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a deadline that has passed takes what is there, and waits for nothing", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(1);
  loop l;
  std::vector<wait_status> heard;
  const auto past = loop::clock::now() - 1s;
  const auto hear = [&](wait_status how) { heard.push_back(how); };

  s.async_acquire(l, hear, {1, past});
  s.async_acquire(l, hear, {1, past});
  l.run_until_idle();
  s.close();
  s.async_acquire(l, hear, {1, past});
  s.async_acquire(l, hear);
  l.run_until_idle();

  CHECK(heard == std::vector<wait_status>{wait_status::granted, wait_status::timed_out, wait_status::closed, wait_status::closed});
}

TEST_CASE_TEMPLATE("what a loop that is gone cannot take is somebody else's", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(1);
  {
    loop gone;  // one that had a permit at once, and one that was woken for another
    for (int i = 0; i < 2; ++i) s.async_acquire(gone, [](wait_status) { std::abort(); });
    CHECK(s.available() == 0);
    s.release();
  }
  CHECK(s.available() == 2);
  CHECK(s.acquire(2) == wait_status::granted);
}

TEST_CASE("a look for a permit ends, however long a pause of this CPU takes") {
  std::uint32_t& pauses = hybridloop::detail::pauses_per_1024_ns();
  const std::uint32_t measured = pauses;
  for (pauses = 1; pauses < 200; ++pauses) {
    hybridloop::basic_semaphore<sync::queue1, sync::barging> s(0);
    scoped_thread([&s] {  // a new thread has all its patience
      for (int i = 0; i < 6; ++i) CHECK_FALSE(s.try_acquire_for(1us));
    });
  }
  pauses = measured;
}

TEST_CASE_TEMPLATE("a callback that was robbed on its way to a loop that closes is not told that the semaphore did", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(0);
  const auto witness = std::make_shared<int>(0);
  loop l;
  s.async_acquire(l, [witness](wait_status) { ++*witness; });
  s.release();
  REQUIRE(s.try_acquire());

  l.close();
  l.run();

  CHECK(*witness == 0);
  CHECK(witness.use_count() == 1);
}

TEST_CASE_TEMPLATE("a loop that closes under its waiters wakes the next one elsewhere", Queue, SUPPORT_QUEUES) {
  barging_of<Queue> s(0);
  loop l;
  std::atomic<bool> had{false};
  {
    loop closed;
    for (int i = 0; i < 3; ++i) s.async_acquire(closed, [](wait_status) { std::abort(); });
    s.async_acquire(l, [&](wait_status how) { had = how == wait_status::granted; });
    closed.close();
    s.release();
  }
  l.run_until_idle();
  CHECK(had);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a semaphore on the stack is gone as soon as its waiter has what it waits for", Queue, SUPPORT_QUEUES) {
  loop l;
  {
    const running<loop> runner(l);
    for (std::size_t i = 0; i < scaled(3000, 100); ++i) {
      barging_of<Queue> done(0);
      must_post(l, [&] { done.release(); });
      must_post(l, [&] { done.release(); });
      if (done.acquire(2) != wait_status::granted) std::abort();
    }
  }
}

TEST_SUITE_END();
