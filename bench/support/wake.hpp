// wake.hpp - from a post to the first line of its task, with the loop in one of four states
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include <hybridloop.hpp>

#include "bench.hpp"
#include "loads.hpp"
#include "place.hpp"
#include "rivals.hpp"

namespace wake {

enum class state { running, spinning, parked, parked_with_watch };
enum class place { other_core, same_core, one_core };

inline const char* name_of(state s) {
  constexpr const char* names[] = {"loop running", "loop spinning", "parked, nothing watched",
                                   "parked, one idle watch"};
  return names[static_cast<int>(s)];
}
inline const char* name_of(place p) {
  constexpr const char* names[] = {"other core", "same core", "process on one core"};
  return names[static_cast<int>(p)];
}

// A descriptor that is never ready, for ours; the others always sleep where they would with one.
template <class Rival>
struct idle_watch {
  explicit idle_watch(Rival&) {}
};
template <hybridloop::fast_path Path>
struct idle_watch<rivals::ours<Path>> : loads::one_watch<false> {
  explicit idle_watch(rivals::ours<Path>& rival) : loads::one_watch<false>(rival.loop()) {}
};

// Waits until the other thread has slept for 50 us and more. Ours says when it parked, and where; the
// others do so after a few microseconds and are given the same pauses.
template <class Rival>
class rest {
 public:
  explicit rest(Rival&) {}
  void before_post() {}
  void until_parked() {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    std::this_thread::sleep_for(std::chrono::microseconds(60));
  }
  bool each_slept(std::size_t, bool) const { return true; }
};
template <hybridloop::fast_path Path>
class rest<rivals::ours<Path>> {
 public:
  explicit rest(rivals::ours<Path>& rival) : loop_(rival.loop()), first_(loop_.stats()) {}
  void before_post() { parks_ = loop_.stats().parks; }
  void until_parked() {
    do {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    } while (loop_.stats().parks == parks_);
    std::this_thread::sleep_for(std::chrono::microseconds(60));
  }
  // Once for each trip, and where this policy sleeps.
  bool each_slept(std::size_t trips, bool watched) const {
    using hybridloop::fast_path;
    const auto now = loop_.stats();
    const bool in_poller = Path == fast_path::off || (Path == fast_path::full && watched);
    return (in_poller ? now.in_poller - first_.in_poller : now.in_channel - first_.in_channel) >=
           trips;
  }

 private:
  hybridloop::loop& loop_;
  const hybridloop::loop_stats first_;
  std::uint64_t parks_ = 0;
};

// A task that posts itself again, so that its loop always runs.
template <class Rival>
class treadmill {
 public:
  treadmill(Rival& rival, bool wanted) : rival_(rival), on_(wanted) {
    if (wanted) step();
  }
  treadmill(const treadmill&) = delete;
  ~treadmill() {
    on_.store(false, std::memory_order_relaxed);
    while (posted_.load(std::memory_order_acquire)) std::this_thread::yield();
  }

 private:
  void step() {
    posted_.store(true, std::memory_order_relaxed);
    rival_.post([this] {
      if (on_.load(std::memory_order_relaxed)) {
        step();
      } else {
        posted_.store(false, std::memory_order_release);
      }
    });
  }
  Rival& rival_;
  std::atomic<bool> on_;
  std::atomic<bool> posted_{false};
};
template <class Rival>
struct no_treadmill {
  no_treadmill(Rival&, bool) {}
};

struct busy_pause {
  void operator()() const {
    const auto until = bench::steady::now() + std::chrono::microseconds(2);
    while (bench::steady::now() < until) hybridloop::detail::cpu_pause();
  }
};

// The median, 99th percentile and longest time from post to run, in nanoseconds; two clock reads
// included. On the poster's own core the waiter gives the core up, else it spins.
template <template <class> class Treadmill = treadmill, class Rival>
bench::sample measure(Rival& rival, state s, place p) {
  const bench::placement restored;
  const auto all = bench::cpus();
  if (!all.empty() && p != place::one_core) {
    std::atomic<bool> moved{false};
    rival.post([&, to = p == place::same_core ? all.front() : all.back()] {
      bench::pin({to});
      moved.store(true, std::memory_order_release);
    });
    while (!moved.load(std::memory_order_acquire)) std::this_thread::yield();
    bench::pin({all.front()});
  }
  const bool shares_core = p != place::other_core;
  const bool parks = s == state::parked || s == state::parked_with_watch;
  const std::size_t trips = bench::scaled(s == state::running && shares_core ? 100 : 500);

  rest<Rival> pause(rival);
  Treadmill<Rival> busy(rival, s == state::running);
  bench::steady::time_point run;
  alignas(128) std::atomic<std::size_t> done{0};  // off the lines of this thread's stack
  const bench::sample result = bench::spread(trips, [&](std::vector<double>& values) {
    for (std::size_t i = 1; i <= trips; ++i) {
      pause.before_post();
      const auto posted = bench::steady::now();
      rival.post([&done, &run] {
        run = bench::steady::now();
        done.store(done.load(std::memory_order_relaxed) + 1, std::memory_order_release);
      });
      while (done.load(std::memory_order_acquire) != i) {
        if (shares_core) {
          std::this_thread::yield();
        } else {
          hybridloop::detail::cpu_pause();
        }
      }
      values.push_back(bench::nanos_between(posted, run));
      if (parks) pause.until_parked();
      if (s == state::spinning) busy_pause()();
    }
  });
  bench::must(done.load() == trips, "every task once");
  bench::must(!parks || pause.each_slept(trips, s == state::parked_with_watch),
              "every post met a sleeper");
  return result;
}

// With the idle watch where the state asks for one.
template <template <class> class Treadmill = treadmill, class Rival>
bench::sample measure_with_watch(Rival& rival, state s, place p) {
  if (s != state::parked_with_watch) return measure<Treadmill>(rival, s, p);
  const idle_watch<Rival> watch(rival);
  return measure<Treadmill>(rival, s, p);
}

// One repetition; a process on one core is on it before the contender is made.
template <class Contender, template <class> class Treadmill = treadmill>
auto repetition(state s, place p) {
  const auto one = rivals::repetition<Contender>(
      [s, p](auto& rival) { return measure_with_watch<Treadmill>(rival, s, p); });
  return [one, p] {
    const bench::placement restored;
    if (p == place::one_core) bench::pin({bench::cpus().front()});
    return one();
  };
}

template <class Contender>
void add(bench::family& table, bench::kind role, state s, place p) {
  if constexpr (std::is_base_of_v<rivals::absent, Contender>) {
    table.skip(Contender::name);
  } else {
    table.add(role, Contender::name, repetition<Contender>(s, p));
  }
}

// A limit holds one task, so none can post itself again.
template <class Limit>
void add_limit(bench::family& table, state s, place p) {
  if constexpr (std::is_base_of_v<rivals::absent, Limit>) {
    table.skip(Limit::name);
  } else {
    table.add(bench::kind::limit, Limit::name, repetition<Limit, no_treadmill>(s, p));
  }
}

}  // namespace wake
