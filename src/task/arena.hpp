// task/arena.hpp - pre-allocated blocks for tasks that the ring cannot hold
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/config.hpp"
#include "task/index_stack.hpp"
#include "task/memory.hpp"
#include "task/slab.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

inline constexpr std::size_t block_size = task_size <= 80 ? 128 : (task_size + 48 + 63) / 64 * 64;

// A fixed number of blocks, taken and given back by any thread without a lock. Blocks that were
// never used are taken in order, so an arena that is never needed touches no memory. When it is used
// up, tasks that spill go into a table that grows and is kept for the next crowd. Behind both stands
// the heap, for what closures need beyond that.
template <class Traits>
class arena final : public block_source {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using link = atomic<std::uint32_t>;

  // Bytes of zeroed memory for `capacity` blocks and their links, aligned to a cache line.
  static constexpr std::size_t bytes(std::size_t capacity) noexcept {
    return capacity * (block_size + sizeof(link));
  }

  arena(void* zeroed, std::size_t capacity) noexcept
      : blocks_(static_cast<unsigned char*>(zeroed)),
        links_(reinterpret_cast<link*>(blocks_ + capacity * block_size)),
        capacity_(static_cast<std::uint32_t>(capacity)) {}

  // A block, or nullptr when all are in use.
  void* take_block() noexcept {
    const std::uint32_t index = free_.pop(link_of());
    if (index != stack::none) return blocks_ + std::size_t{index} * block_size;
    std::uint32_t fresh = fresh_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (fresh < capacity_) {
      if (fresh_.compare_exchange_weak(fresh, fresh + 1, std::memory_order_relaxed)) {  // ours alone: a block nobody had
        return blocks_ + std::size_t{fresh} * block_size;
      }
    }
    return nullptr;
  }

  void give_block(void* block) noexcept {
    const std::uint32_t index = index_of(block);
    give_chain(index, index, 1);
  }

  // Memory for one more spilled task, of all that a block has but a word, and its number; nullptr when
  // the system has none.
  void* take_spare(std::uint32_t& number) noexcept {
    const std::uint32_t index = spares_.take();
    if (index == spares_.none) return nullptr;
    heap_tasks_.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    number = index + 1;
    return spares_.at(index).memory;
  }
  void give_spare(std::uint32_t number) noexcept { spares_.give(number - 1); }

  // Blocks on their way back, gathered by one thread and given in one step, in the order in which
  // they were used: whoever takes them next walks through memory in that order again.
  class returning {
   public:
    void add(arena& home, void* block) noexcept {
      blocks_.add(home.index_of(block), [&home](std::uint32_t last, std::uint32_t next) {
        stack::chain(last, next, home.link_of());
      });
    }
    void add_spare(arena& home, std::uint32_t number) noexcept {
      spares_.add(number - 1, [&home](std::uint32_t last, std::uint32_t next) {
        home.spares_.chain(last, next);
      });
    }
    void give(arena& home) noexcept {
      if (blocks_.count != 0) home.give_chain(blocks_.first, blocks_.last, std::exchange(blocks_.count, 0));
      if (spares_.count == 0) return;
      spares_.count = 0;
      home.spares_.give_chain(spares_.first, spares_.last);
    }

   private:
    struct chain {
      template <class Link>
      void add(std::uint32_t index, const Link& link) noexcept {
        if (count == 0) {
          first = index;
        } else {
          link(last, index);
        }
        last = index;
        ++count;
      }
      std::uint32_t first = 0;
      std::uint32_t last = 0;
      std::uint32_t count = 0;
    };
    chain blocks_;
    chain spares_;
  };

  // A block if one is left and large enough, else from the heap, counted.
  void* take(std::size_t size, std::size_t alignment) noexcept override {
    if (size <= block_size && alignment <= block_alignment) {
      if (void* block = take_block()) return block;
    }
    heap_tasks_.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    return heap_take(size, alignment);
  }

  void give(void* memory, std::size_t, std::size_t alignment) noexcept override {
    if (owns(memory)) {
      give_block(memory);
    } else {
      heap_give(memory, alignment);
    }
  }

  bool owns(const void* memory) const noexcept {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    const auto first = reinterpret_cast<std::uintptr_t>(blocks_);
    return address >= first && address - first < std::size_t{capacity_} * block_size;
  }

  // Any thread; exact while nobody takes or gives, and never more than there were.
  std::size_t in_use() const noexcept {
    const std::uint32_t took = taken();
    const std::uint32_t used = took - given_.load(std::memory_order_relaxed);  // a hint; statistics
    return used <= capacity_ ? used : 0;  // more was given since than had been taken
  }
  std::size_t high() const noexcept {
    const std::size_t highest = high_.load(std::memory_order_relaxed);  // a hint; statistics
    const std::size_t now = in_use();
    return now > highest ? now : highest;
  }
  std::uint64_t heap_tasks() const noexcept {
    return heap_tasks_.load(std::memory_order_relaxed);  // a hint; statistics
  }

 private:
  using stack = index_stack<Traits>;
  static constexpr std::size_t block_alignment = 64;

  struct spare {
    link next_free;
    alignas(std::uint64_t) unsigned char memory[block_size - sizeof(std::uint64_t)];
  };

  std::uint32_t index_of(const void* block) const noexcept {
    const auto offset = static_cast<std::size_t>(static_cast<const unsigned char*>(block) - blocks_);
    return static_cast<std::uint32_t>(offset / block_size);
  }
  void give_chain(std::uint32_t first, std::uint32_t last, std::uint32_t count) noexcept {
    const std::uint32_t took = taken();  // first: what is taken meanwhile may be what others gave
    raise_high(took - given_.fetch_add(count, std::memory_order_relaxed));  // a hint; statistics
    free_.push_chain(first, last, link_of());
  }

  auto link_of() noexcept {
    return [this](std::uint32_t index) -> link& { return links_[index]; };
  }
  std::uint32_t taken() const noexcept {
    return free_.pops() + fresh_.load(std::memory_order_relaxed);  // a hint; statistics
  }
  // The number in use only falls when a block is given back, so looking here misses no peak.
  void raise_high(std::uint32_t used) noexcept {
    std::uint32_t high = high_.load(std::memory_order_relaxed);  // a hint; statistics
    while (used > high && used <= capacity_ &&
           !high_.compare_exchange_weak(high, used, std::memory_order_relaxed)) {  // a hint; statistics
    }
  }

  unsigned char* const blocks_;
  link* const links_;
  const std::uint32_t capacity_;

  alignas(cache_line) stack free_;
  atomic<std::uint32_t> fresh_{0};
  alignas(cache_line) atomic<std::uint32_t> given_{0};
  atomic<std::uint32_t> high_{0};
  alignas(cache_line) atomic<std::uint64_t> heap_tasks_{0};
  slab<Traits, spare, true> spares_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
