// ring_test.cpp - slots that many threads claim and the loop thread runs in the order of the claims
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "support/interrupt.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::loop_options;
using hybridloop::overflow;
using hybridloop::post_result;

namespace {

using hybridloop::detail::system_kernel;

template <class Traits>
struct ring_of {
  using type = hybridloop::detail::ring<Traits>;

  explicit ring_of(std::size_t capacity)
      : bytes(capacity * sizeof(typename type::slot)), memory(system_kernel::map(bytes)),
        slots(memory, capacity) {}
  ring_of(const ring_of&) = delete;
  ring_of& operator=(const ring_of&) = delete;
  ~ring_of() { system_kernel::unmap(memory, bytes); }
  type* operator->() { return &slots; }

  // What the loop thread does with the next slot.
  void run_one() {
    slots.advance();
    slots.publish_head(~std::uint64_t{0});
  }

  std::size_t bytes;
  void* memory;
  type slots;
};
using plain_ring = ring_of<hybridloop::default_traits>;
using answer = plain_ring::type::answer;

loop_options sized(std::size_t ring, std::size_t arena, overflow policy = overflow::spill) {
  loop_options options;
  options.ring_capacity = ring;
  options.arena_capacity = arena;
  options.when_full = policy;
  return options;
}

// Makes F larger than the room inside a task.
template <class F>
struct padded {
  F f;
  std::array<unsigned char, hybridloop::detail::task_size> padding{};
  void operator()() { f(); }
};
template <class F>
padded<F> pad(F f) {
  return {std::move(f)};
}

template <class Loop>
std::size_t post_until_full(Loop& loop) {
  std::size_t taken = 0;
  while (loop.post([] {}) == post_result::accepted) ++taken;
  return taken;
}

}  // namespace

TEST_SUITE_BEGIN("ring");

TEST_CASE("a ring hands out each index once and is full until its head is published, lap after lap") {
  for (const std::size_t capacity : {std::size_t{2}, std::size_t{4}}) {
    plain_ring ring(capacity);

    std::size_t wrong = 0;
    std::uint64_t expected = 0;
    std::uint64_t index = 0;
    const auto claim_next = [&] {
      if (ring->claim(index) != answer::claimed || index != expected++) ++wrong;
      ring->publish(index, index % 2 == 0);
    };
    for (std::size_t i = 0; i < capacity; ++i) claim_next();
    for (int lap = 0; lap < 20; ++lap) {
      if (ring->claim(index) != answer::full) ++wrong;
      ring->advance();
      if (ring->claim(index) != answer::full) ++wrong;
      ring->publish_head(~std::uint64_t{0});
      claim_next();
    }

    CHECK(wrong == 0);
    CHECK(ring->tail() == capacity + 20);
    CHECK(ring->head() == 20);
  }
}

TEST_CASE("a slot that was published in one lap does not look published in the next") {
  plain_ring ring(2);
  std::uint64_t index = 0;
  std::size_t wrong = 0;

  for (std::uint64_t i = 0; i < 10; ++i) {
    if (ring->published(i)) ++wrong;
    if (ring->claim(index) != answer::claimed) ++wrong;
    if (ring->published(i)) ++wrong;
    ring->publish(index, true);
    if (!ring->published(i) || ring->published(i + 2)) ++wrong;
    ring.run_one();
  }

  CHECK(wrong == 0);
}

TEST_CASE("the published head never passes the bound it is given") {
  plain_ring ring(4);
  std::uint64_t index = 0;
  for (int i = 0; i < 4; ++i) CHECK(ring->claim(index) == answer::claimed);
  for (int i = 0; i < 4; ++i) ring->advance();

  ring->publish_head(1);

  CHECK(ring->claim(index) == answer::claimed);
  CHECK(index == 4);
  CHECK(ring->claim(index) == answer::full);
}

