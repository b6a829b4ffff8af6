// ingress/queue.hpp - a ring and, when it is full, the spill behind it, in one order
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>

#include "base/error.hpp"
#include "ingress/room.hpp"
#include "ingress/spill.hpp"
#include "task/arena.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Ring is that of all threads or of one. Blocks and the waiting room are shared by all queues of a loop.
template <class Traits, class Ring>
class queue {
 public:
  using spill_type = spill<Traits>;
  using node = typename spill_type::node;

  template <class... Args>
  queue(arena<Traits>& blocks, waiting_room<Traits>& room, Args&&... ring) noexcept
      : arena_(blocks), room_(room), ring_(std::forward<Args>(ring)...), stride_(stride_of(ring_.capacity())) {}

  // Any thread. `strong` says how to publish, `look` is called after publishing and may find the loop
  // gone: nothing of this object is touched after that. `when_full` is asked when the ring is; on
  // the loop thread it first lets go of the slots that were run, so the ring is tried once more.
  template <class Build, class F, class Policy, class Look>
  post_result offer(F&& f, const Policy& when_full, bool strong, const Look& look) {
    std::optional<visit> waiting;  // left last, after a refused closure's block was given back
    unique_task::room<std::decay_t<F>> place(arena_);
    if (!place.had()) out_of_memory<Build>();
    std::uint64_t index = 0;
    overflow policy{};
    answer got = claim(index);
    if (got == answer::full) {
      policy = when_full();
      got = claim(index);
    }
    switch (got) {
      case answer::claimed: return fill<Build>(index, place, std::forward<F>(f), strong, look);
      case answer::closed: return post_result::closed;
      case answer::full: break;
    }
    if (policy == overflow::block) waiting.emplace(room_);
    return offer_spill<Build>(place, std::forward<F>(f), waiting, policy, strong, look);
  }

  // Any thread. The ring or nothing: never waits, never spills.
  template <class Build, class F, class Look>
  post_result offer_ring(F&& f, bool strong, const Look& look) {
    unique_task::room<std::decay_t<F>> place(arena_);
    if (!place.had()) out_of_memory<Build>();
    std::uint64_t index = 0;
    switch (claim(index)) {
      case answer::claimed: return fill<Build>(index, place, std::forward<F>(f), strong, look);
      case answer::closed: return post_result::closed;
      case answer::full: break;
    }
    return post_result::full;
  }

  // Any thread. The caller then sets the close bit of the status word; only that ends the loop.
  void close() noexcept {
    ring_.close();
    spill_.close();
    room_.call();
  }
  bool closed() const noexcept { return ring_.is_closed(); }

  bool has_spilled() const noexcept { return !spill_.empty(); }
  bool has_room() const noexcept { return ring_.has_room(); }
  waiting_room<Traits>& room() noexcept { return room_; }

  std::uint64_t posts() const noexcept { return ring_.tail() + spill_.spilled(); }
  std::uint64_t spilled() const noexcept { return spill_.spilled(); }
  std::uint64_t ran() const noexcept { return ring_.head() + spill_.spilled(); }  // the loop thread

  // The loop thread from here on.
  //
  // Runs the oldest accepted task that can run: run(task), then destroys it. False when there is
  // none, or when the oldest is claimed and not yet published.
  template <class Build, class Run>
  bool run_next(Run&& run) {
    node* spilled = spill_.taken();
    if (spilled == nullptr || ring_.head() < spilled->ticket) {
      if (ring_.published(ring_.head())) {
        run_slot<Build>(run);
        return true;
      }
      if (spilled != nullptr) return false;  // an unpublished slot below the ticket holds it back
      spilled = spill_.front();
      if (spilled == nullptr) return false;
      if (ring_.head() < spilled->ticket) return run_next<Build>(run);
    }
    if (!spill_type::published(*spilled)) return false;
    run_node<Build>(run, *spilled);
    return true;
  }

  // Takes what spilled behind what was taken before, so that producers find the spill empty and
  // come back to the ring. Cheap when nothing did.
  void take_spilled() noexcept { spill_.take_more(); }

