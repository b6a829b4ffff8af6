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

#include "support/watching.hpp"

#if defined(__cpp_exceptions)

using namespace support;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::post_result;

namespace {

enum class site { epoll_create, epoll_ctl, epoll_wait, eventfd, write, read, futex_wait, map, pipe, poll, replace, thread };

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

  static int epoll_create() noexcept {
    return fault::instead_of(site::epoll_create, [] { return real::epoll_create(); });
  }
  static int epoll_ctl(int epoll, int what, int fd, epoll_event* event) noexcept {
    return fault::instead_of(site::epoll_ctl, [=] { return real::epoll_ctl(epoll, what, fd, event); });
  }
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    return fault::instead_of(site::epoll_wait, [=] { return real::epoll_wait(epoll, out, room, milliseconds); });
  }
  static int epoll_pwait2(int epoll, epoll_event* out, int room, nanos timeout) noexcept {
    return fault::instead_of(site::epoll_wait, [=] { return real::epoll_pwait2(epoll, out, room, timeout); });
  }
  static int eventfd() noexcept {
    return fault::instead_of(site::eventfd, [] { return real::eventfd(); });
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
      return -fault::instead_of(site::thread, [=] { return -real::thread::start(run, with); });
    }
  };
};
using faulty_loop = loop_with<faulty_kernel>;

// One of everything that a loop is asked for. Each request is answered or refused; what was not refused
// is waited for, without end.
class life {
 public:
  explicit life(fast_path path) : loop_(prepared(path), refused_) {}

  void lead() {
    if (refused_) return;
    const scoped_thread runner([this] { loop_.run(); });
    for (int times = 0; times < 2; ++times) {
      give();
      arm();
      watch();
      give();
      unwatch();
      in_lane();
    }
    fault::lift();
    give();
    CHECK(loop_.invoke([] { return 7; }) == 7);
    loop_.close();
  }

 private:
  static hybridloop::loop_options prepared(fast_path path) {
    hybridloop::loop_options options = on(path);
    options.spin = 0ns;  // whatever can sleep does
    options.ring_capacity = 4;
    options.arena_capacity = 8;
    return options;
  }

  // False: refused, with an error that says why.
  template <class Request>
  bool granted(const Request& request) {
    try {
      request();
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    } catch (const std::system_error& why) {
      CHECK(why.code().value() != 0);
      return false;
    }
  }
  void go_to_sleep() {
    const auto parks = loop_.stats().parks;
    loop_.wake();
    await([&] { return loop_.stats().parks != parks; });
  }

  void give() {
    go_to_sleep();
    int accepted = 0;
    std::atomic<int> ran{0};
    for (int i = 0; i < 20; ++i) {
      granted([&] { accepted += loop_.post([&ran] { ++ran; }) == post_result::accepted ? 1 : 0; });
    }
    await([&] { return ran == accepted; });
  }
  void arm() {
    std::atomic<bool> fired{false};
    if (granted([&] { loop_.after(300us, [&fired] { fired = true; }); })) await([&] { return fired.load(); });
  }
  void watch() {
    heard_ = false;
    watched_ = granted([&] {
      id_ = loop_.watch(pair_.left(), interest::readable, [this](const hybridloop::ready& what) {
        CHECK(what.error == (what.native_error != 0));
        pair_.drain_left();
        heard_ = true;
      });
    });
    if (!watched_) return;
    pair_.write_right();
    await([&] { return heard_.load(); });
    go_to_sleep();
  }
  void unwatch() {
    std::atomic<bool> gone{false};
    bool known = false;
    if (watched_ && granted([&] { known = loop_.unwatch(id_, [&gone] { gone = true; }); }) && known) {
      await([&] { return gone.load(); });
    }
  }
  void in_lane() {
    int accepted = 0;
    std::atomic<int> ran{0};
    granted([&] {
      auto lane = loop_.make_producer(2);
      for (int i = 0; i < 10; ++i) {
        granted([&] { accepted += lane.post([&ran] { ++ran; }) == post_result::accepted ? 1 : 0; });
      }
    });
    await([&] { return ran == accepted; });
  }

  std::error_code refused_;
  const socket_pair pair_;
  hybridloop::watch_id id_;
  bool watched_ = false;
  std::atomic<bool> heard_{false};
  faulty_loop loop_;
};

// Every call of that kind in turn.
void sweep(fast_path path, site where, std::initializer_list<int> answers) {
  for (const int answer : answers) {
    for (int which = 0; which == 0 || fault::struck(); ++which) {
      INFO("site ", static_cast<int>(where), ", call ", which, ", answer ", answer);
      const auto before = open_descriptors();
      fault::prepare(where, which, answer);
      life(path).lead();
      CHECK(open_descriptors() == before);
      if (static_cast<std::size_t>(which) >= scaled(200)) break;
    }
  }
  fault::lift();
}

}  // namespace

TEST_SUITE_BEGIN("faults");

EVERY_POLICY("a loop that is refused its poller, or a part of it, says so and works on") {
  sweep(path, site::epoll_create, {-EMFILE, -ENFILE, -ENOMEM});
  sweep(path, site::eventfd, {-EMFILE, -ENOMEM});
  sweep(path, site::pipe, {-EMFILE, -ENFILE});
  sweep(path, site::replace, {-EMFILE});
  sweep(path, site::thread, {-EAGAIN});
}

EVERY_POLICY("a descriptor that the poller refuses is told why, and the loop works on") {
  sweep(path, site::epoll_ctl, {-ENOSPC, -ENOMEM});
}

EVERY_POLICY("a wait that is interrupted, ends without a reason or fails loses nothing") {
  sweep(path, site::epoll_wait, {-EINTR, 0, -ENOMEM});
  sweep(path, site::poll, {-EINTR, 0, -ENOMEM});
  sweep(path, site::futex_wait, {-EINTR, -EAGAIN, 0});
}

EVERY_POLICY("a bell whose write is interrupted, refused or short rings all the same") {
  sweep(path, site::write, {-EINTR, -ENOMEM, 0, 4});
  // A pipe that says so has been rung already; of a counter it is no more than an excuse.
  if (std::strcmp(faulty_loop::poller_name(), "epoll") == 0) sweep(path, site::write, {-EAGAIN});
  sweep(path, site::read, {-EINTR, -EAGAIN});
}

EVERY_POLICY("memory that the kernel refuses is an error of the request that needed it") {
  sweep(path, site::map, {-ENOMEM});
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
    fault::prepare(site::epoll_ctl, 0, -ENOMEM);
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
