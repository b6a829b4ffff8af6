// life.hpp - everything that a loop is asked for, while any one request may be refused
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <system_error>

#include "support/watching.hpp"

#if defined(__cpp_exceptions)

namespace support {

// Each request is answered or refused; what was not refused is waited for, without end. A `Scope` lives
// while something is asked for, and while the loop runs.
template <class Loop, class Scope>
class life {
 public:
  explicit life(hybridloop::fast_path path) {
    hybridloop::loop_options options = on(path);
    options.spin = 0ns;  // whatever can sleep does
    options.ring_capacity = 4;
    options.arena_capacity = 8;
    granted([&] { loop_ = std::make_unique<Loop>(options); });
  }

  // lift() ends the refusals.
  template <class Lift>
  void lead(const Lift& lift) {
    if (loop_ == nullptr) return lift();
    const scoped_thread runner([this] {
      [[maybe_unused]] const Scope here;
      loop_->run();
    });
    for (int times = 0; times < 2; ++times) {
      give();
      give_inside();
      arm();
      watch();
      give();
      unwatch();
      in_lane();
    }
    lift();
    give();
    CHECK(loop_->invoke([] { return 7; }) == 7);
    loop_->close();
  }

 private:
  // False: refused, with an error that says why.
  template <class Request>
  static bool granted(const Request& request) {
    try {
      [[maybe_unused]] const Scope now;
      request();
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    } catch (const std::system_error& why) {
      CHECK(why.code().value() != 0);
      return false;
    }
  }
  void go_to_sleep() {
    const auto parks = loop_->stats().parks;
    loop_->wake();
    await([&] { return loop_->stats().parks != parks; });
  }

  void give() {
    go_to_sleep();
    int accepted = 0;
    std::atomic<int> ran{0};
    const std::array<char, 200> ballast{};
    const auto post = [&](auto task) {
      granted([&] { accepted += loop_->post(std::move(task)) == hybridloop::post_result::accepted ? 1 : 0; });
    };
    for (int i = 0; i < 20; ++i) {
      post([&ran] { ++ran; });
      post([&ran, ballast] { ran += 1 + ballast[0]; });
    }
    await([&] { return ran == accepted; });
  }
  // By the loop thread: enough for each of its queues to grow.
  void give_inside() {
    int accepted = 0;
    std::atomic<int> ran{0};
    std::atomic<bool> over{false};
    const auto count = [&ran] { ++ran; };
    const bool posted = granted([&] {
      must_post(*loop_, [&] {
        for (int i = 0; i < 20; ++i) {
          accepted += granted([&] { loop_->defer(count); }) ? 1 : 0;
          accepted += granted([&] { loop_->microtask(count); }) ? 1 : 0;
          accepted += granted([&] { loop_->after(0ns, count); }) ? 1 : 0;
        }
        over = true;
      });
    });
    await([&] { return !posted || (over && ran == accepted); });
  }
  // More at a time than the heap of near timers begins with.
  void arm() {
    int accepted = 0;
    std::atomic<int> fired{0};
    const auto deadline = Loop::clock::now() + 300us;
    for (int i = 0; i < 150; ++i) {
      accepted += granted([&] { loop_->at(deadline + i * 1ns, [&fired] { ++fired; }); }) ? 1 : 0;
    }
    await([&] { return fired == accepted; });
  }
  void watch() {
    heard_ = false;
    watched_ = granted([&] {
      id_ = loop_->watch(pair_.left(), hybridloop::interest::readable, [this](const hybridloop::ready& what) {
        CHECK(what.error == (what.native_error != 0));
        pair_.drain_left();
        heard_ = true;
      });
    });
    if (!watched_) return;
    pair_.write_right();
    await([&] { return heard_.load(); });
    go_to_sleep();
  }
  void unwatch() {
    std::atomic<bool> gone{false};
    bool known = false;
    if (watched_ && granted([&] { known = loop_->unwatch(id_, [&gone] { gone = true; }); }) && known) {
      await([&] { return gone.load(); });
    }
  }
  void in_lane() {
    int accepted = 0;
    std::atomic<int> ran{0};
    granted([&] {
      auto lane = loop_->make_producer(2);
      for (int i = 0; i < 10; ++i) {
        granted([&] { accepted += lane.post([&ran] { ++ran; }) == hybridloop::post_result::accepted ? 1 : 0; });
      }
    });
    await([&] { return ran == accepted; });
  }

  const socket_pair pair_;
  hybridloop::watch_id id_;
  bool watched_ = false;
  std::atomic<bool> heard_{false};
  std::unique_ptr<Loop> loop_;
};

}  // namespace support

#endif  // __cpp_exceptions
