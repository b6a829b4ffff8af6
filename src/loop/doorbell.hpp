// loop/doorbell.hpp - the status word of a loop and all that a poster touches after it published
#pragma once

#include <atomic>
#include <cstdint>

#include "base/config.hpp"
#include "base/contract.hpp"
#include "base/handle.hpp"
#include "task/memory.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// One 32-bit word is the state of the loop and the word its channel sleeps on: a mode, and bits
// that any thread may set. Nothing else decides how to wake the loop, and while it has one only
// read-modify-writes change it, so no change ever erases a bit it does not own.
namespace status {
inline constexpr std::uint32_t idle = 0;        // nobody is in run()
inline constexpr std::uint32_t awake = 1;       // the loop thread runs, or looks before it sleeps
inline constexpr std::uint32_t in_channel = 2;  // it sleeps on this word, or is about to
inline constexpr std::uint32_t in_poller = 3;   // it sleeps in the poller, or is about to
inline constexpr std::uint32_t lent = 4;        // another thread is the loop for a moment
inline constexpr std::uint32_t dead = 5;
inline constexpr std::uint32_t away = 6;        // nobody is in run(), but a foreign loop waits for the bell
inline constexpr std::uint32_t mode = 7;
inline constexpr std::uint32_t wanted = 8;      // look once more before you sleep
inline constexpr std::uint32_t stop = 16;
inline constexpr std::uint32_t close = 32;
inline constexpr std::uint32_t lendable = 64;  // the loop thread sleeps in the channel, or is about to, and
                                               // has looked: a caller may be the loop meanwhile
inline constexpr std::uint32_t offered = in_channel | lendable;
inline constexpr std::uint32_t borrowed = lent | lendable;

constexpr std::uint32_t mode_of(std::uint32_t word) noexcept { return word & mode; }
constexpr std::uint32_t with_mode(std::uint32_t word, std::uint32_t m) noexcept {
  return (word & ~mode) | m;
}
// What ends a sleep ends all that belongs to it.
constexpr std::uint32_t up(std::uint32_t word, std::uint32_t m) noexcept {
  return with_mode(word & ~(wanted | lendable), m);
}
constexpr bool asleep(std::uint32_t word) noexcept {
  return mode_of(word) == in_channel || mode_of(word) == in_poller;
}
constexpr bool wants_ring(std::uint32_t word) noexcept {
  return asleep(word) || mode_of(word) == away;
}
}  // namespace status

