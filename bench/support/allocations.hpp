// allocations.hpp - counts what the program takes from the heap. In one file of a program only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <errno.h>
#include <stdlib.h>

#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 33)
#define BENCH_HAS_MALLINFO2
#include <malloc.h>
#endif
#endif

namespace bench {

// A cell for each thread, so that counting costs a store and shares no line: the contenders that
// allocate must not pay for it. Cells are given out in turn; they suffice for all threads that
// live at once. Cell 0 is not counted.
struct alignas(64) allocation_cell {
  std::atomic<std::uint64_t> count{0};
};
inline constexpr std::size_t allocation_cells = 512;
inline allocation_cell allocation_counts[allocation_cells];
inline std::atomic<std::size_t> allocation_threads{0};
inline constexpr std::size_t no_cell = ~std::size_t{0};
inline thread_local std::size_t my_allocation_cell = no_cell;

inline void count_allocation() noexcept {
  if (my_allocation_cell == no_cell) {
    const std::size_t turn = allocation_threads.fetch_add(1, std::memory_order_relaxed);
    my_allocation_cell = 1 + turn % (allocation_cells - 1);
  }
  auto& mine = allocation_counts[my_allocation_cell].count;
  mine.store(mine.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// What this thread allocates from here on is no contender's.
inline void do_not_count_my_allocations() noexcept { my_allocation_cell = 0; }

inline std::uint64_t allocations() noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 1; i < allocation_cells; ++i) {
    sum += allocation_counts[i].count.load(std::memory_order_relaxed);
  }
  return sum;
}

}  // namespace bench

// glibc's allocator behind glibc's names, so libraries written in C are counted too; operator new
// comes by here as well.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
namespace bench {
inline constexpr bool allocations_counted = true;
}
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  bench::count_allocation();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  bench::count_allocation();
  return __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
  bench::count_allocation();
  return __libc_realloc(block, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  bench::count_allocation();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  bench::count_allocation();
  void* block = __libc_memalign(alignment, size);
  if (block == nullptr) return ENOMEM;
  *out = block;
  return 0;
}
}
#else
namespace bench {
inline constexpr bool allocations_counted = false;
}
#endif

// What the program has from the heap now. Costs microseconds.
namespace bench {
#if defined(BENCH_HAS_MALLINFO2)
inline constexpr bool heap_known = true;
inline std::size_t heap_bytes() noexcept {
  const auto all = ::mallinfo2();
  return all.uordblks + all.hblkhd;
}
#else
inline constexpr bool heap_known = false;
inline std::size_t heap_bytes() noexcept { return 0; }
#endif
}  // namespace bench
