// pingpong.cpp - posts without waiting (throughput) and one at a time (latency), against the rivals
#include <future>
#include <string>
#include <thread>
#include <type_traits>

#include "support/bench.hpp"
#include "support/limits.hpp"
#include "support/rivals.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using bench::sample;

// Ours, its lane where there are lanes, and every rival.
template <class Measure>
bench::family everybody(const std::string& title, Measure measure) {
  bench::family table(title);
  rivals::add<rivals::ours<>>(table, kind::ours, measure);
  rivals::add_lane(table, measure);
  rivals::add_rivals(table, measure);
  return table;
}

// ---- A caller that waits for its answer ----

// Back to back on a loop that was parked before the first call.
template <class Call>
sample answers(Call call) {
  const std::size_t times = bench::scaled(10000);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::size_t sum = 0;
  const sample s = bench::timed(times, [&] {
    for (std::size_t i = 0; i < times; ++i) sum += call(i);
  });
  bench::must(sum == times * (times - 1) / 2, "every answer once");
  return s;
}

// What a user writes where there is no invoke().
template <class Rival>
sample post_and_wait(Rival& rival) {
  return answers([&rival](std::size_t i) {
    std::promise<std::size_t> promise;
    rival.post([&promise, i] { promise.set_value(i); });
    return promise.get_future().get();
  });
}

template <class Rival>
sample invoke(Rival& rival) {
  return answers([&rival](std::size_t i) { return rival.loop().invoke([i] { return i; }); });
}

// A loop whose callers may run it themselves.
template <class Options, class = void>
struct has_caller_runs : std::false_type {};
template <class Options>
struct has_caller_runs<Options, std::void_t<decltype(std::declval<Options&>().caller_runs)>>
    : std::true_type {};

template <class Options>
class lending : public rivals::ours<> {
 public:
  static constexpr const char* name = "hybridloop invoke, caller_runs";
  lending() : rivals::ours<>(options()) {}

 private:
  static Options options() {
    Options o;
    o.caller_runs = true;
    return o;
  }
};

template <class Options = hybridloop::loop_options>
void add_caller_runs(bench::family& table) {
  if constexpr (has_caller_runs<Options>::value) {
    rivals::add<lending<Options>>(table, kind::ours, [](auto& rival) { return invoke(rival); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);

  for (const std::size_t producers : {1u, 2u, 4u, 10u, 64u}) {
    const std::string title =
        producers == 1 ? "PingPong" : "MultiProducer, " + std::to_string(producers) + " producers";
    everybody(title, [producers](auto& rival) {
      return workloads::throughput(rival, producers);
    }).run(how);
  }

  auto spins = everybody("PingPongLatency, waiter spins",
                         [](auto& rival) { return workloads::latency_spinning(rival); });
  rivals::add<limits::cache_line>(spins, kind::limit,
                                  [](auto& bare) { return workloads::latency_spinning(bare); });
  spins.run(how);

  auto blocks = everybody("PingPongLatency, waiter blocks",
                          [](auto& rival) { return workloads::latency_blocking(rival); });
  rivals::add<limits::cache_line>(blocks, kind::limit,
                                  [](auto& bare) { return workloads::latency_blocking(bare); });
  rivals::add<limits::futex_wake>(blocks, kind::limit,
                                  [](auto& bare) { return workloads::latency_blocking(bare); });
  blocks.run(how);

  bench::family asks("invoke, back to back");
  add_caller_runs(asks);
  rivals::add<rivals::ours<>>(
      asks, kind::ours, [](auto& rival) { return invoke(rival); }, "hybridloop invoke");
  rivals::add_rivals(asks, [](auto& rival) { return post_and_wait(rival); });
  asks.run(how);

  auto pressure = everybody("allocation pressure",
                            [](auto& rival) { return workloads::allocation_pressure(rival); });
  pressure.add(kind::limit, "bare malloc + free of the block", workloads::bare_blocks);
  pressure.add(kind::limit, "malloc here, free there, an array between", workloads::blocks_handed_over);
  pressure.run(how);
}
