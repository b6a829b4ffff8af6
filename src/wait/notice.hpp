// wait/notice.hpp - a thread sleeps in its own frame until it is told, once
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "base/clock.hpp"
#include "base/config.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// Whether a parker can wake some of those who sleep on a word.
template <class Parker, class Word, class = void>
inline constexpr bool tells_apart = false;
template <class Parker, class Word>
inline constexpr bool tells_apart<
    Parker, Word,
    std::void_t<decltype(Parker::wait(std::declval<Word&>(), std::uint32_t{}, nanos{}, std::uint32_t{}),
                         Parker::wake_all(std::declval<Word&>(), std::uint32_t{}))>> = true;

// What many wait for: they share a few words, the fewer the more often all are told at once.
struct common_wait {
  const void* what = nullptr;  // nullptr: each frame has a word of its own
  unsigned words = 8;          // a power of two, up to 8
};

// Who is told may leave the frame at once, so who tells must wake it by a word that is elsewhere, and
// never gone: by one of these, chosen by an address (F. Pizlo, Locking in WebKit, 2016: the parking lot).
// All who wait for one thing share a few words, where the parker can tell sleepers apart, so that few calls
// wake a herd; elsewhere each frame has its own. Whoever shares a word, or a bit of its mask there, wakes now
// and then for no reason.
//
// Edge [nudge]: Z1 behind the telling, count += 1 (release), and a wake. Z2 who is going to sleep reads
// the count (acquire), then looks whether it was told, then sleeps while the count is the same. Rule: a
// Z2 that reads Z1 or a later one synchronises with it, the counts being one release sequence
// [intro.races], and the look sees the telling. One that does not finds another count when it sleeps, or
// is woken.
template <class Traits>
class bed {
  using word = typename Traits::template atomic<std::uint32_t>;
  using parker = typename Traits::parker;

 public:
  bed() = default;
  bed(const void* frame, common_wait common) noexcept
      : count_(&all[place_of(mix(frame), mix(apart && common.what != nullptr ? common.what : frame), common.words)]),
        mask_(std::uint32_t{1} << (mix(frame) >> 59)) {}

  std::uint32_t count() const noexcept { return count_->load(std::memory_order_acquire); }  // [nudge] Z2
  void sleep(std::uint32_t count, nanos deadline) const noexcept {
    if constexpr (apart) {
      parker::wait(*count_, count, deadline, mask_);
    } else {
      parker::wait(*count_, count, deadline);
    }
  }
  void nudge() const noexcept {
    count_->fetch_add(1, std::memory_order_release);  // [nudge] Z1
    if constexpr (apart) {
      parker::wake_all(*count_, mask_);
    } else {
      parker::wake_all(*count_);
    }
  }

  // True: one nudge is for both now.
  bool join(const bed& other) noexcept {
    if (count_ != other.count_) return false;
    mask_ |= other.mask_;
    return true;
  }

 private:
  static constexpr bool apart = tells_apart<parker, word>;
  static constexpr unsigned rows = 7;  // a power of two of them, with 8 words in each

  // Stacks of threads lie at like distances: a product spreads them (D. Knuth, TAOCP 3, 6.4).
  static std::uint64_t mix(const void* address) noexcept {
    return reinterpret_cast<std::uintptr_t>(address) * std::uint64_t{0x9e3779b97f4a7c15};
  }

  static std::size_t place_of(std::uint64_t frame, std::uint64_t common, unsigned words) noexcept {
    return static_cast<std::size_t>(common >> (64 - rows) << 3 | (frame >> 56 & (words - 1)));
  }

  static inline word all[std::size_t{8} << rows] = {};
  word* count_;
  std::uint32_t mask_;
};

// Nudges that wait until all are told, one for each word.
template <class Traits>
class nudges {
 public:
  nudges() noexcept = default;
  nudges(const nudges&) = delete;
  nudges& operator=(const nudges&) = delete;
  ~nudges() { give(); }

