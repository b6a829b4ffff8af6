// awaiter_test.cpp - coroutines that wait; where the compiler has them
#include "support/queues.hpp"
#include "support/running.hpp"

#if defined(__cpp_impl_coroutine)
#include <coroutine>
#include <memory>
#include <vector>

using namespace hybridloop;
using namespace support;

TEST_SUITE_BEGIN("awaiter");

namespace {

// A coroutine type of the test's: it starts at once, and its frame goes with its end.
struct job {
  struct promise_type {
    job get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::abort(); }
  };
};

// One whose frame its owner destroys.
struct owned {
  struct promise_type {
    owned get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::abort(); }
  };
  std::coroutine_handle<> frame;
};

template <class Semaphore>
job take_turns(Semaphore& s, loop& l, int turns, int& inside, int& left) {
  for (int i = 0; i < turns; ++i) {
    const wait_status how = co_await s.acquire_on(l);
    CHECK(how == wait_status::granted);
    CHECK(l.running_in_this_thread());
    CHECK(++inside == 1);
    --inside;
    s.release();
  }
  if (--left == 0) l.stop();
}

template <class Semaphore>
job wait_once(Semaphore& s, loop& l, std::vector<wait_status>& heard, wait_options how = {}) {
  heard.push_back(co_await s.acquire_on(l, how));
}

template <class Semaphore>
void turns_in_order() {
  Semaphore s(1);
  loop l;
  int inside = 0, left = 5;
  for (int i = 0; i < 5; ++i) must_post(l, [&] { take_turns(s, l, 200, inside, left); });
  l.run();
  CHECK(s.available() == 1);
}

}  // namespace

TEST_CASE_TEMPLATE("coroutines of one loop have a permit in turn", Queue, SUPPORT_QUEUES) {
  turns_in_order<basic_semaphore<Queue, sync::fifo>>();
  turns_in_order<basic_semaphore<Queue, sync::barging>>();
}

TEST_CASE_TEMPLATE("coroutines of two loops and a thread share a permit", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  loop one, two;
  std::atomic<int> inside{0};
  const auto visit = [&](loop& l, int turns) -> job {
    for (int i = 0; i < turns; ++i) {
      if (co_await s.acquire_on(l) != wait_status::granted) std::abort();
      if (++inside != 1) std::abort();
      --inside;
      s.release();
    }
    l.stop();
  };
  const int turns = static_cast<int>(scaled(2000, 100));
  {
    const scoped_thread first([&] { one.run(); });
    const scoped_thread second([&] { two.run(); });
    must_post(one, [&] { visit(one, turns); });
    must_post(two, [&] { visit(two, turns); });
    for (int i = 0; i < turns; ++i) {
      const auto held = s.hold();
      if (++inside != 1) std::abort();
      --inside;
    }
  }
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("a coroutine that finds a permit on its loop does not stop", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  loop l;
  std::vector<wait_status> heard;
  must_post(l, [&] {
    wait_once(s, l, heard);
    CHECK(heard.size() == 1);
  });
  l.poll();
  CHECK(heard == std::vector<wait_status>{wait_status::granted});
}

TEST_CASE_TEMPLATE("a coroutine that waits elsewhere goes on on its loop", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(1);
  loop l;
  std::vector<wait_status> heard;

  wait_once(s, l, heard);

  CHECK(heard.empty());
  l.poll();
  CHECK(heard == std::vector<wait_status>{wait_status::granted});
}

TEST_CASE_TEMPLATE("a coroutine times out, hears of the close, and of a loop that is closed", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  loop l, closed;
  closed.close();
  std::vector<wait_status> heard;

  wait_once(s, l, heard, {1, loop::clock::now() + 1ms});
  while (heard.empty()) l.run_once();
  wait_once(s, l, heard, {1, loop::clock::now() - 1ms});
  l.poll();
  wait_once(s, closed, heard);
  wait_once(s, l, heard);
  s.close();
  l.poll();

  CHECK(heard == std::vector<wait_status>{wait_status::timed_out, wait_status::timed_out, wait_status::closed, wait_status::closed});
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a loop that is destroyed leaves a coroutine where it waits, and its permit goes to others", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  bool resumed = false;
  std::coroutine_handle<> frame;
  {
    loop l;
    frame = [](basic_semaphore<Queue>& sem, loop& home, bool& flag) -> owned {
      static_cast<void>(co_await sem.acquire_on(home));
      flag = true;
    }(s, l, resumed)
                                                                           .frame;
    s.release();
    CHECK(s.available() == 0);
  }
  CHECK_FALSE(resumed);
  CHECK(s.available() == 1);
  frame.destroy();
}

TEST_CASE_TEMPLATE("a coroutine that is told destroys the semaphore", Queue, SUPPORT_QUEUES) {
  for (std::size_t i = 0; i < scaled(300, 20); ++i) {
    auto s = std::make_unique<basic_semaphore<Queue>>(0);
    auto* const shared = s.get();
    loop l;
    [](std::unique_ptr<basic_semaphore<Queue>> sem, loop& home) -> job {
      if (co_await sem->acquire_on(home) != wait_status::granted) std::abort();
      sem.reset();
      home.stop();
    }(std::move(s), l);
    const scoped_thread giver([&] { shared->release(); });
    l.run();
  }
}

TEST_CASE_TEMPLATE("coroutines go on in the order in which they began to wait, notified one by one or all at once", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  loop l;
  std::vector<int> order;
  const auto one = [&](int number) -> job {
    if (co_await c.wait_on(l) != wait_status::granted) std::abort();
    order.push_back(number);
  };
  for (int i = 0; i < 6; ++i) one(i);

  c.notify_one();
  l.poll();
  CHECK(order == std::vector<int>{0});
  c.notify_one();
  c.notify_one();
  l.poll();
  CHECK(order == std::vector<int>{0, 1, 2});
  one(6);
  c.notify_all();
  one(7);
  l.run_until_idle();
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6});

  c.notify_one();
  l.poll();
  CHECK(order.back() == 7);
}

