// loop/wakeup.hpp - the loop's own side of its status word: entering, leaving, sleeping, lending
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "base/clock.hpp"
#include "loop/doorbell.hpp"
#include "loop/traits.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Edge [hand]: the loop's private state passes from one running thread to the next.
//
//   who stops being the loop                who becomes it
//   N1  status -> idle, CAS, release        N2  status: idle -> awake or lent, CAS, acquire
//
// Of several at N2 one succeeds, the others read what it wrote. Rule: all changes of the word are
// read-modify-writes, so N2 reads N1 or its release sequence, and synchronises with it [intro.races]:
// what the one has done happens before what the next one does. Who waits for a borrower sets `wanted`
// in the word that it sleeps on, and N1 takes its old value, so it is seen.
//
// A loop thread that sleeps and its callers take turns by the same CAS; see loop/lending.hpp.
template <class Traits>
class wakeup {
 public:
  explicit wakeup(doorbell<Traits>& door) noexcept : door_(door) {}

  std::uint32_t word() const noexcept {
    return door_.word.load(std::memory_order_acquire);  // [close] C3
  }
  bool running() const noexcept {
    const std::uint32_t seen = word();
    const std::uint32_t m = status::mode_of(seen);
    return m == status::awake || status::asleep(m) || (seen & status::lendable) != 0;
  }
  bool told(std::uint32_t bits) const noexcept { return (word() & bits) != 0; }
  void forget(std::uint32_t bits) noexcept {
    door_.word.fetch_and(~bits, std::memory_order_acq_rel);  // [close] C3
  }

  // Becomes the loop thread. Waits for a borrower; false when another thread is running the loop.
  bool enter() noexcept {
    std::uint32_t seen = word();
    for (;;) {
      const std::uint32_t m = status::mode_of(seen);
      if (m == status::idle || m == status::away) {
        if (change(seen, status::with_mode(seen, status::awake))) return true;
      } else if (m == status::lent && (seen & status::lendable) == 0) {
        await_give_back(seen);
        seen = word();
      } else {
        return false;
      }
    }
  }
  void leave() noexcept { turn_to(status::idle); }

  // Becomes the loop for a moment, while nobody runs it. `was` is what to give back to.
  bool borrow(std::uint32_t& was) noexcept {
    std::uint32_t seen = word();
    for (was = status::mode_of(seen); was == status::idle || was == status::away;
         was = status::mode_of(seen)) {
      if (change(seen, status::with_mode(seen, status::lent))) return true;
    }
    return false;
  }
  // Afterwards the loop may be gone: who waited for it may have run and destroyed it.
  void give_back() noexcept {
    doorbell<Traits>& door = door_;
    const std::uint32_t was = turn_to(status::idle);
    if ((was & status::wanted) != 0) Traits::parker::wake_all(door.word);
  }

  // For who cannot leave it to the loop thread: waits for another borrower. False: somebody runs it.
  bool borrow_in_turn(std::uint32_t& was) noexcept {
    while (!borrow(was)) {
      const std::uint32_t seen = word();
      if (was != status::lent || (seen & status::lendable) != 0) return false;
      await_give_back(seen);
    }
    return true;
  }

  // Gives back to a foreign loop that waits. It goes on waiting, unless somebody came meanwhile: posters
  // and tellers have left a bit on the word. False: the caller gives back, and rings.
  bool give_back_away() noexcept {
    std::uint32_t seen = word();
    while ((seen & urgent) == 0) {
      if (change(seen, status::with_mode(seen, status::away))) return true;
    }
    return false;
  }

  // After publish(in_poller) and a look that found nothing: the bell is a foreign loop's to hear from
  // now on, unless it was rung already.
  void leave_away() noexcept {
    std::uint32_t seen = word();
    while (status::asleep(seen)) {
      if (change(seen, status::with_mode(seen, status::away))) return;
    }
    leave();
  }

