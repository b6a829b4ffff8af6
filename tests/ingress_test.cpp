// ingress_test.cpp - where posts go when the ring is full, in which order, and who is refused
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
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

using numbers = std::vector<int>;

loop_options sized(std::size_t ring, std::size_t arena, overflow policy = overflow::spill) {
  loop_options options;
  options.ring_capacity = ring;
  options.arena_capacity = arena;
  options.when_full = policy;
  options.spin = 0ns;
  return options;
}

// Owns something, so that a test sees whether it was moved from.
class owner {
 public:
  owner(numbers& ran, int n) : ran_(&ran), n_(std::make_unique<int>(n)) {}
  void operator()() { ran_->push_back(*n_); }
  bool is_mine() const { return n_ != nullptr; }

 private:
  numbers* ran_;
  std::unique_ptr<int> n_;
};

// Larger than the room inside a task, not than a block.
struct large_owner : owner {
  using owner::owner;
  std::array<unsigned char, hybridloop::detail::task_size> padding{};
};
static_assert(!hybridloop::detail::unique_task::fits<large_owner>);

numbers range(int first, int last) {
  numbers all;
  for (int n = first; n < last; ++n) all.push_back(n);
  return all;
}

template <class Loop>
void post_number(Loop& loop, numbers& ran, int n) {
  must_post(loop, [&ran, n] { ran.push_back(n); });
}

template <class Loop>
std::size_t post_until_full(Loop& loop) {
  std::size_t taken = 0;
  while (loop.post([] {}) == post_result::accepted) ++taken;
  return taken;
}

template <class Loop>
void run_all(Loop& loop) {
  while (loop.poll() != 0) {
  }
}

struct yielding_kernel : hybridloop::detail::system_kernel {
  static inline std::atomic<int> yields{0};
  static void yield() noexcept {
    ++yields;
    hybridloop::detail::system_kernel::yield();
  }
};
struct yielding_traits : hybridloop::default_traits {
  using kernel = yielding_kernel;
};

}  // namespace

TEST_SUITE_BEGIN("spill");

TEST_CASE("posts keep their order from the ring to the arena, to the heap and back to the ring") {
  hybridloop::loop loop(sized(2, 3));
  numbers ran;

  for (int round = 0; round < 10; ++round) {
    for (int n = 0; n < 20; ++n) post_number(loop, ran, 20 * round + n);
    loop.poll();
  }
  const auto full = loop.stats();
  for (int n = 200; n < 220; n += 2) {
    post_number(loop, ran, n);
    post_number(loop, ran, n + 1);
    loop.poll();
  }
  const auto after = loop.stats();

  CHECK(ran == range(0, 220));
  CHECK(full.spilled == 10 * 18);
  CHECK(full.heap_tasks == 10 * 15);
  CHECK(full.arena_high == 3);
  CHECK(full.arena_in_use == 0);
  CHECK(after.spilled == full.spilled);
  CHECK(after.posts == 220);
}

TEST_CASE("a task that posts to its own full loop spills and goes on, in order") {
  hybridloop::loop loop(sized(2, 0));
  numbers ran;

  must_post(loop, [&] {
    for (int n = 2; n < 50; ++n) post_number(loop, ran, n);
    ran.push_back(0);
  });
  must_post(loop, [&] {
    post_number(loop, ran, 50);
    ran.push_back(1);
  });
  run_all(loop);

  CHECK(ran == range(0, 51));
}

TEST_CASE("a stalled claim below a spilled task holds that task back") {
  hybridloop::loop loop(sized(2, 4));
  numbers ran;
  gate claimed;
  gate go;
  const slow_closure slow(ran, 0, claimed, go);

  scoped_thread stalled([&] { must_post(loop, slow); });
  claimed.pass();
  for (int n = 1; n < 5; ++n) post_number(loop, ran, n);
  const std::size_t before = loop.poll() + loop.poll();
  go.open();
  stalled.join();
  const std::size_t after = loop.poll();

  CHECK(before == 0);
  CHECK(after == 5);
  CHECK(ran == range(0, 5));
}

