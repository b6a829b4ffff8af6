// review_test.cpp - interleavings that an adversarial reading of the protocols constructed
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

#include "support/running.hpp"
#include "support/support.hpp"
#include "support/virtual_clock.hpp"
#include "support/waits.hpp"


using namespace support;
using namespace hybridloop;

TEST_SUITE_BEGIN("review");

TEST_CASE("a reschedule on the loop thread that overtakes the timer's start still moves it") {
  loop l;
  std::atomic<int> stage{0};
  timer_id id;
  bool moved = false;
  bool fired = false;

  scoped_thread maker([&] {
    while (stage.load() != 1) std::this_thread::yield();
    id = l.after(1h, [&] {
      fired = true;
      l.stop();
    });
    stage.store(2);
  });
  must_post(l, [&] {
    stage.store(1);
    while (stage.load() != 2) std::this_thread::yield();
    moved = l.reschedule(id, loop::clock::now() + 20ms);
  });
  l.run();

  CHECK(moved);
  CHECK(fired);
  CHECK(l.stats().turns < 1000);
}

TEST_CASE("a repeating timer moved twice while it runs runs once at its new time") {
  virtual_loop l;
  int runs = 0;
  timer_id id;
  id = l.every(5ms, [&] {
    if (++runs != 1) return;
    CHECK(l.reschedule(id, virtual_clock::now() + 10ms));
    std::thread other([&] { CHECK(l.reschedule(id, virtual_clock::now() + 30ms)); });
    other.join();
    l.after(33ms, [&] { l.stop(); });
  });

  l.run();

  CHECK(runs == 2);
}

TEST_CASE("reschedules of a record's earlier owner never move the next one") {
  loop l;
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> shared{0};
  std::size_t early = 0;
  const std::size_t rounds = scaled(20000, 500);

  std::vector<scoped_thread> movers;
  for (int i = 0; i < 2; ++i) {
    movers.emplace_back([&] {
      while (!done.load()) {
        const std::uint64_t packed = shared.load();
        const timer_id id(static_cast<std::uint32_t>(packed),
                          static_cast<std::uint32_t>(packed >> 32));
        l.reschedule(id, loop::clock::now() - 1h);
      }
    });
  }
  scoped_thread maker([&] {
    for (std::size_t i = 0; i < rounds; ++i) {
      const timer_id short_lived = l.after(1h, [] {});
      shared.store(short_lived.packed());
      l.cancel(short_lived);
      const timer_id keeper = l.after(1h, [&early] { ++early; });
      l.cancel(keeper);
    }
    done.store(true);
    l.close();
  });
  l.run();

  CHECK(early == 0);
}

#if defined(__cpp_exceptions)
TEST_CASE("a microtask left over by an exception may throw out of the next run") {
  loop l;
  bool later = false;
  must_post(l, [&] {
    l.microtask([] { throw std::runtime_error("micro"); });
    throw std::runtime_error("task");
  });
  must_post(l, [&] { later = true; });

  CHECK_THROWS_WITH(l.run_until_idle(), "task");
  CHECK_THROWS_WITH(l.run_until_idle(), "micro");
  l.run_until_idle();

  CHECK(later);
}
#endif

TEST_CASE("a descriptor is served while posts keep coming within the spin") {
  loop_options options;
  options.spin = 1ms;
  loop l(options);
  socket_pair pair;
  std::atomic<bool> served{false};
  std::atomic<std::size_t> trips{0};
  std::size_t trips_until_served = 0;

  l.watch(pair.left(), interest::readable, [&] {
    pair.drain_left();
    served.store(true);
  });
  scoped_thread requester([&] {
    for (std::size_t n = 0; n < 5000; ++n) {
      if (n == 100) pair.write_right();
      must_post(l, [&trips, n] { trips.store(n + 1); });
      while (trips.load() != n + 1) std::this_thread::yield();
      if (n >= 100 && !served.load()) ++trips_until_served;
    }
    l.close();
  });
  l.run();

  CHECK(served.load());
  CHECK(trips_until_served <= hybridloop::detail::tasks_per_turn + 1);  // a poster that keeps step with a turn
}

// Its first element stops the loop, and the second one is not had before the loop is gone.
struct ending_range {
  loop* l;
  std::atomic<bool>* begun;
  std::atomic<bool>* gone;
  int at;

