// measure.hpp - the clock of a repetition, and the meters that run beside it
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

#include <sys/resource.h>
#include <time.h>

#include "allocations.hpp"

namespace bench {

using steady = std::chrono::steady_clock;

inline constexpr double none = std::numeric_limits<double>::quiet_NaN();

// What one repetition found. `figure` is in the unit of its family; of a spread it is the median.
struct sample {
  double figure = 0;
  double least = none;
  double p99 = none;
  double most = none;
  double cpu_ns = none;  // these three per operation, of all threads of the process
  double switches = none;
  double allocations = none;
  double aside = none;  // a second figure, where a family shows one

  sample() = default;
  explicit sample(double only_figure) : figure(only_figure) {}

  // An operation of several parts, each timed by itself.
  sample& operator+=(const sample& part) {
    figure += part.figure;
    cpu_ns += part.cpu_ns;
    switches += part.switches;
    allocations += part.allocations;
    return *this;
  }
};

// Told where the timed part of a repetition begins and ends, by whoever counts beside the clock.
enum class mark { begin, end };
inline void (*on_mark)(mark what, std::size_t operations) = nullptr;
inline void tell(mark what, std::size_t operations) {
  if (on_mark != nullptr) on_mark(what, operations);
}

struct meters {
  std::uint64_t allocated = allocations();
  double cpu_ns = cpu_now();
  long switches = switches_now();
  steady::time_point time = steady::now();  // last: the others are not timed

  static double cpu_now() {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
  }
  static long switches_now() {
    rusage use{};
    ::getrusage(RUSAGE_SELF, &use);
    return use.ru_nvcsw + use.ru_nivcsw;
  }
};

// Runs f(), which answers how many operations it did, and answers nanoseconds per operation.
template <class F>
sample timed_by(F&& f) {
  const meters before;
  tell(mark::begin, 0);
  const std::size_t operations = std::forward<F>(f)();
  const auto end = steady::now();
  tell(mark::end, operations);
  const meters after;
  const double n = static_cast<double>(operations);
  sample s;
  s.figure = std::chrono::duration<double, std::nano>(end - before.time).count() / n;
  s.cpu_ns = (after.cpu_ns - before.cpu_ns) / n;
  s.switches = static_cast<double>(after.switches - before.switches) / n;
  if (allocations_counted)
    s.allocations = static_cast<double>(after.allocated - before.allocated) / n;
  return s;
}

// Runs f(), which does `operations` of them.
template <class F>
sample timed(std::size_t operations, F&& f) {
  return timed_by([&] {
    std::forward<F>(f)();
    return operations;
  });
}

inline double median_of(std::vector<double> values) {
  if (values.empty()) return none;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 != 0 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Median, 99th percentile and extremes of `values`, beside what `s` knows of the costs.
inline sample spread_of(std::vector<double> values, sample s) {
  std::sort(values.begin(), values.end());
  s.figure = median_of(values);
  s.least = values.front();
  s.p99 = values[(values.size() - 1) * 99 / 100];
  s.most = values.back();
  return s;
}

// Runs f(values), which appends a figure for each of `operations`.
template <class F>
sample spread(std::size_t operations, F&& f) {
  std::vector<double> values;
  values.reserve(operations);
  const sample s = timed(operations, [&] { f(values); });
  return spread_of(std::move(values), s);
}

inline double nanos_between(steady::time_point from, steady::time_point to) {
  return std::chrono::duration<double, std::nano>(to - from).count();
}

// Asked after the clock has stopped.
inline void must(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "\nwrong count: %s\n", what);
  std::exit(1);
}

}  // namespace bench
