// soak.cpp - random programs on a loop, for minutes or hours; every task is accounted for
//
//   soak [--seconds N] [--seed N] [--rounds N] [--threads N] [--steps N] [--one-core]
//
// A round is a loop with options of its own and up to that many threads. A promise that is broken, or a
// minute without progress (a lost wake), ends the program; round and seed bring it back, but for the
// schedule.
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <sched.h>

#include <hybridloop.hpp>

#include "soak/round.hpp"

namespace {

using soak::choices;
using steady = std::chrono::steady_clock;

struct symmetric_traits : hybridloop::default_traits {
  static constexpr hybridloop::fence_policy fence = hybridloop::fence_policy::symmetric;
};
struct asymmetric_traits : hybridloop::default_traits {
  static constexpr hybridloop::fence_policy fence = hybridloop::fence_policy::asymmetric;
};

struct arguments {
  double seconds = 60;
  std::uint64_t seed = static_cast<std::uint64_t>(steady::now().time_since_epoch().count());
  std::uint64_t rounds = ~std::uint64_t{0};
  std::size_t threads = 14;
  std::size_t steps = 300;

  arguments(int argc, char** argv) {
    if (const char* scale = std::getenv("TEST_SCALE")) seconds *= std::atof(scale);
    for (int i = 1; i < argc; ++i) read(argv[i], i + 1 < argc ? argv[i + 1] : nullptr, i);
  }

 private:
  void read(const char* name, const char* value, int& at) {
    const auto is = [name](const char* known) { return std::strcmp(name, known) == 0; };
    if (is("--one-core")) return to_one_core();
    if (value == nullptr) usage();
    ++at;
    const std::uint64_t number = std::strtoull(value, nullptr, 0);
    if (is("--seconds")) seconds = std::atof(value);
    else if (is("--seed")) seed = number;
    else if (is("--rounds")) rounds = number;
    else if (is("--threads") && number != 0) threads = static_cast<std::size_t>(number);
    else if (is("--steps")) steps = static_cast<std::size_t>(number);
    else usage();
  }
  static void to_one_core() {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
    soak::promise(::sched_setaffinity(0, sizeof one, &one) == 0, "a process may be kept on its core");
  }
  [[noreturn]] static void usage() {
    std::fputs("soak [--seconds N] [--seed N] [--rounds N] [--threads N] [--steps N] [--one-core]\n", stderr);
    std::exit(2);
  }
};

struct progress {
  std::atomic<std::uint64_t> rounds{0};
  std::atomic<std::uint64_t> operations{0};
  std::atomic<bool> over{false};
};

// A line a second. A minute in which no round ends is a thread that waits for what will not come.
void report(const progress& p, std::uint64_t seed) {
  const auto begin = steady::now();
  std::uint64_t last = 0;
  int idle = 0;
  for (int seconds = 1; !p.over; ++seconds) {
    std::this_thread::sleep_until(begin + std::chrono::seconds(seconds));
    const std::uint64_t rounds = p.rounds;
    idle = rounds == last ? idle + 1 : 0;
    last = rounds;
    std::printf("\r%6d s  %10" PRIu64 " rounds  %12" PRIu64 " operations ", seconds, rounds, p.operations.load());
    std::fflush(stdout);
    if (idle < 60) continue;
    std::fprintf(stderr, "\nround %" PRIu64 " of seed %" PRIu64 " does not end\n", rounds, seed);
    std::abort();
  }
}

template <class Traits>
std::uint64_t play(std::uint64_t seed, std::size_t threads, std::size_t steps) {
  return soak::round<hybridloop::basic_loop<Traits>>(seed, threads).play(steps);
}

}  // namespace

int main(int argc, char** argv) {
  const arguments how(argc, argv);
  std::printf("seed %" PRIu64 ", up to %zu threads of %zu operations on %u cpus\n", how.seed, how.threads, how.steps,
              hybridloop::default_traits::kernel::usable_cpus());
  soak::staller::install();
  constexpr std::uint64_t (*kinds[])(std::uint64_t, std::size_t, std::size_t) = {
      play<hybridloop::default_traits>, play<symmetric_traits>, play<asymmetric_traits>};
  const auto end = steady::now() + std::chrono::duration_cast<steady::duration>(std::chrono::duration<double>(how.seconds));
  progress p;
  std::thread reporter([&p, &how] { report(p, how.seed); });
  while (p.rounds < how.rounds && steady::now() < end) {
    choices c(how.seed + p.rounds * 1000003);
    const auto kind = c.any_of(kinds);
    const std::size_t threads = c.one_in(3) ? 1 : c.between(1, how.threads);  // who is alone is woken by nobody else's post
    p.operations += kind(soak::mixed(how.seed + p.rounds), threads, c.between(1, how.steps));
    ++p.rounds;
  }
  p.over = true;
  reporter.join();
  std::printf("\nnothing lost: %" PRIu64 " rounds, %" PRIu64 " operations, seed %" PRIu64 "\n1 passed, 0 failed\n",
              p.rounds.load(), p.operations.load(), how.seed);
}
