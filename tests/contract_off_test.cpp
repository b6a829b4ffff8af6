// contract_off_test.cpp - with contracts mapped to nothing, a correct program runs as ever
#include <doctest/doctest.h>

#define HYBRIDLOOP_CONTRACT(condition, sentence) static_cast<void>(0)
#include <hybridloop.hpp>

#include <chrono>
#include <thread>

namespace {

// Of this file alone, so that no other file shares a function that was built without contracts.
struct unchecked_traits : hybridloop::default_traits {};
using unchecked_loop = hybridloop::basic_loop<unchecked_traits>;

}  // namespace

TEST_SUITE_BEGIN("contract");

TEST_CASE("a loop without contracts runs, sleeps, is woken, ends and is destroyed") {
  using namespace std::chrono_literals;
  unchecked_loop l;
  int ran = 0;

  const auto far = l.every(1h, [] {});
  std::thread other([&] {
    while (l.stats().parks == 0) std::this_thread::yield();
    const auto answer = l.post([&] {
      ++ran;
      l.defer([&] { ++ran; });
      l.microtask([&] { l.close(); });
    });
    if (answer != hybridloop::post_result::accepted) l.stop();
  });
  const std::size_t count = l.run();
  other.join();

  CHECK(far);
  CHECK(count == 2);
  CHECK(ran == 2);
}

TEST_SUITE_END();
