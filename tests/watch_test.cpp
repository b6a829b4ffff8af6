#include <algorithm>
#include <csignal>
#include <deque>
#include <functional>
#include <limits>
#include <numeric>
#include <ostream>
#include <system_error>
#include <thread>

#include "support/interrupt.hpp"
#include "support/watching.hpp"

using namespace support;
using hybridloop::errc;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::post_result;
using hybridloop::ready;
using hybridloop::watch_id;
using hybridloop::detail::has;
using kernel_here = hybridloop::detail::system_kernel;

namespace {

constexpr interest readable = interest::readable;
constexpr interest writable = interest::writable;
constexpr interest edge = interest::edge;
constexpr interest oneshot = interest::oneshot;

// What watches were told, in order.
struct diary {
  std::vector<ready> told;
  auto writer() {
    return [this](const ready& what) { told.push_back(what); };
  }
  std::size_t size() const { return told.size(); }
};

// Where the poller has no edges, `edge` is told like a level: who wants to hear once has to read.
constexpr bool edges = hybridloop::default_traits::poller::edges;
void read_unless_edges(const socket_pair& pair) {
  if (!edges) pair.drain_left();
}

descriptor closed_number() {
  const socket_pair pair;
  return pair.left();
}

// Another thread does something while this one waits for it.
template <class F>
void elsewhere(F&& f) {
  scoped_thread(std::forward<F>(f)).join();
}

}  // namespace

TEST_SUITE_BEGIN("watch");

// ---- What is told ----

EVERY_POLICY("a callback takes what happened, or nothing") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  diary with;
  int without = 0;
  const watch_id id = l.watch(pair.left(), readable, with.writer());
  l.watch(pair.left(), readable,
          [&without, unique = std::make_unique<int>(1)] { without += *unique; });
  pair.write_right();

  turn_until(l, [&] { return with.size() != 0 && without != 0; });

  CHECK(id);
  CHECK(with.told.at(0).id == id);
  CHECK(with.told.at(0).readable);
  CHECK(!with.told.at(0).writable);
  CHECK(!with.told.at(0).hangup);
  CHECK(!with.told.at(0).error);
  CHECK(!with.told.at(0).priority);
  CHECK(with.told.at(0).native_error == 0);
}

EVERY_POLICY("a watch of both is told of each, and of both at once") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  diary d;
  l.watch(pair.left(), readable | writable, d.writer());

  turn_until(l, [&] { return d.size() != 0; });
  CHECK(d.told.at(0).writable);
  CHECK(!d.told.at(0).readable);
  pair.write_right();
  turn_until(l, [&] { return d.told.back().readable; });

  CHECK(d.told.back().writable);
}

EVERY_POLICY("a callback runs on the loop thread and counts as one of what ran") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  bool on_the_loop = false;
  l.watch(pair.left(), readable | edge, [&] {
    on_the_loop = l.running_in_this_thread();
    l.microtask([&l] { l.stop(); });
  });
  pair.write_right();

  CHECK(l.run() == 1);
  CHECK(on_the_loop);
}

EVERY_POLICY("readiness is told again until it is consumed") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  l.watch(pair.left(), readable, [&] {
    if (++told == 3) pair.drain_left();
  });
  pair.write_right();

  turn_until(l, [&] { return told >= 3; });
  settle(l);

  CHECK(told == 3);
}

EVERY_POLICY("with edge, a change is told once") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  l.watch(pair.left(), readable | edge, [&] {
    ++told;
    read_unless_edges(pair);
  });

  for (int change = 1; change <= 3; ++change) {
    pair.write_right();
    settle(l);
    settle(l);
    CHECK(told == change);
  }
}

EVERY_POLICY("with oneshot, a watch is told once until it is modified") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  const watch_id id = l.watch(pair.left(), readable | oneshot, [&] { ++told; });

  for (int round = 1; round <= 3; ++round) {
    pair.write_right();
    settle(l);
    pair.write_right();
    settle(l);
    CHECK(told == round);
    CHECK(l.modify(id, readable | oneshot));
  }
  settle(l);
  CHECK(told == 4);
}

EVERY_POLICY("a oneshot watch that modifies itself is told again") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  watch_id id;
  id = l.watch(pair.left(), readable | oneshot, [&] {
    if (++told < 5) l.modify(id, readable | oneshot);
  });
  pair.write_right();

  turn_until(l, [&] { return told >= 5; });
  settle(l);

  CHECK(told == 5);
}

EVERY_POLICY("modify changes what is told, and has an edge told again") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  diary d;
  const watch_id id = l.watch(pair.left(), readable | edge, d.writer());
  settle(l);
  CHECK(d.size() == 0);

  CHECK(l.modify(id, writable | edge));
  settle(l);
  CHECK((edges ? d.size() == 1 : d.size() >= 1));
  CHECK(d.told.back().writable);
  CHECK(l.modify(id, writable | edge));
  settle(l);
  CHECK((edges ? d.size() == 2 : d.size() >= 2));
  pair.write_right();
  CHECK(l.modify(id, readable));
  turn_until(l, [&] { return d.told.back().readable; });
  CHECK(!d.told.back().writable);
  CHECK(l.modify(id, interest::none));
  settle(l);
  const auto before = d.size();
  settle(l);
  CHECK(d.size() == before);
}

EVERY_POLICY("a watch without interest is silent, and hears of a hang-up at most once") {
  hybridloop::loop l(on(path));
  socket_pair pair;
  diary d;
  l.watch(pair.left(), interest::none, d.writer());
  pair.write_right();
  settle(l);
  CHECK(d.size() == 0);

  pair.close_right();
  settle(l);

  CHECK(d.size() <= 1);
  for (const ready& what : d.told) CHECK(what.hangup);
  const auto turns = l.stats().turns;
  l.run_for(20ms);
  CHECK(d.size() <= 1);
  CHECK(l.stats().turns - turns < 10);
}

EVERY_POLICY("a watch that had a hang-up while it was silent hears of it when it asks") {
  hybridloop::loop l(on(path));
  socket_pair pair;
  diary d;
  const watch_id id = l.watch(pair.left(), interest::none, d.writer());
  pair.close_right();
  settle(l);
  d.told.clear();

  CHECK(l.modify(id, readable));

  turn_until(l, [&] { return d.size() >= 3; });
  CHECK(d.told.back().hangup);
}

EVERY_POLICY("a hang-up comes as readable, with every delivery") {
  for (const interest asked : {readable, writable, readable | writable, interest::priority}) {
    if (asked == interest::priority && over_kqueue()) continue;
    if (!has(asked, readable) && pairs_are_tcp) continue;  // to whom the other end may still listen
    hybridloop::loop l(on(path));
    socket_pair pair;
    diary d;
    pair.close_right();
    l.watch(pair.left(), asked, d.writer());

    turn_until(l, [&] { return d.size() >= 3; });

    for (const ready& what : d.told) {
      CHECK(what.hangup);
      CHECK(what.readable);
      CHECK(what.writable == ((asked & writable) != interest::none));
    }
  }
}

EVERY_POLICY("a half close is a hang-up for who reads, and who writes may go on") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  diary reads;
  diary writes;
  send_no_more(pair.right());

  const watch_id writer = l.watch(pair.left(), writable, writes.writer());
  turn_until(l, [&] { return writes.size() >= 2; });
  CHECK(writes.told.back().writable);
  CHECK(!writes.told.back().hangup);
  CHECK(l.unwatch(writer));
  l.watch(pair.left(), readable, reads.writer());
  turn_until(l, [&] { return reads.size() >= 2; });

  CHECK(reads.told.back().hangup);
  CHECK(reads.told.back().readable);
  CHECK(send_bytes(pair.left(), "x", 1) == 1);
}

#if SUPPORT_POSIX
EVERY_POLICY("an error is told whatever was asked for") {
  if (over_kqueue()) return;
  hybridloop::loop l(on(path));
  int ends[2];
  make_pipe(ends);
  diary d;
  const watch_id id = l.watch(ends[1], interest::priority, d.writer());

  ::close(ends[0]);

  turn_until(l, [&] { return d.size() >= 2; });
  CHECK(d.told.back().error);
  CHECK(d.told.back().native_error == 0);
  CHECK(l.unwatch(id));
  ::close(ends[1]);
}
#endif

EVERY_POLICY("out-of-band data is told as priority to who asks for it, and to nobody else") {
  hybridloop::loop l(on(path));
  const tcp_pair pair;
  diary urgent;
  diary ordinary;
  l.watch(pair.left(), interest::priority, urgent.writer());
  l.watch(pair.left(), readable, ordinary.writer());

  send_urgent(pair.right());

  turn_until(l, [&] { return urgent.size() >= 1; });
  settle(l);
  CHECK(urgent.told.at(0).priority);
  CHECK(!urgent.told.at(0).readable);
  CHECK(ordinary.size() == 0);
}

// ---- Several watches of one descriptor ----

