// wakes.cpp - post to run in the four states of a loop, on three placements, against rivals and kernel
#include <string>

#include "support/bench.hpp"
#include "support/limits.hpp"
#include "support/place.hpp"
#include "support/rivals.hpp"
#include "support/wake.hpp"

namespace {

using bench::kind;
using wake::place;
using wake::state;

void measure(const bench::options& how, state s, place p) {
  bench::family table(std::string("wake: ") + name_of(s) + ", " + name_of(p), "ns");
  wake::add<rivals::ours<>>(table, kind::ours, s, p);
  wake::add<rivals::libuv>(table, kind::rival, s, p);
  wake::add<rivals::asio_post>(table, kind::rival, s, p);
  wake::add<rivals::libevent>(table, kind::rival, s, p);
  wake::add<rivals::libev>(table, kind::rival, s, p);
  wake::add<rivals::condvar>(table, kind::rival, s, p);
  if (s == state::spinning && p == place::other_core)
    wake::add_limit<limits::cache_line>(table, s, p);
  if (s != state::running) {
    wake::add_limit<limits::futex_wake>(table, s, p);
    wake::add_limit<limits::eventfd_wake>(table, s, p);
  }
  table.run(how);
}

}  // namespace

int main(int argc, char** argv) {
  const bench::options how(argc, argv);
  for (const state s : {state::running, state::spinning, state::parked, state::parked_with_watch}) {
    for (const place p : {place::other_core, place::same_core, place::one_core}) {
      if (p == place::other_core && bench::cpus().size() < 2) continue;
      measure(how, s, p);
    }
  }
}
