// waiting.hpp - what scenarios of semaphores and their kin are written with
#pragma once

#include <new>
#include <utility>

#include "explore/ledger.hpp"
#include "explore/seams.hpp"

namespace explore {

using hybridloop::wait_status;

// Whoever waits goes to sleep at once.
struct waiting_traits : symmetric_traits {
  struct kernel : explore::kernel {
    static unsigned usable_cpus() noexcept { return 1; }
  };
};

template <class Queue, class Fairness>
using semaphore_of = hybridloop::basic_semaphore<Queue, Fairness>;

// For segments: those that nobody can look at any more are given back there, so that a touch is seen.
struct page_memory {
  static void* take(std::size_t bytes, std::size_t) noexcept { return engine::the().memory().take(bytes); }
  static void give(void* memory, std::size_t bytes, std::size_t) noexcept { engine::the().memory().give(memory, bytes); }
};

// In memory that dies with it: a touch of it later on is seen.
template <class T>
class paged {
 public:
  template <class... Args>
  explicit paged(Args... args) : it_(::new (engine::the().memory().take(sizeof(T))) T(args...)) {}
  paged(const paged&) = delete;
  paged& operator=(const paged&) = delete;
  ~paged() { destroy(); }
  void destroy() {
    if (it_ == nullptr) return;
    it_->~T();
    engine::the().memory().give(std::exchange(it_, nullptr), sizeof(T));
  }
  T& operator*() const { return *it_; }
  T* operator->() const { return it_; }

 private:
  T* it_;
};

// A deadline that comes when the engine likes.
inline clock::time_point soon() { return clock::time_point(clock::duration(engine::the().now() + 1000)); }

// What a semaphore lets so many threads into at a time. Nobody is in there without its permits, and none of
// these are lost.
template <class Semaphore>
class protected_by {
 public:
  protected_by(Semaphore& s, std::ptrdiff_t most) : semaphore_(s), most_(most) {}

  // Whoever is granted them goes in, and gives them back.
  void visit(wait_status how, std::ptrdiff_t n = 1) {
    if (how != wait_status::granted) return;
    inside_ += n;
    ledger::must(inside_ <= most_, "more are inside than there are permits");
    if (most_ == 1) engine::the().touch(&inside_, true);
    engine::the().breathe("inside");
    inside_ -= n;
    semaphore_.release(n);
  }
  void check(std::ptrdiff_t permits) const {
    ledger::must(inside_ == 0 && semaphore_.available() == permits, "a permit was lost, or made");
  }

 private:
  Semaphore& semaphore_;
  const std::ptrdiff_t most_;
  std::ptrdiff_t inside_ = 0;
};

}  // namespace explore