EVERY_POLICY("several watches of one descriptor get what each asked for") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  diary reads;
  diary writes;
  diary once;
  diary nothing;
  l.watch(pair.left(), readable, reads.writer());
  l.watch(pair.left(), writable, writes.writer());
  l.watch(pair.left(), readable | oneshot, once.writer());
  l.watch(pair.left(), interest::none, nothing.writer());

  turn_until(l, [&] { return writes.size() >= 3; });
  CHECK(reads.size() == 0);
  pair.write_right();
  turn_until(l, [&] { return reads.size() >= 3; });

  for (const ready& what : writes.told) CHECK(!what.readable);
  for (const ready& what : reads.told) CHECK(!what.writable);
  CHECK(once.size() == 1);
  CHECK(nothing.size() == 0);
}

EVERY_POLICY("beside a watch that reads, one without interest hears of a hang-up at most once") {
  hybridloop::loop l(on(path));
  socket_pair pair;
  diary reads;
  diary nothing;
  l.watch(pair.left(), readable, reads.writer());
  l.watch(pair.left(), interest::none, nothing.writer());

  pair.close_right();

  turn_until(l, [&] { return reads.size() >= 3; });
  CHECK(nothing.size() <= 1);
}

EVERY_POLICY("watches of one descriptor are told in the order they came") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  std::vector<int> order;
  for (int i = 0; i < 4; ++i) l.watch(pair.left(), readable, [&order, i] { order.push_back(i); });
  pair.write_right();

  turn_until(l, [&] { return order.size() >= 12; });

  order.resize(12);
  CHECK(order == std::vector<int>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
}

EVERY_POLICY("edges of one descriptor are told once to each of its watches") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int first = 0;
  int second = 0;
  l.watch(pair.left(), readable | edge, [&] {
    ++first;
    read_unless_edges(pair);
  });
  l.watch(pair.left(), readable | edge, [&] { ++second; });

  for (int change = 1; change <= 3; ++change) {
    pair.write_right();
    settle(l);
    settle(l);
    CHECK(first == change);
    CHECK(second == change);
  }
}

EVERY_POLICY("a second watch of what is ready already is told, whatever the first one is") {
  for (const interest first : {readable, readable | edge, readable | oneshot,
                               readable | edge | oneshot, interest::none, writable}) {
    for (const interest second : {readable, readable | edge, readable | oneshot}) {
      hybridloop::loop l(on(path));
      const socket_pair pair;
      int told = 0;
      l.watch(pair.left(), first, [] {});
      pair.write_right();
      settle(l);

      l.watch(pair.left(), second, [&] { ++told; });

      turn_until(l, [&] { return told != 0; });
    }
  }
}

EVERY_POLICY("two oneshot watches are told once each, and modified one by one") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int first = 0;
  int second = 0;
  const watch_id one = l.watch(pair.left(), readable | oneshot, [&] { ++first; });
  const watch_id two = l.watch(pair.left(), readable | oneshot, [&] { ++second; });
  pair.write_right();
  settle(l);
  CHECK(first == 1);
  CHECK(second == 1);

  CHECK(l.modify(one, readable | oneshot));
  settle(l);
  CHECK(first == 2);
  CHECK(second == 1);
  CHECK(l.unwatch(one));
  CHECK(l.modify(two, readable | oneshot));
  settle(l);

  CHECK(first == 2);
  CHECK(second == 2);
}

EVERY_POLICY("a callback may unwatch another watch of its descriptor, which does not run") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int others = 0;
  watch_id one;
  watch_id two;
  const auto unwatch_the_other = [&](const ready& what) {
    ++others;
    l.unwatch(what.id == one ? two : one);
    pair.drain_left();
  };
  one = l.watch(pair.left(), readable, unwatch_the_other);
  two = l.watch(pair.left(), readable, unwatch_the_other);
  pair.write_right();

  turn_until(l, [&] { return others != 0; });
  settle(l);

  CHECK(others == 1);
  pair.write_right();
  turn_until(l, [&] { return others >= 2; });
}

EVERY_POLICY("a watch that is added in a callback does not get the event of before") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int added = 0;
  bool busy = false;
  bool told_too_soon = false;
  l.watch(pair.left(), readable | oneshot, [&] {
    busy = true;
    l.watch(pair.left(), readable | oneshot, [&] {
      ++added;
      told_too_soon = told_too_soon || busy;
    });
    l.microtask([&busy] { busy = false; });
  });
  pair.write_right();

  turn_until(l, [&] { return added != 0; });
  settle(l);

  CHECK(added == 1);
  CHECK(!told_too_soon);
}

EVERY_POLICY(
    "a descriptor that is taken off and watched again in its callback is told again, also nested") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int again = 0;
  watch_id id;
  id = l.watch(pair.left(), readable, [&] {
    l.unwatch(id);
    l.watch(pair.left(), readable, [&] { ++again; });
    turn_until(l, [&] { return again != 0; });
  });
  pair.write_right();

  turn_until(l, [&] { return again >= 3; });
}

EVERY_POLICY("a descriptor that is still watched by another one stays registered") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  const watch_id one = l.watch(pair.left(), readable, [] {});
  l.watch(pair.left(), readable, [&] { ++told; });
  const watch_id three = l.watch(pair.left(), writable | edge, [] {});

  CHECK(l.unwatch(one));
  CHECK(l.unwatch(three));

  pair.write_right();
  turn_until(l, [&] { return told >= 2; });
  CHECK(l.stats().watches == 1);
}

// ---- Files that are always ready ----

EVERY_POLICY("a file that is always ready is told every turn, and the loop goes on beside it") {
  for (const descriptor fd : always_ready_files()) {
    hybridloop::loop l(on(path));
    const socket_pair pair;
    diary d;
    int posts = 0;
    int told = 0;
    const watch_id id = l.watch(fd, readable, d.writer());
    l.watch(pair.left(), readable | edge, [&] { ++told; });
    pair.write_right();
    std::size_t turns = 0;
    while (turns < 10 || told == 0) {
      must_post(l, [&] { ++posts; });
      l.run_once();
      ++turns;
    }

    CHECK(d.size() == turns);
    CHECK(posts == static_cast<int>(turns));
    for (const ready& what : d.told) {
      CHECK(what.readable);
      CHECK(!what.writable);
      CHECK(what.id == id);
    }
    CHECK(l.unwatch(id));
    settle(l);
    CHECK(d.size() == turns);
    close_file(fd);
  }
}

EVERY_POLICY("a file that is always ready is an edge with every modify") {
  hybridloop::loop l(on(path));
  const descriptor fd = open_file();
  diary d;
  const watch_id id = l.watch(fd, writable | edge, d.writer());

  for (std::size_t round = 1; round <= 3; ++round) {
    settle(l);
    settle(l);
    CHECK(d.size() == round);
    CHECK(l.modify(id, writable | edge));
  }

  CHECK(d.told.back().writable);
  CHECK(!d.told.back().readable);
  CHECK(l.unwatch(id));
  close_file(fd);
}

EVERY_POLICY("a file that is always ready is told once with oneshot, and never without interest") {
  hybridloop::loop l(on(path));
  const descriptor fd = open_file();
  int once = 0;
  int nothing = 0;
  int urgent = 0;
  const watch_id id = l.watch(fd, readable | oneshot, [&] { ++once; });
  l.watch(fd, interest::none, [&] { ++nothing; });
  l.watch(fd, interest::priority, [&] { ++urgent; });

  settle(l);
  CHECK(once == 1);
  CHECK(l.modify(id, readable | oneshot));
  settle(l);
  CHECK(once == 2);

  const auto turns = l.stats().turns;
  l.run_for(20ms);
  CHECK(l.stats().turns - turns < 10);
  CHECK(nothing == 0);
  CHECK(urgent == 0);
  close_file(fd);
}

EVERY_POLICY("beside a file that is always ready, a nested run loses no edge") {
  hybridloop::loop l(on(path));
  const descriptor fd = open_file();
  const socket_pair pair;
  int first = 0;
  int second = 0;
  l.watch(fd, readable, [] {});
  l.watch(pair.left(), readable | edge, [&] {
    ++first;
    read_unless_edges(pair);
    l.poll();
    l.poll();
  });
  l.watch(pair.left(), readable | edge, [&] { ++second; });
  settle(l);

  pair.write_right();
  turn_until(l, [&] { return first != 0; });
  settle(l);

  CHECK(second == 1);
  close_file(fd);
}

// ---- Bad descriptors ----

EVERY_POLICY("a number that is no descriptor is refused at once, idle or on the loop thread") {
  const witness closure;
  hybridloop::loop l(on(path));
  std::vector<std::error_code> codes;
  std::vector<watch_id> ids;
  const auto refuse_all = [&] {
    for (const descriptor fd : {descriptor{-1}, closed_number(), descriptor{1 << 30},
                                descriptor{(std::numeric_limits<int>::max)()}}) {
      std::error_code code;
      ids.push_back(l.watch(
          fd, readable, [held = closure.hold()] {}, code));
      codes.push_back(code);
    }
  };

  refuse_all();
  must_post(l, refuse_all);
  l.run_until_idle();

  CHECK(codes == std::vector<std::error_code>(8, system_error(EBADF)));
  CHECK(ids == std::vector<watch_id>(8));
  CHECK(closure.nobody_holds());
  CHECK(l.stats().watches == 0);
}

