// unique_task_test.cpp - closures in tasks: where they live, how they move, when they go
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "support/support.hpp"

namespace {

using hybridloop::detail::arena;
using hybridloop::detail::basic_task;
using hybridloop::detail::block_size;
using hybridloop::detail::task_fifo;
using hybridloop::detail::task_size;
using hybridloop::detail::unique_task;

// Hands out memory, or none, and counts what is out.
class counting_source final : public hybridloop::detail::block_source {
 public:
  void* take(std::size_t bytes, std::size_t alignment) noexcept override {
    ++asked;
    if (refuses) return nullptr;
    ++out;
    return hybridloop::detail::heap_take(bytes, alignment);
  }
  void give(void* memory, std::size_t, std::size_t alignment) noexcept override {
    --out;
    hybridloop::detail::heap_give(memory, alignment);
  }

  int asked = 0;
  int out = 0;
  bool refuses = false;
};

// What happened to a closure and to those made from it.
struct life {
  int calls = 0;
  int copies = 0;
  int moves = 0;
  int destroyed = 0;  // moved-from ones are not counted
  const void* address = nullptr;
};

template <std::size_t Size, std::size_t Alignment = 8, bool MoveMayThrow = false>
class alignas(Alignment) subject {
 public:
  explicit subject(life& l) noexcept : life_(&l) { fill(); }
  subject(const subject& other) : life_(other.life_) {
    ++life_->copies;
    fill();
  }
  subject(subject&& other) noexcept(!MoveMayThrow) : life_(std::exchange(other.life_, nullptr)) {
    ++life_->moves;
    fill();
  }
  subject& operator=(const subject&) = delete;
  ~subject() {
    if (life_ != nullptr) ++life_->destroyed;
  }

  void operator()() {
    bool whole = true;
    for (const unsigned char byte : payload_) whole = whole && byte == 0x5a;
    if (whole) ++life_->calls;
    life_->address = this;
  }

 private:
  void fill() {
    for (unsigned char& byte : payload_) byte = 0x5a;
  }
  life* life_;
  unsigned char payload_[Size - sizeof(life*)];
};

using small_one = subject<task_size>;
using large_one = subject<task_size + 8>;
using throwing_mover = subject<16, 8, true>;
static_assert(sizeof(small_one) == task_size && sizeof(large_one) == task_size + 8);

template <class F>
unique_task make(hybridloop::detail::block_source& source, F&& f) {
  unique_task task;
  unique_task::room<std::decay_t<F>> place(source);
  if (place.had()) task.emplace(place, std::forward<F>(f));
  return task;
}

// An arena on memory of its own.
struct small_arena {
  static constexpr std::size_t capacity = 4;
  void* memory = hybridloop::detail::system_kernel::map(bytes());
  arena<hybridloop::default_traits> blocks{memory, capacity};

  small_arena() = default;
  small_arena(const small_arena&) = delete;
  small_arena& operator=(const small_arena&) = delete;
  ~small_arena() { hybridloop::detail::system_kernel::unmap(memory, bytes()); }
  static constexpr std::size_t bytes() {
    return arena<hybridloop::default_traits>::bytes(capacity);
  }
};

template <class F>
std::size_t blocks_taken() {
  small_arena home;
  life l;

  unique_task task = make(home.blocks, F(l));
  task();
  const std::size_t taken = home.blocks.in_use();
  task.reset();

  CHECK(l.calls == 1);
  CHECK(l.destroyed == 1);
  CHECK(home.blocks.in_use() == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(l.address) % alignof(F) == 0);
  return taken;
}

template <class F>
std::uint64_t heap_taken() {
  small_arena home;
  life l;

  unique_task task = make(home.blocks, F(l));
  task();

  CHECK(l.calls == 1);
  CHECK(reinterpret_cast<std::uintptr_t>(l.address) % alignof(F) == 0);
  return home.blocks.heap_tasks();
}

}  // namespace

TEST_SUITE_BEGIN("task");

TEST_CASE("a closure as large as the room inside needs no block, one that is larger takes one") {
  CHECK(blocks_taken<subject<16>>() == 0);
  CHECK(blocks_taken<small_one>() == 0);
  CHECK(blocks_taken<large_one>() == 1);
  CHECK(blocks_taken<subject<block_size>>() == 1);
}

TEST_CASE("a closure that is larger than a block comes from the heap, and is counted") {
  CHECK(heap_taken<small_one>() == 0);
  CHECK(heap_taken<subject<block_size>>() == 0);
  CHECK(heap_taken<subject<block_size + 8>>() == 1);
  CHECK(heap_taken<subject<10000>>() == 1);
}