  std::function<void()> operator*() const {
    if (at == 0) return [ending = l] { ending->stop(); };
    begun->store(true);
    while (!gone->load()) std::this_thread::yield();
    return [] {};
  }
  ending_range& operator++() {
    ++at;
    return *this;
  }
  bool operator!=(const ending_range& other) const { return at != other.at; }
};

TEST_CASE("post_range may outlive the loop that its first element ended") {
  auto l = std::make_unique<loop>();
  std::atomic<bool> begun{false};
  std::atomic<bool> gone{false};
  loop::range_result answer{};
  loop* raw = l.get();
  must_post(*l, [&begun] {  // awake, so that it needs no wake to find the first element
    while (!begun.load()) std::this_thread::yield();
  });

  scoped_thread poster([&] {
    answer =
        raw->post_range(ending_range{raw, &begun, &gone, 0}, ending_range{raw, &begun, &gone, 3});
  });
  l->run();
  l.reset();
  gone.store(true);
  poster.join();

  CHECK(answer.accepted == 1);
  CHECK(answer.result == post_result::closed);
}

TEST_CASE("a poster that waited for room gives its block back before the loop is gone") {
  for (std::size_t round = 0; round < scaled(500, 30); ++round) {
    loop_options options;
    options.ring_capacity = 2;
    options.arena_capacity = 4;
    options.when_full = overflow::block;
    auto l = std::make_unique<loop>(options);
    const loop_handle handle = l->handle();
    std::vector<scoped_thread> posters;
    std::atomic<int> refused{0};
    for (int i = 0; i < 3; ++i) {
      posters.emplace_back([&handle, &refused] {
        char large[100] = {};
        while (handle.post([large] { static_cast<void>(large); }) == post_result::accepted) {
        }
        ++refused;
      });
    }
    if (round % 2 == 0) std::this_thread::yield();
    l.reset();
    posters.clear();

    CHECK(refused.load() == 3);
  }
}

TEST_CASE("watching a number that was just closed leaves the loop its bell") {
  loop l;
  socket_pair pair;
  const descriptor gone[2] = {open_file(), open_file()};
  for (const descriptor each : gone) close_file(each);
  std::error_code first;
  std::error_code second;

  l.watch(
      gone[0], interest::readable, [] {}, first);
  l.watch(pair.left(), interest::readable, [] {});
  l.watch(
      gone[0], interest::readable, [] {}, second);
  scoped_thread poster([&l] {
    while (l.stats().in_poller == 0) std::this_thread::yield();
    must_post(l, [&l] { l.stop(); });
  });
  l.run();

  CHECK(first.value() == EBADF);
  CHECK(second.value() == EBADF);
}

TEST_CASE("a flag set before wake() is seen after the sleep, however many wake at once") {
  loop l;
  std::atomic<std::size_t> flags{0};
  const std::size_t rounds = scaled(20000, 500);

  std::vector<scoped_thread> wakers;
  for (int i = 0; i < 2; ++i) {
    wakers.emplace_back([&] {
      for (std::size_t n = 0; n < rounds; ++n) {
        flags.fetch_add(1, std::memory_order_relaxed);
        l.wake();
      }
    });
  }
  while (flags.load(std::memory_order_relaxed) != 2 * rounds) l.run_once();

  CHECK(flags.load() == 2 * rounds);
}

TEST_CASE(
    "a cancel from elsewhere that a nested run hears of does not destroy the closure that runs") {
  loop l;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> closure = held;
  timer_id id;
  bool known = false;
  bool gone = true;
  id = l.every(1ms, [&, keep = std::move(held)] {
    elsewhere([&] { known = l.cancel(id); });
    l.poll();
    gone = closure.expired();
  });

  while (gone && !closure.expired()) l.run_once();

  CHECK(known);
  CHECK_FALSE(gone);
  CHECK(closure.expired());
  const timer_id a = l.after(1h, [] {});
  const timer_id b = l.after(1h, [] {});
  CHECK(l.cancel(a));
  CHECK(l.cancel(b));
}

TEST_CASE(
    "unwatch(id, done) on the loop thread counts, though another thread ends the watch meanwhile") {
  struct racing {
    loop* l;
    watch_id id;
    bool* other;
    racing(loop& from, watch_id i, bool& o) : l(&from), id(i), other(&o) {}
    racing(racing&& o) noexcept : l(o.l), id(o.id), other(o.other) {
      if (!*other) elsewhere([this] { *other = l->unwatch(id); });
    }
    void operator()() {}
  };
  loop l;
  const socket_pair wire;
  wire.write_right();
  int after = 0;
  bool answered = false;
  bool other = false;
  const watch_id id = l.watch(wire.left(), interest::readable, [&] { after += answered ? 1 : 0; });
  must_post(l, [&] { answered = l.unwatch(id, racing(l, id, other)); });
  for (int i = 0; i < 5000; ++i) must_post(l, [] {});

  for (int i = 0; i < 20; ++i) l.poll();

  CHECK(other);
  CHECK(answered);
  CHECK(after == 0);
}

