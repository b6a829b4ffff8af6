// poller/poll.hpp - readiness from poll(2), which every POSIX system has
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "base/clock.hpp"
#include "poller/contract.hpp"
#include "task/plain_array.hpp"
#include "wait/bell.hpp"
#include "wait/kernel.hpp"

#if !HYBRIDLOOP_NO_IO
HYBRIDLOOP_OPEN
namespace detail {

// The set stands here and goes to the kernel with every wait, which costs as much as there are
// descriptors. poll(2) has no edges: `edge` is told like a level, so nothing that was missed is lost.
//
// A companion may sit in wait() while the loop thread changes the set. So the waiter polls a copy; a
// change ends that wait, and what it found is looked up in the set as it is by then.
//
// Nobody tells of a number that is closed or names another file by now. Where poll(2) or a look at
// the file shows it, that is reported once (error, EBADF) and the registration is gone.
template <class Kernel>
class poll_poller {
 public:
  static constexpr const char* name = "poll";
  static constexpr bool edges = false;

  poll_poller() noexcept = default;
  poll_poller(const poll_poller&) = delete;
  poll_poller& operator=(const poll_poller&) = delete;
  ~poll_poller() { close(); }

  int open() noexcept {
    if (is_open()) return 0;
    if (!copy_.reach(1)) return ENOMEM;
    return -pipe_bell<Kernel>::open(ends_);
  }

  // First the end to write to: who still rang it would be sent a SIGPIPE otherwise.
  void close() noexcept {
    for (native_handle* end : {&ends_[1], &ends_[0]}) {
      if (*end >= 0) Kernel::close(*end);
      *end = -1;
    }
    renew();
    waiting_ = false;
  }

  // A companion that is not there in the child may have held the lock, in the middle of something.
  void abandon() noexcept {
    if (mutex_.try_lock()) {
      mutex_.unlock();
    } else {
      ::new (static_cast<void*>(&mutex_)) typename Kernel::mutex;
      copy_.leave_behind();
      spare_.leave_behind();
    }
    close();
  }

  int reopen() noexcept {
    const native_handle old[2] = {std::exchange(ends_[0], -1), std::exchange(ends_[1], -1)};
    abandon();
    if (!copy_.reach(1)) return ENOMEM;
    native_handle fresh[2] = {-1, -1};
    int moved = pipe_bell<Kernel>::open(fresh);
    for (int i = 1; i >= 0; --i) {
      if (moved >= 0) moved = Kernel::replace(old[i], fresh[i]);
      if (fresh[i] >= 0) Kernel::close(fresh[i]);
      ends_[i] = old[i];
    }
    return moved < 0 ? -moved : 0;
  }

  bool is_open() const noexcept { return ends_[0] >= 0; }
  bool owns(native_handle fd) const noexcept {
    return fd >= 0 && (fd == ends_[0] || fd == ends_[1]);
  }

  int add(native_handle fd, interest what, poll_token token) noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    if (unknown != 0) return unknown;
    if (file.always_ready) return EPERM;
    const typename Kernel::hold held(mutex_);
    if (!make_room(fd)) return ENOMEM;
    const int deaf = end_wait();
    if (deaf != 0) return deaf;
    if (places_[number(fd)] == 0) places_[number(fd)] = ++count_;
    entry& e = entries_[places_[number(fd)] - 1];
    e.file = file;
    set(e, fd, what, token);
    return 0;
  }

  int change(native_handle fd, interest what, poll_token token) noexcept {
    const typename Kernel::hold held(mutex_);
    entry* e = find(fd);
    if (e == nullptr) return unregistered(fd);
    const int deaf = end_wait();
    if (deaf != 0) return deaf;
    const int refused = look_again(*e);
    if (refused == 0) set(*e, fd, what, token);
    if (means_gone(refused)) erase(fd);
    return refused;
  }

  // A file that a waiter polls is not really closed before its wait has ended.
  int remove(native_handle fd) noexcept {
    const typename Kernel::hold held(mutex_);
    if (find(fd) == nullptr) return unregistered(fd);
    erase(fd);
    return end_wait();
  }

  int renew() noexcept {
    places_.zero();
    count_ = 0;
    return 0;
  }

  int expose(native_handle&) const noexcept { return ENOTSUP; }

  void settle() noexcept {}

  int wait(poll_event* out, std::size_t room, nanos timeout) noexcept {
    const std::size_t polled = begin_wait();
    const int got = Kernel::poll(copy_.data(), polled, timeout);
    const int bell = got > 0 ? copy_[0].revents : 0;
    if ((bell & Kernel::poll_in) != 0) pipe_bell<Kernel>::hear(ends_[0]);
    const typename Kernel::hold held(mutex_);
    waiting_ = false;
    if (got <= 0) return got == -EINTR ? 0 : got;
    if ((bell & ~Kernel::poll_in) != 0) return -EBADF;  // somebody has closed our own
    return translate(polled, got - (bell != 0 ? 1 : 0), out, room);
  }

  native_handle bell() const noexcept { return ends_[1]; }
  static int ring(native_handle bell) noexcept { return pipe_bell<Kernel>::ring(bell); }

 private:
  using poll_entry = typename Kernel::poll_entry;

  struct entry {
    native_handle fd;
    short events;
    bool once;
    bool silent;  // until change()
    poll_token token;
    std::uint64_t set_at;
    file_identity file;
  };

