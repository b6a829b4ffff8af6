// sync/epoch.hpp - what was taken out of a shared structure is used again when nobody can look at it any more
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "base/config.hpp"
#include "task/memory.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Where such objects come from. A test's traits may have another, and give back what has been waited for
// instead of using it again.
template <class Traits>
struct epoch_memory {
  static constexpr bool reuses = true;
  static void* take(std::size_t bytes, std::size_t alignment) noexcept { return heap_take(bytes, alignment); }
  static void give(void* memory, std::size_t, std::size_t alignment) noexcept { heap_give(memory, alignment); }
};

// Epochs (K. Fraser, Practical lock-freedom, 2004), one for the process and each kind of object. Who looks
// at shared objects is pinned: a record says so, and in which epoch. The epoch goes on when all that are
// pinned have come to it; what was retired two epochs ago is nobody's.
//
// Edge [epoch]: an object is not used again while somebody looks at it.
//
//   who looks                                      who takes X away
//   E1  reads the epoch (acquire)                  E4  X unlinked; reads the epoch, e, by a read-modify-write
//   E2  its record: 0 -> that epoch (acq_rel)      E5  asks each record by a read-modify-write: 0, or e?
//   E3  looks; then its record = 0 (release)           then the epoch: e -> e + 1 (acq_rel)
//                                                  E5  the same again, e + 1 -> e + 2; X is free
//
// Rule: of two read-modify-writes of one word the later reads the earlier, or what was built on it
// [atomics.order]. So e -> e + 1 has E4 behind it, and whoever reads e + 1 in E1 finds X nowhere. The
// second E5 finds in each record: an older epoch, and fails; or e + 1; or 0, and then E3 is over, or E2 is
// still to come and has that E5 behind it, or an E3 of one that has: it finds X nowhere.
//
// All orders stand on named words; a thread sanitizer sees all of it. A thread that stops while it is
// pinned keeps memory from being used again, and nobody from going on. What was once needed is kept for the
// next that needs it. In the child of a fork, what threads had pinned that are not there is not waited for.
//
// Object has an atomic<Object*> `link`, is valid when it is made, and needs no destructor.
//
// Any thread: everything but forget_all. Not in signal handlers.
template <class Traits, class Object>
class epochs {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using memory = epoch_memory<Traits>;

  struct alignas(cache_line) record {
    atomic<std::uint64_t> word{0};  // 0, or who is pinned in which epoch
    record* next = nullptr;         // set once
  };

 public:
  // A record for the time of an operation. Not to be held while anybody is told, and one at a time.
  class pin {
   public:
    pin() noexcept : record_(enter()) {}
    pin(const pin&) = delete;
    pin& operator=(const pin&) = delete;
    ~pin() { record_.word.store(0, std::memory_order_release); }  // [epoch] E3

    // Nobody finds it any more who does not look at it already.
    void retire(Object& x) const noexcept {
      const std::uint64_t now = the.epoch.fetch_add(0, std::memory_order_acq_rel);  // [epoch] E4
      push(the.retired[now % 3], x);
      go_on();
    }

    // nullptr when there is no memory. Not as new.
    Object* take() const noexcept {
      Object* top = the.spare.load(std::memory_order_acquire);  // [spare] S2
      while (top != nullptr) {
        Object* const next = top->link.load(std::memory_order_relaxed);  // a hint; the CAS decides
        Traits::schedule_point("spare-seen");
        if (the.spare.compare_exchange_weak(top, next, std::memory_order_acquire,  // [spare] S2
                                            std::memory_order_acquire)) {  // [spare] S2
          return top;
        }
      }
      void* const fresh = memory::take(sizeof(Object), alignof(Object));
      return fresh == nullptr ? nullptr : ::new (fresh) Object;
    }

   private:
    // To the next epoch, if all are in this one; what was retired in the one before is free then. Until this
    // record moves on, nobody gets past the next one, so the list that is taken is still that epoch's.
    void go_on() const noexcept {
      std::uint64_t now = epoch_of(record_.word.load(std::memory_order_relaxed));  // ours alone
      if (the.epoch.load(std::memory_order_relaxed) != now) return;  // a hint; the CAS decides
      for (record& r : the.first) {
        if (!has_come(r, now)) return;
      }
      for (record* r = more(); r != nullptr; r = r->next) {
        if (!has_come(*r, now)) return;
      }
      Traits::schedule_point("epoch-ends");
      if (!the.epoch.compare_exchange_strong(now, now + 1, std::memory_order_acq_rel)) return;  // [epoch] E5
      Object* free = the.retired[(now + 2) % 3].exchange(nullptr, std::memory_order_acquire);  // [spare] S2
      while (free != nullptr) {
        Object* const next = free->link.load(std::memory_order_relaxed);  // ours alone
        put_by(*free);
        free = next;
      }
    }

    record& record_;
  };

  // While nobody is inside: as if nothing had been before. For tests.
  static void forget_all() noexcept {
    for (atomic<Object*>& list : the.retired) give_all(list);
    give_all(the.spare);
    the.epoch.store(first_epoch, std::memory_order_relaxed);  // ours alone
    last_used() = nullptr;
  }

