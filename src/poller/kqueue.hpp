// poller/kqueue.hpp - readiness from kqueue(2): macOS and the BSDs
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "base/clock.hpp"
#include "poller/contract.hpp"
#include "poller/kqueue_bell.hpp"
#include "poller/kqueue_filters.hpp"
#include "poller/terminals.hpp"
#include "task/plain_array.hpp"
#include "wait/kernel.hpp"

#if HYBRIDLOOP_HAS_KQUEUE()
HYBRIDLOOP_OPEN
namespace detail {

// One watch is up to three filters of the kernel: to read, to write, and out-of-band data where that is
// known. The table here says what was asked for which number, so that what they tell in one wait is one
// event; and it is what `oneshot` is made of, since that is for all three at once.
//
// A companion may sit in wait() while the loop thread changes the set. The kernel takes changes then; an
// event carries the count of changes at which its filters were set, so one that is older is dropped.
//
// A terminal that the kernel refuses is asked after by select(2), see poller/terminals.hpp.
//
// The kernel takes off what is closed. To delete or to enable a filter that it does not know any more fails,
// which is how a number that names another file by now is found out.
template <class Kernel>
class kqueue_poller {
 public:
  static constexpr const char* name = "kqueue";
  static constexpr bool edges = true;

  kqueue_poller() noexcept = default;
  kqueue_poller(const kqueue_poller&) = delete;
  kqueue_poller& operator=(const kqueue_poller&) = delete;
  ~kqueue_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    const int made = Kernel::kqueue();
    if (made < 0) return -made;
    queue_ = made;
    const int refused = bell_.open(queue_);
    if (refused != 0) close();
    return refused;
  }

  void close() noexcept {
    for (int* each : {&bell_.ends[1], &bell_.ends[0], &queue_}) {
      if (*each >= 0) Kernel::close(*each);
      *each = -1;
    }
    forget();
  }

  // The queue is not there in the child, where its number may be somebody else's. A companion that is not
  // there either may have held the lock, in the middle of something.
  void abandon() noexcept {
    if (!Kernel::kqueue_is_inherited) queue_ = -1;
    if (mutex_.try_lock()) {
      mutex_.unlock();
    } else {
      ::new (static_cast<void*>(&mutex_)) typename Kernel::mutex;
    }
    close();
  }

  // Comes before anything else in the child, so the numbers are still free.
  int reopen() noexcept {
    const int old[3] = {std::exchange(queue_, -1), std::exchange(bell_.ends[0], -1), std::exchange(bell_.ends[1], -1)};
    abandon();
    kqueue_poller fresh;
    int moved = -fresh.open();
    int* const made[3] = {&fresh.queue_, &fresh.bell_.ends[0], &fresh.bell_.ends[1]};
    for (int i = 0; i < 3 && moved >= 0; ++i) {
      if (old[i] < 0 || *made[i] == old[i]) continue;
      moved = Kernel::replace(old[i], *made[i]);
      Kernel::close(std::exchange(*made[i], old[i]));
    }
    queue_ = std::exchange(fresh.queue_, -1);
    for (int i = 0; i < 2; ++i) bell_.ends[i] = std::exchange(fresh.bell_.ends[i], -1);
    return moved < 0 ? -moved : bell_.tell(queue_);
  }

  bool is_open() const noexcept { return queue_ >= 0; }
  bool owns(native_handle fd) const noexcept {
    return fd >= 0 && (fd == queue_ || fd == bell_.ends[0] || fd == bell_.ends[1]);
  }

