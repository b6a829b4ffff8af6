// fault_test.cpp - the kernel refuses any one call in the life of a loop: an error that is told, or nothing at all
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>
#include <system_error>
#include <thread>
#include <type_traits>

#include <sys/wait.h>
#include <unistd.h>

#include "support/life.hpp"
#include "support/pollers.hpp"
#include "support/proc.hpp"
#include "support/scarcity.hpp"
#include "support/watching.hpp"

#if defined(__cpp_exceptions)

using namespace support;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::post_result;

namespace {

enum class site { queue, change, wait, eventfd, trigger, write, read, futex_wait, map, pipe, poll, replace, thread };

// One call of one kind, counted from 0, is not made and answers something else.
struct fault {
  static void prepare(site where, int which, int answer) {
    where_ = where;
    answer_ = answer;
    struck_ = false;
    left_ = which;
  }
  static bool struck() { return struck_; }
  static void lift() { left_ = -1; }

  template <class Call>
  static auto instead_of(site here, const Call& call) -> decltype(call()) {
    if (here != where_ || left_ < 0 || left_.fetch_sub(1) != 0) return call();
    struck_ = true;
    return answer<decltype(call())>();
  }

 private:
  template <class T>
  static T answer() {
    if constexpr (std::is_pointer_v<T>) {
      return nullptr;
    } else {
      return answer_;
    }
  }
  static inline std::atomic<site> where_{site::map};
  static inline std::atomic<int> answer_{0};
  static inline std::atomic<int> left_{-1};
  static inline std::atomic<bool> struck_{false};
};

using nanos = hybridloop::detail::nanos;

struct faulty_kernel : hybridloop::detail::system_kernel {
  using real = hybridloop::detail::system_kernel;

  // Templates, since each system has only its own.
  template <class Real = real>
  static int epoll_create() noexcept {
    return fault::instead_of(site::queue, [] { return Real::epoll_create(); });
  }
  template <class Event, class Real = real>
  static int epoll_ctl(int epoll, int what, int fd, Event event) noexcept {
    return fault::instead_of(site::change, [=] { return Real::epoll_ctl(epoll, what, fd, event); });
  }
  template <class Event, class Real = real>
  static int epoll_wait(int epoll, Event* out, int room, int milliseconds) noexcept {
    return fault::instead_of(site::wait, [=] { return Real::epoll_wait(epoll, out, room, milliseconds); });
  }
  template <class Event, class Real = real>
  static int epoll_pwait2(int epoll, Event* out, int room, nanos timeout) noexcept {
    return fault::instead_of(site::wait, [=] { return Real::epoll_pwait2(epoll, out, room, timeout); });
  }
  template <class Real = real>
  static int eventfd() noexcept {
    return fault::instead_of(site::eventfd, [] { return Real::eventfd(); });
  }

  template <class Real = real>
  static int kqueue() noexcept {
    return fault::instead_of(site::queue, [] { return Real::kqueue(); });
  }
  template <class Filter, class Real = real>
  static int kevent_add(int queue, int fd, Filter filter, bool edge, std::uint64_t mark) noexcept {
    return fault::instead_of(site::change, [=] { return Real::kevent_add(queue, fd, filter, edge, mark); });
  }
  template <class Filter, class Real = real>
  static int kevent_enable(int queue, int fd, Filter filter) noexcept {
    return fault::instead_of(site::change, [=] { return Real::kevent_enable(queue, fd, filter); });
  }
  template <class Event, class Real = real>
  static int kevent_wait(int queue, Event* out, int room, nanos timeout) noexcept {
    return fault::instead_of(site::wait, [=] { return Real::kevent_wait(queue, out, room, timeout); });
  }
  template <class Real = real>
  static int kevent_trigger(int queue) noexcept {
    return fault::instead_of(site::trigger, [=] { return Real::kevent_trigger(queue); });
  }

  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    return fault::instead_of(site::write, [=] { return real::write(fd, bytes, size); });
  }
  static int read(int fd, void* bytes, std::size_t size) noexcept {
    return fault::instead_of(site::read, [=] { return real::read(fd, bytes, size); });
  }
  static int futex_wait(const void* word, std::uint32_t expected, nanos deadline) noexcept {
    return fault::instead_of(site::futex_wait, [=] { return real::futex_wait(word, expected, deadline); });
  }
  static void* map(std::size_t bytes) noexcept {
    return fault::instead_of(site::map, [=] { return real::map(bytes); });
  }
  static int pipe(int (&ends)[2]) noexcept {
    return fault::instead_of(site::pipe, [&ends] { return real::pipe(ends); });
  }
  static int poll(pollfd* descriptors, std::size_t count, nanos timeout) noexcept {
    return fault::instead_of(site::poll, [=] { return real::poll(descriptors, count, timeout); });
  }
  static int replace(int number, int fd) noexcept {
    return fault::instead_of(site::replace, [=] { return real::replace(number, fd); });
  }
  class thread : public real::thread {
   public:
    int start(void (*run)(void*), void* with) noexcept {
      return -fault::instead_of(site::thread, [&] { return -real::thread::start(run, with); });
    }
  };
};
using faulty_loop = loop_with<faulty_kernel>;
struct nothing {};

