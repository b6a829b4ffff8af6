// lifetime_test.cpp - loops come and go under the hands of those who post, and nothing stays behind
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "support/proc.hpp"
#include "support/race.hpp"
#include "support/running.hpp"
#include "support/support.hpp"

namespace {

using namespace support;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::keep_alive;
using hybridloop::loop;
using hybridloop::loop_handle;
using hybridloop::loop_options;
using hybridloop::post_result;

// Everything of which a leak would show.
struct belongings {
  std::size_t descriptors = open_descriptors().size();
  std::size_t threads = support::threads().size();
  memory_use memory = memory_used();
};

// A thread that was joined is still listed for a moment.
void await_threads(std::size_t count) {
  for (int tries = 0; threads().size() > count && tries < 1000; ++tries) {
    std::this_thread::sleep_for(1ms);
  }
}

// One loop with a bit of everything, by its number.
void live(std::size_t number, const socket_pair& wire, std::deque<loop_handle>& kept) {
  constexpr fast_path paths[] = {fast_path::full, fast_path::mini, fast_path::off};
  loop_options options;
  options.path = paths[number % 3];
  loop l(options);
  if (number % 2 == 0) l.watch(wire.left(), interest::readable, [] {});
  if (number % 5 == 0) l.after(1h, [] {});
  if (number % 7 == 0) must_post(l, [big = std::vector<char>(100000)] {});
  kept.push_back(l.handle());
  if (kept.size() > 8) kept.pop_front();
  must_post(l, [&l] { l.stop(); });
  l.run();
}

void live_many(std::size_t loops) {
  const socket_pair wire;
  std::deque<loop_handle> kept;
  for (std::size_t i = 0; i < loops; ++i) live(i, wire, kept);
}

// What a ringer does last is sometimes so slow that its loop is gone by then.
struct late_kernel : hybridloop::detail::system_kernel {
  using real = hybridloop::detail::system_kernel;

  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    be_late();
    return real::write(fd, bytes, size);
  }
  static int futex_wake(const void* word, int count) noexcept {
    be_late();
    return real::futex_wake(word, count);
  }
  static void be_late() noexcept {
    static thread_local dice chance(1);
    if (chance.roll(4) == 0) dawdle(chance.roll(300000));
  }
};
struct late_traits : watched_traits<stuttering_traits> {
  using kernel = late_kernel;
  using parker = hybridloop::detail::system_parker<kernel>;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};
using late_loop = hybridloop::basic_loop<late_traits>;

// Descriptors that take the numbers of those that were just closed. A bell that rings in one of
// them leaves a mark.
class strangers {
 public:
  strangers() {
    for (auto& pair : pairs_) connect_two(pair);
  }
  strangers(const strangers&) = delete;
  strangers& operator=(const strangers&) = delete;
  ~strangers() {
    for (const auto& pair : pairs_) ::close(pair[0]), ::close(pair[1]);
  }
  bool touched() const {
    bool any = false;
    for (const auto& pair : pairs_) {
      char byte;
      for (const int end : pair) any = any || ::read(end, &byte, 1) > 0;
    }
    return any;
  }

 private:
  int pairs_[2][2];
};

// Another thread ends each loop with end(loop, number); the owner destroys it at once, while that
// thread may still be on its way out of the call.
template <class End>
void destroy_behind(const place& where, std::size_t rounds, const End& end) {
  CAPTURE(where.name);
  const socket_pair silent;
  std::atomic<late_loop*> offered{nullptr};
  std::unique_ptr<strangers> newcomers;
  std::size_t touched = 0;
  loop_options options;
  options.path = where.path;

  {
    const scoped_thread ender([&] {
      dice chance(1);
      for (std::size_t i = 0; i < rounds; ++i) {
        late_loop* l = nullptr;
        while ((l = offered.exchange(nullptr)) == nullptr) std::this_thread::yield();
        take_aim(chance);
        end(*l);
      }
    });
    for (std::size_t i = 0; i < rounds; ++i) {
      {
        late_loop l(options);
        if (where.watches) l.watch(silent.left(), interest::readable, [] {});
        reached = up;
        offered = &l;
        l.run();
      }
      auto fresh = std::make_unique<strangers>();
      if (newcomers != nullptr && newcomers->touched()) ++touched;
      newcomers = std::move(fresh);
    }
  }

  CHECK(touched == 0);
  CHECK_FALSE(newcomers->touched());
}

}  // namespace

TEST_SUITE_BEGIN("lifetime");

TEST_CASE("ten thousand loops leave no descriptor, no thread and no page behind") {
  constexpr std::size_t slack = std::size_t{1} << 20;
  live_many(scaled(1000, 300));
  const belongings before;

  live_many(scaled(10000));
  await_threads(before.threads);
  const belongings after;

  CHECK(after.descriptors == before.descriptors);
  CHECK(after.threads == before.threads);
  if (!sanitized && !emulated()) {
    CHECK(after.memory.mapped < before.memory.mapped + slack);
    CHECK(after.memory.resident < before.memory.resident + slack);
  }
}

TEST_CASE("a loop may be destroyed while the post of the task that ended it is under way") {
  for (const place& where : everywhere) {
    destroy_behind(where, scaled(12500), [](late_loop& l) { must_post(l, [&l] { l.stop(); }); });
  }
}

TEST_CASE("a loop may be destroyed while the stop that ended it is under way") {
  for (const place& where : everywhere) {
    destroy_behind(where, scaled(5000), [](late_loop& l) { l.stop(); });
  }
}

TEST_CASE("posts on a handle are taken or refused while the loop dies, and destroyed once") {
  const std::size_t rounds = scaled(10000);
  std::atomic<std::size_t> round{0};
  std::optional<stuttering_loop::handle_type> current;
  const auto alive = std::make_shared<int>(0);
  std::atomic<std::size_t> refused{0};
  std::size_t left_over = 0;

  {
    const auto post_until_refused = [&] {
      for (std::size_t i = 1; i <= rounds; ++i) {
        while (round < i) std::this_thread::yield();
        const auto mine = *current;
        while (mine.post([alive] {}) == post_result::accepted) std::this_thread::yield();
        ++refused;
      }
    };
    const scoped_thread one(post_until_refused);
    const scoped_thread two(post_until_refused);
    dice chance(1);
    for (std::size_t i = 0; i < rounds; ++i) {
      {
        stuttering_loop l(tiny(2, 2));
        current.emplace(l.handle());
        ++round;
        dawdle(chance.roll(10000));
        l.poll();
      }
      while (refused != 2 * (i + 1)) std::this_thread::yield();
      current.reset();
      if (alive.use_count() != 1) ++left_over;
    }
  }

  CHECK(left_over == 0);
}

TEST_CASE("a loop may be destroyed while the guard that kept it alive is being dropped") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    const std::size_t rounds = scaled(5000);
    const socket_pair silent;
    loop_options options;
    options.path = where.path;
    std::atomic<keep_alive*> offered{nullptr};

    const scoped_thread dropper([&] {
      for (std::size_t i = 0; i < rounds; ++i) {
        keep_alive* guard = nullptr;
        while ((guard = offered.exchange(nullptr)) == nullptr) std::this_thread::yield();
        const keep_alive mine(std::move(*guard));
        delete guard;
      }
    });
    std::size_t ran = 0;
    for (std::size_t i = 0; i < rounds; ++i) {
      loop l(options);
      if (where.watches) l.unref(l.watch(silent.left(), interest::readable, [] {}));
      offered = new keep_alive(l.hold());
      ran += l.run_until_idle();
    }

    CHECK(ran == 0);
  }
}

TEST_SUITE_END();
