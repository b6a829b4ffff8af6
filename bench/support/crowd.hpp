// crowd.hpp - threads that do the same over and over: how long each time takes, and how evenly they come by it
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include <hybridloop.hpp>

#include "measure.hpp"
#include "options.hpp"
#include "place.hpp"
#include "workloads.hpp"

namespace crowd {

// xorshift64*, one for each thread.
class dice {
 public:
  explicit dice(std::size_t seed) : state_(0x9e3779b97f4a7c15u * (seed + 1)) {}
  std::uint64_t roll() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>((roll() >> 32) * n >> 32); }

 private:
  std::uint64_t state_;
};

// Work of a geometric length, as in Kotlin's benches: no two passes take the same time, so threads do not fall
// into step.
class work {
 public:
  enum class amount { nothing, some };
  static constexpr std::uint64_t steps = 25;  // on average; some 50 ns

  explicit work(amount how_much) : on_(how_much == amount::some) {}
  void operator()(dice& random) const {
    if (!on_) return;
    while (random.roll() >= ~std::uint64_t{0} / steps) {
    }
  }

 private:
  bool on_;
};

// R. Jain's index: 1 if all have as many, 1 / n if one has everything.
inline double jain(const std::vector<std::uint64_t>& shares) {
  double sum = 0, squares = 0;
  for (const std::uint64_t share : shares) {
    sum += static_cast<double>(share);
    squares += static_cast<double>(share) * static_cast<double>(share);
  }
  return squares > 0 ? sum * sum / (static_cast<double>(shares.size()) * squares) : 0;
}

// Long enough for each to have some slices of a core, where nobody waits for anything else. Microseconds.
inline std::size_t span_of(std::size_t threads) { return bench::scaled(30000 + 2000 * threads); }

// Each thread makes itself a pass by make(number), and calls it until it is to stop. The clock starts when all of
// them have done one, and stops while all still run, so neither their start nor their end is in it. What
// is timed is a pass of any of them; aside: Jain's index of how many each has done.
template <class Make>
bench::sample run(std::size_t threads, const Make& make) {
  struct alignas(128) counter {
    std::atomic<std::uint64_t> passes{0};
  };
  std::vector<counter> counters(threads);
  alignas(128) std::atomic<bool> over{false};
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < threads; ++i) {
    all.emplace_back([&, i] {
      auto pass = make(i);
      std::atomic<std::uint64_t>& mine = counters[i].passes;
      for (std::uint64_t n = 1; !over.load(std::memory_order_relaxed); ++n) {
        pass();
        mine.store(n, std::memory_order_relaxed);
      }
    });
  }
  std::vector<std::uint64_t> before(threads), shares(threads);
  const auto count = [&](std::vector<std::uint64_t>& now) {
    for (std::size_t i = 0; i < threads; ++i)
      now[i] = counters[i].passes.load(std::memory_order_relaxed);
  };
  for (const counter& c : counters) {
    while (c.passes.load(std::memory_order_relaxed) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  const auto span = std::chrono::microseconds(span_of(threads));
  count(before);
  bench::sample s = bench::timed_by([&] {
    std::this_thread::sleep_for(span);
    count(shares);
    std::size_t passes = 0;
    for (std::size_t i = 0; i < threads; ++i) passes += shares[i] -= before[i];
    return passes == 0 ? std::size_t{1} : passes;
  });
  over.store(true, std::memory_order_relaxed);
  for (std::thread& t : all) t.join();
  s.aside = jain(shares);
  return s;
}

// The same, but each does so many passes: where somebody may have to wait for as long as others go on.
template <class Make>
bench::sample run_each(std::size_t threads, std::size_t passes, const Make& make) {
  const std::size_t each = (bench::scaled(passes) + threads - 1) / threads;
  workloads::gate start;
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < threads; ++i) {
    all.emplace_back([&, i] {
      auto pass = make(i);
      start.pass();
      for (std::size_t n = 0; n < each; ++n) pass();
    });
  }
  return bench::timed(each * threads, [&] {
    start.open();
    for (std::thread& t : all) t.join();
  });
}

// Burns a core, the second one, for as long as it lives, or does nothing. Its CPU time is in that of the process.
class neighbour {
 public:
  explicit neighbour(bool busy) {
    if (!busy) return;
    thread_ = std::thread([this] {
      const std::vector<std::size_t> cpus = bench::cpus();
      if (cpus.size() > 1) bench::pin({cpus[1]});
      while (!leave_.load(std::memory_order_relaxed)) {
      }
    });
  }
  neighbour(const neighbour&) = delete;
  ~neighbour() {
    leave_.store(true, std::memory_order_relaxed);
    if (thread_.joinable()) thread_.join();
  }

 private:
  std::atomic<bool> leave_{false};
  std::thread thread_;
};

}  // namespace crowd
