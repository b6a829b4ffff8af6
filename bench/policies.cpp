// policies.cpp - full, mini and off side by side: on the workloads of the others, and with mixed loads
#include <cstddef>
#include <string>

#include "support/bench.hpp"
#include "support/loads.hpp"
#include "support/rivals.hpp"
#include "support/wake.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using hybridloop::fast_path;
using rivals::ours;

template <class Load, class Measure>
void side_by_side(const bench::options& how, const std::string& title, Measure measure) {
  bench::family table("policies: " + title + Load::name);
  const auto loaded = [measure](auto& rival) {
    const Load load(rival.loop());
    return measure(rival);
  };
  rivals::add<ours<fast_path::full>>(table, kind::ours, loaded);
  rivals::add<ours<fast_path::mini>>(table, kind::ours, loaded);
  rivals::add<ours<fast_path::off>>(table, kind::ours, loaded);
  table.run(how);
}

template <class Load>
void round_of(const bench::options& how) {
  side_by_side<Load>(how, "PingPong", [](auto& rival) { return workloads::throughput(rival, 1); });
  side_by_side<Load>(how, "PingPongLatency, waiter spins",
                     [](auto& rival) { return workloads::latency_spinning(rival); });
  side_by_side<Load>(how, "PingPongLatency, waiter blocks",
                     [](auto& rival) { return workloads::latency_blocking(rival); });
}

void wakes(const bench::options& how, wake::state s, wake::place p) {
  bench::family table(std::string("policies: wake, ") + name_of(s) + ", " + name_of(p), "ns");
  wake::add<ours<fast_path::full>>(table, kind::ours, s, p);
  wake::add<ours<fast_path::mini>>(table, kind::ours, s, p);
  wake::add<ours<fast_path::off>>(table, kind::ours, s, p);
  table.run(how);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  round_of<loads::nothing>(how);
  for (const std::size_t producers : {2u, 4u, 10u, 64u}) {
    const std::string title = "MultiProducer, " + std::to_string(producers) + " producers";
    side_by_side<loads::nothing>(how, title, [producers](auto& rival) {
      return workloads::throughput(rival, producers);
    });
  }
  side_by_side<loads::nothing>(how, "allocation pressure",
                               [](auto& rival) { return workloads::allocation_pressure(rival); });
  for (const auto s : {wake::state::running, wake::state::spinning, wake::state::parked,
                       wake::state::parked_with_watch}) {
    for (const auto p : {wake::place::other_core, wake::place::same_core, wake::place::one_core}) {
      if (p == wake::place::other_core && bench::cpus().size() < 2) continue;
      wakes(how, s, p);
    }
  }
  round_of<loads::one_watch<false>>(how);
  round_of<loads::one_watch<true>>(how);
  round_of<loads::ticks>(how);
}
