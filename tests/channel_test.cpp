// channel_test.cpp - values from thread to thread, through callbacks, and what becomes of them at the end
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/queues.hpp"
#include "support/running.hpp"

using namespace hybridloop;
using namespace support;

TEST_SUITE_BEGIN("channel");

TEST_CASE_TEMPLATE("values come out in the order in which they went in, as many as there is room for", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> c(2);

  CHECK(c.try_send(1));
  CHECK(c.try_send(2));
  CHECK_FALSE(c.try_send(3));
  CHECK_FALSE(c.try_send_for(1ms, 3));
  CHECK(c.try_receive() == 1);
  CHECK(c.send(3) == wait_status::granted);
  CHECK(c.receive() == 2);
  CHECK(c.receive() == 3);
  CHECK_FALSE(c.try_receive());
  CHECK_FALSE(c.try_receive_for(1ms));
}

TEST_CASE_TEMPLATE("a value that is refused is still the caller's", Queue, SUPPORT_QUEUES) {
  basic_channel<std::unique_ptr<int>, Queue> c(1);
  auto value = std::make_unique<int>(7);

  CHECK(c.try_send(std::make_unique<int>(1)));
  CHECK_FALSE(c.try_send(std::move(value)));
  REQUIRE(value);
  c.close();
  CHECK(c.send(std::move(value)) == wait_status::closed);
  REQUIRE(value);
  CHECK(*value == 7);
}

TEST_CASE_TEMPLATE("what is in a channel when it closes is still received, and then nothing", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> c(3);
  CHECK(c.try_send(1));
  CHECK(c.try_send(2));

  c.close();
  c.close();

  CHECK(c.closed());
  CHECK_FALSE(c.try_send(3));
  CHECK(c.receive() == 1);
  CHECK(c.try_receive() == 2);
  CHECK_FALSE(c.receive());
  CHECK_FALSE(c.try_receive());
}

TEST_CASE_TEMPLATE("what nobody receives is destroyed with the channel", Queue, SUPPORT_QUEUES) {
  auto value = std::make_shared<int>(1);
  {
    basic_channel<std::shared_ptr<int>, Queue> c(3);
    for (int i = 0; i < 3; ++i) CHECK(c.try_send(std::shared_ptr<int>(value)));
    CHECK((c.receive() == value));
    CHECK(value.use_count() == 3);
  }
  CHECK(value.use_count() == 1);
}

TEST_CASE_TEMPLATE("senders and receivers that wait hear of the close", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> full(1), empty(1);
  CHECK(full.try_send(1));
  {
    const scoped_thread sender([&] { CHECK(full.send(2) == wait_status::closed); });
    const scoped_thread receiver([&] { CHECK_FALSE(empty.receive()); });
    full.close();
    empty.close();
  }
  CHECK(full.receive() == 1);
  CHECK_FALSE(full.receive());
}

TEST_CASE_TEMPLATE("each value that was sent is received once, however many threads there are", Queue, SUPPORT_QUEUES) {
  const std::size_t each = scaled(4000, 200);
  constexpr std::size_t senders = 3;
  basic_channel<std::size_t, Queue> c(4);
  std::vector<int> seen(each * senders, 0);
  std::mutex lock;
  {
    std::vector<scoped_thread> receivers;
    for (int i = 0; i < 3; ++i) {
      receivers.emplace_back([&] {
        std::vector<std::size_t> mine;
        while (const auto v = c.receive()) mine.push_back(*v);
        const std::lock_guard<std::mutex> hold(lock);
        for (const std::size_t v : mine) ++seen[v];
      });
    }
    {
      std::vector<scoped_thread> threads;
      for (std::size_t s = 0; s < senders; ++s) {
        threads.emplace_back([&, s] {
          for (std::size_t i = 0; i < each; ++i) {
            if (c.send(s * each + i) != wait_status::granted) std::abort();
          }
        });
      }
    }
    c.close();
  }
  for (const int times : seen) CHECK(times == 1);
}

TEST_CASE_TEMPLATE("callbacks send and receive", Queue, SUPPORT_QUEUES) {
  basic_channel<std::string, Queue> c(1);
  loop l;
  std::vector<std::string> got;
  std::vector<wait_status> sent;
  for (const char* text : {"one", "two", "three"}) {
    c.async_send(l, std::string(text), [&](wait_status how) { sent.push_back(how); });
  }
  for (int i = 0; i < 4; ++i) {
    c.async_receive(l, [&](wait_status how, std::optional<std::string> value) {
      if (how == wait_status::granted) return got.push_back(*value);
      CHECK(how == wait_status::closed);
      CHECK_FALSE(value);
      l.stop();
    });
  }
  l.run_until_idle();
  c.close();
  l.run();

  CHECK(got == std::vector<std::string>{"one", "two", "three"});
  CHECK(sent == std::vector<wait_status>(3, wait_status::granted));
}

TEST_CASE_TEMPLATE("a callback that waits for a value is cancelled, and the value stays", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> c(1);
  loop l;
  wait_status heard = wait_status::granted;
  const auto ticket = c.async_receive(l, [&](wait_status how, std::optional<int>) { heard = how; });

  CHECK(c.cancel(ticket));
  CHECK_FALSE(c.cancel(ticket));
  CHECK(c.try_send(5));
  l.run_until_idle();

  CHECK(heard == wait_status::cancelled);
  CHECK(c.try_receive() == 5);
}

TEST_CASE_TEMPLATE("who waits a while sends and receives, and hears of the close", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> c(1);
  loop l;
  wait_status heard = wait_status::granted;

  CHECK(c.try_send_for(1h, 1));
  CHECK(c.try_receive_for(1h) == 1);
  CHECK(c.try_send(2));
  const auto waits = c.async_send(l, 3, [&](wait_status how) { heard = how; });
  CHECK(c.cancel(waits));
  l.run_until_idle();
  CHECK(heard == wait_status::cancelled);
  const auto other = c.async_send(l, 3, [&](wait_status how) { heard = how; });
  CHECK(waits != other);
  CHECK(other == decltype(other)(other));
  c.close();
  l.run_until_idle();
  CHECK(heard == wait_status::closed);
  CHECK_FALSE(c.try_send_for(1h, 4));
  CHECK(c.try_receive_for(1h) == 2);
}

TEST_CASE_TEMPLATE("a value for a callback whose loop is gone stays for the next", Queue, SUPPORT_QUEUES) {
  basic_channel<int, Queue> c(1);
  {
    loop gone;
    c.async_receive(gone, [](wait_status, std::optional<int>) { std::abort(); });
    CHECK(c.try_send(5));
    CHECK_FALSE(c.try_receive());
  }
  CHECK(c.try_receive() == 5);
  CHECK(c.try_send(6));
}

TEST_SUITE_END();
