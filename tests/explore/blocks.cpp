// blocks.cpp - scenarios: the arena, taken from and given back to by several threads
#include <optional>

#include "explore/scene.hpp"

using namespace explore;

namespace {

using small_arena = hybridloop::detail::arena<symmetric_traits>;

// Holds a block and its contents.
class holder {
 public:
  explicit holder(small_arena& home) : home_(home), block_(home.take_block()) {
    if (block_ == nullptr) return;
    engine::the().touch(block_, true);
    ledger::must(*count() == 0, "a block was taken twice");
    *count() = 1;
  }
  holder(const holder&) = delete;
  holder& operator=(const holder&) = delete;
  ~holder() {
    if (block_ == nullptr) return;
    engine::the().touch(block_, true);
    ledger::must(*count() == 1, "a block was taken twice");
    *count() = 0;
    home_.give_block(block_);
  }
  bool had() const { return block_ != nullptr; }

 private:
  int* count() const { return static_cast<int*>(block_); }
  small_arena& home_;
  void* block_;
};

}  // namespace

// What one takes, the other has given back a moment ago: take, take, give the first (ABA).
EXPLORE(blocks_come_back, 3) {
  small_arena blocks(engine::the().memory().take(small_arena::bytes(3)), 3);
  {
    holder a(blocks), b(blocks), c(blocks);
    ledger::must(a.had() && b.had() && c.had(), "a block is missing");
  }
  start("one", [&] {
    const holder a(blocks);
    engine::the().breathe("holds");
  });
  start("two", [&] {
    auto a = std::make_unique<holder>(blocks);
    const holder b(blocks);
    a.reset();
    const holder c(blocks);
    engine::the().breathe("holds");
  });
  play();
  ledger::must(blocks.in_use() == 0, "a block was lost");
  holder a(blocks), b(blocks), c(blocks);
  ledger::must(a.had() && b.had() && c.had(), "a block was lost");
}

// Closures larger than a slot take blocks, spilled tasks too, and behind both is a table.
EXPLORE(large_closures, 2) {
  ledger book;
  {
    hybridloop::basic_loop<symmetric_traits> l(small_loop(2, 2));
    book.after(4, [&] { l.close(); });
    start("loop", [&] { l.run(); });
    for (unsigned who : {1u, 2u}) {
      start(who == 1 ? "one" : "two", [&, who] {
        book.post_large(l, who);
        book.post(l, who);
      });
    }
    play();
    ledger::must(l.stats().arena_in_use == 0, "a block was lost");
  }
  book.check();
}