TEST_CASE("a closed ring answers closed, full or not, and keeps the number of its claims") {
  plain_ring ring(2);
  std::uint64_t index = 0;
  CHECK(ring->claim(index) == answer::claimed);

  ring->close();
  CHECK(ring->claim(index) == answer::closed);
  CHECK(ring->tail() == 1);
  CHECK(ring->is_closed());

  plain_ring full(2);
  CHECK(full->claim(index) == answer::claimed);
  CHECK(full->claim(index) == answer::claimed);
  full->close();
  CHECK(full->claim(index) == answer::closed);
}

TEST_CASE("a claim held up anywhere gets an index of its own, or full, and never one too far ahead") {
  using interrupted_ring = ring_of<interrupted_traits>;
  using got = interrupted_ring::type::answer;
  constexpr std::uint64_t capacity = 2;
  std::size_t doubles = 0;
  std::size_t ahead = 0;
  std::size_t needless = 0;
  int places = 0;

  for (std::uint64_t before = 0; before <= capacity; ++before) {
    for (int meanwhile = 0; meanwhile <= 5; ++meanwhile) {
      places += at_every_place([&](int place) {
        interrupted_ring ring(capacity);
        std::vector<std::uint64_t> indices;
        const auto claim = [&] {
          std::uint64_t index = 0;
          const got answered = ring->claim(index);
          if (answered == got::claimed) indices.push_back(index);
          return answered;
        };
        for (std::uint64_t i = 0; i < before; ++i) claim();

        interruption others(place, [&] {
          for (int i = 0; i < meanwhile; ++i) {
            claim();
            ring.run_one();
          }
        });
        const got mine = claim();
        const bool more = others.over();

        std::sort(indices.begin(), indices.end());
        if (std::unique(indices.begin(), indices.end()) != indices.end()) ++doubles;
        if (indices.size() != ring->tail()) ++doubles;
        if (ring->tail() > ring->head() + capacity) ++ahead;
        if (mine == got::full && before < capacity) ++needless;
        return more;
      });
    }
  }

  CHECK(places > 50);
  CHECK(doubles == 0);
  CHECK(ahead == 0);
  CHECK(needless == 0);
}

TEST_CASE("a loop takes exactly the slots it was asked for, rounded up to a power of two") {
  const auto taken_by = [](std::size_t asked) {
    hybridloop::loop loop(sized(asked, 0, overflow::fail));
    return post_until_full(loop);
  };

  CHECK(taken_by(0) == 2);
  CHECK(taken_by(1) == 2);
  CHECK(taken_by(2) == 2);
  CHECK(taken_by(3) == 4);
  CHECK(taken_by(4) == 4);
  CHECK(taken_by(5) == 8);
}

TEST_CASE("tasks run in the order of the claims, however often the ring goes around") {
  for (const std::size_t capacity : {std::size_t{2}, std::size_t{4}}) {
    hybridloop::loop loop(sized(capacity, 0, overflow::fail));
    std::vector<std::size_t> ran;
    std::vector<std::size_t> expected;

    for (std::size_t i = 0; i < 100; ++i) {
      const std::size_t batch = 1 + i % capacity;
      for (std::size_t k = 0; k < batch; ++k) {
        must_post(loop, [&ran, n = expected.size()] { ran.push_back(n); });
        expected.push_back(expected.size());
      }
      CHECK(loop.poll() == batch);
    }

    CHECK(ran == expected);
  }
}

TEST_CASE("a producer that stalls in the middle of a post holds back what was claimed after it") {
  for (const std::size_t capacity : {std::size_t{2}, std::size_t{4}}) {
    hybridloop::loop loop(sized(capacity, 0));
    std::vector<int> ran;
    gate claimed;
    gate go;
    must_post(loop, [&ran] { ran.push_back(1); });
    CHECK(loop.poll() == 1);

    const slow_closure slow(ran, 2, claimed, go);
    scoped_thread stalled([&] { must_post(loop, slow); });
    claimed.pass();
    must_post(loop, [&ran] { ran.push_back(3); });
    const std::size_t before = loop.poll() + loop.poll();
    go.open();
    stalled.join();
    const std::size_t after = loop.poll();

    CHECK(before == 0);
    CHECK(after == 2);
    CHECK(ran == std::vector<int>{1, 2, 3});
  }
}

