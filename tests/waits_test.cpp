// waits_test.cpp - callbacks that wait on loops: called once or not at all, and no permit is ever lost on the way
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "support/race.hpp"
#include "support/scarcity.hpp"
#include "support/support.hpp"
#include "support/waits.hpp"

using namespace support;
using hybridloop::basic_condvar;
using hybridloop::basic_semaphore;
using hybridloop::loop;
using hybridloop::wait_status;

namespace {

template <class Semaphore>
typename Semaphore::options wants(std::ptrdiff_t n) {
  typename Semaphore::options how;
  how.n = n;
  return how;
}
template <class Semaphore>
typename Semaphore::options within(std::chrono::nanoseconds span, std::ptrdiff_t n = 1) {
  auto how = wants<Semaphore>(n);
  how.deadline = Semaphore::clock::now() + span;
  return how;
}

// What may come while a wait is being entered. The loop is run by whoever does it.
struct event {
  std::string name;
  std::ptrdiff_t released;
  std::function<void(wait_loop&, const std::function<void(std::ptrdiff_t)>&, const std::function<void()>&)> happen;
};
const event events[] = {
    {"a release", 1, [](wait_loop&, const auto& release, const auto&) { release(1); }},
    {"a release of more", 5, [](wait_loop&, const auto& release, const auto&) { release(5); }},
    {"a release, and a turn", 1,
     [](wait_loop& l, const auto& release, const auto&) {
       release(1);
       elsewhere([&l] { turn(l); });
     }},
    {"a close", 0, [](wait_loop&, const auto&, const auto& close) { close(); }},
    {"a release and a close", 1,
     [](wait_loop&, const auto& release, const auto& close) {
       release(1);
       close();
     }},
    {"the deadline", 0,
     [](wait_loop& l, const auto&, const auto&) {
       virtual_clock::advance(1h);
       elsewhere([&l] { turn(l); });
     }},
    {"a release and the deadline", 1,
     [](wait_loop& l, const auto& release, const auto&) {
       release(1);
       virtual_clock::advance(1h);
       elsewhere([&l] { turn(l); });
     }},
    {"the deadline and a release", 1,
     [](wait_loop& l, const auto& release, const auto&) {
       virtual_clock::advance(1h);
       elsewhere([&l] { turn(l); });
       release(1);
     }},
    {"the end of the loop", 0,
     [](wait_loop& l, const auto&, const auto&) {
       l.close();
       elsewhere([&l] { l.run(); });
     }},
    {"a release and the end of the loop", 1,
     [](wait_loop& l, const auto& release, const auto&) {
       release(1);
       l.close();
       elsewhere([&l] { l.run(); });
     }},
    {"the end of the loop and a release", 1,
     [](wait_loop& l, const auto& release, const auto&) {
       l.close();
       elsewhere([&l] { l.run(); });
       release(1);
     }},
};

}  // namespace

TEST_SUITE_BEGIN("waits");

// ---- How it ends ----

