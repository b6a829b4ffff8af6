// sync/queue2.hpp - phase 2: a row of cells in which waiters and tokens meet, without any lock
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "sync/segment.hpp"
#include "sync/waiter.hpp"

HYBRIDLOOP_OPEN
namespace sync {

// A wait claims the next cell, a token the next one of its own count: so the first wait and the first token
// meet in the first cell, whoever comes first, and nobody looks for anybody. (N. Koval, D. Khalanskiy,
// D. Alistarh, CQS, 2023; what a collector does there, epochs do here.) A wait for n tokens claims n cells in
// a row, and keeps them until it has been told: who waits for millions at once waits better in another phase.
//
//   empty        nobody came yet
//   a waiter     waits. Whoever swaps it out, and nobody else, looks at it
//   token, token_closed   the token was first; or it found the waiter leaving
//   done         the waiter has got its token
//   leaving      somebody has it leave, and holds its place while the account is asked
//   cancelled    it has left. A token goes on to the next cell
//
// A token that finds `leaving` stays there, and who has the waiter leave passes it on, to the waiter or to
// the next cell. So a thread that is stopped there keeps one token, as one that is stopped with a
// token in hand does; all others go on.
//
// Who has put a token into a cell for somebody to find touches nothing after that: neither the queue, which may
// be gone, nor the cell. Whoever ends a cell does what is to be done about its segment before it
// tells its waiter.
//
// Edge [cell]: whoever takes from a cell sees what was done before it was put there. C1 a waiter or a token is put
// into the cell (release), or a waiter's share of tokens is counted in `pending` (release); C2 the cell is taken
// (acquire), or `pending` is found at 0 (acquire). Rule: C2 synchronises with C1; `pending` is changed by
// read-modify-writes while several may, so its 0 has each share behind it [intro.races].
template <class Traits, unsigned Cells = 32>
class basic_queue2 {
  template <class T>
  using atomic = typename Traits::template atomic<T>;
  using row = detail::segment_list<Traits, Cells>;
  using segment = typename row::segment;
  using cell = typename segment::cell;
  using pin = typename row::pin;
  using index = std::uint64_t;

 public:
  using traits = Traits;
  static constexpr int phase = 2;
  using told_list = detail::told_list<Traits>;
  using memory = typename row::memory;

  class node : public detail::waiter<Traits> {
   public:
    using detail::waiter<Traits>::waiter;

   private:
    friend class basic_queue2;

    // Its cells from `first` on, and the segment of the first. While `pending` is not 0, they are there for
    // whoever has been pinned before it looked.
    atomic<std::ptrdiff_t> pending{0};  // cells whose token it has not got, or joining
    atomic<std::ptrdiff_t> refused{0};  // tokens that said "closed"
    atomic<std::uint32_t> fixed{0};     // somebody has it leave, had, or it is still joining
    std::ptrdiff_t withdrawn = 0;       // cells that were cancelled
    std::ptrdiff_t cells = 0;
    index first = 0;
    segment* place = nullptr;
  };

  basic_queue2() noexcept = default;
  basic_queue2(const basic_queue2&) = delete;
  basic_queue2& operator=(const basic_queue2&) = delete;

  template <class Account>
  void join(node& w, Account&, told_list& out) noexcept {
    const pin here;
    segment* const from = row_.start(last_, here);
    w.cells = w.need;
    w.withdrawn = 0;
    w.refused.store(0, std::memory_order_relaxed);   // ours alone
    w.fixed.store(1, std::memory_order_relaxed);     // ours alone
    w.first = joined_.fetch_add(static_cast<index>(w.cells), std::memory_order_relaxed);  // ours alone: cells nobody had
    Traits::schedule_point("cells-claimed");
    w.place = row_.reach(from, w.first / Cells, here);
    row_.follow(last_, w.place, here);
    if (w.cells == 1) join_one(w, out, here);
    else join_many(w, out, here);
  }

  template <class Account>
  void send(std::ptrdiff_t n, wait_status status, Account&, told_list& out) noexcept {
    const pin here;
    deliver(n, status, out, here);
  }

  // After it has answered false once, it always does.
  template <class Account>
  bool leave(node& w, wait_status why, Account& account, told_list& out) noexcept {
    const pin here;
    if (w.pending.load(std::memory_order_acquire) == 0) return false;  // [cell] C2
    if (w.fixed.exchange(1, std::memory_order_acq_rel) != 0) return false;  // [cell] C2
    Traits::schedule_point("reserving");
    const std::ptrdiff_t reserved = reserve(w);
    if (reserved == 0) return false;
    Traits::schedule_point("leaving");
    const std::ptrdiff_t off = account.withdraw(reserved);
    if (off != 0) {
      w.status = why;
      w.withdrawn = off;
    }
    Traits::schedule_point("withdrawn");
    let_go(w, reserved - off, off, out, here);
    return off != 0;
  }