// Edge [sleep]: a loop that goes to sleep cannot miss a task.
//
//   poster                                  loop thread
//   P1  task published (lap, or ready)      L1  status: awake -> in_channel or in_poller, CAS
//   P2  status ? ring it : go on            L2  anything published ? stay up : sleep
//
// Symmetric: all four are seq_cst, so they stand in one order. If P2 saw "awake" it stands before
// L1, hence P1 before L2, and L2 sees the task. Rule: the one order of seq_cst operations
// [atomics.order]. Asymmetric: P1 and P2 are plain, and the loop issues a process-wide barrier between
// L1 and L2. A poster that has passed P2 by then has P1 behind the same barrier, and L2 sees it; one
// that has not will see L1. C++ has no rule for that: it is what membarrier(2) promises, and the signal
// fence in look() keeps the compiler from swapping P1 and P2. Weaker than either, P2 and L2 may both
// read old values, and nothing would wake the loop.
//
// A thread sanitizer sees the symmetric protocol whole, because none of it is atomic_thread_fence, which
// it does not model: the orders stand on the atomics themselves. Of the barrier it knows nothing and
// needs nothing: that decides whether L2 finds the task, not what is in it, which is [slot]'s.
//
// Of many posters one moves the word back to awake and rings. The word names what to ring; only
// the loop thread ever chooses it, so it cannot change under a sleeping loop, and a descriptor
// that is registered "meanwhile" does not exist: that is a task like any other.
//
// A loop that lives inside another one goes through in_poller, with L1 and L2, to `away`: its sleeper
// is whoever waits for the bell, and who rings turns the word to idle.
//
// Edge [fence]: `symmetric` may change while posters are on their way. They read it after P1. To
// asymmetric: flag, then a barrier in every park. To symmetric: flag, then one barrier: who read
// the old flag has P1 behind it, and who reads the new one looks with a read-modify-write. Rule: of two
// read-modify-writes of one word the later reads the earlier, or what was built on it [atomics.order].
// So P2 sees L1; or L1, an acquire, takes up P2, a release, and P1 happens before L2.
//
// Edge [bell]: nobody rings a bell that was closed, or that became somebody else's descriptor.
//
//   ringer                                  destructor
//   B1  ringers += 1                        B4  status -> dead
//   B2  status: asleep -> awake, CAS        B5  waits for ringers == 0, closes the bell
//   B3  rings; ringers -= 1, release
//
// If B2 succeeded it stands before B4 in the word's order, and B1 before both, so B5 waits for B3.
// Rule: B4, a read-modify-write, reads B2 or what was built on it and synchronises with it, so B5 reads
// B1 or later; a zero then is B3's, and an acquire [atomics.order].
//
// A doorbell outlives its loop: doorbells come from a process-wide list, are used again and never
// unmapped. So a poster whose own task ended the loop may look at the word of a later loop: at
// worst it wakes that one once for nothing.
template <class Traits>
struct alignas(cache_line) doorbell {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

  static constexpr const char* in_the_child =
      "the child of a fork destroys its copy of a loop, or calls after_fork_child() first";

  // Read by every poster, written when the loop parks or is told something.
  atomic<std::uint32_t> word{status::idle};
  atomic<std::uint32_t> symmetric{1};
  atomic<std::uint32_t> used{1};
  doorbell* next = nullptr;  // set once
  std::uint32_t born = 0;    // in which process its loop is at home

  // Written by ringers.
  alignas(cache_line) atomic<std::uint32_t> ringers{0};
  atomic<native_handle> bell{native_handle{-1}};
  atomic<std::uint64_t> wakes_channel{0};
  atomic<std::uint64_t> wakes_poller{0};

  // Any thread, any signal handler. How to publish before look().
  bool strong() const noexcept {
    return symmetric.load(std::memory_order_relaxed) != 0;  // a hint; look() asks again
  }

  // The poster, after it published, as its last touch of anything of the loop.
  void look(bool published_strong) noexcept {
    if (published_strong) {
      ring_if_asleep(word.load(std::memory_order_seq_cst));  // [sleep] P2
      return;
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);  // [sleep] P1 stays before P2; a barrier does the rest
    if (symmetric.load(std::memory_order_relaxed) != 0) {  // [fence] read after P1
      ring_if_asleep(word.fetch_add(0, std::memory_order_seq_cst));  // [sleep] P2, [fence]
    } else {
      ring_if_asleep(word.load(std::memory_order_acquire));  // [sleep] P2 with a barrier
    }
  }

  // Whether somebody runs the loop and is up.
  bool loop_is_awake() const noexcept {
    return status::mode_of(word.load(std::memory_order_relaxed)) == status::awake;  // a hint; a poster's patience
  }

  // Any thread, any signal handler: sets bits and ends a sleep.
  void tell(std::uint32_t bits) noexcept {
    std::uint32_t seen = word.load(std::memory_order_relaxed);  // a hint; the CAS decides
    move(seen, bits);
  }

  // Whoever turned the word to awake, if the loop thread waits on it.
  void rouse() noexcept {
    wakes_channel.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    Traits::parker::wake_one(word);
  }

