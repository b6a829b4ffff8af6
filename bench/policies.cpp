// policies.cpp - full, mini and off side by side: on the workloads of the others, and with mixed loads
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
void side_by_side(const bench::options& how, const char* title, Measure measure) {
  bench::family table(std::string("policies: ") + title + Load::name);
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
  side_by_side<loads::nothing>(how, "MultiProducer, 10 producers",
                               [](auto& rival) { return workloads::throughput(rival, 10); });
  side_by_side<loads::nothing>(how, "allocation pressure",
                               [](auto& rival) { return workloads::allocation_pressure(rival); });
  for (const auto s : {wake::state::running, wake::state::spinning, wake::state::parked,
                       wake::state::parked_with_watch}) {
    const bool two = bench::cpus().size() > 1;
    wakes(how, s, two ? wake::place::other_core : wake::place::one_core);
  }
  round_of<loads::one_watch<false>>(how);
  round_of<loads::one_watch<true>>(how);
  round_of<loads::ticks>(how);
}
