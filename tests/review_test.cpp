// review_test.cpp - interleavings that an adversarial reading of the protocols constructed
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "support/running.hpp"
#include "support/support.hpp"
#include "support/virtual_clock.hpp"


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

TEST_SUITE_END();