#if SUPPORT_POSIX
EVERY_POLICY("a huge number takes no memory to be refused") {
  hybridloop::loop l(on(path));
  rusage before{};
  ::getrusage(RUSAGE_SELF, &before);
  std::error_code code;

  l.watch(
      1 << 30, readable, [] {}, code);

  rusage after{};
  ::getrusage(RUSAGE_SELF, &after);
  CHECK(code == system_error(EBADF));
  CHECK(after.ru_maxrss - before.ru_maxrss < 64 * 1024);
}
#endif

#if defined(__cpp_exceptions)
EVERY_POLICY("the throwing form names the call") {
  hybridloop::loop l(on(path));

  bool named = false;
  try {
    l.watch(-1, readable, [] {});
  } catch (const std::system_error& error) {
    named = error.code().value() == EBADF &&
            std::string(error.what()).find("watch") != std::string::npos;
  }

  CHECK(named);
}
#endif

EVERY_POLICY("from another thread, a refusal reaches the callback, which then never runs again") {
  for (const descriptor fd : {descriptor{-1}, closed_number(), descriptor{1 << 30}}) {
    const witness closure;
    hybridloop::loop l(on(path));
    diary d;
    watch_id id;
    {
      const in_background running(l);
      id = l.watch(fd, readable,
                   [&d, held = closure.hold()](const ready& what) { d.told.push_back(what); });
      l.invoke([] {});
    }
    l.run_until_idle();

    CHECK(id);
    CHECK(d.size() == 1);
    CHECK(d.told.at(0).error);
    CHECK(!d.told.at(0).readable);
    CHECK(d.told.at(0).native_error == EBADF);
    CHECK(d.told.at(0).id == id);
    CHECK(closure.nobody_holds());
    CHECK(!l.unwatch(id));
    CHECK(!l.modify(id, readable));
  }
}

EVERY_POLICY("a watch may be taken off in the callback that hears of its refusal") {
  const witness closure;
  hybridloop::loop l(on(path));
  bool alive_inside = false;
  int told = 0;
  {
    in_background running(l);
    l.watch(-1, readable, [&, held = closure.hold()](const ready& what) {
      l.unwatch(what.id);
      alive_inside = !closure.nobody_holds();
      ++told;
      l.stop();
    });
    await([&] { return closure.nobody_holds(); });
  }

  CHECK(told == 1);
  CHECK(alive_inside);
}

EVERY_POLICY("modify says that a descriptor was closed; its watches hear of it once and end") {
  const witness closure;
  hybridloop::loop l(on(path));
  socket_pair pair;
  diary modified;
  diary beside;
  const watch_id one = l.watch(pair.left(), readable, modified.writer());
  const watch_id two =
      l.watch(pair.left(), writable | oneshot,
              [&beside, held = closure.hold()](const ready& what) { beside.told.push_back(what); });
  settle(l);
  beside.told.clear();

  pair.close_left();

  CHECK(!l.modify(one, writable));
  CHECK(!l.modify(one, writable));
  l.run_until_idle();
  CHECK(beside.size() == 1);
  CHECK(beside.told.at(0).error);
  CHECK(beside.told.at(0).native_error == EBADF);
  CHECK(beside.told.at(0).id == two);
  CHECK(modified.size() == 1);
  CHECK(modified.told.at(0).native_error == EBADF);
  CHECK(closure.nobody_holds());
  CHECK(!l.unwatch(one));
  CHECK(!l.unwatch(two));
  CHECK(l.stats().watches == 0);
}

EVERY_POLICY("a watch of a closed descriptor may be taken off before it hears of that") {
  const witness closure;
  hybridloop::loop l(on(path));
  socket_pair pair;
  int told = 0;
  const auto callback = [&told, held = closure.hold()] { ++told; };
  const watch_id one = l.watch(pair.left(), readable, callback);
  const watch_id two = l.watch(pair.left(), readable, callback);
  const watch_id three = l.watch(pair.left(), readable, callback);
  pair.close_left();
  CHECK(!l.modify(one, readable));

  CHECK(l.unwatch(two));
  CHECK(l.unwatch(one));
  CHECK(l.unwatch(three));

  l.run_until_idle();
  CHECK(told == 0);
  CHECK(!l.unwatch(one));
}

EVERY_POLICY("from another thread, a modify of a closed descriptor reaches the callback") {
  hybridloop::loop l(on(path));
  socket_pair pair;
  diary d;
  const watch_id id = l.watch(pair.left(), readable, d.writer());
  {
    const in_background running(l);
    l.invoke([&] {
      pair.close_left();
      elsewhere([&] { CHECK(l.modify(id, writable)); });
    });
    l.invoke([] {});
  }
  l.run_until_idle();

  CHECK(d.size() == 1);
  CHECK(d.told.at(0).error);
  CHECK(d.told.at(0).native_error == EBADF);
}

#if SUPPORT_POSIX
EVERY_POLICY(
    "a number that was closed and came again is watched afresh; the old watch hears of it") {
  for (const interest asked : {readable, readable | edge, readable | oneshot, interest::none}) {
    hybridloop::loop l(on(path));
    socket_pair old;
    const int number = old.left();
    diary before;
    diary after;
    const watch_id id = l.watch(number, asked, before.writer());
    old.close_left();
    const socket_pair fresh;
    CHECK(fresh.left() == number);
    fresh.write_right();

    const watch_id again = l.watch(number, readable | oneshot, after.writer());

    turn_until(l, [&] { return after.size() != 0 && before.size() != 0; });
    settle(l);
    CHECK(after.size() == 1);
    CHECK(after.told.at(0).readable);
    CHECK(after.told.at(0).id == again);
    CHECK(before.size() == 1);
    CHECK(before.told.at(0).error);
    CHECK(before.told.at(0).native_error == EBADF);
    CHECK(!l.unwatch(id));
    CHECK(l.unwatch(again));
  }
}

EVERY_POLICY("taking one watch off never watches a stranger for the other") {
  hybridloop::loop l(on(path));
  socket_pair old;
  const int number = old.left();
  diary d;
  l.watch(number, readable, d.writer());
  const watch_id second = l.watch(number, writable | edge, [] {});
  settle(l);
  old.close_left();
  const socket_pair stranger;
  CHECK(stranger.left() == number);

  CHECK(l.unwatch(second));

  stranger.write_right();
  l.run_until_idle();
  CHECK(d.size() == 1);
  CHECK(d.told.at(0).error);
  CHECK(!d.told.at(0).readable);
}

EVERY_POLICY("a number that became a file which is always ready is watched afresh") {
  hybridloop::loop l(on(path));
  socket_pair old;
  const int number = old.left();
  diary before;
  diary after;
  l.watch(number, readable, before.writer());
  old.close_left();
  CHECK(::open("/dev/null", O_RDONLY | O_CLOEXEC) == number);

  const watch_id id = l.watch(number, readable | oneshot, after.writer());

  l.unref(id);
  l.run_until_idle();
  CHECK(after.size() == 1);
  CHECK(before.size() == 1);
  CHECK(before.told.at(0).native_error == EBADF);
  ::close(number);
}

EVERY_POLICY("events of an earlier owner of a number are dropped and counted") {
  const int rounds = 20;
  hybridloop::loop l(on(path));
  std::uint64_t strangers_events = 0;
  for (int round = 0; round < rounds; ++round) {
    std::deque<socket_pair> pairs(2);
    std::deque<socket_pair> fresh;
    watch_id ids[2];
    bool first = true;
    for (int i = 0; i < 2; ++i) {
      ids[i] = l.watch(pairs[static_cast<std::size_t>(i)].left(), readable | edge, [&, i] {
        if (!first) return;
        first = false;
        auto& other = pairs[static_cast<std::size_t>(1 - i)];
        const int number = other.left();
        CHECK(l.unwatch(ids[1 - i]));
        other.close_left();
        fresh.emplace_back();
        CHECK(fresh.back().left() == number);
        ids[1 - i] = l.watch(number, readable, [&] { ++strangers_events; });
      });
    }
    for (const auto& pair : pairs) pair.write_right();

    turn_until(l, [&] { return !first; });
    settle(l);
    for (const watch_id id : ids) CHECK(l.unwatch(id));
  }

  CHECK(strangers_events == 0);
  if (path != fast_path::mini) CHECK(l.stats().stale_events == rounds);
}
#endif

EVERY_POLICY("a closed descriptor whose file lives on is not reported for ever") {
  if (ghosts_stay) return;
  hybridloop::loop l(on(path));
  socket_pair ghost;
  const socket_pair alive;
  int told = 0;
  const watch_id id = l.watch(ghost.left(), readable, [] {});
  l.watch(alive.left(), readable | edge, [&] { ++told; });
  const descriptor other_name = duplicate(ghost.left());
  ghost.close_left();
  ghost.write_right();
  CHECK(l.unwatch(id));

  l.run_for(30ms);

  const auto turns = l.stats().turns;
  l.run_for(30ms);
  CHECK(l.stats().turns - turns < 10);
  CHECK(l.stats().stale_events < 100);
  CHECK(told == 0);
  alive.write_right();
  turn_until(l, [&] { return told >= 1; });
  close_file(other_name);
}

