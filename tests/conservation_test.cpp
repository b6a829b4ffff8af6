// conservation_test.cpp - what was accepted is run, whenever the close comes; the rest is refused
#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>

#include "support/race.hpp"
#include "support/running.hpp"
#include "support/support.hpp"

namespace {

using namespace support;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::overflow;
using hybridloop::post_result;
using hybridloop::timer_id;
using hybridloop::watch_id;

// Each closure holds a share, so that the count tells how many have not been destroyed.
using share = std::shared_ptr<int>;

struct books {
  std::atomic<std::size_t> accepted{0};
  std::size_t executed = 0;
  share alive = std::make_shared<int>(0);
};

// Gives way now and then, so that the close comes soon even where there are few CPUs.
template <class Loop>
void post_until_closed(Loop& l, books& b) {
  std::size_t accepted = 0;
  for (;;) {
    const post_result answer = l.post([&b, alive = b.alive] { ++b.executed; });
    if (answer == post_result::closed) break;
    if (answer == post_result::accepted) ++accepted;
    if (answer == post_result::full || accepted % 16 == 0) std::this_thread::yield();
  }
  b.accepted += accepted;
}

// The same threads play every round: they meet, act, and meet again.
class crew {
 public:
  explicit crew(std::size_t size) : meeting_(size + 1) {
    for (std::size_t i = 0; i < size; ++i) threads_.emplace_back([this, i] { play(i); });
  }
  ~crew() {
    act_ = nullptr;
    meeting_.meet();
  }

  // act(i) on each of them, meanwhile() here.
  template <class Act, class Meanwhile>
  void round(const Act& act, const Meanwhile& meanwhile) {
    act_ = act;
    meeting_.meet();
    meanwhile();
    meeting_.meet();
  }

 private:
  void play(std::size_t i) {
    for (meeting_.meet(); act_; meeting_.meet()) {
      act_(i);
      meeting_.meet();
    }
  }

  rendezvous meeting_;
  std::function<void(std::size_t)> act_;
  std::deque<scoped_thread> threads_;
};

constexpr std::size_t producers = 4;

// Every policy with a ring of 2 and of 64 slots, so many rounds in all: round(options, chance).
template <class Round>
void with_every_policy(std::size_t rounds, const Round& round) {
  dice chance(rounds);
  for (const overflow policy : {overflow::spill, overflow::block, overflow::fail}) {
    for (const std::size_t ring : {std::size_t{2}, std::size_t{64}}) {
      CAPTURE(static_cast<int>(policy));
      CAPTURE(ring);
      for (std::size_t i = 0; i < (rounds + 5) / 6; ++i) round(tiny(ring, ring / 4, policy), chance);
    }
  }
}

template <class Loop>
void close_at_any_moment() {
  crew all(producers + 1);
  std::size_t wrong = 0;
  std::size_t undestroyed = 0;

  with_every_policy(scaled(10000, 60), [&](const hybridloop::loop_options& options, dice& chance) {
    books b;
    {
      Loop l(options);
      const auto act = [&](std::size_t i) { i < producers ? post_until_closed(l, b) : void(l.run()); };
      all.round(act, [&] {
        dawdle(chance.roll(20000));
        l.close();
      });
      if (b.executed != b.accepted) ++wrong;
    }
    if (b.alive.use_count() != 1) ++undestroyed;
  });

  CHECK(wrong == 0);
  CHECK(undestroyed == 0);
}

}  // namespace

TEST_SUITE_BEGIN("conservation");

TEST_CASE("a loop that is closed at any moment runs what it accepted, and nothing else") {
  close_at_any_moment<loop>();
}

TEST_CASE("a loop whose posters are held up between claim and publication loses nothing at its close") {
  close_at_any_moment<stuttering_loop>();
}

