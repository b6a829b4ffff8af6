// fairness_test.cpp - endless work of one kind starves no other, and no way of ending the loop
#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <optional>
#include <vector>

#include <hybridloop.hpp>

#include "support/running.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::post_result;

namespace {

// Everything that never ends, at once: each kind renews itself and counts.
class greed {
 public:
  enum kind { task, deferred, microtask, timer, timer_again, descriptor, file, kinds };

  explicit greed(loop& l) : loop_(l), file_(open_file()) {
    wire_.write_right();
  }
  greed(const greed&) = delete;
  greed& operator=(const greed&) = delete;
  ~greed() { close_file(file_); }

  void begin(kind which) {
    switch (which) {
      case task: return post();
      case deferred: return must_post(loop_, [this] { defer(); });
      case microtask: return must_post(loop_, [this] { chain(); });
      case timer: return rearm();
      case timer_again: loop_.every(1ns, [this] { count(timer_again); }); return;
      case descriptor: loop_.watch(wire_.left(), interest::readable, [this] { count(descriptor); }); return;
      case file: loop_.watch(file_, interest::writable, [this] { count(file); }); return;
      case kinds: return;
    }
  }

  std::size_t of(kind which) const { return counts_[which].load(); }
  std::size_t least() const {
    std::size_t fewest = of(task);
    for (int which = task; which != kinds; ++which) {
      if (of(kind(which)) < fewest) fewest = of(kind(which));
    }
    return fewest;
  }

 private:
  void count(kind which) { ++counts_[which]; }
  void post() {
    count(task);
    if (loop_.post([this] { post(); }) == post_result::closed) return;
  }
  void defer() {
    count(deferred);
    if (!loop_.closed()) loop_.defer([this] { defer(); });
  }
  void chain() {
    count(microtask);
    if (!loop_.closed()) loop_.microtask([this] { chain(); });
  }
  void rearm() {
    count(timer);
    loop_.after(0ns, [this] { rearm(); });
  }

  loop& loop_;
  socket_pair wire_;
  const hybridloop::native_handle file_;
  std::array<std::atomic<std::size_t>, kinds> counts_{};
};

struct greedy_loop {
  explicit greedy_loop(const place& where) : l(where), all(*l) {
    for (int which = greed::task; which != greed::kinds; ++which) all.begin(greed::kind(which));
  }
  // Members in this order: the descriptors are closed before the loop is destroyed, which it bears.
  loop_in<> l;
  greed all;
};

}  // namespace

TEST_SUITE_BEGIN("fairness");

TEST_CASE("no kind of endless work starves another one") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    greedy_loop greedy(where);
    const running<loop> runner(*greedy.l);

    await([&] { return greedy.all.least() >= 20; });
  }
}

TEST_CASE("endless work of one kind does not hold up a single task of another") {
  for (const place& where : {in_channel, in_bare_poller, in_mini}) {
    for (int which = greed::task; which != greed::kinds; ++which) {
      CAPTURE(where.name);
      CAPTURE(which);
      loop_in<> l(where);
      greed one(*l);
      one.begin(greed::kind(which));
      const running<loop> runner(*l);
      await([&] { return one.of(greed::kind(which)) >= 100; });
      socket_pair wire;
      gate posted;
      gate fired;
      gate heard;
      gate deferred;
      wire.write_right();

      must_post(*l, [&] {
        l->defer([&] { deferred.open(); });
        posted.open();
      });
      l->after(1ms, [&] { fired.open(); });
      l->watch(wire.left(), interest::readable | interest::oneshot, [&] { heard.open(); });

      posted.pass();
      fired.pass();
      heard.pass();
      deferred.pass();
    }
  }
}

TEST_CASE("stop ends a loop with endless work, from another thread and from within") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    greedy_loop greedy(where);

    const scoped_thread stopper([&] {
      await([&] { return greedy.all.least() >= 2; });
      greedy.l->stop();
    });
    greedy.l->run();
    must_post(*greedy.l, [&] { greedy.l->stop(); });
    greedy.l->run();

    CHECK(greedy.all.least() >= 2);
  }
}

TEST_CASE("close ends a loop with endless work") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    greedy_loop greedy(where);

    const scoped_thread closer([&] {
      await([&] { return greedy.all.least() >= 2; });
      greedy.l->close();
    });
    greedy.l->run();

    CHECK(greedy.l->closed());
    CHECK(greedy.l->run() == 0);
  }
}

TEST_CASE("run_for and poll come back from endless work") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    greedy_loop greedy(where);

    greedy.l->run_for(5ms);
    const std::size_t before = greedy.all.of(greed::task);
    greedy.l->poll();

    CHECK(before > 0);
    CHECK(greedy.all.of(greed::task) > before);
    CHECK(greedy.l->stats().parks == 0);
  }
}

TEST_CASE("a flood from other threads starves neither timers nor descriptors") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where, tiny(64, 1024, hybridloop::overflow::block));
    socket_pair wire;
    std::atomic<int> fired{0};
    std::atomic<int> heard{0};
    wire.write_right();
    l->every(100us, [&] { ++fired; }, hybridloop::repeat::skip_missed);
    l->watch(wire.left(), interest::readable, [&] { ++heard; });
    {
      const auto flood = [&] {
        while (l->post([] {}) != post_result::closed) {
        }
      };
      const scoped_thread one(flood);
      const scoped_thread two(flood);
      const scoped_thread closer([&] {
        await([&] { return fired >= 20 && heard >= 20; });
        l->close();
      });
      l->run();
    }

    CHECK(l->closed());
  }
}

TEST_SUITE_END();
