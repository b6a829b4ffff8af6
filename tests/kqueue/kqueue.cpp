// kqueue.cpp - a kqueue that is an epoll set, so that poller/kqueue.hpp runs on Linux
//
// Made after the manual page, and no proof of what a real one does. What differs from it: a fork copies
// its descriptors, it keeps what was closed while another number names it, and says nothing in `data`. It
// refuses terminals, as macOS does with /dev/tty.
#include <sys/event.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

struct knote {
  bool there = false;
  bool on = false;
  bool clear = false;
  void* mark = nullptr;
};
struct watched {
  knote read, write, except;
  std::uint32_t born = 0;  // tells it from what had the number before, of which a wait may still bring an event
};

// What stands in each queue, by its number; kernels have it in the queue itself. Pages of the system's: no
// allocation of this counts as one of the library's. A loop may be made before main().
struct queue_state {
  watched by_number[1 << 16];
};
struct table {
  std::mutex mutex;
  queue_state* queues[1 << 16];
};
table& all();

template <class T>
T* pages() {
  void* const got = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return got == MAP_FAILED ? nullptr : static_cast<T*>(got);
}

// A child has nobody else in it, and what another thread had locked is locked for ever.
table* made() {
  ::pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); }, [] { all().mutex.unlock(); });
  return ::new (static_cast<void*>(pages<table>())) table();
}
table& all() {
  static table* const there = made();
  return *there;
}

// For the event of the user: one that is always readable, in many sets. It reports once per trigger.
constexpr std::uint64_t user = ~std::uint64_t{0};
int always() {
  static const int fd = ::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd;
}

int failed(int why) {
  errno = why;
  return -1;
}

int tell_user(int queue, const struct kevent& change) {
  epoll_event event{};
  event.data.u64 = user;
  if ((change.fflags & NOTE_TRIGGER) != 0) {
    event.events = EPOLLIN | EPOLLONESHOT;
    return ::epoll_ctl(queue, EPOLL_CTL_MOD, always(), &event);
  }
  event.events = EPOLLONESHOT;
  const int added = ::epoll_ctl(queue, EPOLL_CTL_ADD, always(), &event);
  return added != 0 && errno == EEXIST ? 0 : added;
}

std::uint64_t data_of(int fd, const watched& w) { return std::uint64_t{w.born} << 32 | static_cast<std::uint32_t>(fd); }
int number_of(const epoll_event& event) { return static_cast<int>(event.data.u64 & 0xffffffffu); }

std::uint32_t events_of(const watched& w) {
  std::uint32_t events = 0;
  if (w.read.on) events |= EPOLLIN | EPOLLRDHUP;
  if (w.write.on) events |= EPOLLOUT;
  if (w.except.on) events |= EPOLLPRI;
  if (events == 0) return EPOLLET | EPOLLONESHOT;
  if (w.read.clear || w.write.clear || w.except.clear) events |= EPOLLET;
  return events;
}

int tell(int queue, const struct kevent& change) {
  if (change.filter == EVFILT_USER) return tell_user(queue, change);
  const int fd = static_cast<int>(change.ident);
  if (::isatty(fd) == 1) return failed(EINVAL);
  const std::lock_guard<std::mutex> hold(all().mutex);
  watched& w = all().queues[queue]->by_number[fd];
  knote& note = change.filter == EVFILT_READ ? w.read : change.filter == EVFILT_WRITE ? w.write : w.except;
  const bool adds = (change.flags & EV_ADD) != 0;

  // Whether the number still names what was added: a MOD that changes nothing.
  epoll_event event{};
  event.data.u64 = data_of(fd, w);
  event.events = events_of(w);
  if (::epoll_ctl(queue, EPOLL_CTL_MOD, fd, &event) != 0) {
    const int why = errno;
    if (why != ENOENT || !adds) {
      w = watched{};
      return failed(why);
    }
    static std::uint32_t births = 0;
    w = watched{};
    w.born = ++births;
    event.data.u64 = data_of(fd, w);
    event.events = EPOLLONESHOT | EPOLLET;
    if (::epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event) != 0) {
      const int refused = errno;
      w = watched{};
      return failed(refused);
    }
  }
  if (!adds && !note.there) return failed(ENOENT);
  if (adds) note = {true, true, (change.flags & EV_CLEAR) != 0, change.udata};
  if ((change.flags & EV_ENABLE) != 0) note.on = true;
  if ((change.flags & EV_DISABLE) != 0) note.on = false;
  if ((change.flags & EV_DELETE) != 0) note = knote{};
  event.events = events_of(w);
  const bool left = w.read.there || w.write.there || w.except.there;
  const int done = ::epoll_ctl(queue, left ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, fd, &event);
  return done;
}