  // Lets producers have the slots of what was run. At least every few hundred tasks, on every way
  // out of the drain, and before parking. (Inline, g++ 12 breaks down at it.)
  HYBRIDLOOP_OUT_OF_LINE void publish_head() noexcept {
    returning_.give(arena_);
    unpublished_ = ring_.publish_head(oldest_running_) ? 0 : 1;
    room_.call();
  }
  bool publish_head_in_time() noexcept {
    const bool due = unpublished_ >= stride_ || (unpublished_ >= stride_ / 4 && room_.looked_for());
    if (due) publish_head();
    return due;
  }
  bool owes_head() const noexcept { return unpublished_ != 0; }

  // Claimed, whether published or not, counts as work.
  bool empty() noexcept {
    return ring_.head() == ring_.tail() && spill_.front() == nullptr;
  }
  // How many are accepted and have not run.
  std::size_t pending() noexcept {
    spill_.take_more();
    return backlog() + spill_.waiting();
  }
  std::size_t owed = 0;  // accepted before a loan began, and not run yet
  std::size_t backlog() const noexcept {
    return static_cast<std::size_t>(ring_.tail() - ring_.head());
  }
  bool can_run() noexcept {
    const node* spilled = spill_.front();
    if (spilled != nullptr && ring_.head() >= spilled->ticket) return spill_type::published(*spilled);
    return ring_.published(ring_.head());
  }
  // Whether so many are waiting in the ring, as far as its slots tell; whether a quarter of it is.
  bool holds(std::size_t many) const noexcept {
    const std::size_t most = ring_.capacity();
    return ring_.published(ring_.head() + (many < most ? many : most) - 1);
  }
  bool fills_up() const noexcept { return holds(ring_.capacity() / 4 + 1) || has_spilled(); }

  // What the last look before a sleep compares: copied before the sleep is published, because
  // from then on the loop may be somebody else's.
  struct bookmark {
    std::uint64_t head;
    const node* front;
    bool front_is_next;
  };
  bookmark mark() noexcept {
    const node* front = spill_.front();
    return {ring_.head(), front, front != nullptr && ring_.head() >= front->ticket};
  }
  bool news_before_sleep(const bookmark& at) const noexcept {
    if (at.front_is_next) return spill_.news_before_sleep(at.front);
    if (ring_.published_before_sleep(at.head)) return true;
    return at.front == nullptr && spill_.news_before_sleep(nullptr);
  }

  // The child of a fork, where whoever had claimed a place is not there to fill it.
  void abandon_claims() noexcept {
    for (std::uint64_t i = ring_.head(); i != ring_.tail(); ++i) {
      if (ring_.published(i)) continue;
      ring_.task_at(i).mark_empty();
      ring_.publish(i, true);
    }
    for (node* n = spill_.front(); n != nullptr; n = n->next) spill_type::publish(*n);
  }

  // Destroys what was accepted and never run. Waits for claims that are not yet published.
  void destroy_all() noexcept {
    while (!empty()) {
      const bool some = run_next<build_tag>([](unique_task&) {});
      if (!some) Traits::kernel::yield();
    }
    publish_head();
  }

 private:
  using answer = claim_answer;
  using visit = typename waiting_room<Traits>::visit;
  static constexpr std::uint64_t nobody = ~std::uint64_t{0};

  template <class Build>
  [[noreturn]] static void out_of_memory() {
    refuse<Build>(std::make_error_code(std::errc::not_enough_memory), "hybridloop: post");
  }

  // A producer that finds the spill not empty spills too.
  answer claim(std::uint64_t& index) noexcept {
    if (!spill_.empty()) return ring_.is_closed() ? answer::closed : answer::full;
    return ring_.claim(index);
  }

  // Publishes on every way out: a constructor that throws leaves an empty task, a tombstone, and its
  // block goes back first.
  template <class Place, class Publish, class Look>
  struct publisher {
    Place& place;
    const Publish& publish;
    const Look& look;
    ~publisher() {
      place.give_back();
      publish();
      Traits::schedule_point("published");
      look();
    }
  };

  template <class Build, class Place, class F, class Look>
  post_result fill(std::uint64_t index, Place& place, F&& f, bool strong, const Look& look) {
    Traits::schedule_point("claimed");
    const auto publish = [this, index, strong] { ring_.publish(index, strong); };
    const publisher<Place, decltype(publish), Look> on_exit{place, publish, look};
    unique_task& task = ring_.task_at(index);
    task.mark_empty();
    task.emplace(place, std::forward<F>(f));
    return post_result::accepted;
  }

