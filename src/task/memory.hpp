// task/memory.hpp - the heap behind the arena, replaceable by HYBRIDLOOP_MALLOC
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// nullptr when there is none. Any alignment: what malloc does not promise is made room for, and
// the address malloc gave stands in front of the one handed out.
inline void* heap_take(std::size_t bytes, std::size_t alignment) noexcept {
  constexpr std::size_t usual = alignof(std::max_align_t);
  if (alignment <= usual) return HYBRIDLOOP_MALLOC(bytes);
  void* raw = HYBRIDLOOP_MALLOC(bytes + alignment + sizeof(void*));
  if (raw == nullptr) return nullptr;
  const auto first = reinterpret_cast<std::uintptr_t>(raw) + sizeof(void*);
  const auto aligned = (first + alignment - 1) / alignment * alignment;
  std::memcpy(reinterpret_cast<void*>(aligned - sizeof(void*)), &raw, sizeof(void*));
  return reinterpret_cast<void*>(aligned);
}

inline void heap_give(void* memory, std::size_t alignment) noexcept {
  if (alignment > alignof(std::max_align_t)) {
    void* raw = nullptr;
    std::memcpy(&raw, static_cast<unsigned char*>(memory) - sizeof(void*), sizeof(void*));
    memory = raw;
  }
  HYBRIDLOOP_FREE(memory);
}

}  // namespace detail
HYBRIDLOOP_CLOSE
