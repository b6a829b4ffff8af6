// idle_test.cpp - a loop with nothing to do costs nothing, and one on a single CPU never spins
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include <sched.h>

#include "support/proc.hpp"
#include "support/running.hpp"
#include "support/support.hpp"

namespace {

using namespace support;
using hybridloop::loop;
using hybridloop::loop_options;

// Confines the calling thread, and those that it starts, for as long as this lives.
class on_first_cpu {
 public:
  on_first_cpu() {
    if (::sched_getaffinity(0, sizeof before_, &before_) != 0) std::abort();
    keep_on_first_cpu();
  }
  on_first_cpu(const on_first_cpu&) = delete;
  on_first_cpu& operator=(const on_first_cpu&) = delete;
  ~on_first_cpu() { ::sched_setaffinity(0, sizeof before_, &before_); }

 private:
  cpu_set_t before_;
};

// Of every thread that is not known.
std::map<std::string, thread_cost> costs_except(const std::set<std::string>& known) {
  std::map<std::string, thread_cost> costs;
  for (const std::string& thread : threads()) {
    if (known.count(thread) == 0) costs.emplace(thread, cost_of(thread));
  }
  return costs;
}

// Parks and wakes a loop, with leave to spin for a millisecond each time.
std::uint64_t nanoseconds_spun(bool confined) {
  loop_options options;
  options.spin = 1ms;
  loop l(options);

  elsewhere([&] {
    std::optional<on_first_cpu> here;
    if (confined) here.emplace();
    const running<loop> it(l);
    for (int i = 0; i < 50; ++i) {
      l.invoke([] {});
      std::this_thread::sleep_for(50us);  // a look that finds something at once reads no clock
    }
  });

  return l.stats().spun_ns;
}

}  // namespace

TEST_SUITE_BEGIN("idle");

TEST_CASE("idle loops use no CPU, wherever they sleep and with a timer far ahead") {
  const std::set<std::string> known = threads();
  std::deque<loop_in<>> loops;
  for (const place& where : everywhere) {
    loops.emplace_back(where);
    loops.emplace_back(where)->after(1h, [] {});
  }
  std::deque<running<loop>> running_loops;
  std::deque<usage> first;
  for (loop_in<>& l : loops) {
    running_loops.emplace_back(*l);
    first.push_back(l->invoke(thread_usage));
  }
  std::this_thread::sleep_for(200ms);

  const std::map<std::string, thread_cost> before = costs_except(known);
  std::this_thread::sleep_for(2s);
  const std::map<std::string, thread_cost> after = costs_except(known);

  const std::size_t companions = 2;
  CHECK(before.size() == loops.size() + companions);
  for (const auto& [thread, cost] : before) {
    CHECK(after.at(thread).switches - cost.switches <= 2);
    if (!sanitized) CHECK(after.at(thread).cpu_ns - cost.cpu_ns < 1000000);
  }
  for (loop_in<>& l : loops) {
    const usage last = l->invoke(thread_usage);
    if (!sanitized) CHECK(last.cpu - first.front().cpu < (emulated() ? 100ms : 1ms));
    first.pop_front();
  }
}

TEST_CASE("a loop sleeps towards a deadline whose seconds do not fit into 32 bits") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    l->after(24h * 365 * 100, [] {});
    const running<loop> it(*l);
    await_parks(*l, 1);

    std::this_thread::sleep_for(50ms);

    CHECK(l->stats().parks <= 3);
  }
}

TEST_CASE("where the process has one CPU a loop never spins, whatever it may") {
  const on_first_cpu all_of_it;

  CHECK(nanoseconds_spun(false) == 0);
}

TEST_CASE("a loop that has several CPUs spins, and counts it") {
  const unsigned cpus = hybridloop::detail::system_kernel::usable_cpus();

  CHECK((nanoseconds_spun(false) > 0) == (cpus > 1));
}

TEST_CASE("a loop that is kept on a CPU of its own spins for those on the others") {
  const unsigned cpus = hybridloop::detail::system_kernel::usable_cpus();

  CHECK((nanoseconds_spun(true) > 0) == (cpus > 1));
}

TEST_SUITE_END();
