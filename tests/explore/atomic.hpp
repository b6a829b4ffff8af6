// atomic.hpp - std::atomic's interface, each operation a step of the engine
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

#include "explore/engine.hpp"

namespace explore {

template <class T>
class atomic {
  static_assert(sizeof(T) <= 8, "a word");
  using order = std::memory_order;
  using change = engine::change;

 public:
  using value_type = T;

  constexpr atomic() noexcept = default;
  constexpr atomic(T value) noexcept : value_(value) {}  // as std::atomic's: not explicit
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  T load(order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    return unpack(engine::the().load(&value_, sizeof(T), o, {file, line}));
  }
  void store(T value, order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    engine::the().store(&value_, sizeof(T), pack(value), o, {file, line});
  }
  T exchange(T value, order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return modify(change::put, value, o, {file, line});
  }
  T fetch_add(T value, order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return modify(change::add, value, o, {file, line});
  }
  T fetch_sub(T value, order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return modify(change::subtract, value, o, {file, line});
  }
  T fetch_or(T value, order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return modify(change::set, value, o, {file, line});
  }
  T fetch_and(T value, order o, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return modify(change::keep, value, o, {file, line});
  }
  bool compare_exchange_strong(T& expected, T desired, order o, order failed,
                               const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    std::uint64_t seen = pack(expected);
    const bool done = engine::the().exchange_if(&value_, sizeof(T), seen, pack(desired), o, failed, {file, line});
    if (!done) expected = unpack(seen);
    return done;
  }
  bool compare_exchange_strong(T& expected, T desired, order o, const char* file = __builtin_FILE(),
                               int line = __builtin_LINE()) {
    return compare_exchange_strong(expected, desired, o, weaker(o), file, line);
  }
  bool compare_exchange_weak(T& expected, T desired, order o, order failed,
                             const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return compare_exchange_strong(expected, desired, o, failed, file, line);
  }
  bool compare_exchange_weak(T& expected, T desired, order o, const char* file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return compare_exchange_strong(expected, desired, o, weaker(o), file, line);
  }

  // What a futex compares: memory, not what the caller has on its way there.
  T in_memory() const noexcept { return value_; }
  const void* address() const noexcept { return &value_; }

 private:
  static constexpr order weaker(order o) noexcept {
    return o == std::memory_order_acq_rel   ? std::memory_order_acquire
           : o == std::memory_order_release ? std::memory_order_relaxed
                                            : o;
  }
  static std::uint64_t pack(T value) noexcept {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
  }
  static T unpack(std::uint64_t bits) noexcept {
    T value{};
    std::memcpy(&value, &bits, sizeof(T));
    return value;
  }
  T modify(change how, T operand, order o, site s) {
    return unpack(engine::the().modify(&value_, sizeof(T), how, pack(operand), o, s));
  }

  T value_{};
};

}  // namespace explore
