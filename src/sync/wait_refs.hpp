// sync/wait_refs.hpp - what was waited for stays until those are out of it who gave up in the last moment
#pragma once

#include <atomic>
#include <cstdint>

#include "sync/waiter.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Whose deadline comes, or whose loop ends, takes itself out of what it waits for. Meanwhile it may be told, and so may
// all others, and the last of them destroy it. So a wait's own word says `leaving` first: who has been
// told by then touches it no more; who is told later is counted, by who tells it before it tells it. Who leaves counts
// itself as well, because it may be out of the account before it is told, and all that are in it are told then:
//
//   who leaves                              who tells it
//   R1  word: waits -> leaving              R5  word: waits -> told, and that is all. Or it says `leaving`:
//   R2  count += 1                          R6  count += 1
//   R3  leaves                              R7  word: -> told. It had left by then ? count -= 1
//   R4  word: leaving -> waits ?
//       count -= 1 : told, count -= 2
//
// The count is 0 unless somebody is on its way, so the destructor waits for a few steps, and for nobody who sleeps. (The
// condition variable of glibc counts all that wait, until they are awake: T. Riegel, 2016.)
//
// Edge [ref]: one less is the last touch of it all by who counts it off (release); R8 the destructor finds none (acquire).
// Rule: every change is a read-modify-write, so R8 meets each in the release sequence of what it reads
// [intro.races]. It reads nothing older than R6, which is behind R1 and before who leaves is told, nor than R2, before
// which it is still owed a token.
template <class Traits>
class wait_refs {
 public:
  wait_refs() noexcept = default;
  wait_refs(const wait_refs&) = delete;
  wait_refs& operator=(const wait_refs&) = delete;

  void add() noexcept { count_.fetch_add(1, std::memory_order_relaxed); }  // [ref] R2, R6
  void drop(std::uint32_t n = 1) noexcept { count_.fetch_sub(n, std::memory_order_release); }  // [ref] R4, R7
  void wait_for_all() const noexcept {
    while (count_.load(std::memory_order_acquire) != 0 && are_here()) Traits::kernel::yield();  // [ref] R8
  }

  // Whether this is the process in which they are on their way.
  bool are_here() const noexcept { return home_.is_here(); }

 private:
  typename Traits::template atomic<std::uint32_t> count_{0};
  birthplace<Traits> home_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
