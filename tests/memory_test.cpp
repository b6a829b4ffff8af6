// memory_test.cpp - what is allocated, and what happens when nothing is left
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/proc.hpp"
#include "support/running.hpp"
#include "support/scarcity.hpp"
#include "support/support.hpp"

using namespace support;

#if SUPPORT_COUNTS_ALLOCATIONS

// The next one in line, not the C library's by its own name: valgrind puts itself there.
extern "C" void* malloc(std::size_t bytes) noexcept {
  static const auto next = reinterpret_cast<void* (*)(std::size_t)>(::dlsym(RTLD_NEXT, "malloc"));
  ++support::allocations;
  return support::refuses_memory() ? nullptr : next(bytes);
}

namespace {

// How often the calling thread asked for memory in f.
template <class F>
std::size_t allocations_in(const F& f) {
  const std::size_t before = allocations;
  f();
  return allocations - before;
}

struct message {
  std::size_t* sum;
  std::array<std::size_t, hybridloop::detail::task_size / sizeof(std::size_t) - 1> words;
  void operator()() const { *sum += words[0]; }
};
static_assert(sizeof(message) == hybridloop::detail::task_size);

}  // namespace

TEST_SUITE_BEGIN("allocations");

TEST_CASE("what is counted here is every allocation") {
  std::string text;
  void* memory = nullptr;

  const std::size_t by_new = allocations_in([&text] { text.assign(1000, 'x'); });
  CHECK((by_new == 1 || in_valgrind()));  // which has an operator new of its own
  CHECK(allocations_in([&memory] { memory = hybridloop::detail::heap_take(64, 64); }) == 1);
  hybridloop::detail::heap_give(memory, 64);
}

TEST_CASE("a post on the ring allocates nothing, from the first on") {
  hybridloop::loop loop(tiny(64, 0));
  std::size_t sum = 0;

  const std::size_t made = allocations_in([&] {
    for (int round = 0; round < 100; ++round) {
      for (int n = 0; n < 64; ++n) must_post(loop, message{&sum, {1}});
      loop.poll();
    }
  });

  CHECK(sum == 6400);
  CHECK(made == 0);
}

TEST_CASE(
    "a post that spills into the arena allocates nothing, nor does a large closure in a block") {
  hybridloop::loop loop(tiny(2, 256));
  std::size_t sum = 0;

  const std::size_t made = allocations_in([&] {
    for (int round = 0; round < 100; ++round) {
      for (int n = 0; n < 60; ++n) {
        must_post(loop, message{&sum, {1}});
        must_post(loop, [m = message{&sum, {1}}, more = std::size_t{0}] { m(), void(more); });
      }
      loop.poll();
    }
  });

  CHECK(sum == 12000);
  CHECK(loop.stats().spilled == 100 * 118);
  CHECK(made == 0);
}

TEST_CASE("beyond the arena a spilled task is counted, and allocates nothing") {
  hybridloop::loop loop(tiny(2, 4));
  std::size_t sum = 0;

  const std::size_t made = allocations_in([&] {
    for (int n = 0; n < 26; ++n) must_post(loop, message{&sum, {1}});
    loop.poll();
  });

  CHECK(sum == 26);
  CHECK(made == 0);
  CHECK(loop.stats().heap_tasks == 20);
}

TEST_CASE("deferred tasks and microtasks allocate nothing in a steady state") {
  hybridloop::loop loop(tiny(64, 64));
  std::size_t sum = 0;
  const auto round = [&] {
    must_post(loop, [&] {
      for (int n = 0; n < 20; ++n) {
        loop.defer(message{&sum, {1}});
        loop.microtask(message{&sum, {1}});
      }
    });
    while (loop.poll() != 0) {
    };
  };

  round();
  const std::size_t made = allocations_in([&round] {
    for (int i = 0; i < 100; ++i) round();
  });

  CHECK(sum == 101 * 40);
  CHECK(made == 0);
}

TEST_CASE(
    "neither the poster nor the running loop allocates when a stream goes from one to the other") {
  const std::size_t count = scaled(20000);
  hybridloop::loop loop(tiny(64, count));
  std::size_t sum = 0;
  std::size_t made_by_poster = 1;

  scoped_thread poster([&] {
    made_by_poster = allocations_in([&] {
      for (std::size_t n = 0; n < count; ++n) must_post(loop, message{&sum, {1}});
    });
    loop.close();
  });
  const std::size_t made_by_loop = allocations_in([&loop] { loop.run(); });
  poster.join();

  CHECK(sum == count);
  CHECK(made_by_poster == 0);
  CHECK(made_by_loop == 0);
}

TEST_SUITE_END();

#if defined(__cpp_exceptions)

namespace {

// The memory of this thread for as long as it lives.
struct exhausted {
  exhausted() { nothing_left = true; }
  ~exhausted() { nothing_left = false; }
};

// A loop whose ring is full and that has no arena, so that whatever comes next takes memory.
class full_loop {
 public:
  full_loop() : loop_(tiny(2)) {}
  meagre_loop* operator->() { return &loop_; }

