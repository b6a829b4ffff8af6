// frame_budget.cpp - ten thousand tasks of unknown length, a millisecond a frame: how far is it overrun?
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include <hybridloop.hpp>

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using task_clock = hybridloop::loop::clock;

int main() {
  constexpr std::size_t tasks = 10000;
  constexpr auto budget = 1ms;

  hybridloop::loop loop;
  std::minstd_rand random(1);
  std::size_t ran = 0;
  nanoseconds longest{0};
  for (std::size_t i = 0; i < tasks; ++i) {
    const nanoseconds length(1000 + random() % 49000);
    const auto posted = loop.post([&, length] {
      const auto begin = task_clock::now();
      while (task_clock::now() - begin < length) continue;
      longest = (std::max)(longest, nanoseconds(task_clock::now() - begin));
      ++ran;
    });
    if (posted != hybridloop::post_result::accepted) std::puts("nobody closes this loop");
  }

  // Nobody knows how long a task will take. The loop learns what they cost of late, and stops before
  // the one that is expected to be too much.
  std::vector<nanoseconds> over;
  hybridloop::frame_report report;
  do {
    report = loop.run_budget(budget);
    over.push_back(report.over_by);
  } while (report.pending != 0);

  std::sort(over.begin(), over.end());
  const auto us = [](nanoseconds n) { return static_cast<double>(n.count()) / 1000; };
  const auto part = [&over](std::size_t percent) { return over[(over.size() - 1) * percent / 100]; };
  std::printf("%zu tasks in %zu frames of 1 ms; the longest took %.1f us\n", ran, over.size(),
              us(longest));
  std::printf("overrun in us: p50 %.1f  p90 %.1f  p99 %.1f  max %.1f\n", us(part(50)), us(part(90)),
              us(part(99)), us(over.back()));
  return ran == tasks ? 0 : 1;
}
