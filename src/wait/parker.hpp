// wait/parker.hpp - sleeping on a 32-bit word until another thread wakes it or a deadline comes
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

#include "base/clock.hpp"
#include "wait/kernel.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// What a parker is. A traits type may bring another one of the same shape.
//
//   wait(word, expected, deadline)   returns when the word no longer holds `expected`, when it was
//                                    woken, when the deadline passed, or for no reason at all: the
//                                    caller looks at the word. Deadlines are absolute.
//   wake_one(word), wake_all(word)   any thread, any signal handler (but see wait/parking_lot.hpp).
//                                    Only the address is used: the word may be gone, then at worst a
//                                    stranger wakes for no reason.
//   wait(word, expected, deadline, mask), wake_all(word, mask)
//                                    where the kernel can: a wake reaches those whose mask has a bit of it
//
// This one leaves it to the kernel seam, where each system has its own way.
template <class Kernel>
struct system_parker {
  static constexpr const char* name = Kernel::parking;

  template <class Word>
  static void wait(const Word& word, std::uint32_t expected, nanos deadline) noexcept {
    static_assert(sizeof(Word) == 4, "the kernel compares 32 bits");
    Kernel::futex_wait(&word, expected, deadline);
  }
  template <class Word>
  static auto wait(const Word& word, std::uint32_t expected, nanos deadline, std::uint32_t mask) noexcept
      -> decltype(static_cast<void>(Kernel::futex_wait(&word, expected, deadline, mask))) {
    Kernel::futex_wait(&word, expected, deadline, mask);
  }
  template <class Word>
  static void wake_one(const Word& word) noexcept {
    Kernel::futex_wake(&word, 1);
  }
  template <class Word>
  static void wake_all(const Word& word) noexcept {
    Kernel::futex_wake(&word, (std::numeric_limits<int>::max)());
  }
  template <class Word>
  static auto wake_all(const Word& word, std::uint32_t mask) noexcept
      -> decltype(static_cast<void>(Kernel::futex_wake(&word, 1, mask))) {
    Kernel::futex_wake(&word, (std::numeric_limits<int>::max)(), mask);
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
