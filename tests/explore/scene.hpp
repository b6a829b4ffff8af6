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

// A build for one scenario spares itself the others: what is not enlisted is not instantiated.
#ifndef EXPLORE_ONLY
#define EXPLORE_ONLY ""
#endif
constexpr bool is_wanted(const char* name) {
  const char* only = EXPLORE_ONLY;
  if (*only == '\0') return true;
  while (*name != '\0' && *name == *only) ++name, ++only;
  return *name == *only;
}

template <class Scenario>
bool enlisted(const char* name, unsigned preemptions, bool rouses) {
  if constexpr (Scenario::wanted) scenarios().push_back({name, &Scenario::template act<void>, preemptions, rouses});
  return true;
}

// EXPLORE(name, preemptions) { ... } is a scenario that is walked with up to so many; in EXPLORE_ROUSED,
// sleepers also wake for no reason.
#define EXPLORE(name, preemptions) EXPLORE_(name, preemptions, false)
#define EXPLORE_ROUSED(name, preemptions) EXPLORE_(name, preemptions, true)
#define EXPLORE_(name, preemptions, rouses)                                                        \
  namespace {                                                                                      \
  struct name {                                                                                    \
    static constexpr bool wanted = explore::is_wanted(#name);                                      \
    template <class>                                                                               \
    static void act();                                                                             \
  };                                                                                               \
  }                                                                                                \
  static const bool name##_listed = explore::enlisted<name>(#name, preemptions, rouses);           \
  template <class>                                                                                 \
  void name::act()

}  // namespace explore