EVERY_POLICY("watches outlive the ghost of a closed descriptor, each as it was") {
  if (ghosts_stay) return;
  hybridloop::loop l(on(path));
  socket_pair ghost;
  std::vector<socket_pair> pairs(5);
  const interest asked[] = {readable, readable | edge, readable | oneshot, readable | oneshot,
                            interest::none};
  int told[5] = {};
  watch_id ids[5];
  for (std::size_t i = 0; i < 5; ++i) {
    ids[i] = l.watch(pairs[i].left(), asked[i], [&told, &pairs, i] {
      ++told[i];
      if (i == 0) pairs[i].drain_left();
      read_unless_edges(pairs[i]);
    });
  }
  pairs[2].write_right();
  settle(l);
  CHECK(told[2] == 1);
  const watch_id id = l.watch(ghost.left(), readable, [] {});
  const descriptor other_name = duplicate(ghost.left());
  ghost.close_left();
  ghost.write_right();
  CHECK(l.unwatch(id));
  l.run_for(20ms);

  for (const auto& pair : pairs) pair.write_right();
  settle(l);
  CHECK(std::vector<int>(told, told + 5) == std::vector<int>{1, 1, 1, 1, 0});
  CHECK(l.modify(ids[2], readable | oneshot));
  settle(l);
  CHECK(told[2] == 2);

  in_background running(l);
  running.await_park();
  CHECK(l.invoke([] { return 7; }) == 7);
  close_file(other_name);
}

#if SUPPORT_POSIX
EVERY_POLICY("a closed descriptor that comes back under its number can be watched") {
  hybridloop::loop l(on(path));
  socket_pair pair;
  const int number = pair.left();
  int told = 0;
  const watch_id id = l.watch(number, readable, [] {});
  const int other_name = ::dup(number);
  pair.close_left();
  CHECK(l.unwatch(id));
  CHECK(::dup2(other_name, number) == number);

  l.watch(number, readable | edge, [&] { ++told; });

  pair.write_right();
  turn_until(l, [&] { return told >= 1; });
  ::close(number);
  ::close(other_name);
}
#endif

// ---- From other threads ----

EVERY_POLICY("watch, modify and unwatch work from another thread, awake or asleep") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const socket_pair keeps_the_poller;
  for (const bool poller_is_used : {false, true}) {
    const watch_id keep =
        poller_is_used ? l.watch(keeps_the_poller.left(), readable, [] {}) : watch_id{};
    for (const bool parked : {false, true}) {
      in_background running(l);
      const auto calm = [&] {
        if (parked) running.await_park();
      };
      std::atomic<int> reads{0};
      std::atomic<int> writes{0};
      const witness closure;

      calm();
      const watch_id id =
          l.watch(pair.left(), readable, [&, held = closure.hold()](const ready& what) {
            if (what.readable) pair.drain_left();
            ++(what.readable ? reads : writes);
          });
      calm();
      pair.write_right();
      await([&] { return reads == 1; });
      calm();
      CHECK(l.modify(id, writable));
      await([&] { return writes >= 2; });
      CHECK(l.modify(id, readable));
      calm();
      CHECK(l.unwatch(id));
      await([&] { return closure.nobody_holds(); });
      pair.write_right();
      calm();

      CHECK(reads == 1);
      pair.drain_left();
    }
    if (poller_is_used) CHECK(l.unwatch(keep));
  }
}

EVERY_POLICY("while nobody runs the loop, watches are made and taken off at once") {
  const witness closure;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  std::atomic<int> told{0};
  for (int round = 1; round <= 3; ++round) {
    watch_id id;
    elsewhere([&] {
      id = l.watch(pair.left(), readable, [&, held = closure.hold()] {
        ++told;
        pair.drain_left();
        l.stop();
      });
    });
    pair.write_right();
    l.run();
    CHECK(told == round);
    elsewhere([&] { CHECK(l.modify(id, interest::none)); });
    elsewhere([&] { CHECK(l.unwatch(id)); });
    CHECK(closure.nobody_holds());
  }
}

EVERY_POLICY("unwatch answers true once") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const watch_id id = l.watch(pair.left(), readable, [] {});
  CHECK(!l.unwatch(watch_id{}));
  CHECK(!l.unwatch(watch_id{id.index() + 7, id.generation()}));
  CHECK(!l.unwatch(watch_id{~0u, 1}));
  CHECK(!l.unwatch(watch_id{id.index(), id.generation() + 1}));

  CHECK(l.unwatch(id));

  CHECK(!l.unwatch(id));
  CHECK(!l.unwatch(id, [] {}));
  CHECK(!l.modify(id, readable));
  const watch_id next = l.watch(pair.left(), readable, [] {});
  CHECK(next != id);
  CHECK(!l.unwatch(id));
  CHECK(l.unwatch(next));
}

EVERY_POLICY("of many threads that unwatch, one hears true") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  in_background running(l);
  std::size_t exact = 0;
  const std::size_t rounds = scaled(100);
  for (std::size_t i = 0; i < rounds; ++i) {
    const watch_id id = l.watch(pair.left(), readable, [] {});
    gate start;
    std::atomic<int> heard{0};
    std::vector<scoped_thread> others;
    for (int t = 0; t < 3; ++t) {
      others.emplace_back([&] {
        start.pass();
        heard += l.unwatch(id);
      });
    }
    start.open();
    others.clear();
    exact += heard == 1;
  }

  CHECK(exact == rounds);
}

EVERY_POLICY(
    "when `done` has run, the callback does not run again and the descriptor may be closed") {
  hybridloop::loop l(on(path));
  in_background running(l);
  std::atomic<std::size_t> too_late{0};
  std::atomic<std::size_t> told{0};
  const std::size_t rounds = scaled(300);
  for (std::size_t i = 0; i < rounds; ++i) {
    auto pair = std::make_unique<socket_pair>();
    std::atomic<bool> done{false};
    pair->write_right();
    const watch_id id = l.watch(pair->left(), readable, [&] {
      too_late += done;
      ++told;
    });
    if (i % 2 == 0) await([&, before = told.load()] { return told != before; });
    CHECK(l.unwatch(id, [&] {
      pair->close_left();
      done = true;
    }));
    await([&] { return done.load(); });
  }

  CHECK(too_late == 0);
  CHECK(told >= rounds / 2);
}

EVERY_POLICY("on the loop thread, `done` runs in a later turn") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  bool inside = false;
  bool done_inside = false;
  bool done = false;
  watch_id id;
  id = l.watch(pair.left(), readable, [&] {
    inside = true;
    ++told;
    l.unwatch(id, [&] {
      done = true;
      done_inside = inside;
    });
    inside = false;
  });
  pair.write_right();

  turn_until(l, [&] { return done; });
  settle(l);

  CHECK(told == 1);
  CHECK(!done_inside);
}

EVERY_POLICY("a watch that is taken off on its way to the loop is never told") {
  const witness closure;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  pair.write_right();
  in_background running(l);
  std::atomic<std::size_t> told{0};
  const std::size_t rounds = scaled(500);
  for (std::size_t i = 0; i < rounds; ++i) {
    gate go;
    must_post(l, [&go] { go.pass(); });
    const watch_id id = l.watch(pair.left(), readable, [&told, held = closure.hold()] { ++told; });
    const bool known = i % 2 == 0 ? l.unwatch(id) : l.unwatch(id, [] {});
    if (!known) ++told;
    go.open();
    l.invoke([] {});
  }

  CHECK(told == 0);
  CHECK(closure.nobody_holds());
  CHECK(l.stats().watches == 0);
}

EVERY_POLICY("watches come and go on all threads, and every post runs once and in order") {
  hybridloop::loop l(on(path));
  const witness closure;
  std::atomic<std::size_t> told{0};
  std::atomic<std::size_t> told_too_late{0};
  std::size_t ran = 0;
  std::size_t out_of_order = 0;
  const std::size_t rounds = scaled(400);
  constexpr std::size_t threads = 3;
  {
    in_background running(l);
    std::vector<scoped_thread> others;
    for (std::size_t t = 0; t < threads; ++t) {
      others.emplace_back([&, next = std::make_shared<std::size_t>(0)] {
        for (std::size_t i = 0; i < rounds; ++i) {
          const auto pair = std::make_shared<socket_pair>();
          const auto over = std::make_shared<std::atomic<bool>>(false);
          const auto in_order = [&, next, i](std::size_t step) {
            return [&, next, at = 3 * i + step] {
              ++ran;
              out_of_order += (*next)++ != at;
            };
          };
          must_post(l, in_order(0));
          const watch_id id = l.watch(pair->left(), i % 3 == 0 ? readable | edge : readable,
                                      [&, pair, over, held = closure.hold()] {
                                        ++told;
                                        told_too_late += *over;
                                      });
          must_post(l, in_order(1));
          pair->write_right();
          if (i % 4 == 0) std::this_thread::sleep_for(50us);
          l.modify(id, readable | writable);
          l.unwatch(id, [over, pair] {
            *over = true;
            pair->close_left();
          });
          must_post(l, in_order(2));
        }
      });
    }
    others.clear();
    l.invoke([] {});
  }

  CHECK(ran == threads * 3 * rounds);
  CHECK(out_of_order == 0);
  CHECK(told_too_late == 0);
  CHECK(closure.nobody_holds());
}

