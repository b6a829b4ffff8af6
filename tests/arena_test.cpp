// arena_test.cpp - blocks, free indices and growing tables that all threads share
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "support/interrupt.hpp"
#include "support/support.hpp"

using namespace support;

namespace {

using hybridloop::detail::block_size;
using hybridloop::detail::system_kernel;

template <class Traits>
struct arena_of {
  using type = hybridloop::detail::arena<Traits>;

  explicit arena_of(std::size_t capacity)
      : bytes(type::bytes(capacity) + 1), memory(system_kernel::map(bytes)), blocks(memory, capacity) {}
  arena_of(const arena_of&) = delete;
  arena_of& operator=(const arena_of&) = delete;
  ~arena_of() { system_kernel::unmap(memory, bytes); }
  type* operator->() { return &blocks; }

  std::size_t bytes;
  void* memory;
  type blocks;
};
using plain_arena = arena_of<hybridloop::default_traits>;
using interrupted_arena = arena_of<interrupted_traits>;

template <class Arena>
std::vector<void*> take_all(Arena& arena) {
  std::vector<void*> taken;
  while (void* block = arena->take_block()) taken.push_back(block);
  return taken;
}

std::size_t distinct(const std::vector<void*>& blocks) {
  return std::set<void*>(blocks.begin(), blocks.end()).size();
}

template <class Traits>
struct entry_of {
  typename Traits::template atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;
  std::atomic<std::uint64_t> owner{0};
  std::uint64_t payload = 0;
};
template <class Traits>
using table_of = hybridloop::detail::slab<Traits, entry_of<Traits>>;
using entry = entry_of<hybridloop::default_traits>;
using table = table_of<hybridloop::default_traits>;

}  // namespace

TEST_SUITE_BEGIN("arena");

TEST_CASE("an arena has as many blocks as it was made with, each its own and aligned to a line") {
  for (const std::size_t capacity : {std::size_t{1}, std::size_t{3}, std::size_t{64}}) {
    plain_arena arena(capacity);

    const std::vector<void*> blocks = take_all(arena);
    std::size_t misplaced = 0;
    for (void* const block : blocks) {
      if (reinterpret_cast<std::uintptr_t>(block) % 64 != 0 || !arena->owns(block)) ++misplaced;
      std::memset(block, 0xff, block_size);
    }

    CHECK(blocks.size() == capacity);
    CHECK(distinct(blocks) == capacity);
    CHECK(misplaced == 0);
    CHECK(arena->in_use() == capacity);
    CHECK(arena->take_block() == nullptr);
  }
}

TEST_CASE("blocks that were written all over come back whole, all of them, again and again") {
  plain_arena arena(16);

  std::size_t had = 0;
  for (int round = 0; round < 5; ++round) {
    std::vector<void*> blocks = take_all(arena);
    had += distinct(blocks);
    for (void* const block : blocks) std::memset(block, 0xff, block_size);
    std::rotate(blocks.begin(), blocks.begin() + round, blocks.end());
    for (void* const block : blocks) arena->give_block(block);
  }

  CHECK(had == 5 * 16);
  CHECK(arena->in_use() == 0);
}

TEST_CASE("an arena of no blocks owns nothing and sends everybody to the heap") {
  plain_arena arena(0);

  void* const memory = arena->take(32, 8);

  CHECK(arena->take_block() == nullptr);
  CHECK(memory != nullptr);
  CHECK_FALSE(arena->owns(memory));
  CHECK(arena->heap_tasks() == 1);
  CHECK(arena->high() == 0);
  arena->give(memory, 32, 8);
}