 private:
  enum : std::uintptr_t { empty, token, token_closed, done, leaving, cancelled };

  static std::uintptr_t name(node& w) noexcept { return reinterpret_cast<std::uintptr_t>(&w); }
  static std::uintptr_t token_of(wait_status status) noexcept { return status == wait_status::granted ? token : token_closed; }

  // ---- Who comes ----

  void join_one(node& w, told_list& out, const pin& here) noexcept {
    w.pending.store(1, std::memory_order_relaxed);  // ours alone until the CAS
    w.fixed.store(0, std::memory_order_relaxed);    // ours alone until the CAS
    std::uintptr_t seen = empty;
    cell& c = w.place->at(w.first);
    if (c.compare_exchange_strong(seen, name(w), std::memory_order_acq_rel)) return;  // [cell] C1, C2
    if (seen == token_closed) w.refused.store(1, std::memory_order_relaxed);  // ours alone: it was not let in
    w.pending.store(0, std::memory_order_relaxed);                            // ours alone: it was not let in
    settle(w, out, here);
  }

  // One more in `pending`, so that it is not told before it stands in all of them.
  void join_many(node& w, told_list& out, const pin& here) noexcept {
    w.pending.store(w.cells + 1, std::memory_order_relaxed);  // ours alone until the first CAS
    std::ptrdiff_t got = 1;
    segment* s = w.place;
    const index end = w.first + static_cast<index>(w.cells);
    for (index i = w.first; i != end; ++i) {
      s = row_.reach(s, i / Cells, here);
      std::uintptr_t seen = empty;
      if (s->at(i).compare_exchange_strong(seen, name(w), std::memory_order_acq_rel)) continue;  // [cell] C1, C2
      if (seen == token_closed) w.refused.fetch_add(1, std::memory_order_relaxed);  // ours alone; `pending` publishes it
      s->at(i).store(done, std::memory_order_relaxed);                              // ours alone: who leaves passes it by
      ++got;
    }
    row_.follow(last_, s, here);
    w.fixed.store(0, std::memory_order_release);  // [cell] C1
    Traits::schedule_point("joined");
    count(w, got, out, here);
  }

  // ---- Who brings tokens ----

  void deliver(std::ptrdiff_t n, wait_status status, told_list& out, const pin& here) noexcept {
    while (n != 0) {
      segment* const from = row_.start(first_, here);
      const auto many = static_cast<index>(n);
      const index i = sent_.fetch_add(many, std::memory_order_relaxed);  // ours alone: cells nobody had
      Traits::schedule_point("token-in-hand");
      n = static_cast<std::ptrdiff_t>(put(from, i, i + many, status, out, here));
    }
  }

  // One token into each of the cells; says how many were cancelled. After the last it touches nothing.
  index put(segment* s, index i, index end, wait_status status, told_list& out, const pin& here) noexcept {
    index cancelled_ones = 0;
    while (i != end) {
      s = row_.reach(s, i / Cells, here);
      const index there = s->number * Cells;
      if (there > i) {  // all in between are over, that is, cancelled
        const index to = there < end ? there : end;
        if (there > end) skip_to(there);
        cancelled_ones += to - i;
        i = to;
        continue;
      }
      row_.follow(first_, s, here);
      const index stop = there + Cells < end ? there + Cells : end;
      for (; i != stop; ++i) {
        if (!put_one(s->at(i), status, out, here)) ++cancelled_ones;
      }
    }
    return cancelled_ones;
  }

  // Nobody has been sent to the cells before `to`, so nobody will be.
  void skip_to(index to) noexcept {
    index seen = sent_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (seen < to && !sent_.compare_exchange_weak(seen, to, std::memory_order_relaxed)) {  // a hint; a cell that is over is passed by
    }
  }

  // False: cancelled.
  bool put_one(cell& c, wait_status status, told_list& out, const pin& here) noexcept {
    std::uintptr_t seen = c.load(std::memory_order_relaxed);  // a hint; the CAS decides
    for (;;) {
      if (seen == cancelled) return false;
      const bool waits = seen > cancelled;
      Traits::schedule_point("cell-seen");
      if (!c.compare_exchange_strong(seen, waits ? std::uintptr_t{done} : token_of(status), std::memory_order_acq_rel,  // [cell] C1, C2
                                     std::memory_order_relaxed)) {  // a hint; the loop repeats
        continue;
      }
      if (waits) feed(*reinterpret_cast<node*>(seen), status, out, here);
      return true;
    }
  }