TEST_CASE("a spilled task that is not built yet holds back what was posted to the ring after it") {
  hybridloop::loop loop(sized(2, 4));
  numbers ran;
  gate pushed;
  gate go;
  const slow_closure slow(ran, 2, pushed, go);
  post_number(loop, ran, 0);
  post_number(loop, ran, 1);

  scoped_thread stalled([&] { must_post(loop, slow); });
  pushed.pass();
  const std::size_t below = loop.poll();
  post_number(loop, ran, 3);
  const std::uint64_t spilled = loop.stats().spilled;
  const std::size_t above = loop.poll();
  go.open();
  stalled.join();
  const std::size_t rest = loop.poll();

  CHECK(below == 2);
  CHECK(spilled == 1);
  CHECK(above == 0);
  CHECK(rest == 2);
  CHECK(ran == range(0, 4));
}

TEST_CASE("a spilled task with an old ticket runs where it was pushed, behind newer tickets") {
  interrupted_loop loop(sized(2, 4));
  numbers ran;
  post_number(loop, ran, 0);
  post_number(loop, ran, 1);

  interruption with_a_ticket("ticket", [&] {
    loop.poll();
    post_number(loop, ran, 2);
    post_number(loop, ran, 3);
    post_number(loop, ran, 4);
  });
  post_number(loop, ran, 5);
  const std::size_t rest = loop.poll();

  CHECK(with_a_ticket.happened());
  CHECK(rest == 4);
  CHECK(ran == range(0, 6));
}

TEST_CASE("while something waits in the spill, a ring with room is passed by") {
  hybridloop::loop loop(sized(8, 4));
  numbers ran;
  post_result tried = post_result::accepted;

  must_post(loop, [&] { post_number(loop, ran, 6); });
  must_post(loop, [&] {
    tried = loop.try_post([] {});
    post_number(loop, ran, 7);
  });
  for (int n = 0; n < 6; ++n) post_number(loop, ran, n);
  loop.poll();

  CHECK(tried == post_result::full);
  CHECK(loop.stats().spilled == 2);
  CHECK(ran == range(0, 8));
}

TEST_CASE("a post that happens before another runs before it, whoever posted the two") {
  constexpr std::size_t threads = 3;
  const std::size_t rounds = scaled(6000);
  for (const std::size_t arena : {std::size_t{0}, std::size_t{1}, std::size_t{64}}) {
    hesitant_loop loop(sized(2, arena));
    std::atomic<std::size_t> baton{0};
    std::size_t next = 0;
    std::size_t overtaken = 0;

    std::vector<scoped_thread> posters;
    for (std::size_t me = 0; me < threads; ++me) {
      posters.emplace_back([&, me] {
        for (std::size_t mine = me; mine < rounds; mine += threads) {
          while (baton.load(std::memory_order_acquire) != mine) std::this_thread::yield();
          must_post(loop, [&, mine] {
            if (mine != next++) ++overtaken;
            if (mine + 1 == rounds) loop.stop();
          });
          baton.store(mine + 1, std::memory_order_release);
        }
      });
    }
    loop.run();

    CHECK(next == rounds);
    CHECK(overtaken == 0);
  }
}

TEST_CASE("each producer's posts run in order while all of them spill at once") {
  constexpr std::size_t producers = 4;
  const std::size_t each = scaled(10000);
  for (const std::size_t arena : {std::size_t{0}, std::size_t{3}}) {
    hesitant_loop loop(sized(2, arena));
    std::array<std::size_t, producers> next{};
    std::size_t overtaken = 0;

    std::vector<scoped_thread> threads;
    for (std::size_t p = 0; p < producers; ++p) {
      threads.emplace_back([&, p] {
        for (std::size_t n = 0; n < each; ++n) {
          const auto task = [&, p, n] {
            if (next[p]++ != n) ++overtaken;
          };
          if (n % 5 == 0) {
            must_post(loop, [task, padding = std::array<char, 64>{}] { task(), void(padding); });
          } else {
            must_post(loop, task);
          }
        }
      });
    }
    const scoped_thread closer([&] {
      for (scoped_thread& t : threads) t.join();
      loop.close();
    });
    loop.run();

    CHECK(overtaken == 0);
    CHECK(next == std::array<std::size_t, producers>{each, each, each, each});
    CHECK(loop.stats().arena_in_use == 0);
    CHECK(loop.stats().posts == producers * each);
  }
}

