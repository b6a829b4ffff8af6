// sync/queue3.hpp - phase 3: waiters linked through their own frames, served by whoever comes first; no lock, no heap
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "sync/waiter.hpp"
#include "sync/waiter_list.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// The list belongs to one thread at a time, the owner; nobody waits to be it. Who finds nobody at work is
// the owner at once. Everybody else leaves a request (a waiter that joins, one that leaves, a number of
// tokens), rings, and goes on; the ring that finds none before it makes an owner. The owner serves until it has
// answered every ring (combining: D. Hendler, I. Incze, N. Shavit, M. Tzafrir, 2010).
//
// Edge [inbox]: the owner sees what a request was made after. I1 a request is pushed, tokens are added (release);
// I2 the owner takes them all (acquire). Rule: only read-modify-writes change an inbox, so I2 meets every I1 in
// the release sequence of what it reads [intro.races]. I2 empties it and nobody else pops: no ABA.
//
// Edge [combine]: the list goes from owner to owner, and no request is overlooked.
//
//   who asks                                owner
//   C1  work: one inside                    C4  work: nobody -> one ring, or C3
//       request (I1)                            serves (I2)
//   C3  work: one ring, and not inside      C5  work: less the rings answered; others since ? serve again
//
// C3, C4 and C5 change one word, the owner's last touch is C5. A C3 before C5 is in what C5 reads, and its request
// before it; one behind C5 finds no ring and is an owner, with the list as C5 left it. Rule: each acquires and
// releases as it needs, all are read-modify-writes, so each synchronises with all before it [intro.races].
//
// Edge [quiet]: the destructor comes after everybody's last touch. C3, C5 release; Q1 it reads that nobody is inside
// and no ring stands (acquire). The request that ended the last wait is behind C1 of whoever made it, so
// that Q1 cannot read a word older than C1, though it may come before C3: that is what it waits for. Rule: coherence,
// and Q1 synchronises with all C3 and C5 in the release sequence that it reads [intro.races].
//
// Who leaves decides at once, by its waiter's verdict; the waiter is told when the owner has had the request,
// because that lies in the waiter. Served meanwhile, it is held back until then, and what it was given is passed on.
template <class Traits>
class basic_queue3 {
  using waiter = detail::waiter<Traits>;
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using traits = Traits;
  static constexpr int phase = 3;

  struct node : waiter {
    using waiter::waiter;

   private:
    friend basic_queue3;
    waiter* next_leaver = nullptr;
    atomic<std::uint32_t> verdict{said};
  };
  using told_list = detail::told_list<Traits>;

  basic_queue3() noexcept = default;
  basic_queue3(const basic_queue3&) = delete;
  basic_queue3& operator=(const basic_queue3&) = delete;
  // Who was told last may be here before others are on their way out: a few steps, or an owner's round.
  ~basic_queue3() {
    while (work_.load(std::memory_order_acquire) != 0 && home_.is_here()) Traits::kernel::yield();  // [quiet] Q1
  }

