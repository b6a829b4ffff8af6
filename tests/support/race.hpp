// race.hpp - what a test needs that aims at a window: chance, short delays, threads that meet
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>

#include <hybridloop.hpp>

namespace support {

// Numbers of chance, the same on every machine (G. Marsaglia's xorshift, 2003).
class dice {
 public:
  explicit dice(std::uint64_t seed) : state_(seed * 2654435761u + 1) {}

  // 0 to sides - 1.
  std::size_t roll(std::size_t sides) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<std::size_t>((state_ >> 11) % sides);
  }

 private:
  std::uint64_t state_;
};

// Nanoseconds rather than a sleep: a sleep never ends near the window.
inline void dawdle(std::size_t loops) {
  for (std::size_t i = 0; i < loops; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Where the same threads meet again and again: nobody goes on before everybody is there.
class rendezvous {
 public:
  explicit rendezvous(std::size_t party) : party_(party) {}

  void meet() {
    const std::size_t meeting = meetings_;
    if (++here_ == party_) {
      here_ = 0;
      ++meetings_;
      return;
    }
    while (meetings_ == meeting) std::this_thread::yield();
  }

 private:
  const std::size_t party_;
  std::atomic<std::size_t> here_{0};
  std::atomic<std::size_t> meetings_{0};
};

// A loop whose threads lose their CPU in the middle of a race window every few times.
struct stuttering_traits : hybridloop::default_traits {
  static void schedule_point(const char*) noexcept {
    static thread_local dice chance(reinterpret_cast<std::uintptr_t>(&chance));
    if (chance.roll(4) == 0) std::this_thread::yield();
  }
};
using stuttering_loop = hybridloop::basic_loop<stuttering_traits>;

// How far a loop of watched_traits is on its way to sleep. One loop at a time; who wakes it says
// that it is up.
enum step : std::size_t { up, before_park, park_published, before_sleep, steps };
inline std::atomic<std::size_t> reached{up};

template <class Base = hybridloop::default_traits>
struct watched_traits : Base {
  static void schedule_point(const char* name) noexcept {
    if (std::strcmp(name, "before-park") == 0) reached = before_park;
    if (std::strcmp(name, "park-published") == 0) reached = park_published;
    if (std::strcmp(name, "before-sleep") == 0) reached = before_sleep;
    Base::schedule_point(name);
  }
};

// Waits until the loop is at a step of chance, and a moment of chance longer.
inline void take_aim(dice& chance) {
  const std::size_t target = chance.roll(steps);
  while (reached < target) {
    for (int i = 0; i < 100 && reached < target; ++i) dawdle(1);
    if (reached < target) std::this_thread::yield();
  }
  dawdle(chance.roll(400));
}

}  // namespace support