TEST_CASE("a post held up anywhere, while others post and the loop runs, is lost or overtaken nowhere") {
  std::string wrong;
  int places = 0;
  const auto scene = [&wrong](std::size_t arena, int earlier, const char* script, int place) {
    interrupted_loop loop(sized(2, arena));
    numbers ran;
    numbers expected = range(0, earlier);
    for (const int n : expected) post_number(loop, ran, n);

    interruption others(place, [&] {
      for (const char* step = script; *step != 0; ++step) {
        if (*step == 'r') {
          loop.poll();
        } else {
          expected.push_back(2000 + static_cast<int>(step - script));
          post_number(loop, ran, expected.back());
        }
      }
    });
    post_number(loop, ran, 1000);
    const bool more = others.over();
    expected.push_back(3000);
    post_number(loop, ran, 3000);
    run_all(loop);

    const auto held_up = std::find(ran.begin(), ran.end(), 1000);
    const bool in_place = held_up != ran.end() && held_up - ran.begin() >= earlier;
    if (in_place) ran.erase(held_up);
    if (!in_place || ran != expected || loop.stats().arena_in_use != 0) {
      wrong += script + std::to_string(earlier) + '@' + std::to_string(place) + ' ';
    }
    return more;
  };

  for (const std::size_t arena : {std::size_t{0}, std::size_t{2}}) {
    for (int earlier = 0; earlier < 4; ++earlier) {
      for (const char* const script : {"r", "p", "rp", "ppp", "pppr", "rppp", "rpprppp", "pprrppp"}) {
        places += at_every_place([&](int place) { return scene(arena, earlier, script, place); });
      }
    }
  }

  CHECK(places > 500);
  CHECK(wrong == "");
}

TEST_CASE("a running loop held up anywhere, while another thread posts, loses and reorders nothing") {
  std::string wrong;
  int places = 0;
  const auto scene = [&wrong](std::size_t arena, int earlier, int place) {
    interrupted_loop loop(sized(2, arena));
    numbers ran;
    for (int n = 0; n < earlier; ++n) post_number(loop, ran, n);

    int posted = earlier;
    interruption others(place, [&] {
      scoped_thread([&] {
        while (posted < earlier + 4) post_number(loop, ran, posted++);
      }).join();
    });
    loop.poll();
    const bool more = others.over();
    run_all(loop);

    if (ran != range(0, posted) || loop.stats().arena_in_use != 0) {
      wrong += std::to_string(earlier) + '@' + std::to_string(place) + ' ';
    }
    return more;
  };

  for (const std::size_t arena : {std::size_t{0}, std::size_t{2}}) {
    for (const int earlier : {0, 1, 2, 3, 5}) {
      places += at_every_place([&](int place) { return scene(arena, earlier, place); });
    }
  }

  CHECK(places > 200);
  CHECK(wrong == "");
}

TEST_CASE("a task that becomes ready at any moment of the loop's going to sleep is run") {
  int places = 0;
  int wrong = 0;
  const auto scene = [&wrong](int before, int place) {
    interrupted_loop loop(sized(2, 4));
    numbers ran;
    gate begun;
    gate go;
    const slow_closure slow(ran, before, begun, go);
    for (int n = 0; n < before; ++n) post_number(loop, ran, n);
    scoped_thread poster([&] { must_post(loop, slow); });
    begun.pass();
    loop.poll();

    interruption others(place, [&] {
      go.open();
      poster.join();
    });
    while (ran.size() <= static_cast<std::size_t>(before)) loop.run_once();

    if (ran != range(0, before + 1)) ++wrong;
    return others.over();
  };

  for (const int before : {0, 2, 3}) {
    places += at_every_place([&](int place) { return scene(before, place); });
  }

  CHECK(places > 30);
  CHECK(wrong == 0);
}