TEST_CASE("a loop whose answer is on its way may be invoked by the one that gave it") {
  for (int round = 0; round < 200; ++round) {
    loop a;
    loop b;
    gate both;
    {
      const running<loop> runs_a(a);
      const running<loop> runs_b(b);
      a.invoke([&] {
        b.invoke([&] {
          must_post(b, [&] {
            a.invoke([] {});
            both.open();
          });
        });
      });
      both.pass();
    }
  }
}

TEST_CASE("a closure that is destroyed by a borrower may use what is for the loop thread") {
  struct last {
    loop* l;
    explicit last(loop& from) : l(&from) {}
    last(last&& o) noexcept : l(std::exchange(o.l, nullptr)) {}
    ~last() {
      if (l == nullptr) return;
      std::error_code code;
      l->backend_handle(code);
      l->next_timeout();
    }
  };
  loop l;
  const socket_pair wire;
  const watch_id id = l.watch(wire.left(), interest::readable, [kept = last(l)] {});

  CHECK(l.unwatch(id));
}

// ---- A push at any moment of a turn that ends in leaving to a foreign loop ----

namespace {
// Holds the loop thread at one of its atomic loads while a poster pushes, and lets the poster publish
// when the loop is about to leave.
struct push_at {
  enum : int { before, at_ticket, may_push, pushed, may_publish, posted };
  static inline std::atomic<int> phase{before};
  static inline int load_to_hold = 0;
  static inline int loads = 0;
  static inline bool armed = false;
  static inline thread_local bool is_loop = false;

  static void await(int wanted) {
    while (phase < wanted) std::this_thread::yield();
  }
  static void on_load() {
    if (!is_loop || !armed || ++loads != load_to_hold) return;
    armed = false;
    phase = may_push;
    await(pushed);
    armed = true;
  }
};

template <class T>
struct load_hooked : std::atomic<T> {
  using std::atomic<T>::atomic;
  T load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    push_at::on_load();
    return std::atomic<T>::load(order);
  }
};

struct load_hooked_traits : default_traits {
  template <class T>
  using atomic = load_hooked<T>;
  static void schedule_point(const char* name) noexcept {
    const std::string point = name;
    if (!push_at::is_loop && point == "ticket" && push_at::phase == push_at::before) {
      push_at::phase = push_at::at_ticket;
      push_at::await(push_at::may_push);
    }
    if (!push_at::is_loop && point == "spilled" && push_at::phase == push_at::may_push) {
      push_at::phase = push_at::pushed;
      push_at::await(push_at::may_publish);
    }
    if (push_at::is_loop && point == "before-away" && push_at::phase == push_at::pushed) {
      push_at::phase = push_at::may_publish;
      push_at::await(push_at::posted);
    }
  }
};
}  // namespace

TEST_CASE("a task that spills at any moment of a loop's leaving to a foreign one makes its handle readable") {
  struct while_here {
    while_here() { push_at::is_loop = true; }
    ~while_here() { push_at::is_loop = false; }
  } const this_thread;
  for (const bool in_lane : {false, true}) {
    bool further = true;
    for (push_at::load_to_hold = 1; further; ++push_at::load_to_hold) {
      CAPTURE(in_lane);
      CAPTURE(push_at::load_to_hold);
      push_at::phase = push_at::before;
      push_at::loads = 0;
      basic_loop<load_hooked_traits> l(tiny(2, 8));
      std::error_code refused;
      const auto handle = l.backend_handle(refused);
      if (refused == errc::unsupported) return;  // poll(2) has none
      auto p = l.make_producer(2);
      while (l.poll() != 0) {
      }
      l.poll();
      std::atomic<int> ran{0};
      const auto post = [&](auto&& f) { in_lane ? must_post(p, f) : must_post(l, f); };
      for (int i = 0; i < 2; ++i) post([] {});
      scoped_thread poster([&] {
        post([&ran] { ++ran; });
        push_at::phase = push_at::posted;
      });
      push_at::await(push_at::at_ticket);
      push_at::armed = true;
      l.poll();
      push_at::armed = false;
      further = push_at::loads >= push_at::load_to_hold;
      if (push_at::phase == push_at::at_ticket) push_at::phase = push_at::may_push;
      push_at::await(push_at::pushed);
      if (push_at::phase == push_at::pushed) push_at::phase = push_at::may_publish;
      poster.join();

      if (ran == 0) becomes_readable(handle, -1);
      while (ran == 0) l.poll();
    }
  }
}