  int add(native_handle fd, interest what, poll_token token) noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    if (unknown != 0) return unknown;
    if (file.always_ready) return EPERM;
    const typename Kernel::hold held(mutex_);
    if (!entries_.reach(number(fd) + 1)) return ENOMEM;
    entry& e = entries_[number(fd)];
    erase(fd, e);
    e.file = file;
    const int refused = set(fd, e, what, token);
    if (refused != 0) erase(fd, e);
    return refused;
  }

  int change(native_handle fd, interest what, poll_token token) noexcept {
    const typename Kernel::hold held(mutex_);
    entry* e = find(fd);
    if (e == nullptr) return unregistered(fd);
    const int gone = look_again(fd, *e);
    const entry was = *e;
    const int refused = gone != 0 ? gone : set(fd, *e, what, token);
    if (refused == EBADF || refused == ENOENT) {
      erase(fd, *e);
    } else if (refused != 0 && set(fd, *e, was.what, was.token) == 0 && was.silent) {
      silence(fd, *e);
    }
    return refused;
  }

  int remove(native_handle fd) noexcept {
    const typename Kernel::hold held(mutex_);
    entry* e = find(fd);
    if (e == nullptr) return unregistered(fd);
    erase(fd, *e);
    return 0;
  }

  // What was closed is off already, so everything can be removed.
  int renew() noexcept {
    const typename Kernel::hold held(mutex_);
    for (std::size_t i = 0; i < entries_.room(); ++i) {
      if (entries_[i].set_at != 0) erase(static_cast<native_handle>(i), entries_[i]);
    }
    return 0;
  }

  int expose(native_handle& out) const noexcept {
    out = queue_;
    return 0;
  }

  void settle() noexcept {}

  // A filter may have been heard while the other one of its watch was not set yet: both are told at once.
  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    kernel_event events[batch];
    question asked;
    const std::uint64_t seen = begin_wait(asked);
    std::size_t found = asked.asks() ? wait_for_terminals(asked, seen, out, room, timeout) : 0;
    const int want = static_cast<int>(room - found < batch ? room - found : batch);
    int got = Kernel::kevent_wait(queue_, events, want, asked.asks() ? 0 : timeout);
    if (got < 0 && found == 0) return got == -EINTR ? 0 : got;
    const typename Kernel::hold held(mutex_);
    waiting_ = false;
    if (changes_ != seen && got > 0 && got < want) {
      const int more = Kernel::kevent_wait(queue_, events + got, want - got, 0);
      if (more > 0) got += more;
    }
    ++waits_;
    for (int i = 0; i < got; ++i) translate(events[i], out, found);
    return static_cast<int>(found);
  }

  native_handle bell() const noexcept { return bell_.handle(queue_); }
  static int ring(native_handle bell) noexcept { return kqueue_bell<Kernel>::ring(bell); }

 private:
  using kernel_event = typename Kernel::kernel_event;
  using filters = kqueue_filters<Kernel>;
  using question = typename terminals<Kernel>::question;
  static constexpr std::size_t batch = events_per_turn;

  struct entry {
    std::uint64_t set_at = 0;  // 0: nobody's
    std::uint64_t told_in = 0;
    std::size_t told_as = 0;
    poll_token token = 0;
    unsigned filters = 0;  // that the kernel has
    interest what = interest::none;
    bool silent = false;  // until change()
    bool terminal = false;  // that the kernel refused
    file_identity file{};
  };

  std::uint64_t begin_wait(question& asked) noexcept {
    const typename Kernel::hold held(mutex_);
    if (terminals_.asked().asks()) asked = terminals_.asked();
    waiting_ = true;
    return changes_;
  }

  static std::size_t number(native_handle fd) noexcept { return static_cast<std::size_t>(fd); }

  int identify(native_handle fd, file_identity& file) const noexcept {
    return owns(fd) ? EBADF : -Kernel::identify(fd, file);
  }
  int unregistered(native_handle fd) const noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    return unknown != 0 ? unknown : ENOENT;
  }
  int look_again(native_handle fd, const entry& e) const noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    return unknown == 0 && !(e.file == file) ? ENOENT : unknown;
  }
  entry* find(native_handle fd) noexcept {
    if (fd < 0 || number(fd) >= entries_.room() || entries_[number(fd)].set_at == 0) return nullptr;
    return &entries_[number(fd)];
  }

  // A filter that is there keeps its place in the queue, so that a change puts nobody last, and its flags, so
  // for other ones it is made anew. To add it once more has its edge told again.
  int set(native_handle fd, entry& e, interest what, poll_token token) noexcept {
    if (has(what, interest::priority) && !Kernel::kqueue_hears_priority) return ENOTSUP;
    const bool edge = has(what, interest::edge);
    const unsigned wanted = filters::asked_by(what);
    const int gone = take_off(fd, e, has(e.what, interest::edge) == edge ? ~wanted : ~0u);
    if (gone != 0) return gone;
    e.set_at = ++changes_;
    e.token = token;
    e.what = what;
    e.silent = false;
    if (e.terminal) return ask_terminal(fd, what);
    for (const unsigned which : filters::every) {
      if ((wanted & which) == 0) continue;
      int refused = (e.filters & which) != 0 ? -Kernel::kevent_enable(queue_, fd, filters::one(which)) : 0;
      if (refused == 0) refused = -Kernel::kevent_add(queue_, fd, filters::one(which), edge, e.set_at);
      e.terminal = refused == EINVAL && e.filters == 0 && terminals<Kernel>::takes(fd, queue_);
      if (e.terminal) return ask_terminal(fd, what);
      if (refused != 0) return refused;
      e.filters |= which;
    }
    return 0;
  }

  // ENOENT or EBADF: the kernel had taken one off already.
  int take_off(native_handle fd, entry& e, unsigned those = ~0u) noexcept {
    int gone = 0;
    for (const unsigned which : filters::every) {
      if ((e.filters & those & which) == 0) continue;
      const int refused = -Kernel::kevent_delete(queue_, fd, filters::one(which));
      if (refused != 0) gone = refused;
    }
    e.filters &= ~those;
    return gone;
  }

  void erase(native_handle fd, entry& e) noexcept {
    take_off(fd, e);
    if (e.terminal) ask_terminal(fd, interest::none);
    e = entry{};
  }
  void forget() noexcept {
    terminals_.clear();
    waiting_ = false;
    for (std::size_t i = 0; i < entries_.room(); ++i) entries_[i] = entry{};
  }

  void translate(const kernel_event& event, poll_event* out, std::size_t& found) noexcept {
    const auto fd = static_cast<native_handle>(event.ident);
    if (bell_.hears(event)) return;
    entry* e = find(fd);
    if (e == nullptr || !Kernel::kevent_carries(event, e->set_at)) return;
    if (e->told_in != waits_) {
      if (e->silent) return;
      e->told_in = waits_;
      e->told_as = found++;
      out[e->told_as] = {e->token, ready{}};
      if (has(e->what, interest::oneshot)) silence(fd, *e);
    }
    filters::report(event, e->file.pipe, out[e->told_as].what);
  }

  // Stays there, so that the next change finds out whether the number was closed.
  void silence(native_handle fd, entry& e) noexcept {
    e.silent = true;
    if (e.terminal) terminals_.set(fd, interest::none);
    for (const unsigned which : filters::every) {
      if ((e.filters & which) != 0) Kernel::kevent_disable(queue_, fd, filters::one(which));
    }
  }

  // ---- Terminals ----

  // A wait that is going on asks for what was there when it began.
  int ask_terminal(native_handle fd, interest what) noexcept {
    if (has(what, interest::priority)) return ENOTSUP;
    terminals_.set(fd, what);
    return std::exchange(waiting_, false) ? ring(bell()) : 0;
  }

  // Until one has something, or the queue may have. What they have comes first, of which there is little.
  std::size_t wait_for_terminals(question& asked, std::uint64_t seen, poll_event* out, std::size_t room, nanos timeout) noexcept {
    const int failed = asked.wait(queue_, timeout);
    const typename Kernel::hold held(mutex_);
    if (failed != 0) asked = terminals_.asked();
    std::size_t found = 0;
    for (int fd = 0; fd <= asked.top && found < room; ++fd) {
      entry* e = asked.speaks_of(fd) ? find(fd) : nullptr;
      if (e == nullptr || !e->terminal || e->silent || e->set_at > seen) continue;
      if (look_again(fd, *e) != 0) {
        erase(fd, *e);
      } else if (failed == 0) {
        out[found++] = {e->token, asked.answer(fd)};
        if (has(e->what, interest::oneshot)) silence(fd, *e);
      }
    }
    return found;
  }

  int queue_ = -1;
  kqueue_bell<Kernel> bell_;

  // The waiter alone.
  std::uint64_t waits_ = 0;

  // Under the lock.
  typename Kernel::mutex mutex_;
  plain_array<entry> entries_;  // by number
  std::uint64_t changes_ = 0;
  terminals<Kernel> terminals_;
  bool waiting_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_HAS_KQUEUE()