TEST_CASE("what is too large, over-aligned or too late comes from the heap and goes back there") {
  plain_arena arena(1);

  void* const large = arena->take(block_size + 1, 8);
  void* const aligned = arena->take(64, 128);
  void* const block = arena->take(block_size, 64);
  void* const late = arena->take(8, 8);

  CHECK_FALSE(arena->owns(large));
  CHECK_FALSE(arena->owns(aligned));
  CHECK(reinterpret_cast<std::uintptr_t>(aligned) % 128 == 0);
  CHECK(arena->owns(block));
  CHECK_FALSE(arena->owns(late));
  CHECK(arena->heap_tasks() == 3);

  arena->give(large, block_size + 1, 8);
  arena->give(aligned, 64, 128);
  arena->give(late, 8, 8);
  CHECK(arena->in_use() == 1);
  arena->give(block, block_size, 64);
  CHECK(arena->in_use() == 0);
}

TEST_CASE("blocks taken here and given back by other threads can all be taken again") {
  constexpr std::size_t threads = 4;
  constexpr std::size_t each = 16;
  plain_arena arena(threads * each);
  std::vector<void*> blocks = take_all(arena);

  {
    std::vector<scoped_thread> givers;
    for (std::size_t t = 0; t < threads; ++t) {
      givers.emplace_back([&arena, &blocks, t] {
        for (std::size_t i = 0; i < each; ++i) arena->give_block(blocks[t * each + i]);
      });
    }
  }

  CHECK(arena->in_use() == 0);
  CHECK(distinct(take_all(arena)) == threads * each);
}

TEST_CASE("the high-water mark is the most that was ever out at once") {
  plain_arena arena(8);
  std::array<void*, 5> out{};

  for (void*& block : out) block = arena->take_block();
  CHECK(arena->high() == 5);
  for (void* const block : out) arena->give_block(block);
  CHECK(arena->high() == 5);
  for (int i = 0; i < 20; ++i) {
    void* const one = arena->take_block();
    void* const two = arena->take_block();
    arena->give_block(one);
    arena->give_block(two);
  }

  CHECK(arena->in_use() == 0);
  CHECK(arena->high() == 5);
}

TEST_CASE("the high-water mark of several threads is exact when they all held at once") {
  constexpr std::size_t each = 7;
  plain_arena arena(64);
  std::atomic<std::size_t> held{0};

  const auto hold_and_give = [&arena, &held] {
    std::array<void*, each> mine{};
    for (void*& block : mine) block = arena->take_block();
    ++held;
    while (held.load() != 3) std::this_thread::yield();
    for (void* const block : mine) arena->give_block(block);
  };
  {
    const scoped_thread a(hold_and_give);
    const scoped_thread b(hold_and_give);
    const scoped_thread c(hold_and_give);
  }

  CHECK(arena->in_use() == 0);
  CHECK(arena->high() == 3 * each);
}

TEST_CASE("a thread held up while it gives a block back does not count the others' blocks twice") {
  std::size_t highest = 0;

  const int places = at_every_place([&](int place) {
    interrupted_arena arena(32);
    void* const mine = arena->take_block();
    interruption others(place, [&arena] {
      for (int i = 0; i < 10; ++i) arena->give_block(arena->take_block());
    });
    arena->give_block(mine);
    const bool more = others.over();
    highest = std::max(highest, arena->high());
    return more;
  });

  CHECK(places > 3);
  CHECK(highest == 2);
}

TEST_CASE("whoever counts the blocks in use is never told more than there were, nor less than none") {
  std::size_t most_used = 0;
  std::size_t highest = 0;
  const auto give_and_take = [](interrupted_arena& arena) {
    for (int i = 0; i < 3; ++i) arena->give_block(arena->take_block());
  };

  const int places = at_every_place([&](int place) {
    interrupted_arena arena(32);
    void* const mine = arena->take_block();
    interruption others(place, [&] { give_and_take(arena); });
    most_used = std::max(most_used, arena->in_use());
    const bool more = others.over();
    arena->give_block(mine);
    return more;
  });
  at_every_place([&](int place) {
    interrupted_arena arena(32);
    void* const mine = arena->take_block();
    interruption others(place, [&] { give_and_take(arena); });
    highest = std::max(highest, arena->high());
    const bool more = others.over();
    arena->give_block(mine);
    return more;
  });

  CHECK(places > 2);
  CHECK(most_used <= 2);
  CHECK(highest == 2);
}

