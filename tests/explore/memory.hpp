// memory.hpp - where the explored code keeps things: words, store buffers, clocks of happens-before
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

namespace explore {

// Who is who: 0 sets a scene and takes it down, the others are the threads on it.
inline constexpr unsigned most_threads = 6;

// What a thread knows of the others: a vector clock (F. Mattern, 1988).
struct stamp {
  std::array<std::uint32_t, most_threads> at{};

  void join(const stamp& other) noexcept {
    for (unsigned i = 0; i < most_threads; ++i) {
      if (other.at[i] > at[i]) at[i] = other.at[i];
    }
  }
};

// An atomic, by its address. The value lies at the address itself, so zeroed memory is valid.
struct location {
  const void* at = nullptr;
  std::uint32_t scene = 0;    // which one the rest belongs to
  std::uint8_t touched = 0;   // by which threads, as bits
  std::uint8_t written = 0;
  bool contended = false;     // in any scene so far: two threads, one of which writes
  stamp released;             // what an acquire of its present value learns
};

// A store on its way to memory.
struct pending_store {
  void* at;
  std::uint64_t value;
  unsigned size;
  bool releases;
  stamp released;
};

inline bool acquires(std::memory_order o) noexcept {
  return o == std::memory_order_acquire || o == std::memory_order_consume ||
         o == std::memory_order_acq_rel || o == std::memory_order_seq_cst;
}
inline bool releases(std::memory_order o) noexcept {
  return o == std::memory_order_release || o == std::memory_order_acq_rel ||
         o == std::memory_order_seq_cst;
}

// All atomics of a scene. Addresses are the same in every scene, so what is known of them stays.
class locations {
 public:
  locations() : table_(size) {}

  location& of(const void* at, std::uint32_t scene) {
    std::size_t i = hash(at);
    while (table_[i].at != at && table_[i].at != nullptr) i = (i + 1) % size;
    location& l = table_[i];
    if (l.at == nullptr) take(l, at);
    if (l.scene != scene) {
      l.scene = scene;
      l.touched = l.written = 0;
      l.released = {};
    }
    return l;
  }

 private:
  static constexpr std::size_t size = std::size_t{1} << 12;
  // Neighbours stay neighbours: fewer lines of cache.
  static std::size_t hash(const void* at) noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    return (address / 4 ^ address >> 12) % size;
  }
  void take(location& l, const void* at);

  std::vector<location> table_;
  std::size_t taken_ = 0;
};

// Pages for explored code: the same addresses in every scene. What is given back is not used again
// before the next one, so a touch of it is seen.
class pages {
 public:
  pages();
  void* take(std::size_t bytes) noexcept;
  void give(void* memory, std::size_t bytes) noexcept;

  bool is_dead(const void* at) const noexcept {
    for (const range& r : dead_) {
      if (at >= r.first && at < r.last) return true;
    }
    return false;
  }
  // False: something was written to what had been given back. Then all is free again.
  bool begin_again() noexcept;

  // "page2+0x140". False: not here.
  bool name(const void* at, char* out, std::size_t room) const noexcept;

 private:
  struct range {
    unsigned char* first;
    unsigned char* last;
  };
  static constexpr std::size_t all_bytes = std::size_t{1} << 24;
  static constexpr unsigned char poison = 0xdb;

  unsigned char* const memory_;
  std::size_t used_ = 0;
  std::vector<range> ranges_;
  std::vector<range> dead_;
};

// Plain memory that a scene says it touches: two touches, one of which writes, need a happens-before
// edge of C++ between them, whatever the CPU would do (FastTrack: C. Flanagan, S. Freund, 2009).
class plain_memory {
 public:
  // nullptr, or what is wrong.
  const char* touch(const void* at, bool writes, unsigned thread, const stamp& now);
  // The memory is new, or its owner says so.
  void forget(const void* at) { cells_.erase(at); }
  void begin_again() noexcept { cells_.clear(); }

 private:
  struct cell {
    unsigned writer = 0;
    std::uint32_t written_at = 0;
    stamp reads;
  };
  std::unordered_map<const void*, cell> cells_;
};

}  // namespace explore
