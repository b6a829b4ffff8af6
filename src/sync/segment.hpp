// sync/segment.hpp - an endless row of cells, of which only those exist that somebody still needs
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "base/config.hpp"
#include "sync/epoch.hpp"

HYBRIDLOOP_OPEN
namespace detail {

// `left` counts what keeps it: cells that are not over, the queue's pointers to it, and one while it is
// the last. At 0 it is over, and taken out of the row.
template <class Traits, unsigned Cells>
struct segment {
  using cell = typename Traits::template atomic<std::uintptr_t>;

  typename Traits::template atomic<segment*> next{nullptr};
  typename Traits::template atomic<std::uint32_t> left{0};
  segment* previous = nullptr;  // whoever sweeps
  std::uint64_t number = 0;
  cell cells[Cells] = {};
  typename Traits::template atomic<segment*> link{nullptr};  // among those that are over

  cell& at(std::uint64_t index) noexcept { return cells[index % Cells]; }
};

// Cells are numbered, each is used once. Segments stand in a list; each is taken out of the middle as soon
// as all its cells are over, so what is skipped is skipped in one step, and costs no memory.
//
// Of the many that take segments out one at a time changes the list: whoever has put the first one on
// `over_`. Others leave theirs there and go on; nobody waits. Who stops in the middle keeps memory, no more.
//
// All of it while pinned, and on behalf of a waiter that has not been told yet: so the list is there.
//
// Edge [row]: who finds a segment finds it made, and finds nothing behind it that was taken out before.
// R1 a segment, or a pointer to one, is set (release); R2 it is followed (acquire). Rule: R2
// synchronises with R1, or with a read-modify-write behind it [intro.races].
//
// Edge [over]: who takes a segment out comes after all that needed it. O1 one less needs it (acq_rel), the last
// one puts it on `over_` (release); O2 who sweeps takes it from there (acquire), and the next one to sweep
// comes after that. Rule: every change of `left` and of `over_` is a read-modify-write, so each has
// those before it behind it [intro.races].
template <class Traits, unsigned Cells>
class segment_list {
  template <class T>
  using atomic = typename Traits::template atomic<T>;

 public:
  using segment = detail::segment<Traits, Cells>;
  using memory = epochs<Traits, segment>;
  using pin = typename memory::pin;
  using pointer = atomic<segment*>;

  segment_list() noexcept = default;
  segment_list(const segment_list&) = delete;
  segment_list& operator=(const segment_list&) = delete;

  // Nobody waits. Who is still on its way out looks at no segment.
  ~segment_list() {
    segment* s = first_.load(std::memory_order_relaxed);  // ours alone
    if (s == nullptr) return;
    const pin here;
    while (s != nullptr) {
      segment* const next = s->next.load(std::memory_order_relaxed);  // ours alone
      here.retire(*s);
      s = next;
    }
  }

  // Where `p` points. Before a cell is claimed: the claimed one is not before it then.
  segment* start(pointer& p, const pin& here) noexcept {
    segment* s = p.load(std::memory_order_acquire);  // [row] R2
    return s != nullptr ? s : begin(p, here);
  }

  // The segment of that number, or, where that is over, the next one that is not.
  segment* reach(segment* s, std::uint64_t number, const pin& here) noexcept {
    while (s->number < number) {
      segment* const next = s->next.load(std::memory_order_acquire);  // [row] R2
      s = next != nullptr ? next : append(*s, here);
    }
    return s;
  }

  // `p` points to `s`, or behind it, unless that is over meanwhile.
  void follow(pointer& p, segment* s, const pin& here) noexcept {
    segment* seen = p.load(std::memory_order_acquire);  // [row] R2
    if (seen == s) return;
    while (seen->number < s->number && keep(*s)) {
      segment* const before = seen;
      Traits::schedule_point("pointer-moves");
      const bool moved = p.compare_exchange_strong(seen, s, std::memory_order_acq_rel,  // [row] R1
                                                   std::memory_order_acquire);           // [row] R2
      finish(*(moved ? before : s), 1, here);
      if (moved) return;
    }
  }

