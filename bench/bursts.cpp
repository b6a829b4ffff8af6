// bursts.cpp - bursts of tasks, and frames that must not overrun their budget
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "support/bench.hpp"
#include "support/rivals.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using bench::sample;
using bench::steady;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

// ---- 1,000 tasks at once, and a wait for all of them ----

constexpr auto one_by_one = [](auto& rival, workloads::tally& all) {
  for (std::size_t i = 0; i < workloads::burst; ++i) rival.post([&all] { all.count(); });
};

// The whole burst in one call, with one wake.
struct as_a_range {
  struct count {
    workloads::tally* all;
    void operator()() const { all->count(); }
  };
  template <class Rival>
  void operator()(Rival& rival, workloads::tally& all) const {
    const std::vector<count> tasks(workloads::burst, count{&all});
    rivals::accept(rival.loop().post_range(tasks.begin(), tasks.end()).result);
  }
};

void measure_bursts(const bench::options& how) {
  bench::family table("bursts of 1000 tasks");
  const auto singly = [](auto& rival) { return workloads::bursts(rival, one_by_one); };
  rivals::add<rivals::ours<>>(table, kind::ours, singly);
  rivals::add<rivals::ours<>>(
      table, kind::ours, [](auto& rival) { return workloads::bursts(rival, as_a_range()); },
      "hybridloop post_range");
  rivals::add_lane(table, singly);
  rivals::add_rivals(table, singly);
  table.run(how);
}

// ---- 10,000 tasks of 1 to 50 us, in frames of 1 ms ----

constexpr microseconds budget{1000};

class frames {
 public:
  static void work(nanoseconds span) {
    const auto until = steady::now() + span;
    while (steady::now() < until) hybridloop::detail::cpu_pause();
  }

  // give(span) queues a task of that length; frame() runs one frame and says whether anything is left.
  // Answers by how many microseconds frames were too long; one that was not counts as 0.
  template <class Give, class Frame>
  sample measure(Give give, Frame frame) {
    std::uniform_int_distribution<int> any(1000, 50000);
    const std::size_t tasks = bench::scaled(10000);
    done_ = 0;
    for (std::size_t i = 0; i < tasks; ++i)
      give([this, span = nanoseconds(any(random_))] {
        work(span);
        ++done_;
      });
    std::vector<double> over;
    bench::sample s = bench::timed(tasks, [&] {
      for (bool left = true; left;) {
        const auto begin = steady::now();
        left = frame();
        over.push_back((std::max)(0.0, bench::nanos_between(begin + budget, steady::now()) / 1000));
      }
    });
    bench::must(done_ == tasks, "every task once");
    return bench::spread_of(std::move(over), s);
  }

 private:
  std::mt19937 random_{2024};
  std::size_t done_ = 0;
};

sample run_budget() {
  hybridloop::loop loop;
  return frames().measure([&](auto task) { rivals::accept(loop.post(task)); },
                          [&] { return loop.run_budget(budget).pending != 0; });
}

// Without a loop: the clock is read before each task.
sample clock_and_deque() {
  std::deque<std::function<void()>> tasks;
  return frames().measure([&](auto task) { tasks.emplace_back(task); },
                          [&] {
                            const auto end = steady::now() + budget;
                            while (!tasks.empty() && steady::now() < end) {
                              tasks.front()();
                              tasks.pop_front();
                            }
                            return !tasks.empty();
                          });
}

#if defined(HAVE_ASIO)
// What its users write: the clock is read before each poll_one().
void add_asio(bench::family& table) {
  table.add(kind::rival, "Asio poll_one until the time is up", [] {
    asio::io_context context(1);
    return frames().measure([&](auto task) { asio::post(context, task); },
                            [&] {
                              const auto end = steady::now() + budget;
                              while (steady::now() < end) {
                                if (context.poll_one() == 0) return false;
                              }
                              return true;
                            });
  });
}
#else
void add_asio(bench::family& table) { table.skip("Asio"); }
#endif

void measure_frames(const bench::options& how) {
  bench::family table("frames of 1 ms, tasks of 1 to 50 us: overrun", "us");
  table.add(kind::ours, "hybridloop run_budget", run_budget);
  add_asio(table);
  table.add(kind::limit, "a deque, the clock before each task", clock_and_deque);
  table.run(how);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  measure_bursts(how);
  measure_frames(how);
}