  void add(const bed<Traits>& who) noexcept {
    for (std::size_t i = 0; i != count_; ++i) {
      if (beds_[i].join(who)) return;
    }
    if (count_ == most) give();
    beds_[count_++] = who;
  }

 private:
  static constexpr std::size_t most = 8;

  void give() noexcept {
    for (std::size_t i = 0; i != count_; ++i) beds_[i].nudge();
    count_ = 0;
  }

  bed<Traits> beds_[most];  // so many as are counted
  std::size_t count_ = 0;
};

// Edge [told]: T1 the teller leaves what it has to say, then word = the telling (release): its last touch
// of the frame. T2 the waiter sees it (acquire), and then the rest; it may leave the frame. Rule: T2
// synchronises with T1 [atomics.order].
//
// Who gives up says so in the same word, so that one of the two is first, and the other finds it.
template <class Traits>
class notice {
 public:
  static constexpr std::uint32_t nothing = 0;

  explicit notice(common_wait common = {}) noexcept : common_(common) {}
  notice(const notice&) = delete;
  notice& operator=(const notice&) = delete;

  // Any thread, while the frame is there. What was told, or nothing.
  std::uint32_t told() const noexcept {
    const std::uint32_t word = word_.load(std::memory_order_acquire);  // [told] T2
    return word >= leaving ? nothing : word;
  }

  // The owner. False: the deadline came first.
  bool wait(nanos deadline) noexcept {
    std::uint32_t seen = nothing;
    word_.compare_exchange_strong(seen, asleep, std::memory_order_relaxed);  // a hint; told() decides
    const bed<Traits> mine(&word_, common_);
    for (;;) {
      const std::uint32_t count = mine.count();
      if (told() != nothing) return true;
      if (deadline != never && read_clock<typename Traits::clock>() >= deadline) return false;
      mine.sleep(count, deadline);
    }
  }

  // Any thread, once: 1 or the like. The last touch, but for the nudge. False: the owner was leaving.
  bool tell(std::uint32_t what, nudges<Traits>& later) noexcept {
    const bed<Traits> its(&word_, common_);
    const std::uint32_t before = word_.exchange(what, std::memory_order_acq_rel);  // [told] T1
    if (before == asleep) later.add(its);
    return before != leaving;
  }
  // The same, but who is leaving is not told.
  bool tell_who_stays(std::uint32_t what, nudges<Traits>& later) noexcept {
    const bed<Traits> its(&word_, common_);
    std::uint32_t seen = asleep;
    while (!word_.compare_exchange_strong(seen, what, std::memory_order_acq_rel,  // [told] T1
                                          std::memory_order_relaxed)) {  // a hint; the loop repeats
      if (seen == leaving) return false;
    }
    if (seen == asleep) later.add(its);
    return true;
  }
  void tell(std::uint32_t what) noexcept {
    nudges<Traits> now;
    tell(what, now);
  }

  // The owner. False: it has been told.
  bool leave() noexcept {
    std::uint32_t seen = asleep;
    while (!word_.compare_exchange_strong(seen, leaving, std::memory_order_relaxed)) {  // a hint; told() decides
      if (seen != nothing) return false;
    }
    return true;
  }
  // And waits on until it is told. False: it has been, while it left.
  bool stay() noexcept {
    std::uint32_t seen = leaving;
    return word_.compare_exchange_strong(seen, nothing, std::memory_order_relaxed);  // a hint; told() decides
  }

  // The owner, who was told in vain: it is going to be told again.
  void forget() noexcept { word_.store(nothing, std::memory_order_relaxed); }  // ours alone until it is in reach again

 private:
  static constexpr std::uint32_t asleep = ~std::uint32_t{0};
  static constexpr std::uint32_t leaving = asleep - 1;

  typename Traits::template atomic<std::uint32_t> word_{nothing};
  const common_wait common_;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