TEST_CASE("a loop that is closed before it runs still runs what it accepted") {
  crew all(producers);
  std::size_t wrong = 0;
  std::size_t undestroyed = 0;

  with_every_policy(scaled(10000, 60), [&](const hybridloop::loop_options& options, dice& chance) {
    books b;
    {
      loop l(options);
      all.round([&](std::size_t) { post_until_closed(l, b); },
                [&] {
                  dawdle(chance.roll(20000));
                  l.close();
                });
      if (l.run() != b.accepted || b.executed != b.accepted) ++wrong;
    }
    if (b.alive.use_count() != 1) ++undestroyed;
  });

  CHECK(wrong == 0);
  CHECK(undestroyed == 0);
}

TEST_CASE("what a loop accepted and never ran is destroyed with it, unrun") {
  crew all(producers);
  std::size_t wrong = 0;
  std::size_t undestroyed = 0;

  with_every_policy(scaled(2000, 60), [&](const hybridloop::loop_options& options, dice& chance) {
    books b;
    {
      loop l(options);
      all.round([&](std::size_t) { post_until_closed(l, b); },
                [&] {
                  dawdle(chance.roll(20000));
                  l.close();
                });
      if (static_cast<std::size_t>(b.alive.use_count()) != b.accepted + 1) ++wrong;
    }
    if (b.executed != 0 || b.alive.use_count() != 1) ++undestroyed;
  });

  CHECK(wrong == 0);
  CHECK(undestroyed == 0);
}

TEST_CASE("posters that wait for room of a loop that nobody runs are freed by its close") {
  crew all(producers);
  dice chance(3);
  std::size_t wrong = 0;

  for (std::size_t i = 0; i < scaled(3000); ++i) {
    books b;
    loop l(tiny(2, 0, overflow::block));
    all.round([&](std::size_t) { post_until_closed(l, b); },
              [&] {
                while (l.stats().posts != 2) std::this_thread::yield();
                dawdle(chance.roll(20000));
                l.close();
              });
    if (b.accepted != 2 || l.run() != 2) ++wrong;
  }

  CHECK(wrong == 0);
}

TEST_CASE("posters that wait for room of a running loop are freed by its close, or served") {
  crew all(producers + 1);
  dice chance(4);
  std::size_t wrong = 0;

  for (std::size_t i = 0; i < scaled(3000); ++i) {
    books b;
    loop l(tiny(2, 0, overflow::block));
    const auto act = [&](std::size_t who) { who < producers ? post_until_closed(l, b) : void(l.run()); };
    all.round(act, [&] {
      must_post(l, [&] {
        dawdle(chance.roll(20000));
        l.close();
      });
    });
    if (b.executed != b.accepted) ++wrong;
  }

  CHECK(wrong == 0);
}

TEST_CASE("watches and timers made while a loop closes end once, and so do their closures") {
  const std::size_t rounds = scaled(3000);
  for (const place& where : {in_channel, in_bare_poller, in_mini}) {
    CAPTURE(where.name);
    crew all(3);
    dice chance(5);
    const socket_pair wires[2];
    std::size_t undestroyed = 0;

    for (std::size_t i = 0; i < rounds; ++i) {
      const share alive = std::make_shared<int>(0);
      {
        loop_in<> l(where, tiny(64, 64));
        const auto make_until_closed = [&](descriptor wire) {
          while (!l->closed()) {
            std::error_code code;
            const watch_id w = l->watch(wire, interest::writable, [alive] {}, code);
            const timer_id t = l->after(1h, [alive] {});
            if (i % 2 == 0) l->unwatch(w);
            if (i % 4 < 2) l->cancel(t);
            std::this_thread::yield();
          }
        };
        const auto act = [&](std::size_t who) {
          who < 2 ? make_until_closed(wires[who].left()) : void(l->run());
        };
        all.round(act, [&] {
          dawdle(chance.roll(40000));
          l->close();
        });
      }
      if (alive.use_count() != 1) ++undestroyed;
    }

    CHECK(undestroyed == 0);
  }
}

TEST_SUITE_END();
