// sync/barging.hpp - what a semaphore does with a released permit: put it back, and wake one to compete for it
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/pause.hpp"
#include "sync/permits.hpp"
#include "sync/primitive.hpp"
#include "sync/thread_waiter.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// A released permit is anybody's, and the one that has waited longest is woken to compete for it. Robbed, it
// waits on in front of all others. No promise of fairness; many times the throughput where threads block.
struct barging {};

}  // namespace sync

namespace detail {

// One of those who wait is the delegate while there is somebody to be woken: on its way, or in front of the
// queue again. So a stream of releases wakes one, not all, and
//
//   permits enough for one who is in the queue  =>  there is a delegate
//
// holds at each step: who makes it so names one in the same step, and the delegate, when it has taken
// its permits, names the next if there are more.
template <class Traits>
class barging_account {
 public:
  static constexpr bool collects = false;
  static constexpr std::ptrdiff_t most = 0x7fffffff;
  enum class answer : std::uint8_t { taken, closed, too_few };
  struct verdict {
    answer what;
    bool next;  // somebody is the delegate now: a token is to be sent
  };

  explicit barging_account(std::ptrdiff_t permits) noexcept : word_(of(permits)) {}

  bool may_have(std::ptrdiff_t n) const noexcept { return has(word_.load(std::memory_order_relaxed), n); }  // a hint
  bool try_take(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (has(seen, n)) {
      if (change(seen, seen - of(n))) return true;
    }
    return false;
  }

  // Takes them, or is in the queue's count from now on.
  answer enter(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if ((seen & closed_bit) != 0) return answer::closed;
      HYBRIDLOOP_CONTRACT((seen & waiting_bits) != waiting_bits, "no more than 4194303 wait for a semaphore that barges");
      const bool there = has(seen, n);
      if (change(seen, there ? seen - of(n) : seen + one_waiting)) return there ? answer::taken : answer::too_few;
    }
  }

  // The delegate. With too few it is that still.
  verdict compete(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_seq_cst);  // [front] F8
    for (;;) {
      const bool there = has(seen, n);
      if (!there && (seen & closed_bit) == 0) return {answer::too_few, false};
      const value after = there ? resigned(seen - of(n)) : seen & ~delegate;
      if (change(seen, after)) return {there ? answer::taken : answer::closed, (after & delegate) != 0};
    }
  }
  // Whether it would be worth the delegate's while.
  bool worth(std::ptrdiff_t n) const noexcept {
    const value seen = word_.load(std::memory_order_seq_cst);  // [front] F8
    return has(seen, n) || (seen & closed_bit) != 0;
  }
  bool resign() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const value after = resigned(seen);
      if (change(seen, after)) return (after & delegate) != 0;
    }
  }

  // The delegate had left before it was called.
  std::ptrdiff_t pass_on(std::ptrdiff_t) noexcept { return resign() ? 1 : 0; }

  enum class errand : std::uint8_t { none, call, send };
  errand give(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      HYBRIDLOOP_CONTRACT(permits_of(seen) <= most - n, "a semaphore has no more than max() permits");
      const bool call = (seen & delegate) != 0;
      const bool send = !call && (seen & closed_bit) == 0 && (seen & waiting_bits) != 0;
      if (call && !may_call(seen)) continue;
      const value after = seen + of(n) + (call ? one_call : send ? delegate - one_waiting : 0);
      if (change(seen, after)) return send ? errand::send : call ? errand::call : errand::none;
    }
  }

  // Whoever looks at the front when it has changed the word, or is about to, is counted in the word: the
  // delegate may not need its call, be done, and destroy it all.
  void begin_call() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!may_call(seen) || !change(seen, seen + one_call)) {
    }
  }
  void end_call() noexcept { word_.fetch_sub(one_call, std::memory_order_release); }  // [call] C8
  bool called() const noexcept { return (word_.load(std::memory_order_acquire) & call_bits) != 0; }  // [call] C9

  std::ptrdiff_t withdraw(std::ptrdiff_t) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while ((seen & waiting_bits) != 0) {
      if (change(seen, seen - one_waiting)) return 1;
    }
    return 0;
  }

  // How many are in the queue. It is a call as well.
  std::ptrdiff_t close() noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (!may_call(seen) || !change(seen, ((seen & ~waiting_bits) | closed_bit) + one_call)) {
    }
    return static_cast<std::ptrdiff_t>((seen & waiting_bits) / one_waiting);
  }
  bool closed() const noexcept { return (word_.load(std::memory_order_relaxed) & closed_bit) != 0; }  // a hint; it may change at once

  std::ptrdiff_t forget(std::ptrdiff_t n) noexcept {
    value seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      const std::ptrdiff_t there = permits_of(seen);
      const std::ptrdiff_t off = there < n ? there : n;
      if (off == 0 || change(seen, seen - of(off))) return off;
    }
  }
  std::ptrdiff_t available() const noexcept { return permits_of(word_.load(std::memory_order_relaxed)); }  // a hint; it may change at once

 private:
  using value = std::uint64_t;
  static constexpr value closed_bit = 1;
  static constexpr value delegate = 2;
  static constexpr value one_call = 4;
  static constexpr value call_bits = 0x3fc;
  static constexpr value one_waiting = 0x400;
  static constexpr value waiting_bits = 0xfffffc00;

  static constexpr value of(std::ptrdiff_t permits) noexcept { return static_cast<value>(permits) << 32; }
  static constexpr std::ptrdiff_t permits_of(value word) noexcept { return static_cast<std::ptrdiff_t>(word >> 32); }
  static constexpr bool has(value word, std::ptrdiff_t n) noexcept {
    return permits_of(word) >= n && (word & closed_bit) == 0;
  }
  // The delegate is none any more; another is, where there is something to take.
  static constexpr value resigned(value word) noexcept {
    const bool next = permits_of(word) > 0 && (word & waiting_bits) != 0 && (word & closed_bit) == 0;
    return next ? word - one_waiting : word & ~delegate;
  }

  // So many calls at once that they cannot be counted: some are over in a moment.
  bool may_call(value& seen) noexcept {
    if ((seen & call_bits) != call_bits) return true;
    Traits::kernel::yield();
    seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    return false;
  }
  // False: somebody else was there first. The line is left to them for a moment, so that they get on with
  // what they do (D. Dice et al., Lightweight contention management, 2013).
  bool change(value& seen, value after) noexcept {
    if (word_.compare_exchange_weak(seen, after, std::memory_order_seq_cst,  // [permit] A1, A2, [front] F5
                                    std::memory_order_relaxed)) {  // a hint; it looks again
      return true;
    }
    for (int i = 0; i < 8; ++i) cpu_pause();
    seen = word_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    return false;
  }

  typename Traits::template atomic<value> word_;
};