  template <class Account>
  void join(node& w, Account& account, told_list& out) noexcept {
    w.verdict.store(open, std::memory_order_relaxed);  // ours alone until it has joined
    if (begin_alone()) {
      judge each{out};
      list_.join(w, each);
    } else {
      enter();
      push(joins_, w, w.next);
      if (!ring()) return;
      take_requests(account, out);
    }
    serve(account, out);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account& account, told_list& out) noexcept {
    if (begin_alone()) {
      judge each{out};
      list_.send(n, status, each);
    } else {
      enter();
      Traits::schedule_point("entered");
      (status == wait_status::granted ? granted_ : closed_).fetch_add(n, std::memory_order_release);  // [inbox] I1
      if (!ring()) return;
      take_requests(account, out);
    }
    serve(account, out);
  }

  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    std::uint32_t seen = open;
    if (!w.verdict.compare_exchange_strong(seen, promise(why), std::memory_order_relaxed,  // [inbox] brings the rest
                                           std::memory_order_relaxed)) {  // a hint; whoever was first has its way
      return false;
    }
    Traits::schedule_point("promised");
    if (begin_alone()) {
      let_go(w, account, out);
    } else {
      enter();
      push(leaves_, w, w.next_leaver);
      if (!ring()) return true;
      take_requests(account, out);
    }
    serve(account, out);
    return true;
  }

 private:
  // What is decided about a wait: nothing yet, how it ends, or that it ends by a leave on its way.
  static constexpr std::uint32_t open = 0;
  static constexpr std::uint32_t said = 1;
  static constexpr std::uint32_t promise(wait_status why) noexcept { return 2 + static_cast<std::uint32_t>(why); }

  // Rings in the lower bits of `work`, who is inside above them.
  using word = std::uint64_t;
  static constexpr word one_ring = 1;
  static constexpr word one_inside = word{1} << 40;
  static constexpr word rings_in(word seen) noexcept { return seen % one_inside; }
  static constexpr unsigned patience = 64;

  static node& as_node(waiter& w) noexcept { return static_cast<node&>(w); }

  // ---- Anybody ----

  bool begin_alone() noexcept {
    word nobody = 0;
    const bool alone = work_.compare_exchange_strong(nobody, one_ring, std::memory_order_acquire,  // [combine] C4
                                                     std::memory_order_relaxed);  // a hint; it asks others then
    if (alone) Traits::schedule_point("owner");
    return alone;
  }

  void enter() noexcept { work_.fetch_add(one_inside, std::memory_order_relaxed); }  // [combine] C1, [quiet]

  // The waiter may be gone as soon as it is in.
  static void push(atomic<waiter*>& inbox, waiter& w, waiter*& link) noexcept {
    Traits::schedule_point("entered");
    waiter* seen = inbox.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      link = seen;
    } while (!inbox.compare_exchange_weak(seen, &w, std::memory_order_release,  // [inbox] I1
                                          std::memory_order_relaxed));  // a hint; the loop repeats
  }

  // True: the caller is the owner. False: the queue may be gone.
  bool ring() noexcept {
    Traits::schedule_point("asked");
    return rings_in(work_.fetch_add(one_ring - one_inside, std::memory_order_acq_rel)) == 0;  // [combine] C3
  }

  // ---- The owner ----

  // Whoever has all tokens: to be told, unless a leave is on its way, which ends it.
  struct judge {
    void add(waiter& w) noexcept {
      std::uint32_t seen = open;
      as_node(w).verdict.compare_exchange_strong(seen, said, std::memory_order_relaxed,  // [inbox] brings the rest
                                                 std::memory_order_relaxed);  // a hint; a promise is no race
      if (seen == open || seen == said) out.add(w);
    }
    told_list& out;
  };

  // Until no ring is left unanswered; the queue may be gone then. Under a storm of them those whose wait is over
  // are told in between: should one destroy the queue, the destructor waits for C5.
  template <class Account>
  void serve(Account& account, told_list& out) noexcept {
    word rings = one_ring;
    for (unsigned rounds = 1;; ++rounds) {
      pass_on(account, out);
      Traits::schedule_point("served");
      const word seen = rings_in(work_.fetch_sub(rings, std::memory_order_acq_rel));  // [combine] C5
      if (seen == rings) return;
      rings = seen - rings;
      if (rounds % patience == 0) out.tell_all();
      take_requests(account, out);
    }
  }

  // Leaves are taken out first, and served last: whoever is in there has joined.
  template <class Account>
  void take_requests(Account& account, told_list& out) noexcept {
    judge each{out};
    Traits::schedule_point("requests-there");
    waiter* leaver = take_all(leaves_);
    Traits::schedule_point("leaves-taken");
    for (waiter* w = in_order(take_all(joins_)); w != nullptr;) {
      waiter* const after = w->next;
      list_.join(*w, each);
      w = after;
    }
    while (leaver != nullptr) {
      node& w = as_node(*leaver);
      leaver = w.next_leaver;
      let_go(w, account, out);
    }
    Traits::schedule_point("waiters-served");
    list_.send(take_all(granted_), wait_status::granted, each);
    list_.send(take_all(closed_), wait_status::closed, each);
  }

  // The debt goes down while the waiter has its place: what is not taken off comes to it.
  template <class Account>
  void let_go(node& w, Account& account, told_list& out) noexcept {
    const std::uint32_t promised = w.verdict.load(std::memory_order_relaxed);  // ours alone, once promised
    w.status = static_cast<wait_status>(promised - promise(wait_status{}));
    w.verdict.store(said, std::memory_order_relaxed);  // ours alone
    if (w.linked) {
      w.need -= account.withdraw(w.need);
      if (w.need != 0) return;
      list_.remove(w);
    }
    out.add(w);
  }

  // Tokens that came to those who had left.
  template <class Account>
  void pass_on(Account& account, told_list& out) noexcept {
    judge each{out};
    for (std::ptrdiff_t back = out.take_returned(); back != 0; back = out.take_returned()) {
      list_.send(account.pass_on(back), wait_status::granted, each);
    }
  }

  // Whoever asks rings behind it: what is not seen here is seen in the next round.
  template <class T>
  static T take_all(atomic<T>& inbox) noexcept {
    if (inbox.load(std::memory_order_relaxed) == T{}) return T{};  // a hint; the next round corrects it
    return inbox.exchange(T{}, std::memory_order_acquire);  // [inbox] I2
  }
  static waiter* in_order(waiter* last) noexcept {
    waiter* first = nullptr;
    while (last != nullptr) {
      waiter* const before = last->next;
      last->next = first;
      first = last;
      last = before;
    }
    return first;
  }

  // Everybody.
  detail::birthplace<Traits> home_;
  atomic<word> work_{0};
  atomic<waiter*> joins_{nullptr};
  atomic<waiter*> leaves_{nullptr};
  atomic<std::ptrdiff_t> granted_{0};
  atomic<std::ptrdiff_t> closed_{0};

  // The owner.
  detail::waiter_list<Traits> list_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