  template <class Build, class Place, class F, class Look>
  post_result offer_spill(Place& place, F&& f, std::optional<visit>& waiting, overflow when_full,
                          bool strong, const Look& look) {
    void* memory = arena_.take_block();
    if (memory == nullptr && when_full == overflow::fail) return post_result::full;
    if (memory == nullptr && when_full == overflow::block) {
      std::uint64_t index = 0;
      switch (wait_for_room(*waiting, index, memory)) {
        case answer::claimed: return fill<Build>(index, place, std::forward<F>(f), strong, look);
        case answer::closed: return post_result::closed;
        case answer::full: break;  // but a block was had
      }
    }
    std::uint32_t spare = 0;
    if (memory == nullptr) memory = arena_.take_spare(spare);
    if (memory == nullptr) memory = arena_.take(sizeof(node), alignof(node));
    if (memory == nullptr) out_of_memory<Build>();
    node* mine = ::new (memory) node;
    mine->spare = spare;
    mine->ticket = ring_.tail();
    Traits::schedule_point("ticket");
    if (!spill_.push(*mine)) {
      give(*mine);
      return post_result::closed;
    }
    Traits::schedule_point("spilled");
    const auto publish = [mine] { spill_type::publish(*mine); };
    const publisher<Place, decltype(publish), Look> on_exit{place, publish, look};
    mine->task.emplace(place, std::forward<F>(f));
    return post_result::accepted;
  }

  answer wait_for_room(const visit& here, std::uint64_t& index, void*& memory) noexcept {
    for (;;) {
      const std::uint32_t seen = here.epoch();
      const answer got = claim(index);
      if (got != answer::full) return got;
      memory = arena_.take_block();
      if (memory != nullptr) return answer::full;
      Traits::schedule_point("no-room");
      here.sleep(seen);
    }
  }

  void give(node& n) noexcept {
    const std::uint32_t spare = n.spare;
    n.~node();
    if (spare != 0) return arena_.give_spare(spare);
    arena_.give(&n, sizeof(node), alignof(node));
  }

  // The loop thread: with the next published head.
  void give_later(node& n) noexcept {
    const std::uint32_t spare = n.spare;
    n.~node();
    if (spare != 0) {
      returning_.add_spare(arena_, spare);
    } else if (arena_.owns(&n)) {
      returning_.add(arena_, &n);
    } else {
      return arena_.give(&n, sizeof(node), alignof(node));
    }
    if (unpublished_ == 0) unpublished_ = 1;  // a nested run has published meanwhile
  }

  // Whatever leaves the task (a return, an exception), the closure is destroyed and the slot is
  // done. The private head has moved before, so a nested run goes on with the next slot; the
  // published one stops at the oldest slot that still runs.
  template <class Build, class Run>
  void run_slot(Run& run) {
    struct done {
      queue& in;
      unique_task& task;
      bool outermost;
      ~done() {
        task.destroy_unmarked();
        if (outermost) in.oldest_running_ = nobody;
      }
    };
    const std::uint64_t index = ring_.head();
    ring_.advance();
    ++unpublished_;
    const done guard{*this, ring_.task_at(index), oldest_running_ == nobody};
    if (guard.outermost) oldest_running_ = index;
    if (guard.task) run(guard.task);
  }

  template <class Build, class Run>
  void run_node(Run& run, node& n) {
    struct done {
      queue& in;
      node& mine;
      ~done() { in.give_later(mine); }
    };
    spill_.pop();
    ++unpublished_;
    const done guard{*this, n};
    if (n.task) run(n.task);
  }

  static constexpr std::uint32_t stride_of(std::size_t capacity) noexcept {
    return capacity < 8 ? 1 : capacity >= 1024 ? 256 : static_cast<std::uint32_t>(capacity / 4);
  }

  arena<Traits>& arena_;
  waiting_room<Traits>& room_;
  Ring ring_;
  spill_type spill_;

  // The loop thread.
  alignas(cache_line) typename arena<Traits>::returning returning_;
  std::uint64_t oldest_running_ = nobody;
  const std::uint32_t stride_;
  std::uint32_t unpublished_ = 0;  // run, and not yet in the published head
};

}  // namespace detail
HYBRIDLOOP_CLOSE
