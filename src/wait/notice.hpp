// wait/notice.hpp - a thread sleeps in its own frame until it is told, once
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Who is told may leave the frame at once, so who tells must wake it by a word that is elsewhere, and
// never gone: by one of these, which the address of the frame's own word chooses (F. Pizlo, Locking in
// WebKit, 2016: the parking lot). Frames may share one; then a wake ends the sleep of both, for one of
// them for no reason.
//
// Edge [nudge]: Z1 behind the telling, count += 1 (release), and a wake. Z2 who is going to sleep reads
// the count (acquire), then looks whether it was told, then sleeps while the count is the same. Rule: a
// Z2 that reads Z1 or a later one synchronises with it, the counts being one release sequence
// [intro.races], and the look sees the telling. One that does not finds another count when it sleeps, or
// is woken.
template <class Traits>
class nudges {
 public:
  explicit nudges(const void* frame) noexcept : count_(all[place_of(frame)]) {}

  std::uint32_t seen() const noexcept { return count_.load(std::memory_order_acquire); }  // [nudge] Z2
  void sleep(std::uint32_t seen, nanos deadline) const noexcept { Traits::parker::wait(count_, seen, deadline); }
  void nudge() const noexcept {
    count_.fetch_add(1, std::memory_order_release);  // [nudge] Z1
    Traits::parker::wake_all(count_);
  }

 private:
  using word = typename Traits::template atomic<std::uint32_t>;
  static constexpr unsigned bits = 10;

  // Stacks of threads lie at like distances: a product spreads them (D. Knuth, TAOCP 3, 6.4).
  static std::size_t place_of(const void* frame) noexcept {
    const std::uint64_t product = reinterpret_cast<std::uintptr_t>(frame) * std::uint64_t{0x9e3779b97f4a7c15};
    return static_cast<std::size_t>(product >> (64 - bits));
  }

  static inline word all[std::size_t{1} << bits] = {};
  word& count_;
};

// Edge [told]: T1 the teller leaves what it has to say, then word = the telling (release): its last touch
// of the frame. T2 the waiter sees it (acquire), and then the rest; it may leave the frame. Rule: T2
// synchronises with T1 [atomics.order].
template <class Traits>
class notice {
 public:
  static constexpr std::uint32_t nothing = 0;

  notice() noexcept = default;
  notice(const notice&) = delete;
  notice& operator=(const notice&) = delete;

  // Any thread, while the frame is there. What was told, or nothing.
  std::uint32_t told() const noexcept {
    const std::uint32_t word = word_.load(std::memory_order_acquire);  // [told] T2
    return word == asleep ? nothing : word;
  }

  // The owner. False: the deadline came first.
  bool wait(nanos deadline) noexcept {
    std::uint32_t seen = nothing;
    word_.compare_exchange_strong(seen, asleep, std::memory_order_relaxed);  // a hint; told() decides
    const nudges<Traits> bed(&word_);
    for (;;) {
      const std::uint32_t count = bed.seen();
      if (told() != nothing) return true;
      if (deadline != never && read_clock<typename Traits::clock>() >= deadline) return false;
      bed.sleep(count, deadline);
    }
  }

  // Any thread, once: anything but nothing.
  void tell(std::uint32_t what) noexcept {
    const nudges<Traits> bed(&word_);
    if (word_.exchange(what, std::memory_order_acq_rel) == asleep) bed.nudge();  // [told] T1
  }

  // The owner, who was told in vain: it is going to be told again.
  void forget() noexcept { word_.store(nothing, std::memory_order_relaxed); }  // ours alone until it is in reach again

 private:
  static constexpr std::uint32_t asleep = ~std::uint32_t{0};

  typename Traits::template atomic<std::uint32_t> word_{nothing};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