// ---- Where the loop sleeps ----

TEST_CASE("full: a loop sleeps in the channel but for the time it watches something") {
  const auto before = open_descriptors();
  hybridloop::loop l(on(fast_path::full));
  const socket_pair pair;
  in_background running(l);
  running.await_park();
  CHECK(l.stats().in_poller == 0);
  // The pair alone, and whatever threads are there.
  CHECK((open_descriptors().size() == before.size() + 2 || !SUPPORT_POSIX));

  for (int round = 0; round < 5; ++round) {
    const watch_id id = l.watch(pair.left(), readable, [] {});
    running.await_park();
    running.await_park();
    const auto in_channel = l.stats().in_channel;
    running.await_park();
    CHECK(l.stats().in_channel == in_channel);
    CHECK(l.unwatch(id));
    running.await_park();
    running.await_park();
    const auto in_poller = l.stats().in_poller;
    running.await_park();
    CHECK(l.stats().in_poller == in_poller);
  }
}

TEST_CASE("off: a loop always sleeps in the poller") {
  hybridloop::loop l(on(fast_path::off));
  const socket_pair pair;
  in_background running(l);
  running.await_park();
  CHECK(l.unwatch(l.watch(pair.left(), readable, [] {})));
  running.await_park();

  CHECK(l.stats().in_channel == 0);
  CHECK(l.stats().in_poller > 0);
  CHECK(l.stats().spun_ns == 0);
}

EVERY_POLICY("with the last watch gone, a loop that slept in the poller hears posts and timers") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  std::atomic<bool> fired{false};
  const auto timer = l.after(1h, [&] { fired = true; });
  const watch_id id = l.watch(pair.left(), readable, [] {});
  in_background running(l);
  running.await_park();

  CHECK(l.unwatch(id));
  CHECK(l.invoke([] { return 7; }) == 7);
  running.await_park();
  CHECK(l.invoke([] { return 8; }) == 8);
  CHECK(l.reschedule(timer, std::chrono::steady_clock::now()));

  await([&] { return fired.load(); });
}

EVERY_POLICY("a watch that comes while the loop goes to sleep is heard") {
  for (const char* point : {"before-park", "park-published", "before-sleep"}) {
    for (const bool watches_before : {false, true}) {
      interrupted_loop l(on(path));
      const socket_pair pair;
      const socket_pair before;
      pair.write_right();
      bool told = false;
      if (watches_before) l.watch(before.left(), readable, [] {});
      interruption meanwhile(point, [&] {
        elsewhere([&] {
          l.watch(pair.left(), readable, [&] {
            told = true;
            l.stop();
          });
        });
      });

      l.run();

      CHECK(meanwhile.happened());
      CHECK(told);
    }
  }
}

EVERY_POLICY("a post that comes while the last watch goes is heard") {
  for (const char* point : {"before-park", "park-published", "before-sleep"}) {
    interrupted_loop l(on(path));
    const socket_pair pair;
    const watch_id id = l.watch(pair.left(), readable, [] {});
    interruption meanwhile(point, [&] {
      elsewhere([&] {
        l.unwatch(id);
        must_post(l, [&] { l.stop(); });
      });
    });

    l.run();

    CHECK(meanwhile.happened());
  }
}

namespace {

// Something happens elsewhere while the kernel makes the poller.
struct slow_kernel : kernel_here {
  static inline std::function<void()> meanwhile;
#if SUPPORT_POSIX
  template <class Kernel = kernel_here>
  static int epoll_create() noexcept {
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    return Kernel::epoll_create();
  }
  template <class Kernel = kernel_here>
  static int kqueue() noexcept {
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    return Kernel::kqueue();
  }
  static int pipe(int (&ends)[2]) noexcept {
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    return kernel_here::pipe(ends);
  }
#else
  static int port_open(descriptor& port) noexcept {
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    return kernel_here::port_open(port);
  }
  static int pipe(descriptor (&ends)[2]) noexcept {
    if (meanwhile) std::exchange(meanwhile, nullptr)();
    return kernel_here::pipe(ends);
  }
#endif
};

}  // namespace

FOR_POLICIES("a post that comes while the poller is made is not stranded in the channel", full,
             mini) {
  loop_with<slow_kernel> l(on(path));
  const socket_pair pair;
  bool ran = false;
  slow_kernel::meanwhile = [&] {
    elsewhere([&] {
      must_post(l, [&] {
        ran = true;
        l.stop();
      });
    });
  };
  must_post(l, [&] { l.watch(pair.left(), readable, [] {}); });

  l.run();

  CHECK(ran);
}

// ---- Callbacks that do things ----

EVERY_POLICY("a callback may take its own watch off; its closure lives until it returns") {
  const witness closure;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  bool known = false;
  bool known_twice = true;
  bool alive_inside = false;
  watch_id id;
  id = l.watch(pair.left(), readable, [&, held = closure.hold()] {
    ++told;
    known = l.unwatch(id);
    known_twice = l.unwatch(id);
    alive_inside = !closure.nobody_holds();
  });
  pair.write_right();

  turn_until(l, [&] { return told != 0; });

  CHECK(closure.nobody_holds());
  CHECK(alive_inside);
  CHECK(known);
  CHECK(!known_twice);
  settle(l);
  CHECK(told == 1);
}

EVERY_POLICY("what a callback takes off is not told any more, ready or not") {
  constexpr std::size_t many = 20;
  hybridloop::loop l(on(path));
  const std::vector<socket_pair> pairs(many);
  std::vector<watch_id> ids(many);
  std::vector<bool> off(many);
  int told_when_off = 0;
  int told = 0;
  for (std::size_t i = 0; i < many; ++i) {
    ids[i] = l.watch(pairs[i].left(), readable, [&, i] {
      ++told;
      if (off[i]) ++told_when_off;
      for (std::size_t other = 0; other < many; ++other) {
        if (other == i || off[other]) continue;
        off[other] = l.unwatch(ids[other]);
      }
    });
    pairs[i].write_right();
  }

  turn_until(l, [&] { return told != 0; });
  settle(l);

  CHECK(told_when_off == 0);
  CHECK(std::accumulate(off.begin(), off.end(), std::size_t{0}) == many - 1);
}

EVERY_POLICY("a stop in a callback leaves the rest for the next run, and repeats nothing") {
  hybridloop::loop l(on(path));
  const std::vector<socket_pair> pairs(5);
  std::vector<int> told(5);
  for (std::size_t i = 0; i < 5; ++i) {
    l.watch(pairs[i].left(), i % 2 == 0 ? readable | edge : readable | oneshot, [&, i] {
      ++told[i];
      read_unless_edges(pairs[i]);
      l.stop();
    });
    pairs[i].write_right();
  }

  std::size_t runs = 0;
  while (std::accumulate(told.begin(), told.end(), 0) < 5) {
    l.run();
    ++runs;
  }
  settle(l);

  CHECK(runs == 5);
  CHECK(told == std::vector<int>{1, 1, 1, 1, 1});
}

EVERY_POLICY("a stop between the watches of one descriptor leaves none of them out") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  std::vector<int> told(3);
  for (std::size_t i = 0; i < 3; ++i) {
    l.watch(pair.left(), readable | edge, [&, i] {
      ++told[i];
      l.stop();
    });
  }
  pair.write_right();

  while (*std::min_element(told.begin(), told.end()) == 0) l.run();
}

EVERY_POLICY("once `done` of an unwatch has run, the callback has run for the last time") {
  hybridloop::loop l(on(path));
  const in_background running(l);
  for (int round = 0; round < 50; ++round) {
    socket_pair pair;
    std::atomic<int> told{0};
    std::atomic<int> done{0};
    pair.write_right();
    const watch_id id = l.watch(pair.left(), readable, [&told] { ++told; });
    await([&told] { return told != 0; });

    CHECK(l.unwatch(id, [&done] { ++done; }));
    await([&done] { return done != 0; });
    const int last = told;
    pair.close_left();
    l.invoke([] {});

    CHECK(told == last);
    CHECK(done == 1);
    CHECK(!l.unwatch(id, [&done] { ++done; }));
    l.invoke([] {});
    CHECK(done == 1);
  }
}

EVERY_POLICY(
    "`done` of an unwatch on the loop thread runs in the next turn, also inside the callback") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  pair.write_right();
  int told = 0;
  int done = 0;
  watch_id id;
  id = l.watch(pair.left(), readable, [&] {
    ++told;
    CHECK(l.unwatch(id, [&done] { ++done; }));
    CHECK(done == 0);
  });

  turn_until(l, [&done] { return done != 0; });

  CHECK(told == 1);
  CHECK(l.run_until_idle() == 0);
}

