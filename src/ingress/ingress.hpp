// ingress/ingress.hpp - all ways in: the queue that every thread posts to, and the lanes
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "ingress/lane.hpp"
#include "ingress/queue.hpp"
#include "ingress/ring.hpp"
#include "ingress/room.hpp"
#include "task/arena.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Edge [join]: J1 a lane is put on the list of joiners (release), any thread; J2 the loop thread takes
// that list (acquire). Nothing else tells the loop of a lane: a task in one that has not been taken is
// found through the list, so that is looked at wherever lanes are, before a sleep too. It is seq_cst
// because a lane that joins after the loop has closed must see that, as in [busy]. Rule: J2 synchronises
// with every J1 of the list, a release sequence [intro.races]; and the one order [atomics.order].
template <class Traits>
class ingress {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using shared_queue = queue<Traits, ring<Traits>>;
  using lane_type = lane<Traits>;

  ingress(void* ring, std::size_t ring_capacity, void* blocks, std::size_t arena_capacity) noexcept
      : arena_(blocks, arena_capacity), shared(arena_, room_, ring, ring_capacity) {}
  ingress(const ingress&) = delete;
  ingress& operator=(const ingress&) = delete;

  // Any thread. The caller then sets the close bit of the status word; only that ends the loop.
  void close() noexcept {
    closed_.store(1, std::memory_order_seq_cst);  // [busy] D3
    shared.close();
  }
  bool closed() const noexcept { return shared.closed(); }

