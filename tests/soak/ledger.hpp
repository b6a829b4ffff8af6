// ledger.hpp - what was given to a loop, what became of it, and what must have become of it
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <utility>

#include <hybridloop.hpp>

namespace soak {

// The end of the program; its first line of output has the seed.
[[noreturn]] inline void broken(const char* promise) {
  std::fflush(stdout);
  std::fprintf(stderr, "\nBROKEN: %s\n", promise);
  std::abort();
}
inline void promise(bool kept, const char* what) {
  if (!kept) broken(what);
}

// Things of one line run in the order in which they were given. The last one is known to whoever is
// the loop, and is a plain number: a loop that were in two places at once would be a race.
struct line {
  std::uint64_t given = 0;
  std::uint64_t last_run = 0;
};

// One thing that was given. Where it is kept it stays until the loop is gone.
struct entry {
  bool accepted = false;         // written by who gave it
  std::atomic<int> ran{0};
  std::atomic<int> alive{0};     // closures that hold it
  line* order = nullptr;
  std::uint64_t number = 0;
};

// What a closure holds: it says when the closure runs, and when the last copy of it is gone.
class charge {
 public:
  explicit charge(entry& e) : entry_(&e) { ++e.alive; }
  charge(charge&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}
  charge& operator=(charge&&) = delete;
  ~charge() {
    if (entry_ != nullptr) --entry_->alive;
  }

  void run() const {
    promise(entry_ != nullptr && entry_->alive == 1, "a closure runs whole, and is held once");
    promise(++entry_->ran == 1, "nothing runs twice");
    if (entry_->order == nullptr) return;
    promise(entry_->number > entry_->order->last_run, "what one thread gives runs in that order");
    entry_->order->last_run = entry_->number;
  }

 private:
  entry* entry_;
};

class ledger {
 public:
  // `order`: the line it belongs to, or nullptr where no order is promised.
  entry& open(line* order) {
    entry& e = entries_.emplace_back();
    e.order = order;
    if (order != nullptr) e.number = ++order->given;
    return e;
  }

  // The loop is gone. `drained`: it was closed, and ran until it returned by itself.
  void settle(bool drained) const {
    for (const entry& e : entries_) {
      promise(e.alive == 0, "every closure is destroyed");
      promise(e.accepted || e.ran == 0, "what was refused never runs");
      promise(!drained || !e.accepted || e.ran == 1, "what was accepted runs before a closed loop returns");
    }
  }
  std::size_t size() const { return entries_.size(); }

 private:
  std::deque<entry> entries_;
};

}  // namespace soak