  // The child of a fork, whose one thread this is: who was ringing, or running the loop, is not there.
  void settle_in_child(std::uint32_t m) noexcept {
    const std::uint32_t now = status::with_mode(word() & ~status::lendable, m);
    door_.word.store(now, std::memory_order_relaxed);   // ours alone
    kept_.store(0, std::memory_order_relaxed);          // ours alone
    door_.ringers.store(0, std::memory_order_relaxed);                          // ours alone
    owes_barrier_ = !symmetric_;
  }

  void bury() noexcept { turn_to(status::dead); }

  // [sleep] L1. False when something was told that a sleeper would not hear; then look again. From true
  // on the word is `sleep` and nothing else, until somebody ends the sleep.
  bool publish(std::uint32_t sleep) noexcept {
    std::uint32_t seen = word();
    for (;;) {
      if ((seen & urgent) != 0) {
        forget(status::wanted);
        return false;
      }
      if (door_.word.compare_exchange_weak(seen, status::with_mode(seen, sleep),
                                           std::memory_order_seq_cst,   // [sleep] L1
                                           std::memory_order_acquire)) {  // a hint; the loop repeats
        return true;
      }
    }
  }

  // What the channel's wait looks at.
  const auto& sleeping_word() const noexcept { return door_.word; }

  // True when nobody else ended the sleep.
  bool wake_self() noexcept {
    std::uint32_t seen = word();
    while (status::asleep(seen)) {
      if (change(seen, status::up(seen, status::awake))) return true;
    }
    return false;
  }

  // ---- Lending, while the loop thread sleeps in the channel. See loop/lending.hpp. ----

  // The loop thread, after publish(in_channel) and a look that found nothing. From true on it owns
  // nothing. False: somebody has ended the sleep.
  bool offer() noexcept { return exchange(status::in_channel, status::offered); }

  // The loop thread that has offered itself, after its sleep. From here on it is the loop again. True
  // when nobody else ended the sleep.
  bool reclaim() noexcept {
    for (std::uint32_t seen = word();;) {
      if (seen == status::offered) {
        if (change(seen, status::awake)) return true;
      } else if ((seen & status::lendable) != 0) {
        await_give_back(seen);
        seen = word();
      } else if (kept_.load(std::memory_order_acquire) != 0) {  // [keep] V2, V4
        Traits::parker::wake_one(door_.word);  // what woke us was meant for the one who is the loop
        Traits::parker::wait(kept_, 1, never);
        seen = word();
      } else {
        return false;
      }
    }
  }

  // Any thread. True: it is the loop.
  bool borrow_sleeper() noexcept {
    return word() == status::offered && exchange(status::offered, status::borrowed);
  }

  // The loop thread sleeps on. False: somebody wants it.
  bool give_back_asleep() noexcept { return exchange(status::borrowed, status::offered); }

  // The loop may be gone as soon as the word is awake; its doorbell stays.
  void give_back_awake() noexcept {
    doorbell<Traits>& door = door_;
    std::uint32_t seen = word();
    while (!change(seen, status::up(seen, status::awake))) {
    }
    door.rouse();
  }

  // The borrower stays the loop until end_keep(), and may sleep on the word; not if it was told to look
  // once more.
  void keep() noexcept {
    kept_.store(1, std::memory_order_relaxed);  // [keep] V1 comes with the CAS
    std::uint32_t seen = word();
    while (!change(seen, status::with_mode(seen & ~status::lendable, status::awake))) {
    }
  }
  void forget_keep() noexcept { kept_.store(0, std::memory_order_relaxed); }  // ours alone, in the child of a fork
  void end_keep() noexcept {
    doorbell<Traits>& door = door_;
    auto& kept = kept_;
    kept.store(0, std::memory_order_release);  // [keep] V3
    Traits::parker::wake_one(kept);
    door.rouse();
  }