  void feed(node& w, wait_status status, told_list& out, const pin& here) noexcept {
    if (status != wait_status::granted) w.refused.fetch_add(1, std::memory_order_relaxed);  // a hint; `pending` publishes it
    if (w.cells != 1) return count(w, 1, out, here);
    w.pending.store(0, std::memory_order_release);  // [cell] C1
    settle(w, out, here);
  }
  // So many of its cells are done, for the waiter. Who counts the last has it; others have touched it for
  // the last time.
  void count(node& w, std::ptrdiff_t n, told_list& out, const pin& here) noexcept {
    if (w.pending.fetch_sub(n, std::memory_order_acq_rel) == n) settle(w, out, here);  // [cell] C1, C2
  }

  // It has all that it will get. Its cells are over only now, when `pending` says so: until then who has it
  // leave may look at them.
  void settle(node& w, told_list& out, const pin& here) noexcept {
    const std::ptrdiff_t refused = w.refused.load(std::memory_order_relaxed);  // ours alone by now
    w.held += w.cells - w.withdrawn - refused;
    w.need = 0;
    if (refused != 0 && w.status == wait_status::granted) w.status = wait_status::closed;
    row_.finish_cells(w.place, w.first, static_cast<index>(w.cells), here);
    out.add(w);
  }

  // ---- Who goes ----

  // Its places, against tokens; says how many. Others had theirs already.
  std::ptrdiff_t reserve(node& w) noexcept {
    std::ptrdiff_t reserved = 0;
    segment* s = w.place;
    for (std::ptrdiff_t k = 0; k != w.cells; ++k) {
      const index i = w.first + static_cast<index>(k);
      s = next_of(s, i);
      if (s->number != i / Cells) break;  // it has been served meanwhile, all of it
      std::uintptr_t seen = name(w);
      if (s->at(i).compare_exchange_strong(seen, leaving, std::memory_order_acq_rel,  // [cell] C1, C2
                                           std::memory_order_relaxed)) {  // a hint; it is done
        ++reserved;
      }
    }
    return reserved;
  }

  // The first `back` of its places wait on, for tokens that are on their way; the other `off` are cancelled.
  // With the last of them it may be told, and be gone, unless something is left to count.
  void let_go(node& w, std::ptrdiff_t back, std::ptrdiff_t off, told_list& out, const pin& here) noexcept {
    std::ptrdiff_t counted = off, passed_on = 0, passed_on_closed = 0;
    segment* s = w.place;
    index i = w.first;
    for (std::ptrdiff_t reserved = back + off; reserved != 0; ++i) {
      s = next_of(s, i);
      cell& c = s->at(i);
      if (c.load(std::memory_order_relaxed) == done) continue;  // a hint; what was reserved is never done
      --reserved;
      if (back != 0) {
        --back;
        const std::uintptr_t got = give_back(c, w);
        if (got == token_closed) w.refused.fetch_add(1, std::memory_order_relaxed);  // a hint; `pending` publishes it
        if (got != leaving) ++counted;
      } else {
        const std::uintptr_t got = c.exchange(cancelled, std::memory_order_acq_rel);  // [cell] C1, C2
        if (got == token) ++passed_on;
        if (got == token_closed) ++passed_on_closed;
      }
    }
    if (counted != 0) count(w, counted, out, here);
    deliver(passed_on, wait_status::granted, out, here);
    deliver(passed_on_closed, wait_status::closed, out, here);
  }
  // What was found in its place: `leaving`, or a token.
  static std::uintptr_t give_back(cell& c, node& w) noexcept {
    std::uintptr_t seen = leaving;
    c.compare_exchange_strong(seen, name(w), std::memory_order_acq_rel);  // [cell] C1, C2
    return seen;
  }
  // While none of a waiter's segments is over they stand in a row.
  static segment* next_of(segment* s, index i) noexcept {
    return s->number < i / Cells ? s->next.load(std::memory_order_acquire) : s;  // [row] R2
  }

  // Who waits writes the first, who brings tokens the second.
  alignas(detail::cache_line) atomic<index> joined_{0};
  typename row::pointer last_{nullptr};
  alignas(detail::cache_line) atomic<index> sent_{0};
  typename row::pointer first_{nullptr};
  row row_;
};

}  // namespace sync
HYBRIDLOOP_CLOSE
