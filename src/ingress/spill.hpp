// ingress/spill.hpp - where posts go while the ring is full, without losing their order
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "base/config.hpp"
#include "task/arena.hpp"
#include "task/unique_task.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A chain of nodes pushed by any thread and taken whole by the loop thread.
//
// "The ring until it is empty, then the spill" would break the order: a slot that is claimed and
// not yet published makes the ring look empty. So a node carries a ticket, the ring's tail as its
// producer read it in the same post, after its own earlier claims. The loop thread runs every ring
// entry below the ticket before the node, and none at or above it. A producer that finds the
// spill not empty spills too; one that finds it empty finds it taken, and its next claim is at or
// above every ticket that was taken.
//
// Edge [spill]: the loop thread sees the node, and then the closure in it.
//
//   producer                                  loop thread
//   K1  ticket set                            K3  chain = head.fetch_and(closed), acquire
//   K2  head: CAS in, release                 K6  ready: load, acquire
//   K4  closure built                         K7  closure runs
//   K5  ready = 1, release ([sleep] P1)
//
// Rule: K3 reads the newest K2, and the others in its release sequence, for every push is a
// read-modify-write [intro.races]; K6 reads K5 and synchronises with it [atomics.order].
//
// K2 comes before K4 for the same reason as in the ring: acceptance is the claim, and a closure is
// moved from only when it was accepted. A constructor that throws leaves an empty task: K5 still
// comes. The chain is only ever pushed to and taken whole, so an address that returns (ABA) is
// harmless.
template <class Traits>
class spill {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  struct node {
    node* next = nullptr;
    std::uint64_t ticket = 0;
    atomic<std::uint32_t> ready{0};
    std::uint32_t spare = 0;  // the number of its memory in the arena's table; 0: a block, or the heap
    unique_task task;
  };
  static_assert(sizeof(node) <= block_size - 8, "a spilled task fits an arena block, and a spare one");

  // Any thread. False when closed; the node is still the caller's.
  bool push(node& fresh) noexcept {
    std::uintptr_t head = head_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if ((head & closed) != 0) return false;
      fresh.next = reinterpret_cast<node*>(head);
      if (head_.compare_exchange_weak(head, reinterpret_cast<std::uintptr_t>(&fresh),
                                      std::memory_order_seq_cst,  // [spill] K2, [close] C1
                                      std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
  }

  // The pusher, once: the task is built, or will never be.
  static void publish(node& mine) noexcept {
    mine.ready.store(1, std::memory_order_seq_cst);  // [spill] K5, [sleep] P1
  }

  // Any thread. For the order coherence would be enough: a thread's own push is seen, or its taking.
  bool empty() const noexcept {
    return (head_.load(std::memory_order_seq_cst) & ~closed) == 0;  // [spill] K2, K3, [room] R2
  }

  void close() noexcept { head_.fetch_or(closed, std::memory_order_seq_cst); }  // [close] C1

  // Any thread: how many the loop thread has taken.
  std::uint64_t spilled() const noexcept {
    return spilled_.load(std::memory_order_relaxed);  // a hint; statistics
  }

  // The loop thread from here on.
  //
  // The next node to run, in the order of the pushes, or nullptr.
  node* front() noexcept {
    if (taken_ == nullptr) take_more();
    return taken_;
  }
  node* taken() const noexcept { return taken_; }
  std::size_t waiting() const noexcept { return waiting_; }
  void pop() noexcept {
    --waiting_;
    taken_ = taken_->next;
    if (taken_ == nullptr) last_ = nullptr;
  }
  void take_more() noexcept {
    if (!empty()) take();
  }

  static bool published(const node& n) noexcept {
    return n.ready.load(std::memory_order_acquire) != 0;  // [spill] K6
  }

  // The last look before a sleep: a chain that came, or a front that became ready.
  bool news_before_sleep(const node* front) const noexcept {
    if (front != nullptr) return front->ready.load(std::memory_order_seq_cst) != 0;  // [sleep] L2
    return (head_.load(std::memory_order_seq_cst) & ~closed) != 0;  // [sleep] L2
  }

 private:
  static constexpr std::uintptr_t closed = 1;

  // The chain comes newest first; it is turned round and hung behind what was taken before.
  void take() noexcept {
    const std::uintptr_t chain = head_.fetch_and(closed, std::memory_order_seq_cst);  // [spill] K3
    node* const newest = reinterpret_cast<node*>(chain & ~closed);
    node* oldest = nullptr;
    std::size_t count = 0;
    for (node* n = newest; n != nullptr; ++count) {
      node* older = n->next;
      n->next = oldest;
      oldest = n;
      n = older;
    }
    (last_ == nullptr ? taken_ : last_->next) = oldest;
    last_ = newest;
    waiting_ += count;
    spilled_.store(spilled() + count, std::memory_order_relaxed);  // ours alone to write
  }

  atomic<std::uintptr_t> head_{0};
  atomic<std::uint64_t> spilled_{0};

  // The loop thread.
  alignas(cache_line) node* taken_ = nullptr;
  node* last_ = nullptr;
  std::size_t waiting_ = 0;  // taken and not popped
};

}  // namespace detail
HYBRIDLOOP_CLOSE
