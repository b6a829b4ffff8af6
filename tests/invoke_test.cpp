// invoke_test.cpp - a caller that waits for what the loop thread returns
#include <doctest/doctest.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "support/running.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::loop;
using order = std::vector<int>;

TEST_SUITE_BEGIN("invoke");

TEST_CASE("invoke returns what the loop thread computed, by value, reference or not at all") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    const running<loop> runner(*l);
    int number = 7;
    bool ran = false;

    CHECK(l->invoke([] { return std::string(100, 'x'); }) == std::string(100, 'x'));
    CHECK(&l->invoke([&]() -> int& { return number; }) == &number);
    CHECK(&l->invoke([&]() -> const int& { return number; }) == &number);
    CHECK(*l->invoke([] { return std::make_unique<int>(42); }) == 42);
    l->invoke([&] { ran = true; });
    CHECK(ran);
    CHECK(l->invoke([&] { return l->running_in_this_thread(); }));
    CHECK_FALSE(l->running_in_this_thread());
  }
}

TEST_CASE("invoke calls the caller's own closure, and moves nothing from it") {
  loop l;
  const running<loop> runner(l);
  struct counter {
    int calls = 0;
    counter() = default;
    counter(const counter&) = delete;
    counter& operator=(const counter&) = delete;
    int operator()() { return ++calls; }
  } counts;

  CHECK(l.invoke(counts) == 1);
  CHECK(l.invoke(counts) == 2);
  CHECK(l.invoke([mine = std::make_unique<int>(3)] { return *mine; }) == 3);

  CHECK(counts.calls == 2);
}

TEST_CASE("what was posted before an invoke has run when it returns") {
  loop l;
  const running<loop> runner(l);
  const std::size_t rounds = scaled(2000);
  std::size_t ran = 0;
  std::size_t wrong = 0;

  for (std::size_t i = 1; i <= rounds; ++i) {
    must_post(l, [&] { ++ran; });
    if (l.invoke([&] { return ran; }) != i) ++wrong;
  }

  CHECK(wrong == 0);
}

TEST_CASE("several callers invoke at once, one at a time on the loop thread") {
  const std::size_t rounds = scaled(1000);
  loop l(tiny(4, 4));
  std::size_t inside = 0;
  std::size_t overlaps = 0;
  std::size_t total = 0;
  std::atomic<std::size_t> wrong{0};
  {
    const running<loop> runner(l);
    const auto call = [&] {
      for (std::size_t i = 0; i < rounds; ++i) {
        const std::size_t got = l.invoke([&, i] {
          if (inside++ != 0) ++overlaps;
          ++total;
          --inside;
          return i;
        });
        if (got != i) ++wrong;
      }
    };
    const scoped_thread one(call);
    const scoped_thread two(call);
    const scoped_thread three(call);
  }

  CHECK(total == 3 * rounds);
  CHECK(overlaps == 0);
  CHECK(wrong == 0);
}

TEST_CASE("on the loop thread invoke runs at once, ahead of what is queued, at any depth") {
  loop outer;
  loop inner;
  order ran;

  must_post(outer, [&] {
    must_post(outer, [&] { ran.push_back(3); });
    CHECK(outer.invoke([&] {
      ran.push_back(1);
      return outer.invoke([] { return 5; });
    }) == 5);
    must_post(inner, [&] {
      CHECK(outer.invoke([&] { return ran.size(); }) == 1);
      ran.push_back(2);
    });
    inner.run_until_idle();
  });

  CHECK(outer.run_until_idle() == 2);
  CHECK(ran == order{1, 2, 3});
}

TEST_CASE("two loops may invoke on each other in turn") {
  loop one;
  loop two;
  const running<loop> run_one(one);
  const running<loop> run_two(two);

  const int got = one.invoke([&] { return two.invoke([] { return 20; }) + 1; });
  const int back = two.invoke([&] { return one.invoke([] { return 30; }) + 1; });

  CHECK(got == 21);
  CHECK(back == 31);
}

TEST_CASE("invoke on a loop that nobody runs waits until somebody does") {
  loop l;
  gate calling;
  std::atomic<int> got{0};

  scoped_thread caller([&] {
    calling.open();
    got = l.invoke([] { return 9; });
  });
  calling.pass();
  std::this_thread::sleep_for(2ms);
  CHECK(got == 0);
  while (l.poll() == 0) std::this_thread::yield();
  caller.join();

  CHECK(got == 9);
}

