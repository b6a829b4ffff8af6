// visible_parker.hpp - a parker of which a test can tell who sleeps, until when, and who was woken
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include <hybridloop.hpp>

#include "support/stage.hpp"
#include "support/virtual_clock.hpp"

namespace support {

// Wakes as a futex does: of those who wait on the word, the one who came first. Deadlines are those of
// the virtual clock. One for the whole program.
class visible_parker {
 public:
  static constexpr const char* name = "visible";
  using nanos = hybridloop::detail::nanos;

  template <class Word>
  static void wait(const Word& word, std::uint32_t expected, nanos deadline) noexcept {
    std::unique_lock<std::mutex> hold(mutex_);
    if (word.load(std::memory_order_acquire) != expected) return;
    sleeper mine{&word, deadline, false};
    sleepers_.push_back(&mine);
    changed_.notify_all();
    changed_.wait(hold, [&mine] { return !mine.sleeps(); });
    sleepers_.erase(std::find(sleepers_.begin(), sleepers_.end(), &mine));
    changed_.notify_all();
  }
  template <class Word>
  static void wake_one(const Word& word) noexcept {
    wake(&word, 1);
  }
  template <class Word>
  static void wake_all(const Word& word) noexcept {
    wake(&word, sleepers_.max_size());
  }

  // Wakes that somebody asked for, whether anybody slept or not.
  static std::size_t wakes() {
    const std::lock_guard<std::mutex> hold(mutex_);
    return wakes_;
  }
  static void advance(std::chrono::nanoseconds span) {
    const std::lock_guard<std::mutex> hold(mutex_);
    virtual_clock::advance(span);
    changed_.notify_all();
  }
  static nanos from_now(std::chrono::nanoseconds span) {
    return (virtual_clock::now().time_since_epoch() + span).count();
  }

  // Waits until so many sleep, all of them until this deadline.
  static void await_sleepers(std::size_t count, nanos deadline = hybridloop::detail::never) {
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [count, deadline] {
      return sleepers_.size() == count &&
             std::all_of(sleepers_.begin(), sleepers_.end(), [deadline](const sleeper* s) {
               return s->sleeps() && s->deadline == deadline;
             });
    });
  }

 private:
  struct sleeper {
    const void* word;
    nanos deadline;
    bool woken;
    bool sleeps() const {
      return !woken && (deadline == hybridloop::detail::never || from_now({}) < deadline);
    }
  };

  static void wake(const void* word, std::size_t most) noexcept {
    const std::lock_guard<std::mutex> hold(mutex_);
    ++wakes_;
    for (sleeper* s : sleepers_) {
      if (most == 0) break;
      if (s->word != word || s->woken) continue;
      s->woken = true;
      --most;
    }
    changed_.notify_all();
  }

  static inline std::mutex mutex_;
  static inline std::condition_variable changed_;
  static inline std::vector<sleeper*> sleepers_;
  static inline std::size_t wakes_ = 0;
};

template <hybridloop::fence_policy Fence = hybridloop::fence_policy::adaptive>
struct visible_traits : staged_traits<Fence> {
  using clock = virtual_clock;
  using kernel = virtual_kernel;
  using parker = visible_parker;
  using poller = hybridloop::detail::system_poller<kernel>;
  using barrier = hybridloop::detail::system_barrier<kernel>;
};

}  // namespace support
