// policies.cpp - full, mini and off side by side: on the workloads of the others, and with mixed loads
#include <chrono>
#include <cstdint>
#include <string>

#include <sys/eventfd.h>
#include <unistd.h>

#include "support/bench.hpp"
#include "support/rivals.hpp"
#include "support/wake.hpp"
#include "support/workloads.hpp"

namespace {

using bench::kind;
using hybridloop::fast_path;
using rivals::ours;

// ---- What else the loop has to do ----

struct nothing {
  static constexpr const char* name = "";
  explicit nothing(hybridloop::loop&) {}
};

// Watches an eventfd that holds `ready`: with 1 it is ready in every turn, with 0 in none.
template <unsigned ready>
struct one_watch {
  static constexpr const char* name = ready == 0 ? ", 1 watch idle" : ", 1 watch busy";
  explicit one_watch(hybridloop::loop& loop) : loop_(loop) {
    loop_.invoke([this] { id_ = loop_.watch(fd_, hybridloop::interest::readable, [] {}); });
  }
  one_watch(const one_watch&) = delete;
  ~one_watch() {
    loop_.invoke([this] { loop_.unwatch(id_); });
    ::close(fd_);
  }

 private:
  hybridloop::loop& loop_;
  int fd_ = ::eventfd(ready, EFD_CLOEXEC | EFD_NONBLOCK);
  hybridloop::watch_id id_;
};

struct ticks {
  static constexpr const char* name = ", a timer every ms";
  explicit ticks(hybridloop::loop& loop) : loop_(loop), id_(loop.every(std::chrono::milliseconds(1), [] {})) {}
  ticks(const ticks&) = delete;
  ~ticks() { loop_.cancel(id_); }

 private:
  hybridloop::loop& loop_;
  hybridloop::timer_id id_;
};

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
  side_by_side<Load>(how, "PingPongLatency, waiter spins", [](auto& rival) { return workloads::latency_spinning(rival); });
  side_by_side<Load>(how, "PingPongLatency, waiter blocks", [](auto& rival) { return workloads::latency_blocking(rival); });
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
  round_of<nothing>(how);
  side_by_side<nothing>(how, "MultiProducer, 10 producers", [](auto& rival) { return workloads::throughput(rival, 10); });
  side_by_side<nothing>(how, "allocation pressure", [](auto& rival) { return workloads::allocation_pressure(rival); });
  for (const auto s : {wake::state::running, wake::state::spinning, wake::state::parked, wake::state::parked_with_watch}) {
    const bool two = bench::cpus().size() > 1;
    wakes(how, s, two ? wake::place::other_core : wake::place::one_core);
  }
  round_of<one_watch<0>>(how);
  round_of<one_watch<1>>(how);
  round_of<ticks>(how);
}