TEST_CASE("an invoke counts as a task, and as a post") {
  loop l;
  {
    const running<loop> runner(l);
    l.invoke([] {});
    l.invoke([] { return 1; });
  }

  CHECK(l.stats().posts == 2);
  CHECK(l.stats().tasks == 2);
}

TEST_CASE("an invoke accepted before the close is answered") {
  loop l;
  gate busy;
  gate go_on;
  std::atomic<int> got{0};

  must_post(l, [&] {
    busy.open();
    go_on.pass();
  });
  scoped_thread caller([&] {
    busy.pass();
    got = l.invoke([] { return 1; });
  });
  const scoped_thread closer([&] {
    busy.pass();
    await([&] { return l.stats().posts == 2; });
    l.close();
    go_on.open();
  });
  l.run();
  caller.join();

  CHECK(got == 1);
}

#if defined(__cpp_exceptions)

namespace {
template <class F>
std::error_code refusal(F&& f) {
  try {
    f();
  } catch (const std::system_error& error) {
    return error.code();
  }
  return {};
}

std::atomic<int> handled{0};
}  // namespace

TEST_CASE("what an invoked closure throws goes to its caller and nobody else") {
  for (const bool has_handler : {false, true}) {
    CAPTURE(has_handler);
    handled = 0;
    hybridloop::loop_options options;
    if (has_handler) options.on_exception = [](std::exception_ptr) { ++handled; };
    loop l(options);
    std::string what;
    {
      const running<loop> runner(l);
      try {
        l.invoke([]() -> int { throw std::runtime_error("to whom it concerns"); });
      } catch (const std::runtime_error& error) {
        what = error.what();
      }
      CHECK(l.invoke([] { return 1; }) == 1);
    }

    CHECK(what == "to whom it concerns");
    CHECK(handled == 0);
  }
}

TEST_CASE("what an invoke on the loop thread throws passes through the task that called it") {
  loop l;
  bool passed = false;

  must_post(l, [&] {
    try {
      l.invoke([] { throw 1; });
    } catch (int) {
      passed = true;
    }
  });
  l.run_until_idle();

  CHECK(passed);
}

TEST_CASE("invoke on a closed loop is refused, and the closure does not run") {
  loop l;
  bool ran = false;
  l.close();

  CHECK(refusal([&] { l.invoke([&] { ran = true; }); }) == hybridloop::errc::closed);

  l.run();
  CHECK_FALSE(ran);
}

TEST_CASE("invoke on a full loop whose policy is to fail is refused") {
  loop l(tiny(2, 0, hybridloop::overflow::fail));
  must_post(l, [] {});
  must_post(l, [] {});

  CHECK(refusal([&] { l.invoke([] {}); }) == hybridloop::errc::full);
  CHECK(l.run_until_idle() == 2);
}

TEST_CASE("an invoke that waits for room is refused when the loop closes") {
  loop l(tiny(2, 0, hybridloop::overflow::block));
  must_post(l, [] {});
  must_post(l, [] {});
  std::error_code code;

  scoped_thread caller([&] { code = refusal([&] { l.invoke([] { return 1; }); }); });
  std::this_thread::sleep_for(2ms);
  l.close();
  caller.join();

  CHECK(code == hybridloop::errc::closed);
  CHECK(l.run() == 2);
}

TEST_CASE("callers that wait when the loop is destroyed are told that it closed") {
  for (std::size_t round = 0; round < scaled(200); ++round) {
    constexpr std::size_t callers = 3;
    std::array<std::error_code, callers> codes;
    std::optional<loop> l(std::in_place, tiny(4));
    std::vector<scoped_thread> threads;
    bool ran = false;
    for (std::size_t i = 0; i < callers; ++i) {
      threads.emplace_back([&, i] { codes[i] = refusal([&] { l->invoke([&] { ran = true; }); }); });
    }
    await([&] { return l->stats().posts == callers; });

    l.reset();
    threads.clear();

    CHECK_FALSE(ran);
    for (const std::error_code& code : codes) CHECK(code == hybridloop::errc::closed);
  }
}

#endif  // __cpp_exceptions

TEST_SUITE_END();