TEST_CASE("a loop may sleep while a claim is not yet published; its own post wakes it") {
  hybridloop::loop loop(sized(4, 0));
  std::vector<int> ran;
  gate claimed;
  gate go;

  scoped_thread runner([&loop] { loop.run(); });
  const slow_closure slow(ran, 1, claimed, go);
  scoped_thread stalled([&] { must_post(loop, slow); });
  claimed.pass();
  while (loop.stats().parks == 0) std::this_thread::yield();
  const std::uint64_t parks = loop.stats().parks;
  must_post(loop, [&] {
    ran.push_back(2);
    loop.stop();
  });
  while (loop.stats().parks == parks) std::this_thread::yield();
  go.open();
  stalled.join();
  runner.join();

  CHECK(ran == std::vector<int>{1, 2});
}

TEST_CASE("a closed loop does not return before a claim that was made is published and has run") {
  hybridloop::loop loop(sized(4, 0));
  std::vector<int> ran;
  gate claimed;
  gate go;
  std::atomic<bool> returned{false};

  const slow_closure slow(ran, 1, claimed, go);
  scoped_thread stalled([&] { must_post(loop, slow); });
  claimed.pass();
  loop.close();
  scoped_thread runner([&] {
    loop.run();
    returned = true;
  });
  const std::uint64_t turns = loop.stats().turns;
  while (loop.stats().turns < turns + 3) std::this_thread::yield();
  const bool too_early = returned;
  go.open();
  stalled.join();
  runner.join();

  CHECK_FALSE(too_early);
  CHECK(ran == std::vector<int>{1});
}

TEST_CASE("a task finds the captures of the one before it destroyed, on the loop thread") {
  struct witness {
    std::thread::id* destroyed_by;
    explicit witness(std::thread::id& by) : destroyed_by(&by) {}
    witness(const witness&) = delete;
    witness& operator=(const witness&) = delete;
    ~witness() { *destroyed_by = std::this_thread::get_id(); }
  };
  hybridloop::loop loop(sized(2, 2));
  std::thread::id destroyed_by[4];
  std::weak_ptr<witness> captured[4];
  std::size_t retained = 0;
  const auto look_at = [&](int i) {
    return [&, i] {
      if (!captured[i].expired()) ++retained;
    };
  };
  const auto holder = [&](int i) {
    auto held = std::make_shared<witness>(destroyed_by[i]);
    captured[i] = held;
    return [held] {};
  };

  scoped_thread([&] {
    must_post(loop, holder(0));       // in the ring
    must_post(loop, look_at(0));
    must_post(loop, holder(1));       // in the arena
    must_post(loop, look_at(1));
    must_post(loop, holder(2));       // on the heap
    must_post(loop, look_at(2));
    must_post(loop, pad(holder(3)));  // in a block of its own
    must_post(loop, look_at(3));
  }).join();
  const std::size_t ran = loop.poll();

  CHECK(ran == 8);
  CHECK(retained == 0);
  CHECK(std::count(destroyed_by, destroyed_by + 4, std::this_thread::get_id()) == 4);
}

TEST_CASE("a closure that can only be moved is moved in, and a lent one is copied once") {
  struct counted {
    int* copies;
    int* runs;
    counted(int& c, int& r) noexcept : copies(&c), runs(&r) {}
    counted(const counted& other) noexcept : copies(other.copies), runs(other.runs) { ++*copies; }
    counted(counted&&) noexcept = default;
    void operator()() const { ++*runs; }
  };
  hybridloop::loop loop(sized(2, 1));
  int copies = 0;
  int runs = 0;
  int sum = 0;
  const counted lent(copies, runs);

  for (int i = 0; i < 5; ++i) {
    must_post(loop, [&sum, n = std::make_unique<int>(i)] { sum += *n; });
    must_post(loop, pad([&sum, n = std::make_unique<int>(i)] { sum += *n; }));
    must_post(loop, lent);
  }
  loop.poll();

  CHECK(sum == 20);
  CHECK(runs == 5);
  CHECK(copies == 5);
}