TEST_CASE("what was accepted and never ran dies with its loop, once and without running") {
  struct token {
    int* died;
    int* runs;
    token(int& d, int& r) noexcept : died(&d), runs(&r) {}
    token(token&& other) noexcept : died(std::exchange(other.died, nullptr)), runs(other.runs) {}
    ~token() {
      if (died != nullptr) ++*died;
    }
    void operator()() { ++*runs; }
  };
  int died = 0;
  int runs = 0;

  {
    hybridloop::loop loop(sized(2, 3));
    for (int n = 0; n < 10; ++n) {
      must_post(loop, token(died, runs));
      must_post(loop, [t = token(died, runs), padding = std::array<char, 64>{}]() mutable {
        t(), void(padding);
      });
    }
    CHECK(died == 0);
  }

  CHECK(died == 20);
  CHECK(runs == 0);
}

TEST_CASE("a loop is not torn down before a post that was accepted is finished") {
  numbers ran;
  for (const int before : {0, 2}) {
    std::optional<hybridloop::loop> loop(std::in_place, sized(2, 4));
    gate begun;
    gate go;
    const slow_closure slow(ran, 1, begun, go);
    for (int n = 0; n < before; ++n) post_number(*loop, ran, n);
    std::atomic<bool> gone{false};

    scoped_thread poster([&, handle = loop->handle()] { must_post(handle, slow); });
    begun.pass();
    scoped_thread destroyer([&] {
      loop.reset();
      gone = true;
    });
    for (int i = 0; i < 20; ++i) std::this_thread::yield();
    const bool too_early = gone;
    go.open();
    poster.join();
    destroyer.join();

    CHECK_FALSE(too_early);
  }

  CHECK(ran == numbers());
}

#if defined(__cpp_exceptions)

TEST_CASE("a constructor that throws while it spills leaves nothing behind, and the loop goes on") {
  struct refuses_to_be_copied {
    std::array<unsigned char, 64> padding{};
    refuses_to_be_copied() = default;
    refuses_to_be_copied(const refuses_to_be_copied&) { throw 1; }
    void operator()() {}
  };
  hybridloop::loop loop(sized(2, 3));
  numbers ran;
  const refuses_to_be_copied closure;
  int thrown = 0;

  for (int n = 0; n < 20; ++n) {
    post_number(loop, ran, n);
    try {
      static_cast<void>(loop.post(closure));
    } catch (int) {
      ++thrown;
    }
  }
  const std::size_t count = loop.poll();

  CHECK(thrown == 20);
  CHECK(count == 20);
  CHECK(ran == range(0, 20));
  CHECK(loop.stats().arena_in_use == 0);
}

TEST_CASE("a spilled task that throws is destroyed and given back, and the next one runs") {
  hybridloop::loop loop(sized(2, 8));
  numbers ran;
  auto held = std::make_shared<int>(0);
  const std::weak_ptr<int> captured = held;
  for (int n = 0; n < 3; ++n) post_number(loop, ran, n);
  must_post(loop, [mine = std::move(held)] { throw *mine; });
  post_number(loop, ran, 3);

  bool thrown = false;
  try {
    loop.poll();
  } catch (int) {
    thrown = true;
  }

  CHECK(thrown);
  CHECK(captured.expired());
  CHECK(ran == range(0, 3));
  CHECK(loop.poll() == 1);
  CHECK(ran == range(0, 4));
  CHECK(loop.stats().arena_in_use == 0);
}

#endif

TEST_SUITE_END();

TEST_SUITE_BEGIN("room");

TEST_CASE("spill never answers full") {
  hybridloop::loop loop(sized(2, 0, overflow::spill));
  numbers ran;

  std::size_t refused = 0;
  for (int n = 0; n < 5000; ++n) {
    if (loop.post([&ran, n] { ran.push_back(n); }) != post_result::accepted) ++refused;
  }
  run_all(loop);

  CHECK(refused == 0);
  CHECK(ran == range(0, 5000));
}

TEST_CASE("fail answers at once, and neither waits nor gives way") {
  hybridloop::basic_loop<yielding_traits> loop(sized(2, 0, overflow::fail));
  gate busy;
  gate done;
  must_post(loop, [&] {
    busy.open();
    done.pass();
  });
  scoped_thread runner([&] { loop.run(); });
  busy.pass();
  post_until_full(loop);
  yielding_kernel::yields = 0;
  for (int i = 0; i < 100; ++i) CHECK(loop.post([] {}) == post_result::full);
  CHECK(yielding_kernel::yields == 0);
  done.open();
  loop.close();
}

