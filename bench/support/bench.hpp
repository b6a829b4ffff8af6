// bench.hpp - interleaved repetitions, medians, ratios, and a head line with all one needs to doubt them
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include <sys/utsname.h>

namespace bench {

using steady = std::chrono::steady_clock;

// --csv, --reps N, --only TEXT (of a row's family).
struct options {
  bool csv = false;
  int reps = 7;
  std::string only;

  options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      if (std::strcmp(argv[i], "--csv") == 0) {
        csv = true;
      } else if (std::strcmp(argv[i], "--reps") == 0 && i + 1 < argc) {
        reps = std::atoi(argv[++i]);
      } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
        only = argv[++i];
      } else {
        std::fprintf(stderr, "usage: %s [--csv] [--reps N] [--only FAMILY]\n", argv[0]);
        std::exit(2);
      }
    }
    if (reps < 7) reps = 7;
  }
};

inline std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const auto colon = line.find(": ");
    if (line.compare(0, 10, "model name") == 0 && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown cpu";
}

inline std::string commit() {
  std::string text;
  if (FILE* git = ::popen("git describe --always --dirty 2>/dev/null", "r")) {
    char line[64] = "";
    if (std::fgets(line, sizeof line, git) != nullptr) text = line;
    ::pclose(git);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "no commit" : text;
}

#if defined(__clang__)
inline constexpr const char* compiler = "clang++ " __clang_version__;
#else
inline constexpr const char* compiler = "g++ " __VERSION__;
#endif

inline void head_line() {
  utsname system{};
  ::uname(&system);
  std::printf("hybridloop %d.%d.%d (%s)   %s -O2   %s %s   %s, %u cpus   %s + %s\n",
              HYBRIDLOOP_VERSION_MAJOR, HYBRIDLOOP_VERSION_MINOR, HYBRIDLOOP_VERSION_PATCH,
              commit().c_str(), compiler, system.sysname, system.release, cpu_name().c_str(),
              std::thread::hardware_concurrency(), hybridloop::default_traits::parker::name,
              hybridloop::loop::poller_name());
}

// A contender of a family: one call is one repetition and answers nanoseconds per operation.
struct row {
  std::string name;
  std::function<double()> repeat;
  std::vector<double> figures{};

  double median() const {
    std::vector<double> sorted = figures;
    std::sort(sorted.begin(), sorted.end());
    const std::size_t half = sorted.size() / 2;
    return sorted.size() % 2 != 0 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }
  double least() const { return *std::min_element(figures.begin(), figures.end()); }
  double most() const { return *std::max_element(figures.begin(), figures.end()); }
};

// Rows in turn, A B C A B C ..., after a round that is not counted; the first row is ours, and the
// last column says what share of each rival's time it took.
inline void family(const options& how, const char* title, std::vector<row> rows) {
  if (!how.only.empty() && std::string(title).find(how.only) == std::string::npos) return;
  for (int i = -1; i < how.reps; ++i) {
    std::fprintf(stderr, "\r%-60s %d/%d ", title, i + 1, how.reps);
    for (row& r : rows) {
      const double figure = r.repeat();
      if (i >= 0) r.figures.push_back(figure);
    }
  }
  std::fprintf(stderr, "\r%80s\r", "");
  if (!how.csv) std::printf("\n%-46s %12s %10s %10s %12s\n", title, "ns/op", "min", "max", "ours/this");
  for (const row& r : rows) {
    const double ratio = rows.front().median() / r.median();
    if (how.csv) {
      std::printf("%s,%s,%.1f,%.1f,%.1f,%.3f\n", title, r.name.c_str(), r.median(), r.least(),
                  r.most(), ratio);
    } else {
      std::printf("  %-44s %12.1f %10.1f %10.1f %12.3f\n", r.name.c_str(), r.median(), r.least(),
                  r.most(), ratio);
    }
  }
  std::fflush(stdout);
}

// Nanoseconds per operation of f(), which does `operations` of them.
template <class F>
double time_per_op(std::size_t operations, F&& f) {
  const auto begin = steady::now();
  std::forward<F>(f)();
  const std::chrono::duration<double, std::nano> span = steady::now() - begin;
  return span.count() / static_cast<double>(operations);
}

inline void must(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "\nwrong count: %s\n", what);
  std::exit(1);
}

}  // namespace bench
