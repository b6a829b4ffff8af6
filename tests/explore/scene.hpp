// scene.hpp - how a scenario is written, and the list of all
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "explore/ledger.hpp"
#include "explore/seams.hpp"

namespace explore {

// A function that makes things, starts threads, plays, and looks at what came of it; played again and
// again, so it must do the same each time.
struct scenario {
  const char* name;
  void (*play)();
  unsigned preemptions;     // walked exhaustively up to so many
  bool rouses = false;      // sleepers wake for no reason
};

std::vector<scenario>& scenarios();

struct enlist {
  enlist(const char* name, unsigned preemptions, void (*play)(), bool rouses = false) {
    scenarios().push_back({name, play, preemptions, rouses});
  }
};

template <class F>
void start(const char* name, F&& body) {
  engine::the().start(name, std::forward<F>(body));
}
inline void play() { engine::the().play(); }

// Whoever of a party comes last does it.
class last_one {
 public:
  last_one(unsigned party, std::function<void()> what) : left_(party), what_(std::move(what)) {}
  void done() {
    if (--left_ == 0) what_();
  }

 private:
  unsigned left_;
  std::function<void()> what_;
};

inline hybridloop::loop_options small_loop(std::size_t ring = 2, std::size_t arena = 4) {
  hybridloop::loop_options options;
  options.ring_capacity = ring;
  options.arena_capacity = arena;
  options.spin = std::chrono::nanoseconds(0);
  return options;
}

// A scenario for each fence that it is listed with.
#define EXPLORE(name, preemptions) \
  static void name();              \
  static const explore::enlist name##_listed(#name, preemptions, &name); \
  static void name()
#define EXPLORE_ROUSED(name, preemptions) \
  static void name();                     \
  static const explore::enlist name##_listed(#name, preemptions, &name, true); \
  static void name()

}  // namespace explore
