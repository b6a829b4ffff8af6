// task/slab.hpp - a growing table whose entries never move and are named by index and generation
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "base/bits.hpp"
#include "base/config.hpp"
#include "task/index_stack.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Chunks of 64, 128, 256, ... entries, mapped when first needed and kept until the table goes, so
// that any thread may look an index up at any time. Entry needs an atomic<uint32_t> `next_free`.
//
// Zeroed: an entry is valid as zeroed memory, needs no destructor and does not know its index. Then its
// memory is not touched before it is used.
//
// Edge [chunk]: who is given an index finds its chunk. G1 the chunk is built and its pointer set
// by CAS, release; G2 every look-up loads the pointer, acquire. Rule: synchronises-with [atomics.order].
//
// Any thread: take, give, find.
template <class Traits, class Entry, bool Zeroed = false>
class slab {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using stack = index_stack<Traits>;

 public:
  static constexpr std::uint32_t none = stack::none;

  slab() noexcept = default;
  slab(const slab&) = delete;
  slab& operator=(const slab&) = delete;
  ~slab() {
    for (std::uint32_t k = 0; k < chunks; ++k) {
      Entry* chunk = chunks_[k].load(std::memory_order_relaxed);  // ours alone: nobody else is left
      if (chunk == nullptr) continue;
      destroy(chunk, k);
      Traits::kernel::unmap(chunk, bytes_of(k));
    }
  }

  // An index nobody holds, or `none` when there is no memory.
  std::uint32_t take() noexcept {
    const std::uint32_t old = free_.pop(link_of());
    if (old != none) return old;
    std::uint32_t fresh = fresh_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (fresh < limit && reach(chunk_of(fresh))) {
      if (fresh_.compare_exchange_weak(fresh, fresh + 1, std::memory_order_relaxed)) return fresh;  // ours alone: a number nobody had
    }
    return none;
  }

  void give(std::uint32_t index) noexcept { free_.push(index, link_of()); }

  // The same for many in one step, linked from `first` on by the one who holds them all.
  void chain(std::uint32_t index, std::uint32_t next) noexcept { stack::chain(index, next, link_of()); }
  void give_chain(std::uint32_t first, std::uint32_t last) noexcept {
    free_.push_chain(first, last, link_of());
  }

  // nullptr for an index that was never handed out.
  Entry* find(std::uint32_t index) noexcept {
    if (index >= limit) return nullptr;
    const std::uint32_t k = chunk_of(index);
    Entry* chunk = chunks_[k].load(std::memory_order_acquire);  // [chunk] G2
    return chunk == nullptr ? nullptr : chunk + (index - first_of(k));
  }
  Entry& at(std::uint32_t index) noexcept { return *find(index); }

  // Every entry that was ever in a chunk; the caller tells live ones apart.
  template <class F>
  void for_each(F&& f) {
    for (std::uint32_t k = 0; k < chunks; ++k) {
      Entry* chunk = chunks_[k].load(std::memory_order_acquire);  // [chunk] G2
      if (chunk == nullptr) continue;
      for (std::size_t i = 0; i < entries_of(k); ++i) f(chunk[i]);
    }
  }

 private:
  static constexpr std::uint32_t first_bits = 6;
  static constexpr std::uint32_t chunks = 22;
  static constexpr std::uint32_t limit = ((1u << chunks) - 1) << first_bits;

  static constexpr std::size_t entries_of(std::uint32_t k) noexcept {
    return std::size_t{1} << (k + first_bits);
  }
  static constexpr std::size_t bytes_of(std::uint32_t k) noexcept {
    return entries_of(k) * sizeof(Entry);
  }
  static constexpr std::uint32_t first_of(std::uint32_t k) noexcept {
    return ((1u << k) - 1) << first_bits;
  }
  static std::uint32_t chunk_of(std::uint32_t index) noexcept {
    return highest_bit((index >> first_bits) + 1);
  }

  auto link_of() noexcept {
    return [this](std::uint32_t index) -> atomic<std::uint32_t>& { return at(index).next_free; };
  }

  static void build(Entry* chunk, std::uint32_t k) noexcept {
    if constexpr (!Zeroed) {
      for (std::size_t i = 0; i < entries_of(k); ++i) {
        Entry* made = ::new (static_cast<void*>(chunk + i)) Entry;
        made->index = first_of(k) + static_cast<std::uint32_t>(i);
      }
    }
  }
  static void destroy(Entry* chunk, std::uint32_t k) noexcept {
    if constexpr (!Zeroed) {
      for (std::size_t i = 0; i < entries_of(k); ++i) chunk[i].~Entry();
    }
  }

  bool reach(std::uint32_t k) noexcept {
    if (chunks_[k].load(std::memory_order_acquire) != nullptr) return true;  // [chunk] G2
    void* memory = Traits::kernel::map(bytes_of(k));
    if (memory == nullptr) return chunks_[k].load(std::memory_order_acquire) != nullptr;  // [chunk] G2
    auto* mine = static_cast<Entry*>(memory);
    build(mine, k);
    Entry* expected = nullptr;
    if (chunks_[k].compare_exchange_strong(expected, mine, std::memory_order_acq_rel)) return true;  // [chunk] G1
    destroy(mine, k);
    Traits::kernel::unmap(memory, bytes_of(k));
    return true;
  }

  atomic<Entry*> chunks_[chunks] = {};
  stack free_;
  atomic<std::uint32_t> fresh_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