TEST_CASE_TEMPLATE("a notification for a coroutine whose loop is gone goes to the next that waits", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  basic_event<Queue, sync::auto_reset> e;
  loop lasting;
  std::vector<int> heard;
  std::vector<std::coroutine_handle<>> frames;
  const auto on_condvar = [&](loop& l, int number) -> owned {
    static_cast<void>(co_await c.wait_on(l));
    heard.push_back(number);
  };
  const auto on_event = [&](loop& l, int number) -> owned {
    static_cast<void>(co_await e.wait_on(l));
    heard.push_back(number);
  };
  {
    loop gone;
    for (loop* l : {&gone, &lasting, &lasting}) frames.push_back(on_condvar(*l, static_cast<int>(frames.size())).frame);
    for (loop* l : {&gone, &lasting, &lasting}) frames.push_back(on_event(*l, static_cast<int>(frames.size())).frame);
    c.notify_one();
    e.set();
    lasting.poll();
    CHECK(heard.empty());
  }
  lasting.poll();
  lasting.poll();
  CHECK(heard == std::vector<int>{1, 4});

  c.notify_one();
  e.set();
  lasting.poll();
  CHECK(heard == std::vector<int>{1, 4, 2, 5});
  for (const auto frame : frames) frame.destroy();
}

TEST_CASE_TEMPLATE("coroutines wait for condvars, events, latches, locks and values", Queue, SUPPORT_QUEUES) {
  basic_condvar<Queue> changed;
  basic_event<Queue, sync::manual_reset> set;
  basic_latch<Queue> done(1);
  basic_mutex<Queue> lock;
  basic_channel<int, Queue> values(1);
  loop l;
  int steps = 0;
  const auto all = [&]() -> job {
    if (co_await changed.wait_on(l) == wait_status::granted) ++steps;
    if (co_await set.wait_on(l) == wait_status::granted) ++steps;
    if (co_await done.wait_on(l) == wait_status::granted) ++steps;
    if (co_await lock.lock_on(l) == wait_status::granted) ++steps;
    if (co_await values.receive_on(l) == 5) ++steps;
    int next = 6;
    if (co_await values.send_on(l, next) == wait_status::granted) ++steps;
    values.close();
    if (co_await values.send_on(l, next) == wait_status::closed) ++steps;
    l.stop();
  };
  lock.lock();
  must_post(l, all);
  l.poll();
  changed.notify_all();
  l.poll();
  CHECK(steps == 1);
  set.set();
  l.poll();
  done.count_down();
  l.poll();
  CHECK(steps == 3);
  lock.unlock();
  l.poll();
  CHECK(values.try_send(5));
  l.run();
  CHECK(steps == 7);
  CHECK(values.try_receive() == 6);
}

TEST_SUITE_END();
#endif