  template <class F>
  void refuses(const F& call) {
    loop_.poll();
    while (loop_.try_post([] {}) == hybridloop::post_result::accepted) {
    }
    CHECK_THROWS([&] {
      const exhausted now;
      call();
    }());
  }

 private:
  meagre_loop loop_;
};

}  // namespace

TEST_SUITE_BEGIN("exhausted memory");

TEST_CASE("a post that finds no memory throws, and its closure is still the caller's") {
  full_loop l;
  auto held = std::make_unique<int>(7);
  auto task = [held = std::move(held)] {};

  l.refuses([&] { static_cast<void>(l->post(std::move(task))); });

  CHECK(l->poll() == 2);
}

TEST_CASE("a timer that finds no memory throws and leaves nothing behind") {
  full_loop l;
  const auto alive = std::make_shared<int>(0);

  for (int i = 0; i < 100; ++i) l.refuses([&] { l->after(1h, [alive] {}); });

  CHECK(alive.use_count() == 1);
  l->run_until_idle();
  CHECK(l->stats().timers == 0);
}

TEST_CASE("a reschedule that finds no memory throws, and the timer fires at its old deadline") {
  full_loop l;
  const auto begin = hybridloop::loop::clock::now();
  auto fired = begin;
  const auto id = l->after(10ms, [&fired] { fired = hybridloop::loop::clock::now(); });

  l.refuses([&] { l->reschedule(id, begin + 1h); });
  l->run_until_idle();

  CHECK(fired >= begin + 10ms);
}

TEST_CASE("a cancel that finds no memory throws, and the timer stands") {
  full_loop l;
  const auto alive = std::make_shared<int>(0);
  bool fired = false;
  const auto id = l->after(1ms, [&fired, alive] { fired = true; });

  l.refuses([&] { l->cancel(id); });
  l->run_until_idle();

  CHECK(fired);
  CHECK(alive.use_count() == 1);
}

TEST_CASE("an unwatch that finds no memory throws, and the watch stands") {
  meagre_loop l(tiny(2));
  const socket_pair wire;
  std::atomic<std::size_t> told{0};
  const auto id =
      l.watch(wire.left(), hybridloop::interest::readable, [&] { told += wire.drain_left(); });
  gate there;
  gate go;
  const running<meagre_loop> it(l);
  must_post(l, [&] {
    there.open();
    go.pass();
  });
  there.pass();
  while (l.try_post([] {}) == hybridloop::post_result::accepted) {
  }

  CHECK_THROWS([&] {
    const exhausted now;
    l.unwatch(id);
  }());
  go.open();
  wire.write_right();
  await([&told] { return told == 1; });

  CHECK(l.unwatch(id));
}

TEST_CASE(
    "a watch from another thread that finds no memory answers so, and leaves nothing behind") {
  meagre_loop l(tiny(2));
  const socket_pair wire;
  const auto alive = std::make_shared<int>(0);
  gate there;
  gate go;
  const running<meagre_loop> it(l);
  must_post(l, [&] {
    there.open();
    go.pass();
  });
  there.pass();
  while (l.try_post([] {}) == hybridloop::post_result::accepted) {
  }
  std::error_code code;

  {
    const exhausted now;
    l.watch(
        wire.left(), hybridloop::interest::readable, [alive] {}, code);
  }

  const bool told = code == std::errc::not_enough_memory;
  CHECK(told);
  CHECK(alive.use_count() == 1);
  go.open();
}

TEST_CASE("a deferred task or a microtask that finds no memory throws, and is still the caller's") {
  for (const bool micro : {false, true}) {
    meagre_loop l(tiny(2));
    fate what;
    int accepted = 0;
    const auto put_aside = [&](auto& task) {
      try {
        micro ? l.microtask(std::move(task)) : l.defer(std::move(task));
        ++accepted;
      } catch (const std::exception&) {
        CHECK(task.intact());
      }
    };
    must_post(l, [&] {
      const exhausted now;
      witness<> task(what);
      put_aside(task);
      witness<200> large(what);
      put_aside(large);
      CHECK(accepted == 0);
      nothing_left = false;
      put_aside(task);
      nothing_left = true;
      for (int i = 0; i < 20; ++i) {
        witness<> another(what);
        put_aside(another);
      }
    });

    l.run_until_idle();

    CHECK(accepted == 16);
    CHECK(what.ran == accepted);
    CHECK(what.destroyed == 22);
  }
}

TEST_SUITE_END();

#else

TEST_SUITE_BEGIN("exhausted memory");

TEST_CASE("without exceptions a task that finds no memory reaches the failure handler") {
  for (const bool micro : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      hybridloop::set_failure_handler([](const char* sentence) { ::_exit(std::strcmp(sentence, "out of memory") == 0 ? 42 : 1); });
      hybridloop::loop l;
      must_post(l, [&] {
        nothing_left = true;
        micro ? l.microtask([] {}) : l.defer([] {});
      });
      l.run_until_idle();
      ::_exit(0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0) {
    }
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 42);
  }
}

TEST_SUITE_END();

#endif  // __cpp_exceptions

#endif