EVERY_POLICY("a nested run serves the other descriptors of the batch, and nothing twice") {
  hybridloop::loop l(on(path));
  const std::vector<socket_pair> pairs(4);
  std::vector<int> told(4);
  for (std::size_t i = 0; i < 4; ++i) {
    l.watch(pairs[i].left(), readable | edge, [&, i] {
      ++told[i];
      read_unless_edges(pairs[i]);
      const socket_pair inner;
      bool inner_told = false;
      const watch_id id = l.watch(inner.left(), readable, [&inner_told] { inner_told = true; });
      inner.write_right();
      turn_until(l, [&inner_told] { return inner_told; });
      l.unwatch(id);
    });
    pairs[i].write_right();
  }

  turn_until(l, [&] { return std::accumulate(told.begin(), told.end(), 0) >= 4; });
  settle(l);

  const auto fewest_most = std::minmax_element(told.begin(), told.end());
  CHECK(*fewest_most.first >= 1);
  if (edges) CHECK(*fewest_most.second == 1);  // a level is found again by the nested run
}

FOR_POLICIES("what a nested run has told of a descriptor, the outer one does not tell again", full, off) {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  watch_id first;
  first = l.watch(pair.left(), readable, [&] {
    l.unwatch(first);  // the other one is alone now
    turn_until(l, [&] { return told != 0; });
  });
  l.watch(pair.left(), readable, [&] {
    ++told;
    pair.drain_left();
  });
  pair.write_right();

  turn_until(l, [&] { return told != 0; });
  settle(l);

  CHECK(told == 1);
}

EVERY_POLICY("a callback may run the loop until its own watch is gone") {
  const witness closure;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int depth = 0;
  int deepest = 0;
  bool alive_inside = false;
  watch_id id;
  id = l.watch(pair.left(), readable, [&, held = closure.hold()] {
    deepest = (std::max)(deepest, ++depth);
    if (depth == 3) {
      l.unwatch(id);
    } else {
      l.modify(id, readable);
      turn_until(l, [&] { return deepest >= 3; });
    }
    alive_inside = !closure.nobody_holds();
    --depth;
  });
  pair.write_right();

  turn_until(l, [&] { return deepest == 3 && depth == 0; });

  CHECK(alive_inside);
  CHECK(closure.nobody_holds());
}

#if defined(__cpp_exceptions)

namespace {

struct oops {};

// Runs until something has happened, through whatever it throws; says how often it threw.
template <class Loop, class Done>
int throws_until(Loop& l, const Done& done) {
  int thrown = 0;
  while (!done()) {
    try {
      l.run_once();
    } catch (const oops&) {
      ++thrown;
    }
  }
  return thrown;
}

}  // namespace

EVERY_POLICY("an exception in a callback loses no edge of the others, and tells nothing twice") {
  constexpr std::size_t many = 10;
  hybridloop::loop l(on(path));
  const std::vector<socket_pair> pairs(many);
  std::vector<int> told(many);
  for (std::size_t i = 0; i < many; ++i) {
    l.watch(pairs[i].left(), i % 2 == 0 ? readable | edge : readable | oneshot, [&, i] {
      ++told[i];
      read_unless_edges(pairs[i]);
      throw oops();
    });
    pairs[i].write_right();
  }

  const int thrown =
      throws_until(l, [&] { return std::accumulate(told.begin(), told.end(), 0) >= int{many}; });
  settle(l);

  CHECK(thrown == many);
  CHECK(told == std::vector<int>(many, 1));
}

EVERY_POLICY("an exception in a task or timer loses no edge that the same turn found") {
  hybridloop::loop l(on(path));
  const std::vector<socket_pair> pairs(3);
  std::size_t told = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    l.watch(pairs[i].left(), readable | edge, [&, i] {
      ++told;
      read_unless_edges(pairs[i]);
    });
  }
  settle(l);

  std::size_t expected = 0;
  for (std::size_t round = 0; round < scaled(50); ++round) {
    int thrown = 0;
    const auto thrower = [&thrown] {
      ++thrown;
      throw oops();
    };
    const scoped_thread other([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(round * 7));
      for (const auto& pair : pairs) pair.write_right();
      must_post(l, thrower);
    });
    l.after(300us, thrower);
    expected += 3;
    throws_until(l, [&] { return told >= expected && thrown == 2; });
  }

  CHECK(told == expected);
}

EVERY_POLICY("a callback that throws every time does not hold up the others") {
  hybridloop::loop l(on(path));
  const std::vector<socket_pair> pairs(3);
  std::vector<int> told(6);
  for (std::size_t i = 0; i < 6; ++i) {
    l.watch(pairs[i / 2].left(), readable, [&told, i] {
      ++told[i];
      throw oops();
    });
  }
  for (const auto& pair : pairs) pair.write_right();

  throws_until(l, [&] { return *std::min_element(told.begin(), told.end()) >= 3; });
}

EVERY_POLICY(
    "a callback that throws every time does not hold up other files that are always ready") {
  hybridloop::loop l(on(path));
  std::vector<descriptor> files;
  for (int i = 0; i < 3; ++i) files.push_back(open_file());
  std::vector<int> told(6);
  for (std::size_t i = 0; i < 6; ++i) {
    l.watch(files[i / 2], readable, [&told, i] {
      ++told[i];
      throw oops();
    });
  }

  throws_until(l, [&] { return *std::min_element(told.begin(), told.end()) >= 3; });

  for (const descriptor file : files) close_file(file);
}

EVERY_POLICY("on_exception takes what callbacks throw, and the batch goes on") {
  static int taken = 0;
  taken = 0;
  auto options = on(path);
  options.on_exception = [](std::exception_ptr) { ++taken; };
  hybridloop::loop l(options);
  const std::vector<socket_pair> pairs(4);
  int told = 0;
  for (const auto& pair : pairs) {
    l.watch(pair.left(), readable | edge, [&] {
      ++told;
      read_unless_edges(pair);
      throw oops();
    });
    pair.write_right();
  }

  turn_until(l, [&] { return told >= 4; });
  settle(l);

  CHECK(told == 4);
  CHECK(taken == 4);
}

EVERY_POLICY("a closure whose constructor throws leaves no watch behind") {
  struct touchy {
    touchy() = default;
    touchy(const touchy&) { throw oops(); }
    void operator()() const {}
  };
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const touchy callback;

  CHECK_THROWS_AS(l.watch(pair.left(), readable, callback), oops);

  CHECK(l.run_until_idle() == 0);
  CHECK(l.stats().watches == 0);
}

#endif

// ---- The end ----

EVERY_POLICY("closing ends all watches and destroys their closures, ready or not") {
  const witness closure;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const descriptor file = open_file();
  int told = 0;
  const auto callback = [&told, held = closure.hold()] { ++told; };
  {
    const auto moved = callback;
    l.watch(pair.left(), readable, moved);
    l.watch(pair.left(), writable | oneshot, moved);
    l.watch(file, readable, moved);
  }
  const watch_id id = l.watch(pair.left(), readable, callback);
  pair.write_right();

  l.close();
  l.run();

  CHECK(told == 0);
  CHECK(l.stats().watches == 0);
  CHECK(!l.unwatch(id));
  CHECK(!l.modify(id, readable));
  std::error_code code;
  CHECK(!l.watch(
      pair.left(), readable, [] {}, code));
  CHECK(code == make_error_code(errc::closed));
  close_file(file);
}

EVERY_POLICY("a callback may close the loop") {
  const witness closure;
  hybridloop::loop l(on(path));
  const socket_pair pair;
  int told = 0;
  l.watch(pair.left(), readable, [&, held = closure.hold()] {
    ++told;
    l.close();
  });
  pair.write_right();

  l.run();

  CHECK(told >= 1);
  CHECK(closure.nobody_holds());
}

EVERY_POLICY("destruction destroys closures without running them, and leaves no descriptor") {
  const auto before = open_descriptors();
  const witness closure;
  {
    const socket_pair pair;
    pair.write_right();
    int told = 0;
    {
      hybridloop::loop l(on(path));
      in_background running(l);
      for (const interest asked : {readable | oneshot, readable | edge, interest::none}) {
        l.watch(pair.left(), asked, [held = closure.hold()] {});
      }
      l.invoke([] {});
      running.stop();
      for (int i = 0; i < 100; ++i) {
        l.watch(pair.left(), readable, [&told, held = closure.hold()] { ++told; });
      }
    }
    CHECK(told == 0);
    CHECK(closure.nobody_holds());
  }
  CHECK(open_descriptors() == before);
}

