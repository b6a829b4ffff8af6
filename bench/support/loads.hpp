// loads.hpp - what else a loop of ours has to do while it is measured
#pragma once

#include <chrono>

#include <hybridloop.hpp>

#include <unistd.h>

#include "measure.hpp"

namespace loads {

struct nothing {
  static constexpr const char* name = "";
  explicit nothing(hybridloop::loop&) {}
};

// Watches a pipe. A byte that nobody reads makes it ready in every turn.
template <bool busy>
class one_watch {
 public:
  static constexpr const char* name = busy ? ", 1 watch busy" : ", 1 watch idle";

  explicit one_watch(hybridloop::loop& loop) : loop_(loop) {
    bench::must(::pipe(ends_) == 0, "a pipe");
    if (busy) bench::must(::write(ends_[1], "b", 1) == 1, "a byte in the pipe");
    loop_.invoke([this] { id_ = loop_.watch(ends_[0], hybridloop::interest::readable, [] {}); });
  }
  one_watch(const one_watch&) = delete;
  ~one_watch() {
    loop_.invoke([this] { loop_.unwatch(id_); });
    ::close(ends_[0]);
    ::close(ends_[1]);
  }

 private:
  hybridloop::loop& loop_;
  int ends_[2] = {-1, -1};
  hybridloop::watch_id id_;
};

class ticks {
 public:
  static constexpr const char* name = ", a timer every ms";

  explicit ticks(hybridloop::loop& loop)
      : loop_(loop), id_(loop.every(std::chrono::milliseconds(1), [] {})) {}
  ticks(const ticks&) = delete;
  ~ticks() { loop_.cancel(id_); }

 private:
  hybridloop::loop& loop_;
  hybridloop::timer_id id_;
};

}  // namespace loads
