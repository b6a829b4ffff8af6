// session.hpp - all schedules of one scenario, in a process of its own
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "explore/scene.hpp"
#include "explore/search.hpp"

namespace explore {

struct orders {
  std::string only;
  int preemptions = -1;  // -1: the scenario's own
  std::uint64_t random = 2000;
  std::uint64_t seed = 1;
  bool replays = false;
  std::uint64_t replay_after = 0;
  std::vector<deviation> replay;
};

// A schedule as text: NAME@SCENES:TICK.OPTION,TICK.OPTION,... What is contended is learned, and where
// nothing is, is no choice; so the text says after how many scenes that was last learned. 0: every
// atomic counted.
class session {
 public:
  session(const scenario& which, const orders& what) : which_(which), orders_(what) {}

  // Leaves the process when something fails.
  void run();
  std::string summary() const { return summary_; }

 private:
  void play_one(strategy& how, bool everything);
  void learn();
  std::uint64_t walk(unsigned bound);
  void wander(std::uint64_t count, std::uint64_t seed, bool everything);
  void replay();
  [[noreturn]] void report(const char* what) const;
  std::string schedule() const;

  const scenario& which_;
  const orders& orders_;
  std::uint64_t scenes_ = 0;
  std::uint64_t learned_after_ = 0;
  bool warm_ = false;  // statics of the explored code are made
  bool everything_ = true;
  std::uint32_t usual_ticks_ = 100;
  std::string phase_;
  std::string summary_;
};

}  // namespace explore