EVERY_POLICY(
    "a watch that comes to the loop after the end of all watches ends too, taken off or not") {
  const socket_pair pair;
  pair.write_right();
  for (const bool taken_off : {false, true}) {
    const witness closure;
    hybridloop::loop l(on(path));
    int told = 0;
    gate go;
    must_post(l, [&go] { go.pass(); });
    scoped_thread other([&] {
      await([&] { return l.stats().turns != 0; });
      for (std::size_t i = 0; i < hybridloop::detail::tasks_per_turn; ++i) must_post(l, [] {});
      const watch_id id =
          l.watch(pair.left(), readable, [&told, held = closure.hold()] { ++told; });
      l.close();
      if (taken_off) l.unwatch(id);
      go.open();
    });

    l.run();
    other.join();

    CHECK(told == 0);
    CHECK(closure.nobody_holds());
    CHECK(l.stats().watches == 0);
  }
}

EVERY_POLICY("a watch on its way to a loop that ends is destroyed once") {
  const socket_pair pair;
  const witness closure;
  for (std::size_t round = 0; round < scaled(100); ++round) {
    hybridloop::loop l(on(path));
    gate start;
    std::vector<scoped_thread> others;
    for (int t = 0; t < 3; ++t) {
      others.emplace_back([&] {
        start.pass();
        for (int i = 0; i < 20; ++i) {
          std::error_code code;
          const watch_id id = l.watch(
              pair.left(), readable, [held = closure.hold()] {}, code);
          if (i % 3 == 0) l.unwatch(id);
          if (i % 3 == 1) l.unwatch(id, [held = closure.hold()] {});
        }
      });
    }
    others.emplace_back([&] {
      start.pass();
      std::this_thread::sleep_for(std::chrono::microseconds(round % 50));
      l.close();
    });
    start.open();
    l.run();
    others.clear();
  }

  CHECK(closure.nobody_holds());
}

EVERY_POLICY("a watch keeps run_until_idle going while it is referenced") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const socket_pair background;
  int told = 0;
  const watch_id id = l.watch(pair.left(), readable, [&] {
    if (++told == 3) l.unwatch(id);
  });
  const watch_id unreferenced = l.watch(background.left(), readable, [] {});
  l.unref(unreferenced);
  pair.write_right();

  l.run_until_idle();
  CHECK(told == 3);
  l.ref(unreferenced);
  scoped_thread other([&] {
    std::this_thread::sleep_for(2ms);
    l.unref(unreferenced);
  });
  l.run_until_idle();
  other.join();

  CHECK(l.unwatch(unreferenced));
  CHECK(l.run_until_idle() == 0);
}

// ---- A kernel that refuses ----

namespace {

// Refuses what its switches say.
struct refusing_kernel : kernel_here {
  static inline std::atomic<int> no_poller{0};
  static inline std::atomic<int> no_control{0};
  static inline std::atomic<int> failing_waits{0};
  static inline std::atomic<int> failing_writes{0};
  static inline std::atomic<std::size_t> waits{0};

#if SUPPORT_POSIX
  template <class Kernel = kernel_here>
  static int epoll_create() noexcept {
    return no_poller != 0 ? -no_poller : Kernel::epoll_create();
  }
  template <class Kernel = kernel_here>
  static int kqueue() noexcept {
    return no_poller != 0 ? -no_poller : Kernel::kqueue();
  }
  template <class Event, class Kernel = kernel_here>
  static int kevent_wait(int queue, Event* out, int room, hybridloop::detail::nanos timeout) noexcept {
    if (fails()) return -EBADF;
    return Kernel::kevent_wait(queue, out, room, timeout);
  }
  template <class Kernel = kernel_here>
  static int kevent_trigger(int queue) noexcept {
    if (failing_writes > 0) return --failing_writes % 2 == 0 ? -EIO : -EINTR;
    return Kernel::kevent_trigger(queue);
  }
  static int pipe(int (&ends)[2]) noexcept {
    return no_poller != 0 ? -no_poller : kernel_here::pipe(ends);
  }
  template <class Kernel = kernel_here>
  static int epoll_ctl(int epoll, int what, int fd, epoll_event* event) noexcept {
    if (no_control != 0 && what == epoll_adds) return -no_control;
    return Kernel::epoll_ctl(epoll, what, fd, event);
  }
  static int identify(int fd, hybridloop::detail::file_identity& out) noexcept {
    return no_control != 0 ? -no_control : kernel_here::identify(fd, out);
  }
  template <class Kernel = kernel_here>
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    if (fails()) return -EBADF;
    return Kernel::epoll_wait(epoll, out, room, milliseconds);
  }
  template <class Kernel = kernel_here>
  static int epoll_pwait2(int epoll, epoll_event* out, int room, hybridloop::detail::nanos timeout) noexcept {
    if (fails()) return -EBADF;
    return Kernel::epoll_pwait2(epoll, out, room, timeout);
  }
  static int poll(pollfd* descriptors, std::size_t count,
                  hybridloop::detail::nanos timeout) noexcept {
    if (fails()) return -EBADF;
    return kernel_here::poll(descriptors, count, timeout);
  }
  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    if (failing_writes > 0) return --failing_writes % 2 == 0 ? -EIO : -EINTR;
    return kernel_here::write(fd, bytes, size);
  }
#else
  static int port_open(descriptor& port) noexcept {
    return no_poller != 0 ? -no_poller : kernel_here::port_open(port);
  }
  static int base_socket(descriptor socket, descriptor& out) noexcept {
    return no_control != 0 ? -no_control : kernel_here::base_socket(socket, out);
  }
  static int port_wait(descriptor port, hybridloop::detail::port_packet* out, int room,
                       hybridloop::detail::nanos timeout) noexcept {
    if (fails()) return -EBADF;
    return kernel_here::port_wait(port, out, room, timeout);
  }
  static int port_post(descriptor port, std::uintptr_t key, void* what) noexcept {
    if (key == bell_key && failing_writes > 0) return --failing_writes, -ENOMEM;
    return kernel_here::port_post(port, key, what);
  }
  static int pipe(descriptor (&ends)[2]) noexcept {
    return no_poller != 0 ? -no_poller : kernel_here::pipe(ends);
  }
  static int identify(descriptor socket, hybridloop::detail::file_identity& out) noexcept {
    return no_control != 0 ? -no_control : kernel_here::identify(socket, out);
  }
  static int poll(poll_entry* set, std::size_t count, hybridloop::detail::nanos timeout) noexcept {
    if (fails()) return -EBADF;
    return kernel_here::poll(set, count, timeout);
  }
  static int write(descriptor socket, const void* bytes, std::size_t size) noexcept {
    if (failing_writes > 0) return --failing_writes, -EIO;
    return kernel_here::write(socket, bytes, size);
  }
#endif

 private:
  static bool fails() noexcept {
    ++waits;
    return failing_waits > 0 && failing_waits-- > 0;
  }
};

}  // namespace

TEST_CASE("off: a poller that is refused refuses the loop") {
  const auto before = open_descriptors();
  refusing_kernel::no_poller = EMFILE;
  std::error_code code;
  {
    loop_with<refusing_kernel> l(on(fast_path::off), code);
    CHECK(code == system_error(EMFILE));
  }
  refusing_kernel::no_poller = 0;
  CHECK(open_descriptors() == before);
}

FOR_POLICIES("a poller that is refused refuses the watch, and the loop works on", full, mini) {
  loop_with<refusing_kernel> l(on(path));
  const socket_pair pair;
  diary d;
  int told = 0;
  std::error_code code;
  refusing_kernel::no_poller = EMFILE;

  CHECK(!l.watch(
      pair.left(), readable, [] {}, code));
  CHECK(code == system_error(EMFILE));
  {
    const in_background running(l);
    l.watch(pair.left(), readable, d.writer());
    l.invoke([&] { ++told; });
  }
  l.run_until_idle();
  refusing_kernel::no_poller = 0;

  CHECK(told == 1);
  CHECK(d.size() == 1);
  CHECK(d.told.at(0).native_error == EMFILE);
  l.watch(pair.left(), readable | edge, [&] { ++told; });
  pair.write_right();
  turn_until(l, [&] { return told >= 2; });
}

EVERY_POLICY("a registration that is refused refuses the watch, and the loop works on") {
  loop_with<refusing_kernel> l(on(path));
  const socket_pair pair;
  int told = 0;
  l.unwatch(l.watch(pair.left(), readable, [] {}));
  std::error_code code;
  refusing_kernel::no_control = ENOSPC;

  CHECK(!l.watch(
      pair.left(), readable, [] {}, code));
  CHECK(code == system_error(ENOSPC));
  std::atomic<int> native_error{0};
  {
    in_background running(l);
    l.invoke([] {});
    l.watch(pair.left(), readable, [&](const ready& what) { native_error = what.native_error; });
    await([&] { return native_error != 0; });
  }
  refusing_kernel::no_control = 0;

  CHECK(native_error == ENOSPC);
  CHECK(l.run_until_idle() == 0);
  l.watch(pair.left(), readable | edge, [&] { ++told; });
  pair.write_right();
  turn_until(l, [&] { return told >= 1; });
}