// Edge [front]: a delegate that waits in front is not overlooked.
//
//   delegate                                whoever gives, closes, or has it leave
//   F7  front = w                           F5  permits there, or closed, or w's fate said
//   F8  nothing to take? not told to leave? F6  front ? tell it
//       sleep
//
// All are seq_cst, so they stand in one order: either F8 sees F5, or F6 sees F7. Who takes w out of `front` by an
// exchange or a CAS tells it; if that is the delegate itself, nobody does. Rule: that order [atomics.order].
//
// Edge [call]: who looks at the front is not destroyed under. C8 it has looked (release); C9 the destructor sees
// that nobody does (acquire). Rule: every change is a read-modify-write, so C9 meets each C8 [intro.races].
template <class Queue>
class permits<Queue, sync::barging> : public primitive<Queue, barging_account<typename Queue::traits>> {
  using Traits = typename Queue::traits;
  using base = primitive<Queue, barging_account<Traits>>;
  using account_type = barging_account<Traits>;
  using answer = typename account_type::answer;

 public:
  using base::account;
  static constexpr std::ptrdiff_t most = account_type::most;

  struct node : base::node {
    using base::node::node;
    std::ptrdiff_t asked = 0;
    typename Traits::template atomic<std::uint32_t> fate{open};
  };

  explicit permits(std::ptrdiff_t n) noexcept : base(n) {}
  permits(const permits&) = delete;
  permits& operator=(const permits&) = delete;
  ~permits() {
    while (account.called() && this->refs.are_here()) Traits::kernel::yield();
  }

  bool try_take(std::ptrdiff_t n) noexcept { return account.try_take(n); }
  std::ptrdiff_t take(std::ptrdiff_t n) noexcept { return try_take(n) ? n : -1; }  // queue_up() asks why

  void give(std::ptrdiff_t n) noexcept {
    switch (account.give(n)) {
      case account_type::errand::none: return;
      case account_type::errand::call: return call_front();
      case account_type::errand::send: return this->send(1, wait_status::granted);
    }
  }
  void close() noexcept {
    const std::ptrdiff_t waiting = account.close();
    this->send(waiting, wait_status::closed);
    call_front();
  }