bool over(const char* poller) { return std::strcmp(faulty_loop::poller_name(), poller) == 0; }
const bool over_epoll = over("epoll");
const bool over_poll = over("poll");

// Which bell works is asked once in a process, and not under a fault.
const bool asked = faulty_loop(on(fast_path::off)).poll() == 0;

// Every call of that kind in turn; there are some where `expected`.
void sweep(fast_path path, site where, std::initializer_list<int> answers, bool expected) {
  for (const int answer : answers) {
    for (int which = 0; which == 0 || fault::struck(); ++which) {
      INFO("site ", static_cast<int>(where), ", call ", which, ", answer ", answer);
      const auto before = open_descriptors();
      fault::prepare(where, which, answer);
      life<faulty_loop, nothing>(path).lead([] { fault::lift(); });
      CHECK(open_descriptors() == before);
      if (expected) CHECK((which != 0 || fault::struck()));
      if (static_cast<std::size_t>(which) >= scaled(200)) break;
    }
  }
  fault::lift();
}

}  // namespace

TEST_SUITE_BEGIN("faults");

EVERY_POLICY("a loop that is refused its poller, or a part of it, says so and works on") {
  sweep(path, site::queue, {-EMFILE, -ENFILE, -ENOMEM}, !over_poll);
  sweep(path, site::eventfd, {-EMFILE, -ENOMEM}, over_epoll);
  sweep(path, site::pipe, {-EMFILE, -ENFILE}, over_poll);
  sweep(path, site::thread, {-EAGAIN}, path == fast_path::mini);
}

EVERY_POLICY("a descriptor that the poller refuses is told why, and the loop works on") {
  sweep(path, site::change, {-ENOSPC, -ENOMEM}, !over_poll);
}

EVERY_POLICY("a wait that is interrupted, ends without a reason or fails loses nothing") {
  sweep(path, site::wait, {-EINTR, 0, -ENOMEM}, !over_poll);
  sweep(path, site::poll, {-EINTR, 0, -ENOMEM}, over_poll);
  sweep(path, site::futex_wait, {-EINTR, -EAGAIN, 0}, path != fast_path::off);
}

EVERY_POLICY("a bell whose write is interrupted, refused or short rings all the same") {
  const bool rings = path != fast_path::mini;  // a companion's bell is for its end alone
  sweep(path, site::write, {-EINTR, -ENOMEM, 0, 4}, rings && (over_epoll || over_poll));
  sweep(path, site::trigger, {-EINTR, -ENOMEM}, rings && over("kqueue"));
  // A pipe that says so has been rung already; of a counter it is no more than an excuse.
  if (over_epoll) sweep(path, site::write, {-EAGAIN}, rings);
  sweep(path, site::read, {-EINTR, -EAGAIN}, rings && over_poll);
}

EVERY_POLICY("where the kernel's own bell does not ring, a pipe does") {
  life<loop_with<deaf<hybridloop::detail::system_kernel>>, nothing>(path).lead([] {});
}