TEST_CASE("an over-aligned closure lies aligned, in a block or on the heap") {
  CHECK(blocks_taken<subject<16, 16>>() == 1);
  CHECK(blocks_taken<subject<64, 64>>() == 1);
  CHECK(heap_taken<subject<64, 64>>() == 0);
  CHECK(heap_taken<subject<128, 128>>() == 1);
  CHECK(heap_taken<subject<4096, 4096>>() == 1);
}

TEST_CASE("a closure whose move may throw stays where it was built while its task moves") {
  counting_source source;
  life l;

  unique_task first = make(source, throwing_mover(l));
  const int moves = l.moves;
  first();
  const void* const built_at = l.address;
  unique_task second(std::move(first));
  second();

  CHECK(source.out == 1);
  CHECK(l.moves == moves);
  CHECK(l.address == built_at);
  CHECK(l.calls == 2);
}

TEST_CASE("a task that is moved leaves an empty one behind, and its closure dies once") {
  counting_source source;
  life small;
  life large;

  {
    unique_task a = make(source, small_one(small));
    unique_task b(std::move(a));
    unique_task c;
    c = std::move(b);
    CHECK_FALSE(a);
    CHECK_FALSE(b);
    CHECK(c);
    c();

    unique_task d = make(source, large_one(large));
    unique_task e(std::move(d));
    d = std::move(e);
    CHECK_FALSE(e);
    d();
    CHECK(source.out == 1);
  }

  CHECK(small.calls == 1);
  CHECK(small.destroyed == 1);
  CHECK(large.calls == 1);
  CHECK(large.destroyed == 1);
  CHECK(source.out == 0);
}

TEST_CASE("a task that is overwritten destroys its closure before it takes the other") {
  struct dying {
    int& order;
    int& died_at;
    dying(int& o, int& at) noexcept : order(o), died_at(at) {}
    dying(dying&& other) noexcept : order(other.order), died_at(other.died_at) {
      other.moved_from = true;
    }
    ~dying() {
      if (!moved_from) died_at = ++order;
    }
    void operator()() {}
    bool moved_from = false;
  };
  counting_source source;
  int order = 0;
  int first_died = 0;
  int second_died = 0;

  {
    unique_task task = make(source, dying(order, first_died));
    task = make(source, dying(order, second_died));
    CHECK(first_died == 1);
    CHECK(second_died == 0);

    unique_task& same = task;
    task = std::move(same);
    CHECK(second_died == 0);
    CHECK(task);
  }

  CHECK(second_died == 2);
  CHECK(order == 2);
}

TEST_CASE("a closure is never copied when it is given away, and once when it is lent") {
  counting_source source;
  life given;
  life lent;

  unique_task a = make(source, small_one(given));
  unique_task b = make(source, large_one(given));
  const small_one original(lent);
  unique_task c = make(source, original);
  unique_task d(std::move(c));
  d();

  CHECK(given.copies == 0);
  CHECK(lent.copies == 1);
  CHECK(lent.calls == 1);
}

TEST_CASE("a closure that can only be moved runs, from inside and from a block") {
  counting_source source;
  int sum = 0;
  auto five = std::make_unique<int>(5);
  auto seven = std::make_unique<int>(7);
  struct bulk {
    unsigned char bytes[task_size];
  };

  unique_task small = make(source, [&sum, n = std::move(five)] { sum += *n; });
  unique_task large = make(source, [&sum, n = std::move(seven), b = bulk()] {
    sum += *n + b.bytes[0];
  });
  unique_task moved(std::move(small));
  moved();
  large();

  CHECK(sum == 12);
  CHECK(source.out == 1);
}

TEST_CASE("arguments reach the closure as they were given") {
  counting_source source;
  const int argument = 3;
  const int* seen = nullptr;
  const auto look = [&seen](const int& n) { seen = &n; };

  basic_task<const int&> task;
  basic_task<const int&>::room<std::decay_t<decltype(look)>> place(source);
  task.emplace(place, look);
  task(argument);

  CHECK(seen == &argument);
}

TEST_CASE("room that is not used is given back, and none is asked for what fits inside") {
  counting_source source;

  {
    const unique_task::room<small_one> inside(source);
    const unique_task::room<large_one> outside(source);
    CHECK(inside.had());
    CHECK(outside.had());
    CHECK(source.out == 1);
  }

  CHECK(source.asked == 1);
  CHECK(source.out == 0);
}

