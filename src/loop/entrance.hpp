// loop/entrance.hpp - what posters touch of a loop: its queues, its doorbell, and the rules for a full ring
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "ingress/ingress.hpp"
#include "ingress/patience.hpp"
#include "loop/doorbell.hpp"
#include "loop/frames.hpp"
#include "loop/options.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// A batch that tells of a backlog.
inline constexpr std::size_t backlog_batch = 64;

template <class Traits>
class entrance {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using doorbell_type = doorbell<Traits>;

  entrance(doorbell_type& d, const loop_options& o, void* ring, void* blocks, bool patient) noexcept
      : door(d), options(o), in(ring, o.ring_capacity, blocks, o.arena_capacity), patient_(patient) {}
  entrance(const entrance&) = delete;
  entrance& operator=(const entrance&) = delete;

  // Any thread, and a lane's producer for its lane.

  bool runs_here() const noexcept { return loop_frame::runs(&door); }

  // Posts follow the options; what the loop sends to itself is never refused for room.
  template <class Build, class F>
  post_result post(F&& f, overflow when_full) {
    return post_to<Build>(in.shared, std::forward<F>(f), when_full);
  }
  template <class Build, class Queue, class F>
  post_result post_to(Queue& queue, F&& f, overflow when_full) {
    doorbell_type* const bell = &door;
    const bool strong = bell->strong();
    return queue.template offer<Build>(
        std::forward<F>(f), [this, &queue, when_full] { return full_policy(queue, when_full); }, strong,
        [bell, strong] { bell->look(strong); });
  }

  template <class Build, class Queue, class F>
  post_result try_post_to(Queue& queue, F&& f) {
    doorbell_type* const bell = &door;
    const bool strong = bell->strong();
    const auto look = [bell, strong] { bell->look(strong); };
    const post_result first = queue.template offer_ring<Build>(std::forward<F>(f), strong, look);
    if (first != post_result::full || !runs_here()) return first;
    queue.publish_head();
    return queue.template offer_ring<Build>(std::forward<F>(f), strong, look);
  }

  // Without a look: the caller owes one. A full ring is looked after here, because nobody makes room
  // while the loop sleeps.
  template <class Build, class F>
  post_result post_quietly(F&& f) {
    const auto when_full = [this] {
      door.look(true);
      return full_policy(in.shared, options.when_full);
    };
    return in.shared.template offer<Build>(std::forward<F>(f), when_full, true, [] {});
  }

  template <class Build, class F>
  bool send(F&& f) {
    struct unless_accepted {
      atomic<std::uint64_t>* commands;
      ~unless_accepted() {
        if (commands != nullptr) commands->fetch_sub(1, std::memory_order_relaxed);  // a hint; statistics
      }
    };
    commands_.fetch_add(1, std::memory_order_relaxed);  // a hint; statistics
    unless_accepted refused{&commands_};
    const bool sent = post<Build>(std::forward<F>(f), overflow::spill) == post_result::accepted;
    if (sent) refused.commands = nullptr;
    return sent;
  }

  void close() noexcept {
    in.close();
    Traits::schedule_point("closing");
    door.tell(status::close);  // [close] C2, with the CAS in there
  }

  // Posts, not commands.
  std::uint64_t posts() const noexcept {
    const std::uint64_t all = in.shared.posts() + lane_posts.get();
    const std::uint64_t own = commands_.load(std::memory_order_relaxed);  // a hint; statistics
    return all > own ? all - own : 0;
  }

  // The loop thread.

  // For choosing a fence: tasks and commands that were run. (The ring's tail would say what was
  // posted, but its line is the producers'.)
  std::uint64_t taken_in() const noexcept { return in.shared.ran() + in.lane_posts(); }

  // For stats(). After large batches only, for the same reason: who waits for the answer to the one
  // task that it posted claims the next place meanwhile. What was run in one go says as much of small ones.
  void note_backlog() noexcept { raise_ring_high(in.shared.backlog()); }
  void note_batch(std::uint64_t ran) noexcept {
    if (ran < backlog_batch) raise_ring_high(static_cast<std::size_t>(ran));
  }
  void publish_lane_counts() noexcept {
    lane_posts.set(in.lane_posts());
    lane_spilled.set(in.lane_spilled());
  }

  doorbell_type& door;
  const loop_options options;
  ingress<Traits> in;

  // Written by the loop thread, read by stats().
  tally<Traits, std::size_t> ring_high;
  tally<Traits> lane_posts, lane_spilled;

 private:
  void raise_ring_high(std::size_t waiting) noexcept {
    const std::size_t most = waiting < options.ring_capacity ? waiting : options.ring_capacity;
    if (most > ring_high.get()) ring_high.set(most);
  }

  // Where a ring is full. On the loop thread nobody else would make room.
  template <class Queue>
  overflow full_policy(Queue& queue, overflow asked) noexcept {
    if (!runs_here()) {
      if (patient_ && asked != overflow::fail && door.loop_is_awake()) look_for_room<Traits>(queue);
      return asked;
    }
    queue.publish_head();
    return asked == overflow::block ? overflow::spill : asked;
  }

  atomic<std::uint64_t> commands_{0};
  const bool patient_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