TEST_CASE("fail takes the ring and the arena, and not one more, each time anew") {
  for (const std::size_t ring : {std::size_t{2}, std::size_t{4}, std::size_t{8}}) {
    for (const std::size_t arena : {std::size_t{0}, std::size_t{1}, std::size_t{5}}) {
      hybridloop::loop loop(sized(ring, arena, overflow::fail));

      std::size_t wrong = 0;
      for (int round = 0; round < 5; ++round) {
        if (post_until_full(loop) != ring + arena) ++wrong;
        if (loop.poll() != ring + arena) ++wrong;
      }

      CHECK(wrong == 0);
      CHECK(loop.stats().heap_tasks == 0);
    }
  }
}

TEST_CASE("fail on the loop thread counts the slots that have run, but not the one that runs") {
  hybridloop::loop loop(sized(8, 0, overflow::fail));
  std::size_t first = 0;
  std::size_t last = 0;

  must_post(loop, [&] { first = post_until_full(loop); });
  must_post(loop, [] {});
  must_post(loop, [] {});
  must_post(loop, [&] { last = post_until_full(loop); });
  loop.poll();

  CHECK(first == 4);
  CHECK(last == 3);
}

TEST_CASE("try_post takes what the ring has and never touches the arena") {
  for (const overflow policy : {overflow::spill, overflow::block, overflow::fail}) {
    hybridloop::loop loop(sized(4, 8, policy));
    numbers ran;
    owner small(ran, 1);
    large_owner large(ran, 2);

    for (int round = 0; round < 3; ++round) {
      for (int n = 0; n < 4; ++n) CHECK(loop.try_post([] {}) == post_result::accepted);
      CHECK(loop.try_post(std::move(small)) == post_result::full);
      CHECK(loop.try_post(std::move(large)) == post_result::full);
      CHECK(loop.stats().arena_in_use == 0);
      loop.poll();
    }

    CHECK(small.is_mine());
    CHECK(large.is_mine());
    CHECK(loop.stats().spilled == 0);
  }
}

TEST_CASE("a closure that is refused is still its owner's, small or large, full or closed") {
  numbers ran;
  owner small(ran, 1);
  large_owner large(ran, 2);

  for (const std::size_t arena : {std::size_t{0}, std::size_t{1}}) {
    hybridloop::loop full(sized(2, arena, overflow::fail));
    post_until_full(full);
    CHECK(full.post(std::move(small)) == post_result::full);
    CHECK(full.post(std::move(large)) == post_result::full);
    CHECK(full.handle().post(std::move(large)) == post_result::full);
    full.close();
    CHECK(full.post(std::move(small)) == post_result::closed);
    CHECK(full.post(std::move(large)) == post_result::closed);
    CHECK(full.try_post(std::move(large)) == post_result::closed);
  }
  for (const overflow policy : {overflow::spill, overflow::block, overflow::fail}) {
    hybridloop::loop closed(sized(2, 1, policy));
    closed.close();
    CHECK(closed.post(std::move(small)) == post_result::closed);
    CHECK(closed.post(std::move(large)) == post_result::closed);
    CHECK(closed.try_post(std::move(small)) == post_result::closed);
    CHECK(closed.dispatch(std::move(large)) == post_result::closed);
    CHECK(closed.stats().arena_in_use == 0);
  }

  CHECK(small.is_mine());
  CHECK(large.is_mine());
  CHECK(ran == numbers());
}

TEST_CASE("a range stops at the first refusal and keeps what was refused") {
  hybridloop::loop loop(sized(2, 1, overflow::fail));
  numbers ran;
  std::vector<owner> owners;
  for (int n = 0; n < 5; ++n) owners.emplace_back(ran, n);

  const auto all = loop.post_range(std::make_move_iterator(owners.begin()),
                                   std::make_move_iterator(owners.end()));
  loop.poll();

  CHECK(all.result == post_result::full);
  CHECK(all.accepted == 3);
  CHECK(ran == range(0, 3));
  CHECK_FALSE(owners[2].is_mine());
  CHECK(owners[3].is_mine());
  CHECK(owners[4].is_mine());
}

