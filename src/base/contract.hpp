// base/contract.hpp - a broken contract stops the program with the sentence that was broken
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "base/config.hpp"

HYBRIDLOOP_OPEN

// What is called with a sentence when the program cannot go on: a broken contract, or, in a
// build without exceptions, a refusal that would have been thrown. It must not return.
using failure_handler = void (*)(const char* sentence);

namespace detail {

inline std::atomic<failure_handler>& failure_slot() noexcept {
  static std::atomic<failure_handler> slot{nullptr};
  return slot;
}

// Any thread. A handler that returns is followed by abort().
[[noreturn]] inline void fail(const char* sentence) {
  failure_handler handler =
      failure_slot().load(std::memory_order_acquire);  // [handler] what it was set up with
  if (handler != nullptr) handler(sentence);
  std::fputs("hybridloop: ", stderr);
  std::fputs(sentence, stderr);
  std::fputs("\n", stderr);
  std::abort();
}

}  // namespace detail

// Edge [handler]: a handler sees what its installer wrote before installing it (release by the
// exchange, acquire by the load in fail()). Rule: synchronises-with [atomics.order].
//
// Any thread. Returns the handler before it; nullptr is the default, which prints and aborts.
inline failure_handler set_failure_handler(failure_handler handler) noexcept {
  return detail::failure_slot().exchange(handler, std::memory_order_acq_rel);  // [handler]
}

HYBRIDLOOP_CLOSE

// HYBRIDLOOP_CONTRACT(condition, sentence)       a statement   default: fail(sentence)
//
//   Replaceable: map it to your engine's assert, or to nothing.
#ifndef HYBRIDLOOP_CONTRACT
#define HYBRIDLOOP_CONTRACT(condition, sentence) \
  ((condition) ? static_cast<void>(0) : ::HYBRIDLOOP_NAMESPACE::detail::fail(sentence))
#define HYBRIDLOOP_DEFAULTED_CONTRACT
#endif
