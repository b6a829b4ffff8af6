// wheel_test.cpp - the wheel of deadlines against a model that is too simple to be wrong
#include "support/scarcity.hpp"
#include "support/support.hpp"
#include "support/virtual_clock.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <utility>

TEST_SUITE_BEGIN("wheel");

using namespace support;
using hybridloop::detail::long_ago;
using hybridloop::detail::nanos;
using hybridloop::detail::never;
using hybridloop::detail::saturating_add;

namespace {

using wheel = hybridloop::detail::timer_wheel<hybridloop::default_traits>;
using record = wheel::record;
using entry = hybridloop::detail::timer_entry<hybridloop::default_traits>;
using bag = hybridloop::detail::timer_bag<hybridloop::default_traits>;
using chunks = hybridloop::detail::timer_chunks<hybridloop::default_traits>;

constexpr nanos tick = 65536;
constexpr nanos hour = 3600000000000;
constexpr nanos year = 365 * 24 * hour;

// The same calls to a wheel and to an ordered set of what stands in it.
class modelled_wheel {
 public:
  explicit modelled_wheel(nanos now) : now_(now), records_(new record[most]) {
    for (std::size_t i = 0; i < most; ++i) free_.push_back(&records_[i]);
  }

  nanos now() const { return now_; }
  std::size_t size() const { return model_.size() + held_.size(); }
  nanos earliest() const { return model_.empty() ? never : std::get<0>(*model_.begin()); }
  bool full() const { return free_.empty(); }

  void insert(nanos deadline) {
    record& r = fresh(deadline);
    ask([&r](wheel& w) { w.insert(r); });
    if (deadline == never) {
      nowhere_.push_back(&r);
    } else {
      model_.emplace(deadline, armed_, &r);
    }
  }
  void hold(nanos deadline) {
    record& r = fresh(deadline);
    ask([&r](wheel& w) { w.hold(r); });
    held_.emplace(deadline, armed_, &r);
  }
  void free_held() {
    ask([](wheel& w) { w.free_held(); });
    model_.insert(held_.begin(), held_.end());
    held_.clear();
  }
  void erase_one(std::size_t nth) {
    auto& from = nth % size() < model_.size() ? model_ : held_;
    const auto it = std::next(from.begin(), static_cast<std::ptrdiff_t>(nth % from.size()));
    leave(from, it);
  }
  void erase_newest() {
    const auto newer = [](const auto& a, const auto& b) { return std::get<1>(a) < std::get<1>(b); };
    leave(model_, std::max_element(model_.begin(), model_.end(), newer));
  }
  void erase_what_stands_nowhere() {
    for (record* r : nowhere_) {
      ask([r](wheel& w) { w.erase(*r); });
      free_.push_back(r);
    }
    nowhere_.clear();
  }
  void move_clock(nanos now) {
    now_ = now;
    ask([now](wheel& w) { w.advance(now); });
  }

  // Whether the wheel gives what the model says.
  bool take() {
    record* const expected = earliest() <= now_ ? std::get<2>(*model_.begin()) : nullptr;
    record* const taken = ask([this](wheel& w) { return w.take_due(now_); });
    if (taken == nullptr || taken != expected) return taken == expected;
    model_.erase(model_.begin());
    free_.push_back(taken);
    return true;
  }
  nanos next_wake() {
    return ask([](wheel& w) { return w.next_wake(); });
  }
  nanos next_deadline() {
    return ask([](wheel& w) { return w.next_deadline(); });
  }
  std::size_t due() {
    return ask([this](wheel& w) { return w.count_due(now_); });
  }
  nanos earliest_of_all() const {
    return held_.empty() ? earliest() : (std::min)(earliest(), std::get<0>(*held_.begin()));
  }
  bool any_held() const { return !held_.empty(); }
  std::size_t due_by_the_model() const {
    std::size_t count = held_.size();
    for (const auto& one : model_) count += std::get<0>(one) <= now_ ? 1u : 0u;
    return count;
  }

  // Whether the wheel's calls find memory from here on.
  void let_there_be_memory(bool some) { scarce_ = !some; }