EVERY_POLICY("a poller that fails once is waited in again") {
  loop_with<refusing_kernel> l(on(path));
  const socket_pair pair;
  int told = 0;
  l.watch(pair.left(), readable | edge, [&] {
    ++told;
    read_unless_edges(pair);
  });
  refusing_kernel::failing_waits = 1;

  for (int round = 1; round <= 2; ++round) {
    const scoped_thread other([&] {
      std::this_thread::sleep_for(3ms);
      pair.write_right();
    });
    turn_until(l, [&] { return told == round; });
  }

  CHECK(refusing_kernel::failing_waits <= 0);
}

EVERY_POLICY("a poller that keeps failing burns no core, and posts and timers go on") {
  loop_with<refusing_kernel> l(on(path));
  const socket_pair pair;
  l.watch(pair.left(), readable, [] {});
  refusing_kernel::failing_waits = 1 << 30;
  refusing_kernel::waits = 0;
  bool ran = false;
  scoped_thread other([&] {
    std::this_thread::sleep_for(10ms);
    must_post(l, [&] { ran = true; });
  });

  l.run_for(50ms);
  other.join();

  CHECK(refusing_kernel::waits < 200);
  CHECK(ran);
  refusing_kernel::failing_waits = 0;
}

EVERY_POLICY("a bell that fails for a while still wakes the loop") {
  loop_with<refusing_kernel> l(on(path));
  const socket_pair pair;
  l.watch(pair.left(), readable, [] {});
  in_background running(l);

  std::size_t right = 0;
  const std::size_t rounds = scaled(50);
  for (std::size_t i = 0; i < rounds; ++i) {
    if (i % 4 == 0) running.await_park();
    refusing_kernel::failing_writes = 8;
    right += l.invoke([i] { return i; }) == i;
    refusing_kernel::failing_writes = 0;
  }

  CHECK(right == rounds);
}

#if SUPPORT_POSIX
EVERY_POLICY("signals end no sleep early, and nothing is lost to them") {
  const auto before = std::signal(SIGUSR1, [](int) {});
  hybridloop::loop l(on(path));
  const socket_pair pair;
  std::size_t told = 0;
  l.watch(pair.left(), readable, [&] { told += pair.drain_left(); });
  std::atomic<bool> over{false};
  const ::pthread_t loop_thread = ::pthread_self();
  scoped_thread other([&] {
    for (int i = 0; i < 50; ++i) {
      ::pthread_kill(loop_thread, SIGUSR1);
      if (i % 5 == 0) pair.write_right();
      std::this_thread::sleep_for(200us);
    }
    over = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  bool early = false;
  for (int i = 0; i < 10; ++i) {
    bool fired = false;
    const auto deadline = std::chrono::steady_clock::now() + 900us;
    l.at(deadline, [&] {
      fired = true;
      early = early || std::chrono::steady_clock::now() < deadline;
    });
    turn_until(l, [&] { return fired; });
  }
  turn_until(l, [&] { return told >= 10; });

  CHECK(!early);
  CHECK(std::chrono::steady_clock::now() - begin >= 9ms);
  other.join();
  std::signal(SIGUSR1, before);
}
#endif

#if defined(__linux__)
namespace {

// Linux before 5.11.
struct old_kernel : kernel_here {
  static inline std::atomic<int> asked{0};
  static int epoll_pwait2(int, epoll_event*, int, hybridloop::detail::nanos) noexcept {
    ++asked;
    return -ENOSYS;
  }
};

}  // namespace

FOR_POLICIES("without epoll_pwait2 no timer is early and none is spun for", full, off) {
  loop_with<old_kernel> l(on(path));
  const socket_pair pair;
  l.watch(pair.left(), readable, [] {});
  bool early = false;
  const auto parks = l.stats().parks;
  for (const auto span : {100us, 999us, 1000us, 1001us, 2500us}) {
    const auto deadline = std::chrono::steady_clock::now() + span;
    bool fired = false;
    l.at(deadline, [&] {
      fired = true;
      early = early || std::chrono::steady_clock::now() < deadline;
    });
    turn_until(l, [&] { return fired; });
  }

  CHECK(!early);
  CHECK(l.stats().parks - parks <= 5 * 2);
  CHECK(old_kernel::asked <= 1);
}
#endif

namespace {

// Stops a ringer in the middle of its write, and notes when the bell is closed.
struct gated_kernel : kernel_here {
  static inline std::atomic<descriptor> bell{-1};
  static inline std::atomic<bool> armed{false};
  static inline std::atomic<bool> in_write{false};
  static inline std::atomic<bool> may_write{false};
  static inline std::atomic<bool> closed_bell{false};

#if SUPPORT_POSIX
  template <class Kernel = kernel_here>
  static int eventfd() noexcept {
    return bell = Kernel::eventfd();
  }
  template <class Kernel = kernel_here>
  static int kqueue() noexcept {
    return bell = Kernel::kqueue();
  }
  template <class Kernel = kernel_here>
  static int kevent_trigger(int queue) noexcept {
    if (armed.exchange(false)) {
      in_write = true;
      await([] { return may_write.load(); });
    }
    return Kernel::kevent_trigger(queue);
  }
  static int pipe(int (&ends)[2]) noexcept {
    const int made = kernel_here::pipe(ends);
    bell = ends[1];
    return made;
  }
  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    if (armed.exchange(false)) {
      in_write = true;
      await([] { return may_write.load(); });
    }
    return kernel_here::write(fd, bytes, size);
  }
  static int close(int fd) noexcept {
    if (fd == bell) closed_bell = true;
    return kernel_here::close(fd);
  }
#else
  static int port_open(descriptor& port) noexcept {
    const int made = kernel_here::port_open(port);
    bell = port;
    return made;
  }
  static int port_post(descriptor port, std::uintptr_t key, void* what) noexcept {
    if (key == bell_key && armed.exchange(false)) {
      in_write = true;
      await([] { return may_write.load(); });
    }
    return kernel_here::port_post(port, key, what);
  }
  static void close_handle(descriptor handle) noexcept {
    if (handle == bell) closed_bell = true;
    kernel_here::close_handle(handle);
  }
  static int pipe(descriptor (&ends)[2]) noexcept {
    const int made = kernel_here::pipe(ends);
    bell = ends[1];
    return made;
  }
  static int write(descriptor socket, const void* bytes, std::size_t size) noexcept {
    if (armed.exchange(false)) {
      in_write = true;
      await([] { return may_write.load(); });
    }
    return kernel_here::write(socket, bytes, size);
  }
  static int close(descriptor socket) noexcept {
    if (socket == bell) closed_bell = true;
    return kernel_here::close(socket);
  }
#endif
};

}  // namespace

FOR_POLICIES("a loop is not destroyed under a thread that rings its bell", full, off) {
  gated_kernel::in_write = gated_kernel::may_write = gated_kernel::closed_bell = false;
  auto l = std::make_unique<loop_with<gated_kernel>>(on(path));
  const socket_pair pair;
  l->watch(pair.left(), readable, [&] { l->stop(); });
  auto running = std::make_unique<in_background<loop_with<gated_kernel>>>(*l);
  running->await_park();
  gated_kernel::armed = true;
  scoped_thread ringer([&l_ = *l] { l_.wake(); });
  await([] { return gated_kernel::in_write.load(); });
  pair.write_right();
  running.reset();

  scoped_thread destroyer([&] { l.reset(); });
  std::this_thread::sleep_for(5ms);
  const bool closed_too_soon = gated_kernel::closed_bell;
  gated_kernel::may_write = true;
  ringer.join();
  destroyer.join();

  CHECK(!closed_too_soon);
  CHECK(gated_kernel::closed_bell);
}

EVERY_POLICY("ref() and unref() may be said twice, and before the loop has seen the watch") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const auto id = l.watch(pair.left(), readable, [] {});
  l.unref(id);
  l.unref(id);
  l.run_until_idle();
  l.ref(id);
  l.ref(id);
  l.unref(id);
  l.run_until_idle();
  CHECK(l.unwatch(id));

  watch_id unseen;
  must_post(l, [&] {
    const scoped_thread other([&] {
      unseen = l.watch(pair.left(), readable, [] {});
      l.unref(unseen);
    });
  });
  l.run_until_idle();

  CHECK(l.unwatch(unseen));
}

EVERY_POLICY("modify() tells every thread that a watch is gone, and changes nothing then") {
  hybridloop::loop l(on(path));
  const socket_pair pair;
  const auto gone = l.watch(pair.left(), readable, [] {});
  const auto stays = l.watch(pair.left(), readable, [] {});
  CHECK(l.unwatch(gone));

  CHECK_FALSE(l.modify(gone, writable));
  CHECK(l.modify(stays, writable));
  must_post(l, [&] {
    const scoped_thread other([&] {
      CHECK_FALSE(l.modify(gone, writable));
      CHECK_FALSE(l.modify(watch_id(), writable));
      CHECK(l.modify(stays, readable));
      CHECK(l.unwatch(stays));
    });
  });
  l.run_until_idle();

  CHECK_FALSE(l.modify(stays, writable));
  CHECK(l.stats().watches == 0);
}

TEST_SUITE_END();