// What waits for permits and their kin.

TEST_CASE_TEMPLATE("waits for more than can be counted are a broken contract, and make no permits", Queue,
                   sync::queue0, sync::queue1, sync::queue3, sync::queue_locked) {
  CHECK(aborts([] {
    basic_semaphore<Queue> none(0);
    loop l;
    for (int i = 0; i != 4; ++i) none.async_acquire(l, [](wait_status) {}, {none.max(), {}});
    if (none.try_acquire()) std::_Exit(1);
  }));
}

TEST_CASE("none of no permits is split off") {
  semaphore s(1);
  semaphore::permit none;
  CHECK_FALSE(none.split(0));
  auto one = s.hold();
  CHECK_FALSE(one.split(0));
  CHECK(one.count() == 1);
}

#if defined(__cpp_exceptions)
TEST_CASE_TEMPLATE("a channel of more room than there can be memory is refused", Queue, SUPPORT_QUEUES) {
  struct wide {
    char bytes[16];
  };
  constexpr std::size_t wraps = ~std::size_t{0} / sizeof(wide) + 1;
  using channel = basic_channel<wide, Queue>;
  CHECK_THROWS_AS(channel{wraps}, std::system_error);
  CHECK_THROWS_AS(channel{wraps + 1}, std::system_error);
}

// Throws when it is given back, as a std::unique_lock does that has no lock.
struct stubborn_lock {
  void lock() {}
  void unlock() {
    if (before) before();
    throw std::runtime_error("not mine");
  }
  std::function<void()> before;
};

TEST_CASE_TEMPLATE("who cannot give back its lock does not wait, and a notification that met it goes to the next", Queue,
                   SUPPORT_QUEUES) {
  basic_condvar<Queue> c;
  loop l;
  int heard = 0;
  stubborn_lock lock;
  CHECK_THROWS_WITH(c.wait(lock), "not mine");
  c.notify_one();
  lock.before = [&] {
    c.async_wait(l, [&](wait_status how) { heard += how == wait_status::granted ? 1 : 100; });
    c.notify_one();
  };
  CHECK_THROWS_WITH(c.wait_for(lock, 1h), "not mine");
  turn(l);
  CHECK(heard == 1);
}
#endif

// A coroutine's, as far as an awaiter sees it.
struct frame_handle {
  int* resumed;
  void* address() const { return resumed; }
  static frame_handle from_address(void* there) { return {static_cast<int*>(there)}; }
  void resume() const { ++*resumed; }
};

// Suspended with an awaiter of its own, until it is told.
template <class Awaiter>
struct suspended {
  template <class Make>
  explicit suspended(const Make& make) : awaiter(make()) {
    CHECK(awaiter.await_suspend(frame_handle{&resumed}));
  }
  Awaiter awaiter;
  int resumed = 0;
};
template <class Make>
suspended(const Make&) -> suspended<decltype(std::declval<Make>()())>;

TEST_CASE_TEMPLATE("a permit beats the deadline of the same turn, for a coroutine too", Queue, SUPPORT_QUEUES) {
  semaphore_on<Queue, wait_traits> s(0);
  wait_loop l;
  suspended waits([&] { return s.acquire_on(l, {1, virtual_clock::now() + 1ms}); });
  s.release();
  virtual_clock::advance(1s);
  turn(l);
  CHECK(waits.resumed == 1);
  CHECK(waits.awaiter.await_resume() == wait_status::granted);
  CHECK(s.available() == 0);
}

TEST_CASE_TEMPLATE("a coroutine for many that leaves at its deadline lets those behind it run with what it had", Queue,
                   SUPPORT_QUEUES) {
  semaphore_on<Queue, wait_traits> s(4);
  wait_loop l;
  suspended many([&] { return s.acquire_on(l, {8, virtual_clock::now() + 1ms}); });
  suspended one([&] { return s.acquire_on(l); });
  turn(l);
  CHECK(one.resumed == 0);
  virtual_clock::advance(1s);
  turn(l);
  CHECK(many.resumed == 1);
  CHECK(many.awaiter.await_resume() == wait_status::timed_out);
  CHECK(one.resumed == 1);
  CHECK(one.awaiter.await_resume() == wait_status::granted);
  CHECK(s.available() == 3);
}

