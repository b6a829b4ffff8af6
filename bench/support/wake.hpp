// wake.hpp - from a post to the first line of its task, with the loop in one of four states
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>

#include <hybridloop.hpp>

#include "bench.hpp"
#include "place.hpp"
#include "rivals.hpp"

#if defined(__linux__)
#include <sys/eventfd.h>
#include <unistd.h>
#endif

namespace wake {

enum class state { running, spinning, parked, parked_with_watch };
enum class place { other_core, same_core, one_core };

inline const char* name_of(state s) {
  constexpr const char* names[] = {"loop running", "loop spinning", "parked, nothing watched", "parked, one idle watch"};
  return names[static_cast<int>(s)];
}
inline const char* name_of(place p) {
  constexpr const char* names[] = {"other core", "same core", "process on one core"};
  return names[static_cast<int>(p)];
}

// A descriptor that is never ready, watched for as long as this lives; only ours can tell.
template <class Rival>
struct idle_watch {
  explicit idle_watch(Rival&) {}
};
template <hybridloop::fast_path Path>
struct idle_watch<rivals::ours<Path>> {
  explicit idle_watch(rivals::ours<Path>& rival) : loop_(rival.loop()) {
    loop_.invoke([this] { id_ = loop_.watch(fd_, hybridloop::interest::readable, [] {}); });
  }
  idle_watch(const idle_watch&) = delete;
  ~idle_watch() {
    loop_.invoke([this] { loop_.unwatch(id_); });
    ::close(fd_);
  }

 private:
  hybridloop::loop& loop_;
  int fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  hybridloop::watch_id id_;
};

// Waits until the other thread has slept for 50 us and more. Ours says when it parked; the others do
// so after a few microseconds and are given the same pauses.
template <class Rival>
class rest {
 public:
  explicit rest(Rival&) {}
  void before_post() {}
  void until_parked() {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    std::this_thread::sleep_for(std::chrono::microseconds(60));
  }
};
template <hybridloop::fast_path Path>
class rest<rivals::ours<Path>> {
 public:
  explicit rest(rivals::ours<Path>& rival) : loop_(rival.loop()) {}
  void before_post() { parks_ = loop_.stats().parks; }
  void until_parked() {
    do {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    } while (loop_.stats().parks == parks_);
    std::this_thread::sleep_for(std::chrono::microseconds(60));
  }

 private:
  hybridloop::loop& loop_;
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
  std::atomic<std::size_t> done{0};
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
  table.add(bench::kind::limit, Limit::name, repetition<Limit, no_treadmill>(s, p));
}

}  // namespace wake