 private:
  static constexpr std::uint64_t first_epoch = 3;

  // Edge [spare]: who takes an object finds it as it was left. S1 it is put on a list (release); S2 it is
  // taken (acquire). Rule: both change the head by read-modify-writes, so S2 meets each S1 below it in
  // the release sequence [intro.races]. That a head goes and comes again (ABA) would need two epochs to
  // pass, and who takes is pinned.
  static void push(atomic<Object*>& list, Object& x) noexcept {
    Object* top = list.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      x.link.store(top, std::memory_order_relaxed);  // ours alone until the CAS
    } while (!list.compare_exchange_weak(top, &x, std::memory_order_release,  // [spare] S1
                                         std::memory_order_relaxed));  // a hint; the loop repeats
  }
  static void put_by(Object& x) noexcept {
    if constexpr (memory::reuses) {
      push(the.spare, x);
    } else {
      memory::give(&x, sizeof(Object), alignof(Object));
    }
  }
  static void give_all(atomic<Object*>& list) noexcept {
    Object* x = list.exchange(nullptr, std::memory_order_acquire);  // [spare] S2
    while (x != nullptr) {
      Object* const next = x->link.load(std::memory_order_relaxed);  // ours alone
      memory::give(x, sizeof(Object), alignof(Object));
      x = next;
    }
  }

  // Epoch, the number of forks so far, and a bit that says "pinned".
  static constexpr std::uint64_t word_of(std::uint64_t epoch, std::uint32_t forks) noexcept {
    return epoch << 17 | (forks & 0xffffu) << 1 | 1u;
  }
  static constexpr std::uint64_t epoch_of(std::uint64_t word) noexcept { return word >> 17; }
  static bool holds_back(std::uint64_t word, std::uint64_t now) noexcept {
    return word != 0 && epoch_of(word) != now && word == word_of(epoch_of(word), Traits::kernel::forks());
  }
  static bool has_come(record& r, std::uint64_t now) noexcept {
    if (holds_back(r.word.load(std::memory_order_relaxed), now)) return false;  // a hint; it is asked again
    return !holds_back(r.word.fetch_add(0, std::memory_order_acq_rel), now);    // [epoch] E5
  }

  static record& enter() noexcept {
    const std::uint64_t now = the.epoch.load(std::memory_order_acquire);  // [epoch] E1
    const std::uint64_t word = word_of(now, Traits::kernel::forks());
    record* const mine = last_used();
    return mine != nullptr && pinned(*mine, word) ? *mine : look_for_one(word);
  }
  static bool pinned(record& r, std::uint64_t word) noexcept {
    std::uint64_t nobody = 0;
    return r.word.compare_exchange_strong(nobody, word, std::memory_order_acq_rel,  // [epoch] E2
                                          std::memory_order_relaxed);  // a hint; another one is tried
  }
  HYBRIDLOOP_OUT_OF_LINE static record& look_for_one(std::uint64_t word) noexcept {
    for (;;) {
      record* found = nullptr;
      for (record& r : the.first) {
        if (found == nullptr && is_free(r) && pinned(r, word)) found = &r;
      }
      for (record* r = found != nullptr ? nullptr : more(); r != nullptr && found == nullptr; r = r->next) {
        if (is_free(*r) && pinned(*r, word)) found = r;
      }
      if (found == nullptr) found = grow(word);
      if (found != nullptr) return *(last_used() = found);
      Traits::kernel::yield();  // no memory: one of the others is given back soon
    }
  }
  static bool is_free(const record& r) noexcept { return r.word.load(std::memory_order_relaxed) == 0; }  // a hint; the CAS decides

  // Records are never given back. The head is a number, so that it can be read by a read-modify-write: who
  // comes with a new record afterwards has seen the epoch that the reader has.
  static record* more() noexcept {
    return reinterpret_cast<record*>(the.more.fetch_add(0, std::memory_order_acq_rel));  // [epoch] E2, E5
  }
  static record* grow(std::uint64_t word) noexcept {
    void* const fresh = heap_take(sizeof(record), alignof(record));
    if (fresh == nullptr) return nullptr;
    auto* const made = ::new (fresh) record;
    made->word.store(word, std::memory_order_relaxed);  // ours alone until the CAS
    std::uintptr_t head = the.more.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      made->next = reinterpret_cast<record*>(head);
    } while (!the.more.compare_exchange_weak(head, reinterpret_cast<std::uintptr_t>(made), std::memory_order_acq_rel,  // [epoch] E2
                                             std::memory_order_relaxed));  // a hint; the loop repeats
    return made;
  }

  // A guess where to look first. Fibers of one thread may share it.
  static record*& last_used() noexcept {
    static thread_local record* last = nullptr;
    return last;
  }

  struct domain {
    alignas(cache_line) atomic<std::uint64_t> epoch{first_epoch};
    alignas(cache_line) atomic<Object*> spare{nullptr};
    alignas(cache_line) atomic<Object*> retired[3] = {};
    atomic<std::uintptr_t> more{0};
    record first[8];
  };
  static inline domain the;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
