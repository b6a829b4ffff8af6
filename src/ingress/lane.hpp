// ingress/lane.hpp - a private way into the loop for one thread at a time
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "ingress/lane_ring.hpp"
#include "ingress/queue.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A queue whose ring has a single producer, in a mapping of its own. Held by its producer and by the
// loop, and freed by the last of them.
//
// Edge [busy]: everything a lane accepted is run or destroyed.
//
//   producer                                closer, then loop thread
//   D1  busy = 1                            D3  closed = 1, before the close bit of the status word
//   D2  closed ? answer so : accept         D4  busy ? look again : what is in the lane is all
//   D5  busy = 0, release
//
// D1 and D2 against D3 and D4 is the quarrel of [sleep] once more. Who posts strong writes D1
// seq_cst; who does not leaves the barrier to the loop, which issues one between D3 and D4. Either
// the producer sees D3, or the loop sees D1, and then waits for D5. Rule: the one order of seq_cst
// operations, or what membarrier(2) promises; D4 synchronises with the D5 that it reads [atomics.order].
//
// Edge [part]: V1 the producer or the loop lets go (release); V2 the other one sees that it is the
// last (acquire), and frees the lane. Rule: a count that only read-modify-writes change is one release
// sequence [intro.races].
template <class Traits>
class lane {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using kernel = typename Traits::kernel;

 public:
  using queue_type = queue<Traits, lane_ring<Traits>>;

  // nullptr: no memory. `capacity` is a power of two.
  static lane* create(std::size_t capacity, arena<Traits>& blocks, waiting_room<Traits>& room,
                      const atomic<std::uint32_t>& closed) noexcept {
    const std::size_t bytes = header + capacity * sizeof(typename slot_array<Traits>::slot);
    void* memory = kernel::map(bytes);
    return memory == nullptr ? nullptr : ::new (memory) lane(bytes, capacity, blocks, room, closed);
  }
  lane(const lane&) = delete;
  lane& operator=(const lane&) = delete;

  // The producer's hold, and the loop's.
  void let_go() noexcept {
    if (holders_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // [part] V1, V2
    const std::size_t bytes = bytes_;
    this->~lane();
    kernel::unmap(this, bytes);
  }

  // The producer, around each post. Posts nest, in the constructor of a closure: what the outer one
  // claimed is then known by the tail, which D5 of the inner one publishes.
  class post {
   public:
    post(lane& mine, bool strong) noexcept : lane_(mine) {
      if (strong) {
        lane_.busy_.store(1, std::memory_order_seq_cst);  // [busy] D1
      } else {
        lane_.busy_.store(1, std::memory_order_relaxed);      // [busy] D1 with a barrier
        std::atomic_signal_fence(std::memory_order_seq_cst);  // [busy] D1 stays before D2
      }
      Traits::schedule_point("lane-busy");
    }
    post(const post&) = delete;
    post& operator=(const post&) = delete;
    ~post() { lane_.busy_.store(0, std::memory_order_release); }  // [busy] D5

   private:
    lane& lane_;
  };

  // The loop thread from here on.
  //
  // Claimed, whether published or not, counts as work, and so does a post that may be about to claim.
  bool empty() noexcept {
    return busy_.load(std::memory_order_seq_cst) == 0 && tasks.empty();  // [busy] D4
  }
  bool parted() const noexcept { return holders_.load(std::memory_order_acquire) == 1; }  // [part] V2

  void mark() noexcept { marked_ = tasks.mark(); }
  bool news_before_sleep() const noexcept { return tasks.news_before_sleep(marked_); }

  // The child of a fork, where the producer is in no call.
  void abandon_claims() noexcept {
    tasks.abandon_claims();
    busy_.store(0, std::memory_order_relaxed);  // ours alone
  }
  void destroy_all() noexcept {
    while (busy_.load(std::memory_order_seq_cst) != 0) kernel::yield();  // [busy] D4
    tasks.destroy_all();
  }

  queue_type tasks;
  lane* next = nullptr;
  std::size_t visits = 0;  // by runs nested in each other

 private:
  static constexpr std::size_t header = 16 * cache_line;

  lane(std::size_t bytes, std::size_t capacity, arena<Traits>& blocks, waiting_room<Traits>& room,
       const atomic<std::uint32_t>& closed) noexcept
      : tasks(blocks, room, reinterpret_cast<unsigned char*>(this) + header, capacity, closed), bytes_(bytes) {
    static_assert(sizeof(lane) <= header);
  }
  ~lane() = default;

  typename queue_type::bookmark marked_{};  // before the sleep was published
  const std::size_t bytes_;
  atomic<std::uint32_t> holders_{2};

  // The producer.
  alignas(cache_line) atomic<std::uint32_t> busy_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
