// stops.hpp - a thread that loses its core in the middle of an operation, as often whatever it runs
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>

#include <hybridloop.hpp>

#include "crowd.hpp"

namespace stops {

inline constexpr std::chrono::milliseconds how_long(1);

// Of one thread. Stops are drawn by operation, not by step, so a queue that takes more steps is not stopped more
// often; which step it is, is drawn too. One that an operation did not reach waits for the next.
class chance {
 public:
  static constexpr std::size_t one_in = 400;  // operations
  static constexpr std::size_t deepest = 6;   // steps

  chance(std::size_t seed, bool on) : random_(seed), on_(on) {}
  void begin_operation() {
    stopped_ = false;
    if (on_ && left_ == 0 && random_.below(one_in) == 0) left_ = 1 + random_.below(deepest);
  }
  void step() {
    if (left_ == 0 || --left_ != 0) return;
    stopped_ = true;
    std::this_thread::sleep_for(how_long);
  }
  bool stopped() const { return stopped_; }

 private:
  crowd::dice random_;
  bool on_;
  std::size_t left_ = 0;
  bool stopped_ = false;
};

inline thread_local chance* mine = nullptr;
inline void step() noexcept {
  if (mine != nullptr) mine->step();
}

// Every read-modify-write is a step, so that a small lock can be held meanwhile.
template <class T>
class atomic : public std::atomic<T> {
  using base = std::atomic<T>;

 public:
  using base::base;

  T exchange(T to, std::memory_order order = std::memory_order_seq_cst) noexcept {
    const T before = base::exchange(to, order);
    step();
    return before;
  }
  T fetch_add(T n, std::memory_order order = std::memory_order_seq_cst) noexcept {
    const T before = base::fetch_add(n, order);
    step();
    return before;
  }
  T fetch_sub(T n, std::memory_order order = std::memory_order_seq_cst) noexcept {
    const T before = base::fetch_sub(n, order);
    step();
    return before;
  }
  template <class... Orders>
  bool compare_exchange_strong(T& seen, T to, Orders... orders) noexcept {
    const bool done = base::compare_exchange_strong(seen, to, orders...);
    step();
    return done;
  }
  template <class... Orders>
  bool compare_exchange_weak(T& seen, T to, Orders... orders) noexcept {
    const bool done = base::compare_exchange_weak(seen, to, orders...);
    step();
    return done;
  }
};

// And so is to have the mutex.
struct kernel : hybridloop::default_traits::kernel {
  class hold : hybridloop::default_traits::kernel::hold {
   public:
    explicit hold(mutex& m) noexcept : hybridloop::default_traits::kernel::hold(m) { step(); }
  };
};

struct traits : hybridloop::default_traits {
  template <class T>
  using atomic = stops::atomic<T>;
  using kernel = stops::kernel;
  static void schedule_point(const char*) noexcept { step(); }
};

}  // namespace stops
