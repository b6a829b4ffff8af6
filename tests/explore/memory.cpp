// memory.cpp - pages that remember what was given back, and the races on plain memory
#include "explore/memory.hpp"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace explore {

void locations::take(location& l, const void* at) {
  if (++taken_ > size / 2) {
    std::fputs("explore: more atomics than it has room for\n", stderr);
    std::abort();
  }
  l.at = at;
}

pages::pages()
    : memory_(static_cast<unsigned char*>(::mmap(nullptr, all_bytes, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
  if (static_cast<void*>(memory_) == MAP_FAILED) std::abort();
}

void* pages::take(std::size_t bytes) noexcept {
  constexpr std::size_t page = 4096;
  const std::size_t whole = (bytes + page - 1) / page * page;
  if (whole > all_bytes - used_) return nullptr;
  unsigned char* const first = memory_ + used_;
  used_ += whole;
  ranges_.push_back({first, first + bytes});
  return first;
}

void pages::give(void* memory, std::size_t bytes) noexcept {
  auto* const first = static_cast<unsigned char*>(memory);
  std::memset(first, poison, bytes);
  dead_.push_back({first, first + bytes});
}

bool pages::begin_again() noexcept {
  bool intact = true;
  for (const range& r : dead_) {
    const auto bytes = static_cast<std::size_t>(r.last - r.first);
    // All bytes are like the first one, if each is like the one before it.
    intact = intact && *r.first == poison && std::memcmp(r.first, r.first + 1, bytes - 1) == 0;
  }
  for (const range& r : ranges_) std::memset(r.first, 0, static_cast<std::size_t>(r.last - r.first));
  ranges_.clear();
  dead_.clear();
  used_ = 0;
  return intact;
}

bool pages::name(const void* at, char* out, std::size_t room) const noexcept {
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    if (at < ranges_[i].first || at >= ranges_[i].last) continue;
    const auto offset = static_cast<const unsigned char*>(at) - ranges_[i].first;
    std::snprintf(out, room, "page%zu+%#tx", i, offset);
    return true;
  }
  return false;
}

const char* plain_memory::touch(const void* at, bool writes, unsigned thread, const stamp& now) {
  cell& c = cells_[at];
  if (c.written_at > now.at[c.writer]) {
    return writes ? "a data race: two writes with nothing between them"
                  : "a data race: a read with no edge from the write before it";
  }
  if (writes) {
    for (unsigned i = 0; i < most_threads; ++i) {
      if (c.reads.at[i] > now.at[i]) return "a data race: a write with no edge from a read before it";
    }
    c.writer = thread;
    c.written_at = now.at[thread];
  } else {
    c.reads.at[thread] = now.at[thread];
  }
  return nullptr;
}

}  // namespace explore