TEST_CASE_TEMPLATE("a coroutine that was robbed waits in front, and is served, timed out or closed there", Queue,
                   SUPPORT_QUEUES) {
  for (const wait_status how : {wait_status::granted, wait_status::timed_out, wait_status::closed}) {
    basic_semaphore<rebind_queue<Queue, wait_traits>, sync::barging> s(0);
    wait_loop l;
    suspended first([&] { return s.acquire_on(l, {1, virtual_clock::now() + 1h}); });
    suspended second([&] { return s.acquire_on(l); });
    s.release();
    REQUIRE(s.try_acquire());  // the robber
    turn(l);
    CHECK(first.resumed == 0);
    if (how == wait_status::granted) s.release();
    if (how == wait_status::timed_out) virtual_clock::advance(2h);
    if (how == wait_status::closed) s.close();
    turn(l);
    CHECK(first.resumed == 1);
    CHECK(first.awaiter.await_resume() == how);
    CHECK(second.resumed == (how == wait_status::closed ? 1 : 0));
    s.release();
    turn(l);
    CHECK(second.resumed == 1);
    CHECK(s.available() == (how == wait_status::closed ? 1 : 0));
  }
}

TEST_CASE_TEMPLATE("a notification that a coroutine was too late for is the next one's", Queue, SUPPORT_QUEUES) {
  condvar_on<Queue, wait_traits> c;
  wait_loop l;
  suspended gone([&] { return c.wait_on(l, {1, virtual_clock::now() + 1ms}); });
  suspended next([&] { return c.wait_on(l); });
  virtual_clock::advance(1s);
  turn(l);
  CHECK(gone.resumed == 1);
  CHECK(gone.awaiter.await_resume() == wait_status::timed_out);
  c.notify_one();
  turn(l);
  CHECK(next.resumed == 1);
  CHECK(next.awaiter.await_resume() == wait_status::granted);
}

TEST_CASE_TEMPLATE("a coroutine whose loop is closed takes no value out of a channel that is open", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> c(1);
  loop l;
  l.close();
  int resumed = 0;
  CHECK(c.try_send(7));
  {
    auto receiving = c.receive_on(l);
    CHECK_FALSE(receiving.await_ready());
    CHECK_FALSE(receiving.await_suspend(frame_handle{&resumed}));
    CHECK_FALSE(receiving.await_resume());
  }
  CHECK_FALSE(c.try_send(8));
  CHECK(c.try_receive() == 7);
  CHECK_FALSE(c.try_receive());

  CHECK(c.try_send(9));
  c.close();
  auto receiving = c.receive_on(l);
  CHECK_FALSE(receiving.await_suspend(frame_handle{&resumed}));
  CHECK(receiving.await_resume() == 9);
}

TEST_CASE_TEMPLATE("an event that was reset lets nobody through who came after that: the token of one who has not joined yet",
                   Queue, SUPPORT_QUEUES) {
  basic_event<rebind_queue<Queue, wait_traits>, sync::manual_reset> e;
  wait_loop l;
  report early, late;
  {
    std::atomic<bool> go_on{false};
    stage window("joining", [&] {
      while (!go_on) std::this_thread::yield();
    });
    scoped_thread slow([&] { e.async_wait(l, listener<>(early)); });
    while (!window.entered()) std::this_thread::yield();
    e.set();
    std::atomic<bool> is_reset{false};
    scoped_thread other([&] {
      e.reset();
      if (!go_on) is_reset = true;
      e.async_wait(l, listener<>(late));
    });
    for (int i = 0; i != 100 && !is_reset; ++i) std::this_thread::yield();
    go_on = true;
  }
  turn(l);
  CHECK(late.ran() == 0);
  CHECK(early.granted == 1);
  e.set();
  turn(l);
  CHECK(late.granted == 1);
}