TEST_CASE("a block that went out and came back while a thread slept is not handed out twice") {
  std::size_t doubles = 0;

  const int places = at_every_place([&](int place) {
    interrupted_arena arena(3);
    for (void* const block : take_all(arena)) arena->give_block(block);
    std::vector<void*> out;
    interruption others(place, [&arena, &out] {
      void* const first = arena->take_block();
      out.push_back(arena->take_block());
      arena->give_block(first);
    });
    out.push_back(arena->take_block());
    const bool more = others.over();
    for (void* const block : take_all(arena)) out.push_back(block);
    if (out.size() != 3 || distinct(out) != 3) ++doubles;
    return more;
  });

  CHECK(places > 2);
  CHECK(doubles == 0);
}

TEST_CASE("no block is ever in two hands: four threads write all over theirs and find it unchanged") {
  constexpr std::size_t hands = 3;
  arena_of<hesitant_traits> arena(8);
  const std::size_t rounds = scaled(100000);
  std::atomic<std::size_t> spoilt{0};
  std::atomic<std::size_t> had{0};

  const auto work = [&](unsigned char tag) {
    std::size_t bad = 0;
    std::size_t good = 0;
    std::array<unsigned char*, hands> mine{};
    for (std::size_t i = 0; i < rounds; ++i) {
      unsigned char*& block = mine[i % hands];
      if (block != nullptr) {
        const auto foreign = [tag](unsigned char byte) { return byte != tag; };
        if (std::any_of(block, block + block_size, foreign)) ++bad;
        arena->give_block(block);
      }
      block = static_cast<unsigned char*>(arena->take_block());
      if (block == nullptr) continue;
      std::memset(block, tag, block_size);
      ++good;
    }
    for (unsigned char* const block : mine) {
      if (block != nullptr) arena->give_block(block);
    }
    spoilt += bad;
    had += good;
  };
  {
    std::vector<scoped_thread> threads;
    for (unsigned char tag = 1; tag <= 4; ++tag) threads.emplace_back([&work, tag] { work(tag); });
  }

  CHECK(spoilt == 0);
  CHECK(had > rounds);
  CHECK(arena->in_use() == 0);
  CHECK(arena->high() <= 8);
  CHECK(distinct(take_all(arena)) == 8);
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("slab");

TEST_CASE("an index names one entry, which knows it and never moves while the table grows") {
  constexpr std::uint32_t many = 1000;
  table entries;

  std::vector<entry*> at;
  std::size_t wrong = 0;
  for (std::uint32_t i = 0; i < many; ++i) {
    const std::uint32_t index = entries.take();
    at.push_back(&entries.at(index));
    if (index != i || at.back()->index != index) ++wrong;
  }
  for (std::uint32_t i = 0; i < many; ++i) {
    if (entries.find(i) != at[i]) ++wrong;
  }

  CHECK(wrong == 0);
  CHECK(std::set<entry*>(at.begin(), at.end()).size() == many);
}

TEST_CASE("an index beyond the table finds nobody, however large") {
  table entries;
  CHECK(entries.find(0) == nullptr);

  const std::uint32_t first = entries.take();

  CHECK(entries.find(first) != nullptr);
  CHECK(entries.find(64) == nullptr);
  CHECK(entries.find(1u << 20) == nullptr);
  CHECK(entries.find(0xfffffffeu) == nullptr);
  CHECK(entries.find(table::none) == nullptr);
}

TEST_CASE("an entry that was given back is taken again before the table grows") {
  table entries;
  for (int i = 0; i < 64; ++i) entries.take();

  entries.give(17);
  entries.give(40);
  const std::uint32_t one = entries.take();
  const std::uint32_t two = entries.take();
  const std::uint32_t next = entries.take();

  CHECK(std::min(one, two) == 17);
  CHECK(std::max(one, two) == 40);
  CHECK(next == 64);
}

TEST_CASE("an id of an earlier generation is another id, and none at all is false") {
  const hybridloop::timer_id none;
  const hybridloop::timer_id first(5, 1);
  const hybridloop::timer_id second(5, 2);

  CHECK_FALSE(none);
  CHECK(first);
  CHECK(first != second);
  CHECK(first == hybridloop::timer_id(5, 1));
  CHECK(first < second);
  CHECK(second.index() == 5);
  CHECK(second.generation() == 2);
}

TEST_CASE("a stale id finds nobody in the entry that is somebody else's by now") {
  hybridloop::loop loop;

  const auto first = loop.after(1h, [] {});
  CHECK(loop.cancel(first));
  loop.poll();
  const auto second = loop.after(1h, [] {});
  loop.poll();

  CHECK(second.index() == first.index());
  CHECK(second != first);
  CHECK_FALSE(loop.cancel(first));
  CHECK(loop.cancel(second));
}

TEST_CASE("a thread held up while it makes the table grow takes the chunk another one made") {
  std::size_t moved = 0;

  const int places = at_every_place([&moved](int place) {
    table_of<interrupted_traits> entries;
    std::uint32_t theirs = table::none;
    const entry_of<interrupted_traits>* before = nullptr;
    interruption others(place, [&] {
      theirs = entries.take();
      before = &entries.at(theirs);
    });
    const std::uint32_t mine = entries.take();
    const bool more = others.over();
    if (more && (mine == theirs || &entries.at(theirs) != before)) ++moved;
    return more;
  });

  CHECK(places > 3);
  CHECK(moved == 0);
}

TEST_CASE("threads that make the table grow together share each chunk and no entry") {
  constexpr std::size_t threads = 4;
  constexpr std::size_t each = 2000;
  std::size_t doubles = 0;
  std::size_t misnamed = 0;
  for (std::size_t round = 0; round < scaled(10, 2); ++round) {
    table entries;
    gate start;
    std::array<std::vector<std::uint32_t>, threads> taken;

    {
      std::vector<scoped_thread> takers;
      for (auto& mine : taken) {
        takers.emplace_back([&entries, &start, &mine] {
          start.pass();
          for (std::size_t i = 0; i < each; ++i) {
            const std::uint32_t index = entries.take();
            entries.at(index).payload = index;
            mine.push_back(index);
          }
        });
      }
      start.open();
    }

    std::set<std::uint32_t> all;
    for (const auto& mine : taken) all.insert(mine.begin(), mine.end());
    doubles += threads * each - all.size();
    for (const std::uint32_t index : all) {
      if (entries.at(index).index != index || entries.at(index).payload != index) ++misnamed;
    }
  }

  CHECK(doubles == 0);
  CHECK(misnamed == 0);
}

TEST_CASE("no entry has two holders while threads take and give back") {
  table entries;
  const std::size_t rounds = scaled(100000);
  std::atomic<std::size_t> shared{0};

  const auto work = [&](std::uint64_t me) {
    std::array<std::uint32_t, 3> mine{table::none, table::none, table::none};
    std::size_t bad = 0;
    for (std::size_t i = 0; i < rounds; ++i) {
      std::uint32_t& index = mine[i % mine.size()];
      if (index != table::none) {
        entry& held = entries.at(index);
        if (held.payload != me || held.owner.exchange(0) != me) ++bad;
        entries.give(index);
      }
      index = entries.take();
      entry& fresh = entries.at(index);
      if (fresh.owner.exchange(me) != 0) ++bad;
      fresh.payload = me;
    }
    shared += bad;
  };
  {
    std::vector<scoped_thread> threads;
    for (std::uint64_t t = 1; t <= 4; ++t) threads.emplace_back([&work, t] { work(t); });
  }

  CHECK(shared == 0);
}

TEST_SUITE_END();
