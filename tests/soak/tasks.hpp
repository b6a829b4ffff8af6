// tasks.hpp - closures of all kinds: small, too large for a slot, throwing
#pragma once

#include "soak/ledger.hpp"

namespace soak {

struct oops {};

inline auto task(entry& e) {
  return [e = charge(e)] { e.run(); };
}

inline auto large(entry& e) {
  struct bulk {
    unsigned char bytes[200];
  };
  bulk b{};
  b.bytes[199] = 7;
  return [e = charge(e), b] {
    promise(b.bytes[199] == 7, "a large closure arrives whole");
    e.run();
  };
}
inline auto throwing(entry& e) {
  return [e = charge(e)] {
    e.run();
    throw oops();
  };
}

}  // namespace soak