TEST_CASE_TEMPLATE("an event that was reset lets nobody through who came after that: the token of one who gave up", Queue,
                   SUPPORT_QUEUES) {
  basic_event<rebind_queue<Queue, wait_traits>, sync::manual_reset> e;
  wait_loop l;
  report first, second, late;
  const auto ticket = e.async_wait(l, listener<>(first));
  e.async_wait(l, listener<>(second));
  {
    std::atomic<bool> go_on{false};
    stage window("sending", [&] {
      while (!go_on) std::this_thread::yield();
    });
    scoped_thread setter([&] { e.set(); });
    while (!window.entered()) std::this_thread::yield();
    std::atomic<bool> is_reset{false};
    scoped_thread other([&] {
      e.reset();
      if (!go_on) is_reset = true;
      e.async_wait(l, listener<>(late));
      e.cancel(ticket);
    });
    for (int i = 0; i != 100 && !is_reset; ++i) std::this_thread::yield();
    go_on = true;
  }
  turn(l);
  CHECK(first.granted == 1);
  CHECK(second.granted == 1);
  CHECK(late.ran() == 0);
  e.set();
  turn(l);
  CHECK(late.granted == 1);
}

TEST_CASE_TEMPLATE("an event that was reset lets nobody through who came after that: the token of one who is leaving", Queue,
                   sync::queue2, sync::queue3) {
  basic_event<rebind_queue<Queue, wait_traits>, sync::manual_reset> e;
  wait_loop l;
  report first, second, late;
  const auto ticket = e.async_wait(l, listener<>(first));
  e.async_wait(l, listener<>(second));
  {
    std::atomic<bool> go_on{false};
    stage window(Queue::phase == 2 ? "leaving" : "owner", [&] {
      while (!go_on) std::this_thread::yield();
    });
    scoped_thread leaver([&] { e.cancel(ticket); });
    while (!window.entered()) std::this_thread::yield();
    e.set();
    std::atomic<bool> is_reset{false};
    scoped_thread other([&] {
      e.reset();
      const bool at_once = !go_on;
      e.async_wait(l, listener<>(late));
      if (at_once) is_reset = true;
    });
    for (int i = 0; i != 1000 && !is_reset; ++i) std::this_thread::yield();
    go_on = true;
  }
  turn(l);
  CHECK(first.ran() == 1);
  CHECK(second.granted == 1);
  CHECK(late.ran() == 0);
  e.set();
  turn(l);
  CHECK(late.granted == 1);
}

TEST_CASE_TEMPLATE("an event is destroyed by who was let through, while the set() and the wait are on their way out", Queue,
                   SUPPORT_QUEUES) {
  for (std::size_t i = 0; i != scaled(20000, 500); ++i) {
    auto e = std::make_unique<basic_event<Queue, sync::manual_reset>>();
    scoped_thread setter([raw = e.get()] { raw->set(); });
    e->wait();
    e.reset();
  }
}

#if SUPPORT_POSIX
// A thread stops in `act` at the point, and in the child of a fork it is not there any more.
template <class Made, class Act>
static bool may_be_destroyed_in_a_child(const char* point, Made& made, const Act& act) {
  std::atomic<bool> go_on{false};
  stage window(point, [&] {
    while (!go_on) std::this_thread::yield();
  });
  scoped_thread stopped(act);
  while (!window.entered()) std::this_thread::yield();
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    made.~Made();
    ::_exit(0);
  }
  int how = 0;
  ::waitpid(child, &how, 0);
  go_on = true;
  return WIFEXITED(how) && WEXITSTATUS(how) == 0;
}

TEST_CASE_TEMPLATE("what is waited for is destroyed in the child of a fork wherever its threads were", Queue, SUPPORT_QUEUES) {
  using queue = rebind_queue<Queue, wait_traits>;
  basic_event<queue, sync::manual_reset> e;
  basic_semaphore<queue> s(0);
  basic_semaphore<queue, sync::barging> b(0);
  wait_loop l;
  report heard;

  CHECK(may_be_destroyed_in_a_child("joining", e, [&] { e.async_wait(l, listener<>(heard)); }));
  CHECK(may_be_destroyed_in_a_child("sending", e, [&] { e.set(); }));
  s.async_acquire(l, listener<>(heard));
  CHECK(may_be_destroyed_in_a_child(std::is_same_v<Queue, sync::queue3> ? "owner" : "sending", s, [&] { s.release(); }));
  b.async_acquire(l, listener<>(heard));
  CHECK(may_be_destroyed_in_a_child("sending", b, [&] { b.close(); }));

  turn(l);
  CHECK(heard.granted == 2);
  CHECK(heard.closed == 1);
}
#endif

TEST_SUITE_END();
