// wait/parking_lot.hpp - sleeping on a word where the kernel has no such call: mutexes and conditions
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>

#include "base/clock.hpp"
#include "wait/monitor.hpp"

#if HYBRIDLOOP_OS(POSIX)
HYBRIDLOOP_OPEN
namespace detail {

// Who sleeps stands in a table of the process, under the address of its word (F. Pizlo, Locking in WebKit,
// 2016). A wake goes by that address alone, and reads nothing there.
//
// No wake is lost: a sleeper looks at the word with its spot locked, and a waker locks the spot behind the
// change of the word. If the waker comes first, the sleeper sees the change, by the order of the lock;
// otherwise the waker finds the sleeper. Words whose addresses meet in a spot keep apart what they wake.
//
// It takes a lock, so signal handlers keep out: one may have interrupted who holds that lock.
class parking_lot {
 public:
  // 0, or -EAGAIN: the word was another one, or -ETIMEDOUT.
  static int wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    spot& here = spot_of(word);
    const hold locked(here);
    if (value_of(word) != expected) return -EAGAIN;
    sleeper me{word};
    here.enter(me);
    while (!me.woken) {
      if (here.changed.wait(deadline) || me.woken) continue;
      here.leave(me);
      return -ETIMEDOUT;
    }
    return 0;
  }

  // How many it woke: of those who sleep on the word the first that came.
  static int wake(const void* word, int count) noexcept {
    spot& here = spot_of(word);
    const hold locked(here);
    const int woken = here.wake(word, count);
    if (woken != 0) here.changed.tell_all();
    return woken;
  }

 private:
  struct sleeper {
    const void* const word;
    sleeper* next = nullptr;
    bool woken = false;  // and no longer in the line
  };

  // A line of sleepers, and what they sleep on. All under its lock.
  struct spot {
    monitor changed;
    sleeper* first = nullptr;

    void enter(sleeper& me) noexcept {
      sleeper** end = &first;
      while (*end != nullptr) end = &(*end)->next;
      *end = &me;
    }
    void leave(const sleeper& me) noexcept {
      sleeper** at = &first;
      while (*at != &me) at = &(*at)->next;
      *at = me.next;
    }
    int wake(const void* word, int count) noexcept {
      int woken = 0;
      for (sleeper** at = &first; *at != nullptr && woken < count;) {
        sleeper& it = **at;
        if (it.word != word) {
          at = &it.next;
          continue;
        }
        *at = it.next;
        it.woken = true;
        ++woken;
      }
      return woken;
    }
  };
  class hold {
   public:
    explicit hold(spot& s) noexcept : spot_(s) { s.changed.lock(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;
    ~hold() { spot_.changed.unlock(); }

   private:
    spot& spot_;
  };

  static constexpr unsigned bits = 6;
  static constexpr std::size_t spots = std::size_t{1} << bits;

  static std::uint32_t value_of(const void* word) noexcept {
    return static_cast<const std::atomic<std::uint32_t>*>(word)->load(std::memory_order_relaxed);  // a hint; who has changed it takes our lock next, and finds us
  }

  static spot& spot_of(const void* word) noexcept {
    const std::uint64_t product = reinterpret_cast<std::uintptr_t>(word) * std::uint64_t{0x9e3779b97f4a7c15};
    return table()[product >> (64 - bits)];
  }
  static spot* table() noexcept {
    static spot* const made = furnished();
    return made;
  }
  // The child of a fork has nobody else in it, and locks as somebody left them.
  static spot* furnished() noexcept {
    spot* const all = clear();
    ::pthread_atfork(nullptr, nullptr, [] { clear(); });
    return all;
  }
  static spot* clear() noexcept {
    spot* first = nullptr;
    for (std::size_t i = spots; i-- != 0;) first = ::new (static_cast<void*>(ground + i * sizeof(spot))) spot;
    return first;
  }

  alignas(spot) static inline unsigned char ground[spots * sizeof(spot)];
};

// A kernel, all of it but its words: for HYBRIDLOOP_PARKER=condvar, and where there are none.
template <class Kernel>
struct without_words : Kernel {
  static constexpr const char* parking = "condvar";
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    return parking_lot::wait(word, expected, deadline);
  }
  static int futex_wake(const void* word, int count) noexcept { return parking_lot::wake(word, count); }
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(POSIX)