TEST_CASE("nested runs go around the ring and never build into the slot of the task they run in") {
  for (const std::size_t capacity : {std::size_t{2}, std::size_t{4}}) {
    hybridloop::loop loop(sized(capacity, 8));
    std::vector<int> ran;
    std::vector<int> expected;
    std::size_t spoilt = 0;
    std::shared_ptr<int> held = std::make_shared<int>(7);
    const std::weak_ptr<int> captured = held;

    must_post(loop, [&, mine = std::move(held), pattern = std::uint64_t{0x5a5a5a5a5a5a5a5a}] {
      for (int i = 0; i < 50; ++i) {
        scoped_thread([&loop, &ran, i] {
          must_post(loop, [&ran, n = 2 * i] { ran.push_back(n); });
          must_post(loop, [&ran, n = 2 * i + 1] { ran.push_back(n); });
        }).join();
        loop.poll();
        if (pattern != 0x5a5a5a5a5a5a5a5a || *mine != 7) ++spoilt;
      }
    });
    loop.poll();
    for (int i = 0; i < 100; ++i) expected.push_back(i);

    CHECK(ran == expected);
    CHECK(spoilt == 0);
    CHECK(captured.expired());
    CHECK(loop.poll() == 0);
  }
}

TEST_CASE("a running task keeps its slot: others find one less, until it returns") {
  hybridloop::loop loop(sized(4, 0, overflow::fail));
  std::size_t during = 0;

  must_post(loop, [&] {
    loop.poll();
    scoped_thread([&] { during = post_until_full(loop); }).join();
    loop.poll();
    scoped_thread([&] { during += post_until_full(loop); }).join();
  });
  loop.poll();

  CHECK(during == 3);
  CHECK(post_until_full(loop) == 4);
}

TEST_CASE("runs nest as deep as tasks do, and each returns to its own slot") {
  hybridloop::loop loop(sized(2, 4));
  std::vector<int> order;
  const auto dive = [&](const auto& self, int depth) -> void {
    order.push_back(depth);
    if (depth < 6) {
      must_post(loop, [&self, depth, alive = std::make_shared<int>(depth)] {
        self(self, *alive + 1);
        if (*alive != depth) std::abort();
      });
      loop.poll();
    }
    order.push_back(-depth);
  };

  must_post(loop, [&dive] { dive(dive, 1); });
  loop.poll();

  CHECK(order == std::vector<int>{1, 2, 3, 4, 5, 6, -6, -5, -4, -3, -2, -1});
  CHECK(loop.stats().arena_in_use == 0);
}

TEST_CASE("each task runs once, whole and in the order of its producer, on a ring far too small") {
  struct message {
    std::size_t producer;
    std::uint64_t number, check[2];
    static message of(std::size_t p, std::uint64_t n) {
      return {p, n, {~n, p * 0x9e3779b97f4a7c15u + n}};
    }
    bool whole() const {
      return check[0] == ~number && check[1] == producer * 0x9e3779b97f4a7c15u + number;
    }
  };
  constexpr std::size_t producers = 4;
  const std::uint64_t each = scaled(20000);

  for (const std::size_t capacity : {std::size_t{2}, std::size_t{4}}) {
    hesitant_loop loop(sized(capacity, 4));
    std::array<std::uint64_t, producers> next{};
    std::size_t torn = 0;
    std::size_t astray = 0;

    std::vector<scoped_thread> threads;
    for (std::size_t p = 0; p < producers; ++p) {
      threads.emplace_back([&, p] {
        for (std::uint64_t n = 0; n < each; ++n) {
          must_post(loop, [&, m = message::of(p, n)] {
            if (!m.whole()) ++torn;
            if (m.producer >= producers || m.number != next[m.producer]++) ++astray;
          });
        }
      });
    }
    const scoped_thread closer([&] {
      for (scoped_thread& t : threads) t.join();
      loop.close();
    });
    loop.run();

    CHECK(torn == 0);
    CHECK(astray == 0);
    for (const std::uint64_t n : next) CHECK(n == each);
  }
}