  bool queue_up(node& w, std::ptrdiff_t n, std::ptrdiff_t had) noexcept {
    w.asked = n;
    if (had == n) return settle(w, wait_status::granted);
    switch (account.enter(n)) {
      case answer::taken: return settle(w, wait_status::granted);
      case answer::closed: return settle(w, wait_status::closed);
      case answer::too_few: break;
    }
    w.begin(1, 0);
    w.fate.store(open, std::memory_order_relaxed);  // ours alone until it joins
    this->join(w);
    return false;
  }
  bool enter(node& w, std::ptrdiff_t n, bool may_wait) noexcept {
    if (may_wait) return queue_up(w, n, take(n));
    if (enter_at_once(w, n)) return true;
    return settle(w, account.closed() ? wait_status::closed : wait_status::timed_out);
  }
  bool enter_at_once(node& w, std::ptrdiff_t n) noexcept {
    w.asked = n;
    return try_take(n) && settle(w, wait_status::granted);
  }
  bool look_for(std::ptrdiff_t n) noexcept {
    return patience::look<typename Traits::kernel>([this, n] { return account.may_have(n) && try_take(n); }, 16);
  }

  static bool is_next(std::ptrdiff_t) noexcept { return true; }  // anybody may be

  bool leave(node& w, wait_status why) noexcept {
    account.begin_call();
    std::uint32_t fate = open;
    const bool left = w.fate.compare_exchange_strong(fate, told_by(why), std::memory_order_seq_cst);  // [front] F5
    node* here = &w;
    const bool in_front = left && !base::leave(w, why) &&
                          front_.compare_exchange_strong(here, nullptr, std::memory_order_seq_cst);  // [front] F6
    account.end_call();
    if (in_front) w.tell_now();
    return left;
  }

  // The one that was told. W has again(): it is to be told once more.
  template <class W>
  bool redeem(W& w) noexcept {
    const std::uint32_t fate = w.fate.load(std::memory_order_acquire);  // [front] F8
    if (fate == over || w.status != wait_status::granted) return conclude(w, w.status);
    for (;;) {
      const auto got = account.compete(w.asked);
      if (got.next) this->send(1, wait_status::granted);
      if (got.what == answer::closed) return conclude(w, wait_status::closed);
      if (got.what == answer::taken) {
        if (!conclude_granted(w)) give(w.asked);
        return true;
      }
      if (w.fate.load(std::memory_order_acquire) != open) {  // [front] F8
        resign();
        return conclude(w, wait_status::granted);
      }
      if (waits_in_front(w)) return false;
    }
  }

  // It was told, and cannot take it.
  void give_back(node& w) noexcept {
    if (w.fate.load(std::memory_order_acquire) == over) return give(w.asked);  // [front] F8
    resign();
  }

 private:
  // A wait's fate: open, decided by the one who waits, or by who has it leave: 2 + the status.
  static constexpr std::uint32_t open = 0;
  static constexpr std::uint32_t over = 1;
  static constexpr std::uint32_t told_by(wait_status why) noexcept { return 2 + static_cast<std::uint32_t>(why); }

  static bool settle(node& w, wait_status how) noexcept {
    w.status = how;
    w.fate.store(over, std::memory_order_relaxed);  // ours alone: it waits nowhere
    return true;
  }
  // Whoever had it leave was promised that it hears so.
  static bool conclude(node& w, wait_status otherwise) noexcept {
    std::uint32_t fate = open;
    const bool ours = w.fate.compare_exchange_strong(fate, over, std::memory_order_acq_rel) || fate == over;  // [front] F8
    w.status = ours ? otherwise : static_cast<wait_status>(fate - 2);
    return true;
  }
  static bool conclude_granted(node& w) noexcept {
    conclude(w, wait_status::granted);
    return w.status == wait_status::granted;
  }

  void resign() noexcept {
    if (account.resign()) this->send(1, wait_status::granted);
  }

  template <class W>
  bool waits_in_front(W& w) noexcept {
    w.again();
    front_.store(&w, std::memory_order_seq_cst);  // [front] F7
    Traits::schedule_point("in-front");
    const bool stay = !account.worth(w.asked) && w.fate.load(std::memory_order_seq_cst) == open;  // [front] F8
    node* here = &w;
    return stay || !front_.compare_exchange_strong(here, nullptr, std::memory_order_seq_cst);  // [front] F6
  }
  // Ends the call that the account has counted.
  void call_front() noexcept {
    node* w = front_.load(std::memory_order_seq_cst);  // [front] F6
    if (w != nullptr) w = front_.exchange(nullptr, std::memory_order_seq_cst);  // [front] F6
    account.end_call();
    if (w != nullptr) w->tell_now();
  }

  typename Traits::template atomic<node*> front_{nullptr};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