TEST_CASE_TEMPLATE("callbacks are granted in the order in which they came", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(0);
  loop l;
  std::vector<int> order;
  for (int i = 0; i < 20; ++i) {
    s.async_acquire(l, [&order, i](wait_status how) { order.push_back(how == wait_status::granted ? i : -1); });
  }

  for (int i = 0; i < 20; ++i) s.release();
  turn(l);

  REQUIRE(order.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) CHECK(order[i] == static_cast<int>(i));
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("permits that are there are had at once, and still never before the call returns", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(2);
  report r;
  loop l;
  must_post(l, [&] {
    s.async_acquire(l, listener<>(r), wants<basic_semaphore<Queue>>(2));
    CHECK(r.ran() == 0);
    CHECK(s.available() == 0);
  });

  turn(l);

  CHECK(r.granted == 1);
  CHECK(r.destroyed == 1);
}

TEST_CASE_TEMPLATE("no permits at all are granted at once", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l;

  s.async_acquire(l, listener<>(r), wants<basic_semaphore<Queue>>(0));
  turn(l);

  CHECK(r.granted == 1);
}

TEST_CASE_TEMPLATE("a wait ends at its deadline, not before, and takes nothing", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  semaphore s(1);
  report r;
  wait_loop l;
  s.async_acquire(l, listener<>(r), within<semaphore>(1ms, 3));
  virtual_clock::advance(1ms - 1ns);
  turn(l);
  CHECK(r.ran() == 0);
  CHECK(s.available() == 0);

  virtual_clock::advance(1ns);
  turn(l);

  CHECK(r.timed_out == 1);
  CHECK(r.destroyed == 1);
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("a deadline that has passed still takes what is there, and waits for nothing", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  semaphore s(1);
  report first;
  report second;
  wait_loop l;

  s.async_acquire(l, listener<>(first), within<semaphore>(-1s));
  s.async_acquire(l, listener<>(second), within<semaphore>(-1s));
  turn(l);

  CHECK(first.granted == 1);
  CHECK(second.timed_out == 1);
}

TEST_CASE_TEMPLATE("a permit beats the deadline of the same turn", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  semaphore s(0);
  report r;
  wait_loop l;
  s.async_acquire(l, listener<>(r), within<semaphore>(1ms));

  s.release();
  virtual_clock::advance(1s);
  turn(l);

  CHECK(r.granted == 1);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a cancel that answers true is heard, once, and the permit goes to the next", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(0);
  report gone;
  report next;
  loop l;
  const auto ticket = s.async_acquire(l, listener<>(gone));
  s.async_acquire(l, listener<>(next));
  CHECK(ticket);

  CHECK(s.cancel(ticket));
  CHECK_FALSE(s.cancel(ticket));
  s.release();
  turn(l);

  CHECK(gone.cancelled == 1);
  CHECK(gone.ran() == 1);
  CHECK(next.granted == 1);
  CHECK_FALSE(s.cancel(ticket));
}

TEST_CASE_TEMPLATE("a cancel after the grant answers false, and the callback hears of the grant", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l;
  const auto ticket = s.async_acquire(l, listener<>(r));
  s.release();

  CHECK_FALSE(s.cancel(ticket));
  turn(l);

  CHECK(r.granted == 1);
}

TEST_CASE_TEMPLATE("cancelling who waits for many lets those behind it run with what it had", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(4);
  report many;
  report one;
  loop l;
  const auto ticket = s.async_acquire(l, listener<>(many), wants<semaphore>(8));
  s.async_acquire(l, listener<>(one));
  turn(l);
  CHECK(one.ran() == 0);

  CHECK(s.cancel(ticket));
  turn(l);

  CHECK(many.cancelled == 1);
  CHECK(one.granted == 1);
  CHECK(s.available() == 3);
}

TEST_CASE_TEMPLATE("a ticket means nothing to another semaphore, nor after its wait, to the record's next one", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(0);
  semaphore other(0);
  report r;
  loop l;
  const typename semaphore::ticket none;
  const auto old = s.async_acquire(l, listener<>(r));
  CHECK_FALSE(other.cancel(old));
  CHECK_FALSE(s.cancel(none));
  CHECK_FALSE(none);
  s.release();
  turn(l);

  report next;
  const auto fresh = s.async_acquire(l, listener<>(next));
  CHECK(fresh != old);
  CHECK_FALSE(s.cancel(old));
  CHECK(next.ran() == 0);
  CHECK(s.cancel(fresh));
  turn(l);

  CHECK(next.cancelled == 1);
}

TEST_CASE_TEMPLATE("a ticket may outlive wait, semaphore and loop", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  typename semaphore::ticket kept;
  report r;
  {
    auto s = std::make_unique<semaphore>(0);
    auto l = std::make_unique<loop>();
    kept = s->async_acquire(*l, listener<>(r));
    l.reset();
    CHECK_FALSE(s->cancel(kept));
  }
  semaphore later(0);

  CHECK_FALSE(later.cancel(kept));
  CHECK(r.ran() == 0);
  CHECK(r.destroyed == 1);
  kept = {};
  CHECK_FALSE(kept);
}

TEST_CASE_TEMPLATE("close tells everybody who waits, and whoever comes later; permits stay exact", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(2);
  report r;
  report late;
  loop l;
  s.async_acquire(l, listener<>(r), wants<semaphore>(3));
  s.async_acquire(l, listener<>(r));

  s.close();
  s.async_acquire(l, listener<>(late));
  turn(l);

  CHECK(r.closed == 2);
  CHECK(late.closed == 1);
  CHECK(s.available() == 2);
}

TEST_CASE_TEMPLATE("a callback counts as one task, and as one post", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l;
  for (int i = 0; i < 10; ++i) s.async_acquire(l, listener<>(r));
  s.release(10);

  const std::size_t ran = l.poll();

  CHECK(ran == 10);
  CHECK(l.stats().tasks == 10);
  CHECK(r.granted == 10);
}

TEST_CASE_TEMPLATE("run_until_idle waits for a deadline and for no other wait", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  report endless;
  report timed;
  semaphore s(0);
  wait_loop l;
  s.async_acquire(l, listener<>(endless));
  s.async_acquire(l, listener<>(timed), within<semaphore>(1h));

  l.run_until_idle();

  CHECK(timed.timed_out == 1);
  CHECK(endless.ran() == 0);
}

// ---- What a callback may be and do ----

TEST_CASE_TEMPLATE("callbacks of any size are moved, called and destroyed once", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l(tiny(4, 0));
  s.async_acquire(l, listener<8>(r));
  s.async_acquire(l, listener<64>(r));
  s.async_acquire(l, listener<120>(r));
  s.async_acquire(l, listener<5000>(r));

  s.release(4);
  turn(l);

  CHECK(r.granted == 4);
  CHECK(r.destroyed == 4);
}

TEST_CASE_TEMPLATE("a callback may wait, release, cancel and end the loop", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(1);
  report other;
  loop l;
  const auto ticket = s.async_acquire(l, [](wait_status) {});
  const auto second = s.async_acquire(l, listener<>(other), wants<semaphore>(2));
  int again = 0;
  bool cancelled = false;
  std::function<void(wait_status)> step = [&](wait_status how) {
    REQUIRE(how == wait_status::granted);
    s.release();
    if (++again < 100) {
      s.async_acquire(l, [&step](wait_status h) { step(h); });
    } else {
      l.stop();
    }
  };
  turn(l);
  must_post(l, [&] {
    cancelled = s.cancel(second);
    s.async_acquire(l, [&step](wait_status h) { step(h); });
    s.release();
  });

  l.run();

  CHECK(cancelled);
  CHECK_FALSE(s.cancel(ticket));
  CHECK(again == 100);
  CHECK(other.cancelled == 1);
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("the callback that was granted may destroy its semaphore, while the release is on its way out", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    const running<loop> runner(*l);
    const std::size_t rounds = scaled(5000);
    std::atomic<std::size_t> over{0};

    for (std::size_t i = 0; i < rounds; ++i) {
      auto* const s = new semaphore(0);
      s->async_acquire(*l, [s, &over](wait_status) {
        delete s;
        ++over;
      });
      s->release();
    }
    await([&] { return over == rounds; });

    CHECK(over == rounds);
  }
}

#if defined(__cpp_exceptions)
TEST_CASE_TEMPLATE("what a callback throws leaves run(), and its wait is over", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(2);
  report r;
  loop l;
  s.async_acquire(l, [](wait_status) { throw std::runtime_error("callback"); });
  s.async_acquire(l, listener<>(r));

  CHECK_THROWS_AS(l.poll(), std::runtime_error);
  turn(l);

  CHECK(r.granted == 1);
}

TEST_CASE_TEMPLATE("a callback whose move throws was never entered", Queue, SUPPORT_QUEUES) {
  struct fragile {
    fragile() = default;
    fragile(const fragile&) { throw std::runtime_error("copy"); }
    void operator()(wait_status) const {}
  };
  basic_semaphore<Queue> s(0);
  loop l;
  const fragile f;
  report r;

  CHECK_THROWS_AS(s.async_acquire(l, f), std::runtime_error);
  s.async_acquire(l, listener<>(r));
  s.release();
  turn(l);

  CHECK(r.granted == 1);
  CHECK(s.available() == 0);
}

#if SUPPORT_COUNTS_ALLOCATIONS
TEST_CASE_TEMPLATE("a wait for which there is no memory has not happened, each allocation refused in turn", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, meagre_traits>;
  int which = 0;
  for (; which == 0 || scarcity::struck(); ++which) {
    CAPTURE(which);
    report r;
    int entered = 0;
    {
      meagre_loop l(tiny(2, 0));
      semaphore s(0);
      scarcity::prepare(which);
      for (int i = 0; i < 80; ++i) {
        try {
          const scarcity now;
          s.async_acquire(l, listener<300>(r), within<semaphore>(std::chrono::hours(1)));
          ++entered;
        } catch (const std::bad_alloc&) {
        } catch (const std::system_error&) {
        }
      }
      scarcity::lift();
      s.release(entered);
      while (r.ran() != entered) l.run_once();
      CHECK(r.granted == entered);
      CHECK(r.destroyed == 80);
      CHECK(s.available() == 0);
    }
    REQUIRE(which < 1000);
  }
  CHECK(which > 80);
}

TEST_CASE_TEMPLATE("a grant is delivered without memory, however full the loop is", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l(tiny(2, 0));
  for (int i = 0; i < 100; ++i) s.async_acquire(l, listener<>(r));
  const std::size_t before = allocations;

  nothing_left = true;
  s.release(100);
  turn(l, 200);
  nothing_left = false;

  CHECK(r.granted == 100);
  CHECK(allocations == before);
}

TEST_CASE_TEMPLATE("a grant that finds neither slot nor memory comes when the slot is free", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l(tiny(2, 0));
  for (int i = 0; i < 100; ++i) s.async_acquire(l, listener<>(r));
  must_post(l, [&] {
    nothing_left = true;
    s.release(100);
    turn(l, 10);
    nothing_left = false;
  });

  l.run_until_idle();

  CHECK(r.granted == 100);
  CHECK(r.destroyed == 100);
}
#endif
#endif

TEST_CASE_TEMPLATE("whoever finds the loop full is let in in its turn", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  loop l(tiny(2, 0));
  std::vector<int> order;
  for (int i = 0; i < 30; ++i) s.async_acquire(l, [&order, i](wait_status) { order.push_back(i); });

  elsewhere([&s] {
    for (int i = 0; i < 30; ++i) s.release();
  });
  CHECK(l.run_until_idle() == 30);

  for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == static_cast<int>(i));
}

TEST_CASE_TEMPLATE("a run inside of tasks that hold all slots hears of grants too", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  int inside = 0;
  loop l(tiny(2, 0));
  for (int i = 0; i < 5; ++i) s.async_acquire(l, listener<>(r));
  must_post(l, [&] {
    s.release(5);
    turn(l, 10);
    inside = r.granted;
  });

  l.run_until_idle();

  CHECK(inside == 5);
}

TEST_CASE_TEMPLATE("a grant wakes a full loop that sleeps, wherever it sleeps", Queue, SUPPORT_QUEUES) {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where, tiny(2, 0));
    const running<loop> runner(*l);
    basic_semaphore<Queue> s(0);
    report r;
    const int rounds = static_cast<int>(scaled(300));

    for (int i = 0; i < rounds; ++i) {
      for (int k = 0; k < 8; ++k) s.async_acquire(*l, listener<>(r));
      s.release(8);
      await([&] { return r.granted == 8 * (i + 1); });
    }

    CHECK(r.destroyed == 8 * rounds);
  }
}

