// choices.hpp - where a random program takes its decisions from: a seed, or the bytes of a fuzzer
#pragma once

#include <cstddef>
#include <cstdint>

namespace soak {

// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good one, and two that differ by one have
// nothing in common.
inline std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class choices {
 public:
  explicit choices(std::uint64_t seed) : state_(seed) {}
  choices(const std::uint8_t* bytes, std::size_t size) : next_(bytes), end_(bytes + size), counted_(true) {}

  // Bytes run out; a seed never does.
  bool left() const { return !counted_ || next_ != end_; }

  // 0 <= answer < n; n > 0. Without bytes: 0.
  std::size_t below(std::size_t n) {
    if (!counted_) return static_cast<std::size_t>(word() % n);
    std::size_t value = 0;
    for (std::size_t range = 1; range < n && next_ != end_; range *= 256) value = value * 256 + *next_++;
    return value % n;
  }
  bool one_in(std::size_t n) { return below(n) == 0; }
  std::size_t between(std::size_t least, std::size_t most) { return least + below(most - least + 1); }

  template <class T, std::size_t N>
  const T& any_of(const T (&all)[N]) {
    return all[below(N)];
  }

 private:
  std::uint64_t word() { return mixed(state_ += 0x9e3779b97f4a7c15u); }

  std::uint64_t state_ = 0;
  const std::uint8_t* next_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  bool counted_ = false;
};

}  // namespace soak