TEST_CASE("without memory there is no room, and the closure is still its owner's") {
  counting_source source;
  source.refuses = true;
  life l;

  large_one mine(l);
  const unique_task task = make(source, std::move(mine));

  CHECK_FALSE(task);
  CHECK(l.moves == 0);
  CHECK(source.out == 0);
}

TEST_CASE("a closure's destructor finds its task empty already") {
  struct meddler {
    unique_task* task;
    int* died;
    meddler(unique_task& t, int& d) noexcept : task(&t), died(&d) {}
    meddler(meddler&& other) noexcept
        : task(other.task), died(std::exchange(other.died, nullptr)) {}
    ~meddler() {
      if (died == nullptr) return;
      ++*died;
      task->reset();
    }
    void operator()() {}
  };
  counting_source source;
  int died = 0;

  unique_task task;
  task = make(source, meddler(task, died));
  task.reset();

  CHECK(died == 1);
  CHECK_FALSE(task);
}

TEST_CASE("what the loop sends to itself is not counted as a task") {
  struct order : hybridloop::detail::command_base {
    void operator()() {}
  };
  struct large_order : hybridloop::detail::command_base {
    unsigned char bytes[task_size + 8] = {};
    void operator()() {}
  };
  counting_source source;

  CHECK_FALSE(make(source, order()).counted());
  CHECK_FALSE(make(source, large_order()).counted());
  CHECK(make(source, [] {}).counted());
  CHECK_FALSE(unique_task().counted());
}

#if defined(__cpp_exceptions)

TEST_CASE("a constructor that throws leaves an empty task and no block behind") {
  struct refusing {
    explicit refusing(int) noexcept {}
    refusing(const refusing&) { throw 1; }
    unsigned char bytes[task_size + 8] = {};
    void operator()() {}
  };
  counting_source source;
  const refusing closure(0);

  unique_task task;
  bool thrown = false;
  try {
    unique_task::room<refusing> place(source);
    task.emplace(place, closure);
  } catch (int) {
    thrown = true;
  }

  CHECK(thrown);
  CHECK(source.asked == 1);
  CHECK(source.out == 0);
  CHECK_FALSE(task);
}

#endif

TEST_SUITE_END();

namespace {

void push(task_fifo& queue, unique_task&& task) {
  if (!queue.make_room()) std::abort();
  queue.push(std::move(task));
}

}  // namespace

TEST_SUITE_BEGIN("fifo");

TEST_CASE("tasks come out in the order in which they went in, while the queue grows and goes around") {
  counting_source source;
  std::vector<int> ran;
  std::vector<int> expected;
  int next = 0;

  task_fifo queue;
  for (int round = 0; round < 60; ++round) {
    for (int i = 0; i < 5 + round / 8; ++i, ++next) {
      push(queue, make(source, [&ran, n = next] { ran.push_back(n); }));
    }
    for (int i = 0; i < 4; ++i) queue.pop()();
  }
  const std::size_t left = queue.size();
  while (!queue.empty()) queue.pop()();
  for (int i = 0; i < next; ++i) expected.push_back(i);

  CHECK(left > 128);
  CHECK(ran == expected);
}

TEST_CASE("what is still queued dies with the queue, once and without running") {
  counting_source source;
  life small;
  life large;

  {
    task_fifo queue;
    for (int i = 0; i < 20; ++i) {
      push(queue, make(source, small_one(small)));
      push(queue, make(source, large_one(large)));
    }
    queue.pop()();
    queue.pop()();
  }

  CHECK(small.calls == 1);
  CHECK(small.destroyed == 20);
  CHECK(large.calls == 1);
  CHECK(large.destroyed == 20);
  CHECK(source.out == 0);
}

TEST_CASE("what a dying closure pushes dies as well") {
  struct heir {
    task_fifo* queue;
    counting_source* source;
    int* died;
    int generations;
    heir(task_fifo& q, counting_source& s, int& d, int g) noexcept
        : queue(&q), source(&s), died(&d), generations(g) {}
    heir(heir&& other) noexcept
        : queue(other.queue), source(other.source), died(std::exchange(other.died, nullptr)),
          generations(other.generations) {}
    ~heir() {
      if (died == nullptr) return;
      ++*died;
      if (generations != 0) push(*queue, make(*source, heir(*queue, *source, *died, generations - 1)));
    }
    void operator()() {}
  };
  counting_source source;
  int died = 0;

  task_fifo queue;
  for (int i = 0; i < 16; ++i) push(queue, make(source, heir(queue, source, died, 2)));
  queue.clear();

  CHECK(queue.empty());
  CHECK(died == 48);
}

TEST_SUITE_END();
