// search.cpp - the choices of the strategies
#include "explore/search.hpp"

#include <algorithm>

namespace explore {

unsigned walker::choose(const option* options, unsigned count, std::uint32_t tick) {
  std::uint64_t allowed = 0;
  for (unsigned i = 0; i < count; ++i) allowed |= std::uint64_t{options[i].cost <= left_} << i;
  unsigned chosen = 0;
  if ((allowed & (allowed - 1)) != 0) {
    if (depth_ == forks_.size()) forks_.push_back({tick, 0, allowed & (allowed - 1)});
    const fork& f = forks_[depth_++];
    if (f.tick != tick) engine::the().fail("the scene is not the same each time");
    chosen = f.chosen;
  }
  left_ -= options[chosen].cost;
  return chosen;
}

bool walker::next() {
  left_ = bound_;
  depth_ = 0;
  for (; !forks_.empty(); forks_.pop_back()) {
    fork& f = forks_.back();
    if (f.later == 0) continue;
    while ((f.later >> ++f.chosen & 1) == 0) {
    }
    f.later &= f.later - 1;
    return true;
  }
  return false;
}

wanderer::wanderer(std::uint64_t seed, std::uint64_t run, std::uint32_t usual_ticks)
    : dice_(seed * 0x100000001b3u + run), by_priority_(run % 2 == 0) {
  dice_.roll(2);
  restless_ = std::uint64_t{4} << 2 * dice_.roll(3);
  for (std::uint64_t& p : priority_) p = 1000 + dice_.roll(1000000);
  for (std::uint64_t n = dice_.roll(4) + 1; n != 0; --n) {
    changes_.push_back(static_cast<std::uint32_t>(dice_.roll(usual_ticks) + 1));
  }
  std::sort(changes_.begin(), changes_.end(), std::greater<>());
}

unsigned wanderer::choose(const option* options, unsigned count, std::uint32_t tick) {
  if (const unsigned other = event(options, count); other != 0) return other;
  while (!changes_.empty() && changes_.back() <= tick) {
    priority_[options[0].thread] = changes_.size();
    changes_.pop_back();
  }
  if (by_priority_) return by_priority(options, count);
  const bool could_go_on = options[count - 1].cost != 0;
  if (could_go_on && dice_.roll(restless_) != 0) return 0;
  const auto other = static_cast<unsigned>(dice_.roll(count));
  return options[other].what == option::go ? other : 0;
}

// Stores that arrive, time that passes, sleepers that stir. 0: none of it.
unsigned wanderer::event(const option* options, unsigned count) {
  for (unsigned i = 1; i < count; ++i) {
    if (options[i].what == option::go) continue;
    if (dice_.roll(options[i].what == option::drain ? 8 : 64) == 0) return i;
  }
  return 0;
}

unsigned wanderer::by_priority(const option* options, unsigned count) {
  unsigned best = 0;
  for (unsigned i = 1; i < count; ++i) {
    if (options[i].what != option::go) continue;
    const std::uint64_t mine = priority_[options[i].thread];
    const std::uint64_t other = priority_[options[best].thread];
    // The same thread again: with fewer of the stores in memory.
    const bool variant = options[i].thread == options[best].thread && dice_.roll(2) == 0;
    if (mine > other || variant) best = i;
  }
  return best;
}

}  // namespace explore