TEST_CASE("a post that finds the loop closed at any moment is refused whole, or runs") {
  std::string wrong;
  int places = 0;
  const auto scene = [&wrong](overflow policy, int earlier, int place) {
    interrupted_loop loop(sized(2, 2, policy));
    numbers ran;
    for (int n = 0; n < earlier; ++n) post_number(loop, ran, n);
    owner mine(ran, earlier);

    interruption closing(place, [&loop] { loop.close(); });
    const post_result result = loop.post(std::move(mine));
    const bool more = closing.over();
    loop.close();
    run_all(loop);

    const bool accepted = result == post_result::accepted;
    const bool kept = result == post_result::closed && mine.is_mine();
    if (accepted == kept || ran != range(0, earlier + (accepted ? 1 : 0)) ||
        loop.stats().arena_in_use != 0) {
      wrong += std::to_string(earlier) + '@' + std::to_string(place) + ' ';
    }
    return more;
  };

  for (const overflow policy : {overflow::spill, overflow::block, overflow::fail}) {
    for (int earlier = 0; earlier < 4; ++earlier) {
      places += at_every_place([&](int place) { return scene(policy, earlier, place); });
    }
  }

  CHECK(places > 50);
  CHECK(wrong == "");
}

TEST_CASE("block waits for room and then goes on, in order") {
  for (const std::size_t arena : {std::size_t{0}, std::size_t{1}}) {
    interrupted_loop loop(sized(2, arena, overflow::block));
    numbers ran;
    gate blocked;
    std::atomic<int> posted{0};

    scoped_thread poster([&] {
      interruption waits("no-room", [&] { blocked.open(); });
      for (int n = 0; n < 50; ++n) {
        post_number(loop, ran, n);
        ++posted;
      }
    });
    blocked.pass();
    const int when_full = posted;
    while (ran.size() != 50) loop.poll();
    poster.join();

    CHECK(when_full == 2 + static_cast<int>(arena));
    CHECK(ran == range(0, 50));
    CHECK(loop.stats().heap_tasks == 0);
  }
}

TEST_CASE("room that is made at any moment of a poster's going to sleep ends its wait") {
  int places = 0;
  int wrong = 0;
  const auto scene = [&wrong](int arena, int place) {
    interrupted_loop loop(sized(2, static_cast<std::size_t>(arena), overflow::block));
    numbers ran;
    for (int n = 0; n < 2 + arena; ++n) post_number(loop, ran, n);

    interruption others(place, [&loop] { loop.poll(); });
    post_number(loop, ran, 2 + arena);
    const bool more = others.over();
    run_all(loop);

    if (ran != range(0, 3 + arena)) ++wrong;
    return more;
  };

  for (const int arena : {0, 2}) {
    places += at_every_place([&](int place) { return scene(arena, place); });
  }

  CHECK(places > 20);
  CHECK(wrong == 0);
}

TEST_CASE("a close at any moment of a poster's going to sleep ends its wait, and the task stays its own") {
  int wrong = 0;

  const int places = at_every_place([&wrong](int place) {
    interrupted_loop loop(sized(2, 0, overflow::block));
    numbers ran;
    post_number(loop, ran, 0);
    post_number(loop, ran, 1);
    owner mine(ran, 2);

    interruption others(place, [&loop] { loop.close(); });
    const post_result result = loop.post(std::move(mine));
    const bool more = others.over();
    run_all(loop);

    if (result != post_result::closed || !mine.is_mine() || ran != range(0, 2)) ++wrong;
    return more;
  });

  CHECK(places > 10);
  CHECK(wrong == 0);
}

