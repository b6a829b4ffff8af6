// sync/small_lock.hpp - a lock of one word, for a few lines at a time
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.hpp"
#include "base/pause.hpp"
#include "wait/parker.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Free, held, or held and somebody sleeps (U. Drepper, Futexes are tricky, 2011, mutex2). After the step that
// gives it back only its address is used, so whoever has it next may destroy it.
//
// Edge [small]: what was done under the lock. L8 given back (release); L9 taken (acquire). Rule: L9 reads
// L8, or what was built on it by read-modify-writes, and synchronises with it [intro.races].
template <class Traits>
class small_lock {
 public:
  small_lock() noexcept = default;
  small_lock(const small_lock&) = delete;
  small_lock& operator=(const small_lock&) = delete;

  void lock() noexcept {
    std::uint32_t seen = free;
    if (word_.compare_exchange_strong(seen, held, std::memory_order_acquire,  // [small] L9
                                      std::memory_order_relaxed)) {  // a hint; lock_slowly() looks again
      return;
    }
    lock_slowly();
  }
  void unlock() noexcept {
    auto& word = word_;
    if (word.exchange(free, std::memory_order_release) == slept_on) Traits::parker::wake_one(word);  // [small] L8
  }

 private:
  enum : std::uint32_t { free, held, slept_on };
  static constexpr int looks = 12;  // what a few lines take, several times over

  HYBRIDLOOP_OUT_OF_LINE void lock_slowly() noexcept {
    for (int i = 0; i < looks; ++i) {
      std::uint32_t seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
      if (seen == free && word_.compare_exchange_weak(seen, held, std::memory_order_acquire,  // [small] L9
                                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return;
      }
      for (int pauses = i < 4 ? 1 << i : 16; pauses != 0; --pauses) cpu_pause();
    }
    while (word_.exchange(slept_on, std::memory_order_acquire) != free) {  // [small] L9
      Traits::parker::wait(word_, slept_on, never);
    }
  }

  typename Traits::template atomic<std::uint32_t> word_{free};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