  // So many of what keeps it are over.
  void finish(segment& s, std::uint32_t count, const pin& here) noexcept {
    if (s.left.fetch_sub(count, std::memory_order_acq_rel) != count) return;  // [over] O1
    Traits::schedule_point("segment-over");
    segment* seen = over_.load(std::memory_order_relaxed);  // a hint; the CAS decides
    do {
      s.link.store(seen, std::memory_order_relaxed);  // ours alone until the CAS
    } while (!over_.compare_exchange_weak(seen, &s, std::memory_order_acq_rel,  // [over] O1, O2
                                          std::memory_order_relaxed));  // a hint; the loop repeats
    if (seen == nullptr) sweep(here);
  }
  // `count` cells from `index` on, the first of them in `s`.
  void finish_cells(segment* s, std::uint64_t index, std::uint64_t count, const pin& here) noexcept {
    while (count != 0) {
      const std::uint64_t here_at_most = Cells - index % Cells;
      const std::uint64_t some = count < here_at_most ? count : here_at_most;
      segment* const next = s->next.load(std::memory_order_acquire);  // [row] R2
      finish(*s, static_cast<std::uint32_t>(some), here);
      index += some;
      count -= some;
      s = next;
    }
  }

 private:
  static constexpr std::uint32_t last = 1;
  static constexpr std::uint32_t pointers = 2;

  // What stands at the end of `over_` while somebody sweeps.
  segment* sweeping() noexcept { return reinterpret_cast<segment*>(&over_); }

  static bool keep(segment& s) noexcept {
    std::uint32_t left = s.left.load(std::memory_order_relaxed);  // a hint; the CAS decides
    while (left != 0) {
      if (s.left.compare_exchange_weak(left, left + 1, std::memory_order_acq_rel,  // [over] O1
                                       std::memory_order_relaxed)) {  // a hint; the loop repeats
        return true;
      }
    }
    return false;
  }

  // The first segment is kept by both pointers until they are set.
  segment* begin(pointer& p, const pin& here) noexcept {
    segment* s = first_.load(std::memory_order_acquire);  // [row] R2
    if (s == nullptr) {
      segment* const made = make(0, nullptr, pointers, here);
      const bool ours = first_.compare_exchange_strong(s, made, std::memory_order_acq_rel);  // [row] R1, R2
      if (ours) s = made;
      else here.retire(*made);
    }
    segment* seen = nullptr;
    return p.compare_exchange_strong(seen, s, std::memory_order_acq_rel) ? s : seen;  // [row] R1, R2
  }

  segment* append(segment& behind, const pin& here) noexcept {
    segment* const made = make(behind.number + 1, &behind, 0, here);
    segment* seen = nullptr;
    Traits::schedule_point("segment-made");
    if (!behind.next.compare_exchange_strong(seen, made, std::memory_order_acq_rel)) {  // [row] R1, R2
      here.retire(*made);
      return seen;
    }
    finish(behind, last, here);
    return made;
  }

  // Neither a wait nor a token can be refused any more: without memory this tries again until there is some.
  // Nothing is lost meanwhile, the cell is claimed and others go on. It stays pinned, since it stands in the
  // row; what others retire is not used again until then.
  segment* make(std::uint64_t number, segment* previous, std::uint32_t kept_by, const pin& here) noexcept {
    segment* s = here.take();
    for (; s == nullptr; s = here.take()) Traits::kernel::yield();
    for (auto& c : s->cells) c.store(0, std::memory_order_relaxed);         // ours alone until it is linked
    s->next.store(nullptr, std::memory_order_relaxed);                      // ours alone until it is linked
    s->left.store(Cells + last + kept_by, std::memory_order_relaxed);       // ours alone until it is linked
    s->previous = previous;
    s->number = number;
    return s;
  }

  // Takes out what is over, and what comes to be meanwhile.
  void sweep(const pin& here) noexcept {
    segment* busy = nullptr;
    do {
      segment* s = over_.exchange(sweeping(), std::memory_order_acq_rel);  // [over] O2
      while (s != nullptr && s != sweeping()) {
        segment* const link = s->link.load(std::memory_order_relaxed);  // ours alone
        Traits::schedule_point("sweeping");
        take_out(*s, here);
        s = link;
      }
      busy = sweeping();
    } while (!over_.compare_exchange_strong(busy, nullptr, std::memory_order_acq_rel,  // [over] O1
                                            std::memory_order_relaxed));  // a hint; the loop repeats
  }
  // It is not the last one. Who stands on it finds the way on.
  void take_out(segment& s, const pin& here) noexcept {
    segment* const next = s.next.load(std::memory_order_acquire);  // [row] R2
    next->previous = s.previous;
    pointer& before = s.previous != nullptr ? s.previous->next : first_;
    before.store(next, std::memory_order_release);  // [row] R1
    here.retire(s);
  }

  pointer first_{nullptr};
  pointer over_{nullptr};
};

}  // namespace detail
HYBRIDLOOP_CLOSE