TEST_CASE("many posters that block on two slots all get through") {
  constexpr std::size_t producers = 4;
  const std::size_t each = scaled(5000);
  for (const std::size_t arena : {std::size_t{0}, std::size_t{1}}) {
    hesitant_loop loop(sized(2, arena, overflow::block));
    std::array<std::size_t, producers> next{};
    std::size_t overtaken = 0;

    std::vector<scoped_thread> threads;
    for (std::size_t p = 0; p < producers; ++p) {
      threads.emplace_back([&, p] {
        for (std::size_t n = 0; n < each; ++n) {
          must_post(loop, [&, p, n] {
            if (next[p]++ != n) ++overtaken;
          });
        }
      });
    }
    const scoped_thread closer([&] {
      for (scoped_thread& t : threads) t.join();
      loop.close();
    });
    loop.run();

    CHECK(overtaken == 0);
    CHECK(next == std::array<std::size_t, producers>{each, each, each, each});
    CHECK(loop.stats().heap_tasks == 0);
  }
}

TEST_CASE("large closures that block hold no more than their own block, and all get through") {
  hybridloop::loop loop(sized(2, 2, overflow::block));
  const std::size_t each = scaled(500);
  numbers ran;

  std::vector<scoped_thread> threads;
  for (int p = 0; p < 3; ++p) {
    threads.emplace_back([&] {
      for (std::size_t n = 0; n < each; ++n) must_post(loop, large_owner(ran, 1));
    });
  }
  const scoped_thread closer([&] {
    for (scoped_thread& t : threads) t.join();
    loop.close();
  });
  loop.run();

  CHECK(ran.size() == 3 * each);
  CHECK(loop.stats().arena_in_use == 0);
  CHECK(loop.stats().arena_high <= 2);
}

TEST_CASE("block on the loop thread spills, for nobody else would make room") {
  hybridloop::loop loop(sized(2, 1, overflow::block));
  numbers ran;

  must_post(loop, [&] {
    for (int n = 0; n < 20; ++n) post_number(loop, ran, n);
  });
  loop.run_until_idle();

  CHECK(ran == range(0, 20));
  CHECK(loop.stats().heap_tasks != 0);
}

TEST_CASE("the end of a loop frees whoever waits for room on a handle") {
  std::optional<interrupted_loop> loop(std::in_place, sized(2, 0, overflow::block));
  numbers ran;
  gate blocked;
  owner mine(ran, 2);
  post_result result = post_result::accepted;
  post_number(*loop, ran, 0);
  post_number(*loop, ran, 1);

  scoped_thread poster([&, handle = loop->handle()] {
    interruption waits("no-room", [&] { blocked.open(); });
    result = handle.post(std::move(mine));
  });
  blocked.pass();
  loop.reset();
  poster.join();

  CHECK(result == post_result::closed);
  CHECK(mine.is_mine());
  CHECK(ran == numbers());
}

TEST_CASE("what the loop is told to do is never refused for room") {
  for (const overflow policy : {overflow::block, overflow::fail}) {
    hybridloop::loop loop(sized(2, 0, policy));
    numbers ran;
    post_number(loop, ran, 0);
    post_number(loop, ran, 1);

    const auto doomed = loop.after(0ns, [&] { ran.push_back(99); });
    const auto timer = loop.after(0ns, [&] { ran.push_back(2); });
    const bool cancelled = loop.cancel(doomed);
    loop.run_until_idle();

    CHECK(timer);
    CHECK(cancelled);
    CHECK(ran == range(0, 3));
    CHECK(loop.stats().posts == 2);
  }
}

TEST_CASE("large closures: the ring takes them with a block each, then fail refuses and spill goes on") {
  hybridloop::loop failing(sized(4, 2, overflow::fail));
  hybridloop::loop spilling(sized(4, 2, overflow::spill));
  numbers ran;
  numbers spilled;

  std::size_t taken = 0;
  while (failing.post(large_owner(ran, static_cast<int>(taken))) == post_result::accepted) ++taken;
  for (int n = 0; n < 10; ++n) must_post(spilling, large_owner(spilled, n));
  failing.poll();
  spilling.poll();

  CHECK(taken == 4);
  CHECK(ran == range(0, 4));
  CHECK(failing.stats().arena_in_use == 0);
  CHECK(failing.stats().arena_high == 2);
  CHECK(spilled == range(0, 10));
  CHECK(spilling.stats().arena_in_use == 0);
  CHECK(spilling.stats().heap_tasks == 8 + 6);
}

TEST_SUITE_END();