  // Any thread: a lane of the caller's, or nullptr without memory.
  lane_type* join(std::size_t capacity) noexcept {
    lane_type* const fresh = lane_type::create(capacity, arena_, room_, closed_);
    if (fresh == nullptr) return nullptr;
    fresh->next = joining_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!joining_.compare_exchange_weak(fresh->next, fresh, std::memory_order_seq_cst,  // [join] J1
                                           std::memory_order_relaxed)) {  // a hint; the loop repeats
    }
    return fresh;
  }
  // Any thread, before the lane's producer lets go of it.
  void part() noexcept { parted_.fetch_add(1, std::memory_order_release); }  // [part] V1

  arena<Traits>& blocks() noexcept { return arena_; }
  const arena<Traits>& blocks() const noexcept { return arena_; }
  const waiting_room<Traits>& room() const noexcept { return room_; }

  // The loop thread from here on.

  // Takes lanes that joined.
  void adopt() noexcept {
    if (!lanes_wait()) return;
    lane_type* fresh = joining_.exchange(nullptr, std::memory_order_seq_cst);  // [join] J2
    while (fresh != nullptr) {
      lane_type* const after = fresh->next;
      fresh->next = lanes_;
      lanes_ = fresh;
      ++count_;
      fresh = after;
    }
  }
  // Lets go of lanes whose producers are gone, when they are empty; not of one that is being visited,
  // by an outer run.
  void reap() noexcept {
    if (parted_.load(std::memory_order_acquire) == reaped_) return;  // [part] V2
    for (lane_type** at = &lanes_; *at != nullptr;) {
      lane_type* const one = *at;
      if (one->visits != 0 || !one->parted() || !one->empty()) {
        at = &one->next;
        continue;
      }
      *at = one->next;
      if (next_ == one) next_ = one->next;
      drop(*one);
      ++reaped_;
    }
  }
  bool has_lanes() const noexcept { return lanes_ != nullptr || lanes_wait(); }

  // Gives each queue its turn, beginning behind the one that had the last: drain(queue, share) answers
  // how many it ran. Until `left` have run or halted() says so; answers what is left.
  template <class Drain, class Halted>
  std::size_t visit(std::size_t left, const Drain& drain, const Halted& halted) {
    if (lanes_ == nullptr) return left - drain(shared, left);
    for (std::size_t visits = count_ + 1; visits != 0 && left != 0 && !halted(); --visits) {
      lane_type* const now = next_;
      next_ = now == nullptr ? lanes_ : now->next;
      const std::size_t share = left < lane_share ? left : lane_share;
      const std::size_t ran = now == nullptr ? drain(shared, share) : visit_lane(*now, share, drain);
      left -= ran;
      if (ran == share) visits = count_ + 2;  // it has more: the round ends when no queue has
    }
    return left;
  }

  void publish_heads() noexcept {
    shared.publish_head();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) {
      if (l->tasks.owes_head()) l->tasks.publish_head();
    }
  }

  // What the queues have taken in, statistics; of the lanes, what they have run.
  std::uint64_t lane_posts() const noexcept { return sum(lane_posts_, &lane_type::queue_type::ran); }
  std::uint64_t lane_spilled() const noexcept { return sum(lane_spilled_, &lane_type::queue_type::spilled); }

  // Claimed, whether published or not, counts as work.
  bool empty() noexcept {
    return shared.empty() && !lanes_wait() && no_lane([](lane_type& l) { return !l.empty(); });
  }
  // The same for who does not end the lanes: a post that has claimed nothing yet will wake the loop.
  bool idle() noexcept {
    adopt();
    return shared.empty() && no_lane([](lane_type& l) { return !l.tasks.empty(); });
  }
  // How many are accepted and have not run.
  std::size_t pending() noexcept {
    adopt();
    std::size_t all = shared.pending();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) all += l->tasks.pending();
    return all;
  }
  // The same, and each queue notes how many of them are its own.
  std::size_t owe_pending() noexcept {
    adopt();
    std::size_t all = shared.owed = shared.pending();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) all += l->tasks.owed = l->tasks.pending();
    return all;
  }
  bool can_run() noexcept {
    return shared.can_run() || lanes_wait() || !no_lane([](lane_type& l) { return l.tasks.can_run(); });
  }

  bool fills_up() const noexcept {
    return shared.fills_up() || !no_lane([](const lane_type& l) { return l.tasks.fills_up(); });
  }

  // What the last look before a sleep compares, see queue. The lanes keep their own.
  using bookmark = typename shared_queue::bookmark;
  bookmark mark() noexcept {
    for (lane_type* l = lanes_; l != nullptr; l = l->next) l->mark();
    return shared.mark();
  }
  bool news_before_sleep(const bookmark& at) const noexcept {
    return shared.news_before_sleep(at) || lanes_wait() ||
           !no_lane([](const lane_type& l) { return l.news_before_sleep(); });
  }

  // The child of a fork: nobody waits for room, and nobody is in the middle of a post.
  void abandon_claims() noexcept {
    adopt();
    shared.abandon_claims();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) l->abandon_claims();
    room_.forget_all();
  }

  // Destroys what was accepted and never run. Waits for claims that are not yet published.
  void destroy_all() noexcept {
    adopt();
    shared.destroy_all();
    for (lane_type* l = lanes_; l != nullptr; l = l->next) l->destroy_all();
  }
  // After that: the lanes are their producers' alone.
  void drop_lanes() noexcept {
    while (lanes_ != nullptr) drop(*std::exchange(lanes_, lanes_->next));
    next_ = nullptr;
  }

 private:
  static constexpr std::size_t lane_share = 256;

  template <class Drain>
  static std::size_t visit_lane(lane_type& l, std::size_t share, const Drain& drain) {
    struct until_left {
      std::size_t& visits;
      ~until_left() { --visits; }
    };
    ++l.visits;
    const until_left here{l.visits};
    return drain(l.tasks, share);
  }

  bool lanes_wait() const noexcept {
    return joining_.load(std::memory_order_seq_cst) != nullptr;  // [join] J2, [sleep] L2
  }
  template <class Condition>
  bool no_lane(const Condition& holds) const noexcept {
    for (lane_type* l = lanes_; l != nullptr; l = l->next) {
      if (holds(*l)) return false;
    }
    return true;
  }
  std::uint64_t sum(std::uint64_t of_dropped,
                    std::uint64_t (lane_type::queue_type::*figure)() const) const noexcept {
    for (const lane_type* l = lanes_; l != nullptr; l = l->next) of_dropped += (l->tasks.*figure)();
    return of_dropped;
  }
  void drop(lane_type& one) noexcept {
    lane_posts_ += one.tasks.ran();
    lane_spilled_ += one.tasks.spilled();
    --count_;
    one.let_go();
  }

  // Read by every post of a lane, written when a lane comes or goes and when the loop closes.
  alignas(cache_line) atomic<std::uint32_t> closed_{0};
  atomic<std::uint32_t> parted_{0};
  atomic<lane_type*> joining_{nullptr};

  alignas(cache_line) waiting_room<Traits> room_;
  arena<Traits> arena_;

  // The loop thread.
  lane_type* lanes_ = nullptr;
  lane_type* next_ = nullptr;  // whose turn it is; nullptr: the shared queue's
  std::size_t count_ = 0;
  std::uint32_t reaped_ = 0;
  std::uint64_t lane_posts_ = 0;    // of lanes that are gone
  std::uint64_t lane_spilled_ = 0;

 public:
  shared_queue shared;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