#if defined(__cpp_exceptions)

namespace {

struct refuses_to_be_copied {
  int* runs;
  explicit refuses_to_be_copied(int& r) noexcept : runs(&r) {}
  refuses_to_be_copied(const refuses_to_be_copied&) { throw 1; }
  refuses_to_be_copied(refuses_to_be_copied&&) noexcept = default;
  void operator()() { ++*runs; }
};
static_assert(hybridloop::detail::unique_task::fits<refuses_to_be_copied>);

template <class Loop, class F>
bool throws_when_posted(Loop& loop, const F& f) {
  try {
    static_cast<void>(loop.post(f));
    return false;
  } catch (int) {
    return true;
  }
}

}  // namespace

TEST_CASE("a closure whose constructor throws leaves an empty slot, and the loop goes on") {
  hybridloop::loop loop(sized(2, 4));
  std::vector<int> ran;
  int runs = 0;
  std::size_t thrown = 0;
  const refuses_to_be_copied inside(runs);
  const auto boxed = pad(refuses_to_be_copied(runs));

  for (int i = 0; i < 10; ++i) {
    must_post(loop, [&ran, i] { ran.push_back(i); });
    for (int k = 0; k < i; ++k) {
      if (throws_when_posted(loop, inside)) ++thrown;
      if (throws_when_posted(loop, boxed)) ++thrown;
    }
    must_post(loop, [&ran, i] { ran.push_back(-i); });
    CHECK(loop.poll() == 2);
  }

  CHECK(thrown == 90);
  CHECK(runs == 0);
  CHECK(ran == std::vector<int>{0, 0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8, -8, 9, -9});
  CHECK(loop.stats().arena_in_use == 0);
}

TEST_CASE("a ring of nothing but failed posts is empty, and a run over it ends") {
  hybridloop::loop loop(sized(2, 0, overflow::fail));
  int runs = 0;
  const refuses_to_be_copied closure(runs);
  CHECK(throws_when_posted(loop, closure));
  CHECK(throws_when_posted(loop, closure));
  CHECK(loop.try_post([] {}) == post_result::full);

  CHECK(loop.run_until_idle() == 0);

  CHECK(post_until_full(loop) == 2);
}

TEST_CASE("a task that throws is destroyed, and its slot is free for the next lap") {
  hybridloop::loop loop(sized(2, 0, overflow::fail));
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> captured = held;
  must_post(loop, [mine = std::move(held)] { throw *mine; });
  int after = 0;
  must_post(loop, [&after] { ++after; });

  bool thrown = false;
  try {
    loop.poll();
  } catch (int) {
    thrown = true;
  }

  CHECK(thrown);
  CHECK(captured.expired());
  CHECK(after == 0);
  CHECK(loop.poll() == 1);
  CHECK(after == 1);
  CHECK(post_until_full(loop) == 2);
}

TEST_CASE("an exception that a task catches from a nested run leaves its own slot alone") {
  hybridloop::loop loop(sized(2, 4));
  std::size_t caught = 0;
  std::size_t spoilt = 0;
  int ran = 0;

  must_post(loop, [&, mine = std::make_shared<int>(7)] {
    for (int i = 0; i < 20; ++i) {
      scoped_thread([&loop, &ran] {
        must_post(loop, [] { throw 1; });
        must_post(loop, [&ran] { ++ran; });
      }).join();
      try {
        loop.poll();
      } catch (int) {
        ++caught;
      }
      loop.poll();
      if (*mine != 7) ++spoilt;
    }
  });
  loop.poll();

  CHECK(caught == 20);
  CHECK(ran == 20);
  CHECK(spoilt == 0);
}

#endif

TEST_SUITE_END();
