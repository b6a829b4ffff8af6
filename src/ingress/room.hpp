// ingress/room.hpp - posters that wait until a full loop has room again
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.hpp"
#include "base/config.hpp"

HYBRIDLOOP_OPEN

// The answer of a post. Look at it: only `accepted` means that the task will run, or be destroyed
// with the loop.
enum class [[nodiscard]] post_result : std::uint8_t {
  accepted,
  full,    // no room; the task is still yours
  closed,  // the loop takes no more; the task is still yours
};

// What a post does when ring and arena are both full. With the first two, a post that is the first to
// find the ring full looks for room for up to 16 us, and gives way to other threads, once and then now
// and again, before it goes on to the arena; on another thread than the loop's, while the loop is
// awake, and not with loop_options::spin 0 or where the process has one CPU only.
enum class overflow : std::uint8_t {
  spill,  // goes on with more memory, never answers full
  block,  // waits for room; inside run() and its sisters it spills, after close() it answers closed.
          // Between two calls of poll() or run_budget() their thread is any other one: on a full loop
          // it would wait for itself. Use try_post() there, or `fail`
  fail,   // answers full
};

namespace detail {

// Edge [room]: a poster that waits for room cannot miss it.
//
//   poster                                  loop thread
//   R1  waiting += 1                        R3  head published, or a block given back
//   R2  head and free blocks ? go on        R4  waiting ? epoch += 1, wake all
//       : sleep on the epoch
//
// All four are seq_cst, so they stand in one order: if R4 saw nobody, it stands before R1, hence R3
// before R2, and R2 sees the room. Rule: that order [atomics.order]. The epoch is read before R2, so a wake between R2 and the sleep
// changes the word and the sleep ends at once. No barrier of the loop's [sleep] edge helps here.
template <class Traits>
class waiting_room {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  // A poster stands here while it waits. The loop is not torn down under it.
  class visit {
   public:
    explicit visit(waiting_room& room) noexcept : room_(room) {
      room_.waiting_.fetch_add(1, std::memory_order_seq_cst);  // [room] R1
    }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    ~visit() { room_.waiting_.fetch_sub(1, std::memory_order_release); }  // [leave] W1

    std::uint32_t epoch() const noexcept {
      return room_.epoch_.load(std::memory_order_seq_cst);  // [room] R2
    }
    void sleep(std::uint32_t seen) const noexcept { Traits::parker::wait(room_.epoch_, seen, never); }

   private:
    waiting_room& room_;
  };

  // A poster stands here while it looks for room without sleeping; the loop thread then says sooner
  // that there is some.
  class glance {
   public:
    explicit glance(waiting_room& room) noexcept : room_(room) {
      room_.looking_.fetch_add(1, std::memory_order_relaxed);  // a hint
    }
    glance(const glance&) = delete;
    glance& operator=(const glance&) = delete;
    ~glance() { room_.looking_.fetch_sub(1, std::memory_order_release); }  // [leave] W1

   private:
    waiting_room& room_;
  };
  bool looked_for() const noexcept { return looking_.load(std::memory_order_relaxed) != 0; }  // a hint

  // The loop thread, after it made room; any thread, after closing.
  void call() noexcept {
    if (waiting_.load(std::memory_order_seq_cst) == 0) return;  // [room] R4
    epoch_.fetch_add(1, std::memory_order_seq_cst);             // [room] R4
    Traits::parker::wake_all(epoch_);
  }

  // The child of a fork: they are not there.
  void forget_all() noexcept {
    waiting_.store(0, std::memory_order_relaxed);  // ours alone
    looking_.store(0, std::memory_order_relaxed);  // ours alone
  }

  // Edge [leave]: W1 a poster leaves (release); W2 the destructor sees the room empty (acquire), so
  // nobody touches what it frees. Rule: each count is changed by read-modify-writes only, so its zero is
  // in the release sequence of every W1 [intro.races].
  bool empty() const noexcept {
    return waiting_.load(std::memory_order_acquire) == 0 &&  // [leave] W2
           looking_.load(std::memory_order_acquire) == 0;    // [leave] W2
  }

 private:
  atomic<std::uint32_t> waiting_{0};
  atomic<std::uint32_t> epoch_{0};
  atomic<std::uint32_t> looking_{0};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