// Why a descriptor ended, where it knows.
std::uint32_t reason(int fd) {
  int why = 0;
  socklen_t size = sizeof why;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) == 0 ? static_cast<std::uint32_t>(why) : 0;
}

struct kevent made(const epoll_event& event, const knote& note, int filter, bool over) {
  struct kevent out {};
  out.ident = static_cast<uintptr_t>(number_of(event));
  out.filter = static_cast<int16_t>(filter);
  out.flags = static_cast<uint16_t>(over ? EV_EOF : 0);
  out.fflags = over && (event.events & EPOLLERR) != 0 ? reason(number_of(event)) : 0;
  out.udata = note.mark;
  return out;
}

}  // namespace

int kqueue() noexcept {
  const int made = ::epoll_create1(0);
  if (made < 0) return made;
  const std::lock_guard<std::mutex> hold(all().mutex);
  queue_state*& here = all().queues[made];
  if (here != nullptr) ::munmap(here, sizeof *here);  // of one that had the number before
  here = pages<queue_state>();
  return made;
}

int kevent(int queue, const struct kevent* changes, int count, struct kevent* out, int room,
           const struct timespec* timeout) noexcept {
  for (int i = 0; i < count; ++i) {
    if (tell(queue, changes[i]) != 0) return -1;
  }
  if (room == 0) return 0;

  constexpr int most = 64;
  epoll_event events[most];
  const int want = room < most ? room : most;
  const int got = ::epoll_pwait2(queue, events, want, timeout, nullptr);
  if (got < 0) return -1;

  const std::lock_guard<std::mutex> hold(all().mutex);
  int found = 0;
  for (int i = 0; i < got; ++i) {
    const epoll_event& event = events[i];
    if (event.data.u64 == user) {
      struct kevent trigger {};
      trigger.filter = EVFILT_USER;
      trigger.fflags = NOTE_TRIGGER;
      if (found == room) tell_user(queue, trigger);
      if (found < room) out[found++] = trigger;
      continue;
    }
    const int fd = number_of(event);
    const watched& w = all().queues[queue]->by_number[fd];
    if (event.data.u64 != data_of(fd, w)) continue;
    // Two filters of one descriptor may take the room of another, which is then told the next time.
    const auto put = [&](const struct kevent& it) {
      epoll_event again{};
      again.data.u64 = data_of(fd, w);
      again.events = events_of(w);
      if (found == room) ::epoll_ctl(queue, EPOLL_CTL_MOD, fd, &again);
      if (found < room) out[found++] = it;
    };
    const bool ended = (event.events & (EPOLLHUP | EPOLLERR)) != 0;
    const bool half = (event.events & EPOLLRDHUP) != 0;
    if (w.read.on && ((event.events & EPOLLIN) != 0 || ended || half)) {
      put(made(event, w.read, EVFILT_READ, ended || half));
    }
    if (w.write.on && ((event.events & EPOLLOUT) != 0 || ended)) {
      put(made(event, w.write, EVFILT_WRITE, ended));
    }
    if (w.except.on && (event.events & EPOLLPRI) != 0) {
      put(made(event, w.except, EVFILT_EXCEPT, false));
    }
  }
  return found;
}