TEST_CASE_TEMPLATE("a loop whose callers may run it is told like any other", Queue, SUPPORT_QUEUES) {
  hybridloop::loop_options options;
  options.caller_runs = true;
  loop l(options);
  const running<loop> runner(l);
  basic_semaphore<Queue> s(0);
  report r;
  const int rounds = static_cast<int>(scaled(2000));

  for (int i = 0; i < rounds; ++i) {
    l.invoke([&] { s.async_acquire(l, listener<>(r)); });
    if (i % 2 == 0) s.release();
    l.invoke([] {});
    if (i % 2 != 0) s.release();
  }
  await([&] { return r.destroyed == rounds; });

  CHECK(r.granted == rounds);
}

// ---- The end of the loop ----

TEST_CASE_TEMPLATE("a closed loop takes no wait: the callback is destroyed, the ticket empty", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  semaphore s(1);
  report r;
  loop l;
  l.close();

  CHECK_FALSE(s.async_acquire(l, listener<>(r)));
  CHECK_FALSE(s.async_acquire(l, listener<5000>(r), within<semaphore>(1h)));

  CHECK(r.destroyed == 2);
  CHECK(r.ran() == 0);
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("a loop that is destroyed ends its waits: unheard, destroyed once, others go on", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  report gone;
  report next;
  semaphore s(1);
  loop survivor;
  {
    loop l;
    s.async_acquire(l, listener<>(gone), wants<semaphore>(2));
    s.async_acquire(l, listener<5000>(gone), within<semaphore>(1h));
    s.async_acquire(survivor, listener<>(next));
    CHECK(s.available() == 0);
  }
  turn(survivor);

  CHECK(gone.ran() == 0);
  CHECK(gone.destroyed == 2);
  CHECK(next.granted == 1);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a callback may release, notify and cancel when it is destroyed, however it ended", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  basic_condvar<Queue> c;
  semaphore s(0), other(0);
  typename semaphore::ticket gone;
  const auto untouched = [&] {
    return std::shared_ptr<void>(nullptr, [&](void*) {
      s.cancel(gone);
      s.release();
      other.release();
      c.notify_all();
    });
  };
  report next;
  loop survivor;
  s.async_acquire(survivor, listener<>(next), wants<semaphore>(4));
  {
    loop l;
    gone = s.async_acquire(l, [kept = untouched()](wait_status) {});
    s.cancel(gone);
    turn(l);
    CHECK(other.available() == 1);
    c.async_wait(l, [kept = untouched()](wait_status) {});
    c.notify_one();
    turn(l);
    CHECK(other.available() == 2);
    gone = s.async_acquire(l, [kept = untouched()](wait_status) {});
    c.async_wait(l, [kept = untouched()](wait_status) {});
  }
  turn(survivor);

  CHECK(other.available() == 4);
  CHECK(next.granted == 1);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("what was granted and not delivered goes back when the loop is destroyed, late or not", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  for (const std::size_t ring : {std::size_t{2}, std::size_t{64}}) {
    CAPTURE(ring);
    semaphore s(0);
    report gone;
    {
      loop l(tiny(ring, 0));
      for (int i = 0; i < 10; ++i) s.async_acquire(l, listener<>(gone), wants<semaphore>(2));
      s.release(20);
      CHECK(s.available() == 0);
    }

    CHECK(gone.ran() == 0);
    CHECK(gone.destroyed == 10);
    CHECK(s.available() == 20);
  }
}

TEST_CASE_TEMPLATE("what was granted and delivered runs when the loop closes, and what waits is ended", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report told;
  report waits;
  loop l;
  for (int i = 0; i < 5; ++i) s.async_acquire(l, listener<>(told));
  for (int i = 0; i < 5; ++i) s.async_acquire(l, listener<>(waits));
  s.release(5);

  l.close();
  l.run();

  CHECK(told.granted == 5);
  CHECK(waits.ran() == 0);
  CHECK(waits.destroyed == 5);
  s.release();
  CHECK(s.available() == 1);
}

TEST_CASE_TEMPLATE("a full loop that has closed and run has given back what it could not deliver", Queue, SUPPORT_QUEUES) {
  basic_semaphore<Queue> s(0);
  report r;
  loop l(tiny(2, 0));
  for (int i = 0; i < 10; ++i) s.async_acquire(l, listener<>(r));
  s.release(10);

  l.close();
  l.run();

  CHECK(r.granted + s.available() == 10);
}

TEST_CASE_TEMPLATE("what found no room in the last turn of a loop is given back before run() returns", Queue, SUPPORT_QUEUES) {
  report r;
  basic_semaphore<Queue> s(0);
  loop l(tiny(2, 0));
  s.async_acquire(l, listener<>(r));
  must_post(l, [&] {
    while (l.try_post([] {}) == hybridloop::post_result::accepted) continue;
    s.release();
    l.close();
  });

  l.run();

  CHECK(r.granted + s.available() == 1);
}

TEST_CASE_TEMPLATE("who had to wait for room is not overtaken by who was granted after it", Queue, SUPPORT_QUEUES) {
  std::vector<int> order;
  basic_semaphore<Queue> s(0);
  loop l(tiny(2, 0));
  for (int i = 0; i < 3; ++i) s.async_acquire(l, [&order, i](wait_status) { order.push_back(i); });
  must_post(l, [&] {
    while (l.try_post([&s] { s.release(); }) == hybridloop::post_result::accepted) continue;
    s.release();
  });

  turn(l);
  s.release(3 - static_cast<int>(order.size()));
  turn(l);

  CHECK(order == std::vector<int>{0, 1, 2});
}

TEST_CASE_TEMPLATE("a permit that a closed loop cannot take passes a crowd of its waiters", Queue, SUPPORT_QUEUES) {
  const int crowd = static_cast<int>(scaled(100000, 50000));
  report gone;
  report next;
  basic_semaphore<Queue> s(0);
  loop survivor;
  {
    loop l;
    for (int i = 0; i < crowd; ++i) s.async_acquire(l, listener<>(gone));
    s.async_acquire(survivor, listener<>(next));
    l.close();

    s.release();
    turn(survivor);

    CHECK(next.granted == 1);
  }
  CHECK(gone.ran() == 0);
  CHECK(gone.destroyed == crowd);
}

TEST_CASE_TEMPLATE("a loop is ended while others release to it and cancel: nothing is lost, nothing runs later", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  const std::size_t rounds = scaled(3000);
  dice chance(7);
  std::size_t wrong = 0;

  for (std::size_t i = 0; i < rounds; ++i) {
    semaphore s(0);
    report r;
    auto l = std::make_unique<loop>(tiny(2, 0));
    std::vector<typename semaphore::ticket> tickets;
    for (int k = 0; k < 6; ++k) tickets.push_back(s.async_acquire(*l, listener<>(r)));
    const std::size_t way = chance.roll(3);
    const std::size_t pause = chance.roll(3000);
    rendezvous start(3);
    {
      const scoped_thread giver([&] {
        start.meet();
        for (int k = 0; k < 6; ++k) s.release();
      });
      const scoped_thread canceller([&] {
        start.meet();
        for (const auto& t : tickets) s.cancel(t);
      });
      start.meet();
      dawdle(pause);
      if (way == 1) l->close();
      if (way != 2) l->poll();
      if (way == 1) l->run();
      l.reset();
    }
    const bool exact = r.granted + s.available() == 6 && r.destroyed == 6 && r.ran() <= 6;
    if (!exact) ++wrong;
  }

  CHECK(wrong == 0);
}

// ---- Windows ----

TEST_CASE_TEMPLATE("whatever comes while a wait is being entered is heard once, and every permit is somewhere", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  for (const std::string point : {"coming", "registered", "joining", "arming"}) {
    for (const event& e : events) {
      for (const std::ptrdiff_t n : {std::ptrdiff_t{1}, std::ptrdiff_t{3}}) {
        for (const bool timed : {false, true}) {
          CAPTURE(point);
          CAPTURE(e.name);
          CAPTURE(n);
          CAPTURE(timed);
          report r;
          semaphore s(0);
          bool closed = false;
          std::ptrdiff_t released = 0;
          const auto release = [&](std::ptrdiff_t k) {
            released += k;
            s.release(k);
          };
          const auto close = [&] {
            closed = true;
            s.close();
          };
          {
            wait_loop l;
            {
              const stage here(point, [&] { e.happen(l, release, close); });
              s.async_acquire(l, listener<>(r), timed ? within<semaphore>(1s, n) : wants<semaphore>(n));
              CHECK(here.entered());
            }
            const bool ended = l.closed();
            turn(l);
            release(1);
            turn(l);
            if (ended) {
              CHECK(r.granted * n + s.available() == released);
            }
            release(3);
            turn(l);
          }

          CHECK(r.destroyed == 1);
          CHECK(r.ran() <= 1);
          CHECK(r.closed <= (closed ? 1 : 0));
          CHECK(r.granted * n + s.available() == released);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("a wait that a closing loop lets in holds nobody up behind it", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  for (const std::string point : {"coming", "registered", "joining", "arming"}) {
    CAPTURE(point);
    report gone;
    semaphore s(0);
    wait_loop l;
    {
      const stage here(point, [&] {
        l.close();
        elsewhere([&l] { l.run(); });
      });
      s.async_acquire(l, listener<>(gone), wants<semaphore>(8));
    }

    s.release();

    CHECK(s.available() == 1);
    CHECK(gone.ran() == 0);
  }
}

TEST_CASE_TEMPLATE("a release that is held up on its way meets a cancel, which is told the truth, and is not lost", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  semaphore s(0);
  report first;
  report second;
  wait_loop l;
  const auto ticket = s.async_acquire(l, listener<>(first));
  bool left = false;
  {
    const stage here("sending", [&] { left = s.cancel(ticket); });
    s.release();
  }
  s.async_acquire(l, listener<>(second));
  s.release();
  turn(l);

  CHECK(first.granted == (left ? 0 : 1));
  CHECK(first.cancelled == (left ? 1 : 0));
  CHECK(second.granted == 1);
  CHECK(s.available() == (left ? 1 : 0));
}

TEST_CASE_TEMPLATE("one permit is never held twice: a release and a cancel meet, and others come meanwhile", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  for (const bool cancels_second : {false, true}) {
    report a;
    report x;
    report y;
    semaphore s(0);
    wait_loop l;
    const auto one = s.async_acquire(l, listener<>(a));
    const auto two = s.async_acquire(l, listener<>(x));
    bool left = false;
    {
      const stage here("sending", [&] {
        left = s.cancel(cancels_second ? two : one);
        s.async_acquire(l, listener<>(y));
      });
      s.release();
    }
    turn(l);

    CHECK(left);
    CHECK(a.granted + x.granted + y.granted == 1);
    CHECK(a.cancelled + x.cancelled == 1);
    CHECK(s.available() == 0);
  }
}

TEST_CASE_TEMPLATE("the end of the loop while a release is on its way gives the permit back", Queue, SUPPORT_QUEUES) {
  using semaphore = semaphore_on<Queue, wait_traits>;
  semaphore s(0);
  report r;
  {
    wait_loop l;
    s.async_acquire(l, listener<>(r));
    const stage here("sending", [&] {
      l.close();
      elsewhere([&l] { l.run(); });
    });
    s.release();
  }

  CHECK(r.ran() == 0);
  CHECK(r.destroyed == 1);
  CHECK(s.available() == 1);
}

// ---- Condvars ----

TEST_CASE_TEMPLATE("notify_one tells the callback that has waited longest, notify_all those who wait then", Queue, SUPPORT_QUEUES) {
  std::vector<int> order;
  report again;
  basic_condvar<Queue> c;
  loop l;
  for (int i = 0; i < 4; ++i) {
    c.async_wait(l, [&, i](wait_status how) {
      order.push_back(how == wait_status::granted ? i : -1);
      if (i >= 2) c.async_wait(l, listener<>(again));
    });
  }
  c.notify_one();
  turn(l);
  CHECK(order == std::vector<int>{0});

  c.notify_all();
  turn(l);

  CHECK(order == std::vector<int>{0, 1, 2, 3});
  CHECK(again.ran() == 0);
}

TEST_CASE_TEMPLATE("a notification is for who waits now, and nobody who comes later", Queue, SUPPORT_QUEUES) {
  report r;
  basic_condvar<Queue> c;
  loop l;

  c.notify_one();
  c.notify_all();
  c.async_wait(l, listener<>(r));
  turn(l);

  CHECK(r.ran() == 0);
}

TEST_CASE_TEMPLATE("a cancelled callback absorbs no notification, and one given to a loop that ends goes to the next", Queue, SUPPORT_QUEUES) {
  report gone;
  report next;
  basic_condvar<Queue> c;
  loop survivor;
  auto l = std::make_unique<loop>();
  const auto ticket = c.async_wait(survivor, listener<>(gone));
  c.async_wait(*l, listener<>(gone));
  c.async_wait(survivor, listener<>(next));

  CHECK(c.cancel(ticket));
  c.notify_one();
  l.reset();
  turn(survivor);

  CHECK(gone.cancelled == 1);
  CHECK(gone.ran() == 1);
  CHECK(gone.destroyed == 2);
  CHECK(next.granted == 1);
}

TEST_CASE_TEMPLATE("a notification while a wait is being entered, or at its deadline, is heard once", Queue, SUPPORT_QUEUES) {
  using condvar = condvar_on<Queue, wait_traits>;
  for (const std::string point : {"joining", "arming"}) {
    for (const bool due : {false, true}) {
      CAPTURE(point);
      CAPTURE(due);
      condvar c;
      report r;
      wait_loop l;
      {
        const stage here(point, [&] {
          c.notify_one();
          if (due) virtual_clock::advance(1h);
          elsewhere([&l] { turn(l); });
        });
        typename condvar::options how;
        how.deadline = virtual_clock::now() + 1s;
        c.async_wait(l, listener<>(r), how);
      }
      turn(l);

      CHECK(r.granted == 1);
      CHECK(r.ran() == 1);
    }
  }
}

// ---- All at once ----

TEST_CASE_TEMPLATE("threads, callbacks of several loops, deadlines and cancels share permits, and none is lost", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  constexpr std::ptrdiff_t permits = 3;
  const std::size_t rounds = scaled(8000);
  semaphore s(permits);
  std::atomic<int> holders{0};
  std::atomic<int> most{0};
  std::atomic<std::size_t> over{0};
  std::atomic<std::size_t> entered{0};
  const auto hold = [&](int n) {
    const int now = holders.fetch_add(n) + n;
    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    holders -= n;
    s.release(n);
  };
  loop second(tiny(64, 16));
  loop first(tiny(4, 0));
  {
    const running<loop> one(first);
    const running<loop> two(second);
    const auto work = [&](std::size_t seed) {
      dice chance(seed);
      for (std::size_t i = 0; i < rounds; ++i) {
        const int n = 1 + static_cast<int>(chance.roll(3));
        if (chance.roll(3) == 0) {
          if (s.acquire(n) == wait_status::granted) hold(n);
          continue;
        }
        loop& where = chance.roll(2) == 0 ? first : second;
        auto how = wants<semaphore>(n);
        if (chance.roll(2) == 0) how.deadline = loop::clock::now() + std::chrono::microseconds(chance.roll(60));
        ++entered;
        const auto ticket = s.async_acquire(
            where,
            [&, n](wait_status status) {
              if (status == wait_status::granted) hold(n);
              ++over;
            },
            how);
        if (chance.roll(3) == 0) s.cancel(ticket);
        if (chance.roll(4) == 0 && s.try_acquire_for(std::chrono::microseconds(chance.roll(50)), n)) hold(n);
      }
    };
    {
      const scoped_thread a([&] { work(1); });
      const scoped_thread b([&] { work(2); });
      work(3);
    }
    await([&] { return over == entered; });
  }

  CHECK(most <= permits);
  CHECK(holders == 0);
  CHECK(s.available() == permits);
}

TEST_CASE_TEMPLATE("cancels race with grants and with each other: one answer is true, one status is heard", Queue, SUPPORT_QUEUES) {
  using semaphore = basic_semaphore<Queue>;
  const std::size_t rounds = scaled(5000);
  loop l;
  const running<loop> runner(l);
  std::size_t wrong = 0;
  rendezvous start(3);
  typename semaphore::ticket ticket;
  semaphore s(0);
  std::atomic<int> cancels{0};
  const auto cancel_all = [&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      start.meet();
      if (s.cancel(ticket)) ++cancels;
      start.meet();
    }
  };
  const scoped_thread one(cancel_all);
  const scoped_thread two(cancel_all);

  for (std::size_t i = 0; i < rounds; ++i) {
    report r;
    cancels = 0;
    typename semaphore::options how;
    if (i % 2 == 0) how.deadline = loop::clock::now() + std::chrono::microseconds(i % 40);
    ticket = s.async_acquire(l, listener<>(r), how);
    start.meet();
    s.release();
    start.meet();
    await([&] { return r.destroyed == 1; });
    const bool exact = r.ran() == 1 && r.cancelled == cancels && r.granted + s.available() == 1;
    if (!exact) ++wrong;
    s.forget(1);
  }

  CHECK(wrong == 0);
}

TEST_SUITE_END();
