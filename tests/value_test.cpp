// value_test.cpp - ids, interests, errors, and what was moved from
#include <functional>
#include <set>
#include <string>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "support/running.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::errc;
using hybridloop::interest;
using hybridloop::post_result;
using hybridloop::timer_id;
using hybridloop::watch_id;

TEST_SUITE_BEGIN("values");

TEST_CASE("ids are keys: of ordered and of hashed containers, equal when both halves are") {
  hybridloop::loop l;
  const socket_pair wire;
  std::set<timer_id> ordered;
  std::unordered_set<timer_id> hashed;
  std::unordered_set<watch_id> watches;

  for (int i = 0; i < 100; ++i) {
    const timer_id id = l.after(1h, [] {});
    ordered.insert(id);
    hashed.insert(id);
    if (i % 2 == 0) l.cancel(id);
  }
  watches.insert(l.watch(wire.left(), interest::readable, [] {}));
  watches.insert(l.watch(wire.right(), interest::readable, [] {}));

  CHECK(ordered.size() == 100);
  CHECK(hashed.size() == 100);
  CHECK(watches.size() == 2);
  CHECK(watches.count(watch_id()) == 0);
  CHECK(timer_id(1, 2) == timer_id(1, 2));
  CHECK(timer_id(1, 2) != timer_id(1, 3));
  CHECK(timer_id(1, 2) != timer_id(2, 2));
  CHECK_FALSE(timer_id());
}

TEST_CASE("interests are flags: joined, taken apart, and without some") {
  interest what = interest::readable | interest::edge;
  what |= interest::oneshot;
  CHECK((what & interest::oneshot) == interest::oneshot);

  what &= ~interest::oneshot;

  CHECK(what == (interest::readable | interest::edge));
  CHECK((~interest::readable & interest::readable) == interest::none);
}

TEST_CASE("each error has a sentence of its own, and compares as what it is") {
  std::set<std::string> sentences;
  for (const errc value : {errc::closed, errc::full, errc::not_found, errc::invalid_argument, errc::unsupported,
                           errc::wrong_thread, static_cast<errc>(1000)}) {
    const std::error_code code = value;
    CHECK(std::string(code.category().name()) == "hybridloop");
    CHECK(code.message().size() > 10);
    sentences.insert(code.message());
  }
  CHECK(sentences.size() == 7);
}

TEST_CASE("a moved-from handle or producer answers like one of a closed loop") {
  hybridloop::loop l;
  auto handle = l.handle();
  auto producer = l.make_producer(8);
  auto other_handle = std::move(handle);
  auto other_producer = std::move(producer);
  const auto copy_of_nothing = handle;  // NOLINT: what was moved from is what is asked

  CHECK(handle.post([] {}) == post_result::closed);
  CHECK(handle.try_post([] {}) == post_result::closed);
  CHECK(handle.closed());
  CHECK(copy_of_nothing.closed());
  handle.stop();
  handle.wake();
  handle.close();
  CHECK(producer.post([] {}) == post_result::closed);
  CHECK(producer.try_post([] {}) == post_result::closed);
  CHECK(producer.closed());

  CHECK(other_handle.post([] {}) == post_result::accepted);
  CHECK(other_producer.post([] {}) == post_result::accepted);
  CHECK(l.poll() == 2);
}

TEST_SUITE_END();
