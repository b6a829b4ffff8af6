// watch/record.hpp - one watch: its callback, and what any thread may ask of it
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "base/handle.hpp"
#include "poller/contract.hpp"
#include "task/slab.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

using watch_callback = basic_task<const ready&>;

// F(ready) or F(), as the user wrote it.
template <class F>
struct ready_callable {
  F f;
  void operator()(const ready& what) {
    if constexpr (std::is_invocable_v<F&, const ready&>) {
      f(what);
    } else {
      f();
    }
  }
};

// Edge [watch]: a watch is ended once. Any thread moves its word from live to ended by CAS (acq_rel);
// the loop thread, told by a command, takes it off the poller and gives the record back, so a late
// id finds another generation. Rule: a CAS reads the last value [atomics.order], so one ends it; and who
// finds it live has read, by acquire, the store that made it.
template <class Traits>
struct watch_record {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  static constexpr std::uint64_t live = 1;
  static constexpr std::uint64_t ended = 2;

  // Any thread.
  atomic<std::uint64_t> word{0};
  atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;

  // The loop thread.
  native_handle handle = -1;
  interest what = interest::none;
  bool attached = false;
  bool armed = true;        // false: a oneshot that was delivered, or a hang-up that was told
  bool always = false;      // a file that is always ready
  int lost = 0;             // the errno that is still to be told: its descriptor is gone
  bool referenced = true;
  std::uint32_t running = 0;
  std::uint64_t served = 0;  // the latest event it was considered for
  watch_record* next = nullptr;
  watch_callback call;

  bool waits_for_no_event() const noexcept {
    return always && armed && (has(what, interest::readable) || has(what, interest::writable));
  }

  static std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>(word >> 8);
  }
};

// Makes watches, finds them by id, and takes them back. Any thread.
template <class Traits>
class watch_table {
 public:
  using record = watch_record<Traits>;

  // nullptr when there is no memory; throws what the closure's constructor throws.
  template <class Build, class F>
  record* make(block_source& home, F&& f, native_handle handle, interest what) {
    watch_callback::room<std::decay_t<F>> place(home);
    const std::uint32_t index = place.had() ? table_.take() : table_.none;
    if (index == table_.none) return nullptr;
    record& r = table_.at(index);
    give_back unless_made{this, &r};
    r.call.emplace(place, std::forward<F>(f));
    unless_made.r = nullptr;
    r.handle = handle;
    r.what = what;
    r.armed = true;
    r.always = false;
    r.referenced = true;
    r.running = 0;
    r.served = 0;
    std::uint32_t generation = record::generation_of(r.word.load(std::memory_order_relaxed)) + 1;  // ours alone until it is made
    if (generation == 0) generation = 1;
    r.word.store(std::uint64_t{generation} << 8 | record::live, std::memory_order_release);  // [watch]
    return &r;
  }

  watch_id id_of(const record& r) const noexcept {
    return {r.index, record::generation_of(r.word.load(std::memory_order_relaxed))};  // a hint; its holder asks
  }

  // The record of a live watch, or nullptr.
  record* find(watch_id id) noexcept {
    record* r = any(id);
    return r != nullptr && (r->word.load(std::memory_order_acquire) & record::live) != 0 ? r : nullptr;  // [watch]
  }
  // The same, live or ended but not yet given back.
  record* any(watch_id id) noexcept {
    record* r = id ? table_.find(id.index()) : nullptr;
    if (r == nullptr) return nullptr;
    const std::uint64_t word = r->word.load(std::memory_order_acquire);  // [watch]
    const bool held = (word & (record::live | record::ended)) != 0;
    return held && record::generation_of(word) == id.generation() ? r : nullptr;
  }

  // True for exactly one caller.
  bool end(watch_id id) noexcept {
    record* r = any(id);
    if (r == nullptr) return false;
    std::uint64_t live = std::uint64_t{id.generation()} << 8 | record::live;
    const std::uint64_t ended = std::uint64_t{id.generation()} << 8 | record::ended;
    return r->word.compare_exchange_strong(live, ended, std::memory_order_acq_rel);  // [watch]
  }

  // The loop thread: nothing refers to it any more.
  void give(record& r) noexcept {
    const std::uint64_t word = r.word.load(std::memory_order_relaxed);  // a hint; its generation is fixed
    r.word.store(word >> 8 << 8, std::memory_order_release);            // [watch]
    watch_callback closure(std::move(r.call));
    table_.give(r.index);
  }

  template <class F>
  void for_each(F&& f) {
    table_.for_each(std::forward<F>(f));
  }

 private:
  struct give_back {
    watch_table* all;
    record* r;
    ~give_back() {
      if (r != nullptr) all->table_.give(r->index);
    }
  };

  slab<Traits, record> table_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