  static std::size_t number(native_handle fd) noexcept { return static_cast<std::size_t>(fd) / handle_step; }
  static auto poll_number(native_handle fd) noexcept { return static_cast<decltype(poll_entry::fd)>(fd); }

  int identify(native_handle fd, file_identity& file) const noexcept {
    return owns(fd) ? EBADF : -Kernel::identify(fd, file);
  }
  int unregistered(native_handle fd) const noexcept {
    file_identity file;
    const int unknown = identify(fd, file);
    return unknown != 0 ? unknown : ENOENT;
  }

  // 0 when the number still names what was added, as far as can be known.
  int look_again(const entry& e) const noexcept {
    file_identity file;
    const int unknown = identify(e.fd, file);
    return unknown == 0 && !(e.file == file) ? ENOENT : unknown;
  }
  static constexpr bool means_gone(int refused) noexcept {
    return refused == EBADF || refused == ENOENT;
  }

  entry* find(native_handle fd) noexcept {
    if (fd < 0 || number(fd) >= places_.room() || places_[number(fd)] == 0) return nullptr;
    return &entries_[places_[number(fd)] - 1];
  }

  // The copy is the waiter's, who takes the wider one when he needs it.
  bool make_room(native_handle fd) noexcept {
    const std::size_t polled = count_ + 2;  // with the bell and a new one
    return places_.reach(number(fd) + 1) && entries_.reach(count_ + 1) &&
           (polled <= copy_.room() || spare_.reach(polled));
  }

  void set(entry& e, native_handle fd, interest what, poll_token token) noexcept {
    e.fd = fd;
    e.events = events_of(what);
    e.once = has(what, interest::oneshot) || (what & anything) == interest::none;
    e.silent = false;
    e.token = token;
    e.set_at = ++changes_;
  }

  void erase(native_handle fd) noexcept {
    const std::size_t place = std::exchange(places_[number(fd)], 0);
    entry& last = entries_[--count_];
    if (last.fd == fd) return;
    entries_[place - 1] = last;
    places_[number(last.fd)] = place;
  }

  // One ring is enough for a wait.
  int end_wait() noexcept { return std::exchange(waiting_, false) ? ring(bell()) : 0; }

  // How many to poll: the bell, and all that is not silent.
  std::size_t begin_wait() noexcept {
    const typename Kernel::hold held(mutex_);
    if (copy_.room() <= count_) copy_.swap(spare_);
    copy_[0] = {poll_number(ends_[0]), Kernel::poll_in, 0};
    std::size_t polled = 1;
    for (std::size_t i = 0; i < count_; ++i) {
      if (!entries_[i].silent) copy_[polled++] = {poll_number(entries_[i].fd), entries_[i].events, 0};
    }
    copied_at_ = changes_;
    waiting_ = true;
    return polled;
  }

  // Goes round: where there is no room for all, the next batch begins with those that were left out.
  int translate(std::size_t polled, int ready_ones, poll_event* out, std::size_t room) noexcept {
    std::size_t found = 0;
    for (std::size_t looks = 1; looks < polled && ready_ones > 0 && found < room; ++looks) {
      next_ = next_ + 1 < polled ? next_ + 1 : 1;
      if (copy_[next_].revents == 0) continue;
      --ready_ones;
      if (report(copy_[next_], out[found])) ++found;
    }
    return static_cast<int>(found);
  }

  // False when its registration was changed or taken off meanwhile.
  bool report(const poll_entry& polled, poll_event& out) noexcept {
    const auto fd = static_cast<native_handle>(polled.fd);
    entry* e = find(fd);
    if (e == nullptr || e->set_at > copied_at_) return false;
    out.token = e->token;
    if ((polled.revents & Kernel::poll_invalid) == 0 && !means_gone(look_again(*e))) {
      out.what = ready_of(polled.revents);
      e->silent = e->once;
      return true;
    }
    out.what = ready{};
    out.what.error = true;
    out.what.native_error = EBADF;
    erase(fd);
    return true;
  }

  static short events_of(interest what) noexcept {
    int events = 0;
    if (has(what, interest::readable)) events |= Kernel::poll_in | Kernel::poll_half_close;
    if (has(what, interest::writable)) events |= Kernel::poll_out;
    if (has(what, interest::priority)) events |= Kernel::poll_priority;
    return static_cast<short>(events);
  }

  static ready ready_of(int events) noexcept {
    ready what;
    what.hangup = (events & (Kernel::poll_hangup | Kernel::poll_half_close)) != 0;
    what.readable = (events & Kernel::poll_in) != 0 || what.hangup;
    what.writable = (events & Kernel::poll_out) != 0;
    what.error = (events & Kernel::poll_error) != 0;
    what.priority = (events & Kernel::poll_priority) != 0;
    return what;
  }

  native_handle ends_[2] = {-1, -1};

  // The waiter alone, but for their room.
  plain_array<poll_entry> copy_;  // the bell, then what is polled
  std::size_t next_ = 0;      // where the latest batch ended

  // Under the lock.
  typename Kernel::mutex mutex_;
  plain_array<std::size_t> places_;  // by number: one more than the index of its entry, or 0
  plain_array<entry> entries_;
  plain_array<poll_entry> spare_;
  std::size_t count_ = 0;
  std::uint64_t changes_ = 0;
  std::uint64_t copied_at_ = 0;
  bool waiting_ = false;
};

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // !HYBRIDLOOP_NO_IO