  // Chooses who pays for [sleep] from now on, by the posts since the last park. Call before
  // publish(); the barrier() after it is the one that makes a change safe.
  void choose_fence(std::uint64_t posts) noexcept {
    const std::uint64_t fresh = posts - posts_seen_;
    posts_seen_ = posts;
    posts_per_park_ = (posts_per_park_ * 7 + (fresh < 65536 ? fresh : 65536) * 16) / 8;
    owes_barrier_ = owes_barrier_ || !symmetric_;  // what a refused publish() left unpaid stays owed
    if (symmetric_ && wants_asymmetric() && Traits::barrier::available()) {
      set_symmetric(false);
      owes_barrier_ = true;
    } else if (!symmetric_ && wants_symmetric()) {
      set_symmetric(true);
    }
  }

  // In a stream the loop does not park, and posters need not pay: to asymmetric without a barrier,
  // which the next park will issue.
  void expect_stream(std::uint64_t posts) noexcept {
    if constexpr (Traits::fence != fence_policy::adaptive) return;
    if (!symmetric_ || posts - posts_seen_ < stream_posts) return;
    posts_per_park_ = 16 * stream_posts;
    if (Traits::barrier::available()) set_symmetric(false);
  }

  // After publish(), before the last look.
  void barrier() noexcept {
    if (!std::exchange(owes_barrier_, false) || Traits::barrier::issue()) return;
    set_symmetric(true);
    Traits::barrier::issue_last();
  }

  // Between D3 and D4 of [busy], when there are lanes: whoever posted without a fence is seen now.
  void settle_lanes(bool some) noexcept {
    if constexpr (Traits::fence == fence_policy::symmetric) return;
    if (some && !(Traits::barrier::available() && Traits::barrier::issue())) Traits::barrier::issue_last();
  }

 private:
  static constexpr std::uint32_t urgent = status::stop | status::close | status::wanted;
  static constexpr std::uint64_t many_posts = 16 * 64;
  static constexpr std::uint64_t few_posts = 16 * 16;
  static constexpr std::uint64_t stream_posts = 4096;

  bool wants_asymmetric() const noexcept {
    if constexpr (Traits::fence == fence_policy::adaptive) return posts_per_park_ > many_posts;
    return Traits::fence == fence_policy::asymmetric;
  }
  bool wants_symmetric() const noexcept {
    return Traits::fence == fence_policy::adaptive && posts_per_park_ < few_posts;
  }
  void set_symmetric(bool value) noexcept {
    symmetric_ = value;
    door_.symmetric.store(value ? 1 : 0, std::memory_order_seq_cst);  // [fence] the flag, then a barrier
  }

  void await_give_back(std::uint32_t seen) noexcept {
    const std::uint32_t asked = seen | status::wanted;
    if (status::mode_of(seen) != status::lent || (asked != seen && !change(seen, asked))) return;
    Traits::parker::wait(door_.word, asked, never);
  }

  bool change(std::uint32_t& seen, std::uint32_t next) noexcept {
    return door_.word.compare_exchange_weak(seen, next, std::memory_order_acq_rel,  // [hand] N1, N2
                                            std::memory_order_acquire);  // a hint; the caller repeats
  }
  bool exchange(std::uint32_t from, std::uint32_t to) noexcept {
    std::uint32_t seen = from;
    return door_.word.compare_exchange_strong(seen, to, std::memory_order_acq_rel,  // [lend] E0, E1; [lend] E2
                                              std::memory_order_relaxed);  // a hint; the caller gives up
  }
  std::uint32_t turn_to(std::uint32_t m) noexcept {
    std::uint32_t seen = word();
    while (!change(seen, status::with_mode(seen, m))) {
    }
    return seen;
  }

  doorbell<Traits>& door_;
  typename Traits::template atomic<std::uint32_t> kept_{0};
  bool symmetric_ = true;
  bool owes_barrier_ = false;
  std::uint64_t posts_seen_ = 0;
  std::uint64_t posts_per_park_ = 0;  // sixteenths, a running mean
};

}  // namespace detail
HYBRIDLOOP_CLOSE