  // A doorbell nobody uses.
  static doorbell* acquire() noexcept {
    for (doorbell* d = list().load(std::memory_order_acquire); d != nullptr; d = d->next) {  // [list] A2
      std::uint32_t free = 0;
      if (d->used.load(std::memory_order_relaxed) == 0 &&  // a hint; the CAS decides
          d->used.compare_exchange_strong(free, 1, std::memory_order_acq_rel)) {  // [list] A4
        d->born = Traits::kernel::forks();
        return d;
      }
    }
    void* memory = heap_take(sizeof(doorbell), alignof(doorbell));
    if (memory == nullptr) return nullptr;
    auto* made = ::new (memory) doorbell;
    made->born = Traits::kernel::forks();
    doorbell* head = list().load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      made->next = head;
    } while (!list().compare_exchange_weak(head, made, std::memory_order_release,  // [list] A1
                                           std::memory_order_relaxed));  // a hint; the loop repeats
    return made;
  }

  // Its loop is gone: ready for the next one.
  void release() noexcept {
    word.store(status::idle, std::memory_order_relaxed);     // ours alone; a late poster may look
    symmetric.store(1, std::memory_order_relaxed);           // ours alone; a late poster may look
    wakes_channel.store(0, std::memory_order_relaxed);       // ours alone
    wakes_poller.store(0, std::memory_order_relaxed);        // ours alone
    used.store(0, std::memory_order_release);                // [list] A3
  }

 private:
  void ring_if_asleep(std::uint32_t seen) noexcept {
    // An idle loop needs no ring: run() looks at everything before it sleeps.
    if (mode_is_quiet(seen)) return;
    move(seen, 0);
  }
  static bool mode_is_quiet(std::uint32_t seen) noexcept {
    const std::uint32_t m = status::mode_of(seen);
    return m == status::awake || m == status::idle || m == status::dead;
  }

  // One CAS that sets the bits and, from a sleep, the mode awake; its winner rings. A sleep that ends
  // is all that `wanted` wants: left standing, it would end the next one too.
  void move(std::uint32_t seen, std::uint32_t bits) noexcept {
    bool counted = false;
    for (;;) {
      const std::uint32_t m = status::mode_of(seen);
      std::uint32_t then = seen | bits;
      if (status::wants_ring(seen)) {
        const std::uint32_t after = m == status::away ? status::idle : status::awake;
        then = status::up(then, after);
      }
      if (m == status::lent) then |= status::wanted;
      // Even a bit that is set already is set again: who tells orders what it wrote before.
      if (m == status::dead || (then == seen && bits == 0)) break;
      if (status::wants_ring(seen) && !counted) {
        counted = true;
        ringers.fetch_add(1, std::memory_order_seq_cst);  // [bell] B1
      }
      Traits::schedule_point("before-ring");
      if (word.compare_exchange_weak(seen, then, std::memory_order_seq_cst,  // [bell] B2, [sleep] P2, [lend] P2
                                     std::memory_order_seq_cst)) {  // [sleep] P2
        if (m == status::in_channel) rouse();
        if (m == status::in_poller || m == status::away) wake_poller();
        break;
      }
    }
    if (counted) ringers.fetch_sub(1, std::memory_order_release);  // [bell] B3
  }

  void wake_poller() noexcept {
    wakes_poller.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    HYBRIDLOOP_CONTRACT(born == Traits::kernel::forks(), in_the_child);
    const native_handle handle = bell.load(std::memory_order_acquire);  // [bell] B3
    if (Traits::poller::ring(handle) != 0) fail("the kernel refuses to ring the bell of a sleeping loop");
  }

  // Edge [list]: A1 a doorbell joins (release), A2 others walk to it (acquire). A3 its last loop
  // lets go of it (release), A4 the next one takes it (acquire); of several, the CAS lets one. Rule: a
  // release synchronises with the acquire that reads it, here through other A1s too, a release sequence
  // [intro.races].
  static atomic<doorbell*>& list() noexcept {
    static atomic<doorbell*> head{nullptr};
    return head;
  }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