 private:
  template <class Call>
  auto ask(const Call& call) -> decltype(call(std::declval<wheel&>())) {
    const struct scope {
      explicit scope(bool scarce) { nothing_left = scarce; }
      ~scope() { nothing_left = false; }
    } here(scarce_);
    return call(wheel_);
  }
  static constexpr std::size_t most = 2000;
  using standing = std::set<std::tuple<nanos, std::uint64_t, record*>>;

  record& fresh(nanos deadline) {
    record& r = *free_.back();
    free_.pop_back();
    r.deadline = deadline;
    ++armed_;
    return r;
  }
  void leave(standing& from, standing::iterator it) {
    record* r = std::get<2>(*it);
    ask([r](wheel& w) { w.erase(*r); });
    from.erase(it);
    free_.push_back(r);
  }

  nanos now_;
  std::unique_ptr<record[]> records_;
  std::vector<record*> free_;
  std::vector<record*> nowhere_;
  standing model_;
  standing held_;
  std::uint64_t armed_ = 0;
  bool scarce_ = false;
  wheel wheel_;
};

// Spans of all sizes, often exactly on a boundary or next to one.
class spans {
 public:
  explicit spans(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  bool once_in(std::size_t n) { return below(n) == 0; }
  nanos any() {
    const auto bits = below(61);
    const auto size = static_cast<nanos>(std::uint64_t{1} << bits);
    const nanos near = static_cast<nanos>(below(5)) - 2;
    return once_in(3) ? size + near : size + static_cast<nanos>(random_() % static_cast<std::uint64_t>(size));
  }
  nanos below_a_second() { return static_cast<nanos>(random_() % 1000000000); }

 private:
  std::mt19937_64 random_;
};

}  // namespace

namespace {

// `memory(step)`: whether there is some.
template <class Memory>
void agree_with_the_model(const Memory& memory) {
  const std::uint64_t first_seed = 20240;
  for (std::uint64_t seed = first_seed; seed < first_seed + scaled(200, 6); ++seed) {
    CAPTURE(seed);
    spans random(seed);
    modelled_wheel pair(random.once_in(4) ? 0 : random.any());
    bool agree = true;
    bool in_time = true;
    bool exact_for_few = true;

    for (int step = 0; step < 4000 && agree; ++step) {
      pair.let_there_be_memory(memory(step));
      const bool mostly_near = seed % 2 == 0;
      const auto span = [&] { return mostly_near && !random.once_in(8) ? random.below_a_second() : random.any(); };
      switch (random.below(10)) {
        case 0: case 1: case 2: case 3:
          if (!pair.full()) pair.insert(saturating_add(pair.now(), span()));
          if (random.once_in(6) && !pair.full()) pair.insert(pair.earliest());
          if (random.once_in(20) && !pair.full()) pair.insert(pair.now() - span());
          if (random.once_in(50) && !pair.full()) pair.insert(random.once_in(2) ? never : long_ago);
          break;
        case 4: case 5:
          if (pair.size() != 0) pair.erase_one(random.below(1000000));
          break;
        case 6:
          if (!pair.full()) pair.hold(pair.now() - static_cast<nanos>(random.below(3)));
          if (random.once_in(2) && pair.size() != 0) pair.erase_one(random.below(1000000));
          if (pair.any_held()) {
            agree = pair.next_wake() == long_ago && pair.next_deadline() == pair.earliest_of_all() && pair.take();
          }
          pair.free_held();
          if (random.once_in(2) && pair.size() != 0) pair.erase_newest();
          break;
        case 7:
          pair.erase_what_stands_nowhere();
          in_time = in_time && pair.next_wake() <= pair.earliest();
          agree = agree && pair.due() == pair.due_by_the_model() && pair.next_deadline() == pair.earliest();
          if (pair.size() <= 16) exact_for_few = exact_for_few && pair.next_wake() == pair.earliest();
          break;
        case 8:
          pair.move_clock(saturating_add(pair.now(), random.once_in(20) ? random.any() : span() / 16));
          if (random.once_in(10)) pair.move_clock((std::max)(nanos{0}, pair.now() - span()));
          break;
        default:
          if (random.once_in(4) && pair.earliest() != never) {
            pair.move_clock((std::max)(pair.now(), pair.earliest()));
          }
          for (std::size_t n = random.below(40); n != 0 && agree; --n) agree = pair.take();
      }
    }
    pair.move_clock(never - 1);
    while (pair.earliest() != never && agree) agree = pair.take();

    CHECK(agree);
    CHECK(in_time);
    CHECK(exact_for_few);
    CHECK(pair.take());
    CHECK(pair.next_wake() == never);
  }
}

}  // namespace

TEST_CASE("whatever is armed, cancelled and awaited, the wheel agrees with the model") {
  agree_with_the_model([](int) { return true; });
}

TEST_CASE("a wheel that finds no memory for a time, or never any, still agrees with the model") {
  agree_with_the_model([](int) { return false; });
  agree_with_the_model([](int step) { return step / 300 % 2 == 1; });
}

TEST_CASE("of a crowd whose tick has come, those who stay fire in order when most have left") {
  modelled_wheel pair(0);
  for (nanos i = 0; i < 1000; ++i) pair.insert(10 * tick + (i * 37) % 1000);
  pair.move_clock(11 * tick);
  CHECK(pair.take());

  for (std::size_t i = 0; i < 900; ++i) pair.erase_one(i * 7);

  CHECK(pair.due() == 99);
  while (pair.size() != 0) REQUIRE(pair.take());
  CHECK(pair.take());
}

TEST_CASE("equal deadlines leave the wheel in the order they came, from whatever level") {
  for (const nanos deadline : {nanos{5}, tick - 1, tick, 64 * tick, 64 * 64 * tick + 7, hour, year, 200 * year}) {
    CAPTURE(deadline);
    const auto records = std::make_unique<record[]>(300);
    wheel all;
    auto arm_till = [&, i = std::size_t{0}](std::size_t end) mutable {
      for (; i < end; ++i) {
        records[i].deadline = deadline;
        all.insert(records[i]);
      }
    };

    arm_till(100);
    all.advance(deadline / 2);
    arm_till(150);
    all.advance(deadline - 1);
    CHECK(all.take_due(deadline - 1) == nullptr);
    arm_till(200);
    all.advance(deadline);
    arm_till(300);

    bool in_order = true;
    for (std::size_t i = 0; i < 300; ++i) in_order = in_order && all.take_due(deadline) == &records[i];
    CHECK(in_order);
    CHECK(all.take_due(never) == nullptr);
  }
}

TEST_CASE("a crowd costs one wake a level at most before its first timer is due") {
  const auto records = std::make_unique<record[]>(5000);
  std::mt19937_64 random(7);
  for (const nanos first : {30 * tick, hour, 3 * year}) {
    CAPTURE(first);
    wheel all;
    nanos earliest = never;
    for (std::size_t i = 0; i < 5000; ++i) {
      records[i].deadline = first + static_cast<nanos>(random() % static_cast<std::uint64_t>(first));
      earliest = (std::min)(earliest, records[i].deadline);
      all.insert(records[i]);
    }

    int wakes = 0;
    nanos now = 0;
    while (all.take_due(now) == nullptr) {
      CHECK(all.next_wake() > now);
      now = all.next_wake();
      ++wakes;
    }

    CHECK(now == earliest);
    CHECK(wakes <= 8);
    for (std::size_t i = 0; i < 5000; ++i) all.erase(records[i]);
    CHECK(all.next_wake() == never);
  }
}

TEST_CASE("a bag is never much larger than twice what stands in it") {
  constexpr std::size_t standing = 1000;
  const auto records = std::make_unique<record[]>(standing);
  chunks spare;
  bag some;
  std::uint64_t order = 0;
  const auto put = [&](record& r) {
    r.order = ++order;
    some.put(entry{5, r.order, &r}, spare);
  };
  const auto take_out = [&](record& r) {
    r.order = 0;
    some.drop_gone(spare);
  };
  std::mt19937 random(3);
  for (std::size_t i = 0; i < standing; ++i) put(records[i]);

  for (std::size_t i = 0; i < 200 * standing; ++i) {
    record& r = records[random() % standing];
    take_out(r);
    put(r);
  }

  std::size_t entries = 0;
  std::set<record*> found;
  some.empty_out(spare, [&](const entry& e) {
    ++entries;
    if (e.stands()) found.insert(e.timer);
  });
  CHECK(found.size() == standing);
  CHECK(entries <= 2 * standing + 200);
  CHECK(some.empty());
}

TEST_CASE("bags that grow, shrink and share their memory keep to themselves") {
  constexpr std::size_t most = 600;
  const auto records = std::make_unique<record[]>(2 * most);
  std::set<record*> standing[2];
  std::mt19937 random(11);
  chunks spare;
  bag bags[2];
  std::uint64_t order = 0;
  bool exact = true;
  const auto put = [&](std::size_t which, record& r) {
    r.order = ++order;
    bags[which].put(entry{5, r.order, &r}, spare);
    standing[which].insert(&r);
  };
  const auto take_out = [&](std::size_t which, record& r) {
    r.order = 0;
    bags[which].drop_gone(spare);
    standing[which].erase(&r);
  };

  for (std::size_t round = scaled(400, 40); round != 0; --round) {
    for (const std::size_t which : {0u, 1u}) {
      record* const mine = &records[which * most];
      const std::size_t wanted = random() % most;
      for (std::size_t i = 0; i < wanted; ++i) {
        if (mine[i].order == 0) put(which, mine[i]);
      }
      const auto older = [](const record* a, const record* b) { return a->order < b->order; };
      for (std::size_t n = random() % 8; n != 0; --n) {
        const bool newest_first = n % 2 == 0;
        for (std::size_t k = random() % 200; k != 0 && !standing[which].empty(); --k) {
          record& r = newest_first ? **std::max_element(standing[which].begin(), standing[which].end(), older)
                                   : mine[random() % most];
          if (r.order != 0) take_out(which, r);
        }
      }
    }
    const std::size_t which = random() % 8;
    if (which > 1) continue;
    std::set<record*> found;
    std::vector<entry> all;
    bags[which].empty_out(spare, [&](const entry& e) {
      if (e.stands()) all.push_back(e);
    });
    for (const entry& e : all) {
      found.insert(e.timer);
      bags[which].put(e, spare);
    }
    exact = exact && found == standing[which];
  }

  CHECK(exact);
  for (bag& b : bags) b.empty_out(spare, [](const entry&) {});
}

TEST_CASE("what is armed and cancelled at once leaves nothing in a bag") {
  record standing;
  record brief;
  chunks spare;
  bag some;
  standing.order = 1;
  some.put(entry{5, 1, &standing}, spare);

  for (std::uint64_t order = 2; order < 100; ++order) {
    brief.order = order;
    some.put(entry{5, order, &brief}, spare);
    brief.order = 0;
    some.drop_gone(spare);
  }

  int entries = 0;
  some.empty_out(spare, [&](const entry&) { ++entries; });
  CHECK(entries == 1);
}

TEST_CASE("cancelled timers wake nobody") {
  virtual_loop loop;
  const auto begin = virtual_clock::now();
  std::vector<hybridloop::timer_id> ids;
  bool fired = false;
  must_post(loop, [&] {
    for (int i = 1; i <= 1000; ++i) ids.push_back(loop.after(std::chrono::milliseconds(i * 17), [] {}));
    loop.after(1h, [&] { fired = true; });
    for (const auto id : ids) CHECK(loop.cancel(id));
  });

  loop.run_until_idle();

  CHECK(fired);
  CHECK(virtual_clock::now() == begin + 1h);
  CHECK(loop.stats().parks == 1);
}

TEST_CASE("a beat is one wake a beat") {
  virtual_loop loop;
  int beats = 0;
  loop.every(1s, [&] {
    if (++beats == 1000) loop.stop();
  });
  for (int i = 1; i <= 12; ++i) loop.unref(loop.after(std::chrono::hours(i), [] {}));

  loop.run();

  CHECK(loop.stats().parks == 1000);
}

TEST_SUITE_END();
