// loop/visitors.hpp - those who wait for something elsewhere and are to be told on this loop
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "task/slab.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// One who waits. The loop knows it from before it waits until it has been told, so that its end reaches
// it. Who it is knows `hear`.
template <class Traits>
struct visitor {
  enum class call : std::uint8_t {
    come_in,    // deliver what had no room; the loop thread
    loop_ends,  // wait no longer; the loop thread, or who destroys the loop
    collect     // nobody runs the loop any more: go, if all others have let go of you
  };
  using hear_type = void (*)(visitor&, call) noexcept;

  explicit visitor(hear_type h) noexcept : hear(h) {}
  visitor(const visitor&) = delete;
  visitor& operator=(const visitor&) = delete;

  const hear_type hear;
  visitor* next = nullptr;
  visitor* previous = nullptr;
  visitor* next_late = nullptr;
};

// Edge [visit]: N1 a visitor that comes from another thread is put on the list (release), N2 the loop thread
// takes that list (acquire). Rule: every change is a read-modify-write, so N2 meets each N1 [intro.races].
// And the other way round: when all are told that the loop ends, the list is taken even if it looks empty. A
// visitor that this did not meet has read, in N1 (acquire), what N2 left (release): behind it, it finds the
// loop closed.
//
// Edge [late]: one that had no room in the loop's queues. M1 it is put on the list (release), before the
// doorbell is rung; M2 the loop thread takes the list (acquire). Rule: as in [visit].
template <class Traits>
class visitors {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using visitor_type = visitor<Traits>;
  using call = typename visitor_type::call;

 public:
  visitors() noexcept = default;
  visitors(const visitors&) = delete;
  visitors& operator=(const visitors&) = delete;

  // Any thread but the loop's.
  void send_in(visitor_type& v) noexcept {
    v.next = coming_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!coming_.compare_exchange_weak(v.next, &v, std::memory_order_acq_rel,  // [visit] N1
                                          std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
  }
  // Any thread. The doorbell is to be rung after it.
  void be_late(visitor_type& v) noexcept {
    v.next_late = late_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!late_.compare_exchange_weak(v.next_late, &v, std::memory_order_release,  // [late] M1
                                        std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
  }
  bool has_late() const noexcept { return late_.load(std::memory_order_relaxed) != nullptr; }  // a hint; who comes late rings

  // The loop thread from here on.

  void add(visitor_type& v) noexcept {
    v.previous = nullptr;
    v.next = first_;
    if (first_ != nullptr) first_->previous = &v;
    first_ = &v;
  }
  void remove(visitor_type& v) noexcept {
    adopt();
    (v.previous == nullptr ? first_ : v.previous->next) = v.next;
    if (v.next != nullptr) v.next->previous = v.previous;
  }

  // In the order in which they came.
  void let_late_in() noexcept {
    if (!has_late()) return;
    visitor_type* newest = late_.exchange(nullptr, std::memory_order_acquire);  // [late] M2
    visitor_type* oldest = nullptr;
    while (newest != nullptr) {
      visitor_type* const before = newest->next_late;
      newest->next_late = oldest;
      oldest = newest;
      newest = before;
    }
    while (oldest != nullptr) {
      visitor_type* const after = oldest->next_late;
      oldest->hear(*oldest, call::come_in);
      oldest = after;
    }
  }

  // Each may go by itself meanwhile, but no other.
  void tell_all(call what) noexcept {
    take_in();
    for (visitor_type* v = first_; v != nullptr;) {
      visitor_type* const after = v->next;
      v->hear(*v, what);
      v = after;
    }
  }
  bool empty() noexcept {
    adopt();
    return first_ == nullptr;
  }

 private:
  void adopt() noexcept {
    if (coming_.load(std::memory_order_relaxed) == nullptr) return;  // a hint; who looks for one it knows of has it in order
    take_in();
  }
  void take_in() noexcept {
    visitor_type* fresh = coming_.exchange(nullptr, std::memory_order_acq_rel);  // [visit] N2
    while (fresh != nullptr) {
      visitor_type* const after = fresh->next;
      add(*fresh);
      fresh = after;
    }
  }

  visitor_type* first_ = nullptr;
  atomic<visitor_type*> coming_{nullptr};
  atomic<visitor_type*> late_{nullptr};
};

// Where a callback waits: memory that stays, so that a ticket may be asked about at any time.
//
// Edge [ticket]: who frees a record comes after all who used it. K1 a user lets go, or the wait is over
// (release); K2 who finds that it was the last frees it (acquire). Rule: every change of the word is a
// read-modify-write, one release sequence [intro.races].
template <class Traits>
struct wait_record {
  static constexpr std::size_t room = task_size + 8 + 200;
  static constexpr std::uint64_t one_pin = 2;
  static constexpr std::uint64_t alive = 1;
  static constexpr std::uint64_t generation = ~std::uint64_t{0} << 32;

  std::uint32_t open() noexcept {
    const std::uint64_t was = word.fetch_or(alive, std::memory_order_relaxed);  // ours alone: nobody knows it yet
    return static_cast<std::uint32_t>(was >> 32);
  }
  // False: it is not that wait's any more.
  bool pin(std::uint32_t number) noexcept {
    std::uint64_t seen = word.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while ((seen & alive) != 0 && seen >> 32 == number) {
      if (word.compare_exchange_weak(seen, seen + one_pin, std::memory_order_acquire,  // [ticket] K2
                                     std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
    return false;
  }
  // True: it is to be freed.
  bool unpin() noexcept { return last(word.fetch_sub(one_pin, std::memory_order_acq_rel) - one_pin); }  // [ticket] K1, K2
  bool end() noexcept { return last(word.fetch_sub(alive, std::memory_order_acq_rel) - alive); }        // [ticket] K1, K2
  void renew() noexcept {
    word.fetch_add(std::uint64_t{1} << 32, std::memory_order_relaxed);  // ours alone: nobody else knows it
  }

  typename Traits::template atomic<std::uint64_t> word{0};
  typename Traits::template atomic<std::uint32_t> next_free{0};
  std::uint32_t index = 0;
  const void* of = nullptr;  // what is waited for
  alignas(16) unsigned char storage[room];

 private:
  static bool last(std::uint64_t now) noexcept { return (now & ~generation) == 0; }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
