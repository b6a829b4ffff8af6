// sync/waiter.hpp - one that waits, whoever it is: what a queue holds, and how it is told
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/config.hpp"
#include "wait/notice.hpp"

HYBRIDLOOP_OPEN

// How a wait ended. Time running out is an answer.
enum class wait_status : std::uint8_t {
  granted,    // the permits are yours, or you were notified
  timed_out,  // the deadline came first; nothing was taken
  cancelled,  // cancel() came first; nothing was taken
  closed,     // what you waited for was closed; nothing was taken
};

namespace detail {

// Whether this is the process that made it. In the child of a fork those are not there who were on their way out, and
// nobody waits for them.
template <class Traits>
class birthplace {
 public:
  bool is_here() const noexcept { return Traits::kernel::forks() == born_; }

 private:
  const std::uint32_t born_ = Traits::kernel::forks();
};

// Stands in the frame of a blocked thread or of a coroutine, or in the record of a callback. The queue
// that it is in owns all of it but `tell`, and hands it on to whoever tells it.
//
// A token is a permit or a notification on its way through a queue; see sync/account.hpp.
template <class Traits>
struct waiter {
  using tell_type = void (*)(waiter&, nudges<Traits>&) noexcept;

  explicit waiter(tell_type how) noexcept : tell(how) {}
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  // Before each wait: for `n` tokens, of which it holds some already.
  void begin(std::ptrdiff_t n, std::ptrdiff_t already) noexcept {
    need = n - already;
    held = already;
    status = wait_status::granted;
    linked = false;
  }

  // Takes what it needs of so many tokens.
  void feed(std::ptrdiff_t& tokens, wait_status kind) noexcept {
    const std::ptrdiff_t taken = tokens < need ? tokens : need;
    if (taken == 0) return;
    tokens -= taken;
    need -= taken;
    if (kind == wait_status::granted) {
      held += taken;
    } else if (status == wait_status::granted) {
      status = kind;
    }
  }
  // The one that it needs.
  void grant() noexcept {
    need = 0;
    ++held;
  }

  // Is called once for each wait, with `status` in place: the last touch of it by anybody but its owner,
  // and behind the last touch of what it waited for. Outside of all locks; does not throw, blocks or run
  // the user's code.
  const tell_type tell;
  void tell_now() noexcept {
    nudges<Traits> now;
    tell(*this, now);
  }

  std::ptrdiff_t need = 0;  // tokens that are missing
  std::ptrdiff_t held = 0;  // permits that it has; they go back unless it is granted
  wait_status status = wait_status::granted;
  bool linked = false;

  waiter* next = nullptr;
  waiter* previous = nullptr;
};

// Those whose wait is over, in order, until they are told. A thread's own.
template <class Traits>
class told_list {
 public:
  using waiter_type = waiter<Traits>;

  told_list() noexcept = default;
  told_list(const told_list&) = delete;
  told_list& operator=(const told_list&) = delete;

  void add(waiter_type& w) noexcept {
    if (w.status != wait_status::granted) {
      returned_ += w.held;
      w.held = 0;
    }
    w.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &w;
    last_ = &w;
  }

  bool empty() const noexcept { return first_ == nullptr; }

  // Permits of those who leave without the rest: they are to be released, before anybody is told.
  std::ptrdiff_t take_returned() noexcept {
    const std::ptrdiff_t all = returned_;
    returned_ = 0;
    return all;
  }

  // Whoever is told may be gone at once, and what it waited for as well.
  void tell_all() noexcept {
    if (empty()) return;
    nudges<Traits> later;
    for (waiter_type* w = first_; w != nullptr;) {
      waiter_type* const after = w->next;
      w->tell(*w, later);
      w = after;
    }
    first_ = last_ = nullptr;
  }

 private:
  waiter_type* first_ = nullptr;
  waiter_type* last_ = nullptr;
  std::ptrdiff_t returned_ = 0;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