EVERY_POLICY("memory that the kernel refuses is an error of the request that needed it") {
  sweep(path, site::map, {-ENOMEM}, true);
}

#if SUPPORT_COUNTS_ALLOCATIONS

EVERY_POLICY("whichever allocation fails, its request is told, and nothing that was accepted is lost") {
  for (int which = 0; which == 0 || scarcity::struck(); ++which) {
    INFO("allocation ", which);
    const auto before = open_descriptors();
    scarcity::prepare(which);
    life<meagre_loop, scarcity>(path).lead([] { scarcity::lift(); });
    CHECK((which >= 50 || scarcity::struck()));
    CHECK(open_descriptors() == before);
  }
}

#endif

TEST_CASE("a handle for a foreign loop that the kernel refuses is told, and can be asked for again") {
  if (over_poll) return;  // it has none
  for (const site where : {site::queue, site::change, site::eventfd}) {
    for (int which = 0; which == 0 || fault::struck(); ++which) {
      INFO("site ", static_cast<int>(where), ", call ", which);
      const auto before = open_descriptors();
      {
        faulty_loop l;
        std::error_code code;
        fault::prepare(where, which, -EMFILE);
        l.backend_handle(code);
        fault::lift();
        CHECK(static_cast<bool>(code) == fault::struck());
        CHECK(l.backend_handle() >= 0);
      }
      CHECK(open_descriptors() == before);
    }
  }
}

TEST_CASE("the child of a fork that is refused a part of its new poller is told, and may ask again") {
  enum : int { refused, granted, broken };
  faulty_loop l(on(fast_path::off));
  const socket_pair pair;
  std::size_t lost = 0;
  l.watch(pair.left(), interest::readable, [&lost](const hybridloop::ready& what) { lost += what.error ? 1 : 0; });
  const auto in_child = [&](site where, int which) -> int {
    fault::prepare(where, which, -EMFILE);
    std::error_code code;
    l.after_fork_child(code);
    fault::lift();
    l.after_fork_child();
    must_post(l, [] {});
    if (l.poll() != 1 + lost || (code || lost != 0) != fault::struck()) return broken;
    return fault::struck() ? refused : granted;
  };

  for (const site where : {site::queue, site::eventfd, site::change, site::replace, site::pipe}) {
    int answer = refused;
    int calls = 0;
    for (; answer == refused; ++calls) {
      INFO("site ", static_cast<int>(where), ", call ", calls);
      const pid_t child = ::fork();
      if (child == 0) ::_exit(in_child(where, calls));
      int status = 0;
      while (::waitpid(child, &status, 0) < 0) {
      }
      answer = WIFEXITED(status) ? WEXITSTATUS(status) : broken;
      CHECK(answer != broken);
    }
    const bool bells = where == site::eventfd ? over_epoll : where == site::pipe && over_poll;
    const bool queues = where == site::queue || where == site::change;
    const bool expected = bells || (queues && !over_poll) || where == site::replace;
    if (expected) CHECK(calls > 1);
  }
}

TEST_CASE("a change that the poller refuses once is made up for, and burns no core") {
  for (const bool drop_the_other : {true, false}) {
    faulty_loop l;
    const socket_pair pair;
    std::size_t told = 0;
    const auto once = l.watch(pair.left(), drop_the_other ? interest::readable | interest::oneshot : interest::readable,
                              [&told] { ++told; });
    const auto other = l.watch(pair.left(), interest::writable | interest::edge, [] {});
    l.poll();
    if (!drop_the_other) l.unwatch(other);
    fault::prepare(site::change, 0, -ENOMEM);
    if (drop_the_other) l.unwatch(other);
    if (!drop_the_other) l.modify(once, interest::priority);
    fault::lift();
    const auto turns = l.stats().turns;
    pair.write_right();

    l.run_for(50ms);

    CHECK(l.stats().turns - turns < 50);
    CHECK(told == (drop_the_other ? 1u : 0u));
  }
}

TEST_SUITE_END();

#endif  // defined(__cpp_exceptions)
