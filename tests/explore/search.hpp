// search.hpp - which schedules are tried: all up to a bound, some by chance, one again
#pragma once

#include <cstdint>
#include <vector>

#include "explore/engine.hpp"

namespace explore {

// Numbers of chance, the same on every machine (S. Vigna's splitmix64, 2015).
class dice {
 public:
  explicit dice(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t roll(std::uint64_t sides) noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % sides;
  }

 private:
  std::uint64_t state_;
};

// Every schedule whose costs add up to `bound` at most, depth first (CHESS: M. Musuvathi, S. Qadeer, 2007).
class walker : public strategy {
 public:
  explicit walker(unsigned bound) noexcept : bound_(bound), left_(bound) {}

  unsigned choose(const option* options, unsigned count, std::uint32_t tick) override;
  // To the next schedule. False: that was the last.
  bool next();

 private:
  struct fork {
    std::uint32_t tick;
    unsigned chosen;
    std::uint64_t later;  // options that are still to be tried, as bits
  };
  const unsigned bound_;
  unsigned left_;
  std::size_t depth_ = 0;
  std::vector<fork> forks_;
};

// By chance: every other scene by priorities that change at a few random places (PCT: S. Burckhardt
// et al., 2010), the others by a random walk.
class wanderer : public strategy {
 public:
  wanderer(std::uint64_t seed, std::uint64_t run, std::uint32_t usual_ticks);
  unsigned choose(const option* options, unsigned count, std::uint32_t tick) override;

 private:
  unsigned event(const option* options, unsigned count);
  unsigned by_priority(const option* options, unsigned count);

  dice dice_;
  const bool by_priority_;
  std::uint64_t restless_ = 0;  // a walk strays from its way once in so many choices
  std::array<std::uint64_t, most_threads> priority_{};
  std::vector<std::uint32_t> changes_;  // ticks
};

// What a schedule says; where it says nothing, the first option.
class replayer : public strategy {
 public:
  explicit replayer(std::vector<deviation> what) noexcept : what_(std::move(what)) {}
  unsigned choose(const option*, unsigned, std::uint32_t tick) override {
    if (at_ == what_.size() || what_[at_].tick != tick) return 0;
    return what_[at_++].option;
  }
  bool complete() const noexcept { return at_ == what_.size(); }

 private:
  std::vector<deviation> what_;
  std::size_t at_ = 0;
};

}  // namespace explore
