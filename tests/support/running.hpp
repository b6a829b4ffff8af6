// running.hpp - loops that run on a thread of their own, wherever a loop can sleep
#pragma once

#include "support/support.hpp"

namespace support {

// Where a loop can sleep, and what makes it sleep there.
struct place {
  std::string name;
  hybridloop::fast_path path;
  bool watches;
};
inline const place in_channel{"the channel", hybridloop::fast_path::full, false};
inline const place in_poller{"the poller, for a watch", hybridloop::fast_path::full, true};
inline const place in_bare_poller{"the poller, always", hybridloop::fast_path::off, false};
inline const place in_mini{"the channel, beside a companion", hybridloop::fast_path::mini, true};
inline const place everywhere[] = {in_channel, in_poller, in_bare_poller, in_mini};

inline hybridloop::loop_options tiny(std::size_t ring, std::size_t arena = 0,
                                     hybridloop::overflow when_full = hybridloop::overflow::spill) {
  hybridloop::loop_options options;
  options.ring_capacity = ring;
  options.arena_capacity = arena;
  options.when_full = when_full;
  return options;
}

// A loop that sleeps in the given place; if it takes a watch to make it sleep there, that one stays
// silent and keeps nothing alive.
template <class Loop = hybridloop::loop>
class loop_in {
 public:
  explicit loop_in(const place& where, hybridloop::loop_options options = {})
      : loop_(with_path(options, where.path)) {
    if (!where.watches) return;
    loop_.unref(loop_.watch(silent_.left(), hybridloop::interest::readable, [] {}));
  }

  Loop& operator*() { return loop_; }
  Loop* operator->() { return &loop_; }

 private:
  static hybridloop::loop_options with_path(hybridloop::loop_options options,
                                            hybridloop::fast_path path) {
    options.path = path;
    return options;
  }

  socket_pair silent_;
  Loop loop_;
};

// Runs a loop until the end of the scope.
template <class Loop>
class running {
 public:
  explicit running(Loop& l) : loop_(l), thread_([&l] { l.run(); }) {}
  ~running() { loop_.stop(); }

 private:
  Loop& loop_;
  scoped_thread thread_;
};

// Waits until the loop has gone to sleep so many times in all.
template <class Loop>
void await_parks(const Loop& l, std::uint64_t times) {
  while (l.stats().parks < times) std::this_thread::sleep_for(20us);
}

template <class Condition>
void await(const Condition& holds) {
  while (!holds()) std::this_thread::sleep_for(20us);
}

// Has another thread do it, and waits for the end of that.
template <class F>
void elsewhere(F&& f) {
  const scoped_thread other(std::forward<F>(f));
}

// What became of a closure, however often it was moved.
struct fate {
  std::atomic<int> ran{0};
  std::atomic<int> destroyed{0};
};

// A closure of `Size` bytes that reports to its fate; more than 48 take a block of the arena, more
// than 128 the heap.
template <std::size_t Size = sizeof(void*)>
class witness {
 public:
  explicit witness(fate& f) : fate_(&f) {}
  witness(witness&& other) noexcept : fate_(std::exchange(other.fate_, nullptr)) {}
  witness& operator=(witness&&) = delete;
  ~witness() {
    if (fate_ != nullptr) ++fate_->destroyed;
  }
  bool intact() const { return fate_ != nullptr; }
  void operator()() { ++fate_->ran; }

 private:
  fate* fate_;
  char ballast_[Size > sizeof(void*) ? Size - sizeof(void*) : 1] = {};
};

}  // namespace support
