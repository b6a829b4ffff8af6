#include <algorithm>
#include <csignal>
#include <thread>

#include "support/watching.hpp"

using namespace support;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::watch_id;
using kernel_here = hybridloop::detail::system_kernel;

namespace {

constexpr interest readable = interest::readable;
constexpr interest edge = interest::edge;

}  // namespace

TEST_SUITE_BEGIN("mini");

TEST_CASE("a loop that watches nothing has no second thread and no descriptor") {
  const new_threads threads;
  const auto descriptors = open_descriptors();
  hybridloop::loop l(on(fast_path::mini));

  l.after(100us, [] {});
  must_post(l, [] {});
  l.run_until_idle();

  CHECK(threads.count() == 0);
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("the first watch starts the companion, and only the first") {
  const new_threads threads;
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;

  const watch_id first = l.watch(pair.left(), readable, [] {});
  await([&] { return threads.count() == 1; });
  const watch_id second = l.watch(pair.right(), readable, [] {});
  CHECK(threads.count() == 1);
  CHECK(l.unwatch(first));
  CHECK(l.unwatch(second));
  CHECK(l.watch(pair.left(), readable, [] {}));

  CHECK(threads.count() == 1);
}

TEST_CASE("a watch from another thread starts the companion as well") {
  const new_threads threads;
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  std::atomic<bool> told{false};
  pair.write_right();
  in_background running(l);

  l.watch(pair.left(), readable | edge, [&] { told = true; });

  await([&] { return told.load(); });
  CHECK(threads.count() == 2);
}

TEST_CASE("the companion goes with its loop") {
  const new_threads threads;
  const auto descriptors = open_descriptors();
  for (std::size_t i = 0; i < scaled(50); ++i) {
    hybridloop::loop l(on(fast_path::mini));
    const socket_pair pair;
    l.watch(pair.left(), readable, [] {});
    if (i % 2 == 0) pair.write_right();
    if (i % 4 < 2) l.poll();
    if (i % 8 == 0) l.close();
  }

  await([&] { return threads.count() == 0; });
  CHECK(open_descriptors() == descriptors);
}

TEST_CASE("the loop only ever sleeps in the channel") {
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  std::size_t told = 0;
  l.watch(pair.left(), readable, [&] { told += pair.drain_left(); });
  in_background running(l);

  for (int i = 0; i < 20; ++i) {
    running.await_park();
    pair.write_right();
    await([&] { return l.invoke([&] { return told; }) == static_cast<std::size_t>(i + 1); });
  }

  CHECK(l.stats().in_poller == 0);
  CHECK(l.stats().wakes_poller == 0);
  CHECK(l.stats().in_channel > 0);
}

TEST_CASE("what becomes ready while nobody runs the loop waits for who does") {
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  int told = 0;
  l.watch(pair.left(), readable | edge, [&] {
    ++told;
    pair.drain_left();  // or it is told again where the poller has no edges
  });
  pair.write_right();
  std::this_thread::sleep_for(2ms);

  turn_until(l, [&] { return told != 0; });

  CHECK(told == 1);
}

TEST_CASE("readiness is told again only after the callback has seen to it") {
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  const socket_pair other;
  int told = 0;
  l.watch(pair.left(), readable, [&] {
    ++told;
    std::this_thread::sleep_for(3ms);
    pair.drain_left();
  });
  l.watch(other.left(), readable | edge, [] {});

  for (int round = 1; round <= 3; ++round) {
    pair.write_right();
    other.write_right();
    settle(l);
    CHECK(told == round);
  }
}

TEST_CASE("a slow callback of a ready descriptor does not fill the queue") {
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  int told = 0;
  l.watch(pair.left(), readable, [&] {
    ++told;
    std::this_thread::sleep_for(200us);
  });
  pair.write_right();

  turn_until(l, [&] { return told >= 20; });
  l.run_once();  // a turn behind a full one counts what waits

  CHECK(l.stats().ring_high < 64);
}

TEST_CASE("a callback that throws nothing away is told as often as it asks") {
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  const std::size_t many = scaled(2000);
  std::size_t told = 0;
  watch_id id;
  id = l.watch(pair.left(), readable, [&] {
    if (++told == many) l.unwatch(id);
  });
  pair.write_right();

  CHECK(l.run_until_idle() == many);
}

// ---- Signals ----

#if SUPPORT_POSIX
namespace {

std::atomic<bool> handled{false};
std::atomic<pthread_t> handled_by{};

class blocked {
 public:
  explicit blocked(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~blocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

bool is_pending(int signal) {
  sigset_t set;
  ::sigpending(&set);
  return sigismember(&set, signal) == 1;
}

}  // namespace

TEST_CASE("signals of the process never land on the companion") {
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;
  const auto before = std::signal(SIGUSR2, [](int) {
    handled_by = ::pthread_self();
    handled = true;
  });
  l.watch(pair.left(), readable | edge, [] {});
  handled = false;
  {
    const blocked hold(SIGUSR2);

    ::kill(::getpid(), SIGUSR2);
    settle(l);

    CHECK(!handled);
    CHECK(is_pending(SIGUSR2));
  }
  CHECK(handled);
  CHECK(::pthread_equal(handled_by, ::pthread_self()) != 0);
  std::signal(SIGUSR2, before);
}

TEST_CASE("who starts the companion keeps the signals it had") {
  sigset_t before;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  hybridloop::loop l(on(fast_path::mini));
  const socket_pair pair;

  l.watch(pair.left(), readable, [] {});

  sigset_t after;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  bool same = true;
  for (int signal = 1; signal < NSIG; ++signal) {
    same = same && sigismember(&before, signal) == sigismember(&after, signal);
  }
  CHECK(same);
}
#endif

// ---- The end ----

TEST_CASE("a loop may be closed while the companion posts") {
  const witness closure;
  for (std::size_t round = 0; round < scaled(100); ++round) {
    hybridloop::loop l(on(fast_path::mini));
    const std::vector<socket_pair> pairs(4);
    for (const auto& pair : pairs) {
      l.watch(pair.left(), readable, [held = closure.hold()] {});
      l.watch(pair.left(), readable | edge, [held = closure.hold()] {});
    }
    const scoped_thread writer([&] {
      for (int i = 0; i < 20; ++i) {
        for (const auto& pair : pairs) pair.write_right();
      }
    });
    const scoped_thread closer([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(round * 10 % 300));
      l.close();
    });

    l.run();

    CHECK(closure.nobody_holds());
  }
}

TEST_CASE("a loop may be destroyed while the companion posts") {
  const new_threads threads;
  const witness closure;
  for (std::size_t round = 0; round < scaled(100); ++round) {
    const std::vector<socket_pair> pairs(4);
    const auto write_all = [&] {
      for (int i = 0; i < 20; ++i) {
        for (const auto& pair : pairs) pair.write_right();
      }
    };
    hybridloop::loop_options options = on(fast_path::mini);
    options.ring_capacity = 2;
    options.arena_capacity = 0;
    options.when_full = round % 2 == 0 ? hybridloop::overflow::spill : hybridloop::overflow::block;
    auto l = std::make_unique<hybridloop::loop>(options);
    for (const auto& pair : pairs)
      l->watch(pair.left(), readable | edge, [held = closure.hold()] {});
    const scoped_thread writer(write_all);
    if (round % 4 != 0) std::this_thread::sleep_for(std::chrono::microseconds(round * 5 % 200));
    if (round % 3 == 0) l->poll();

    l.reset();

    CHECK(closure.nobody_holds());
  }
  await([&] { return threads.count() == 0; });
}

TEST_CASE("an arrival that is late finds nobody") {
  hybridloop::loop l(on(fast_path::mini));
  std::size_t told_too_late = 0;
  const std::size_t rounds = scaled(200);
  for (std::size_t i = 0; i < rounds; ++i) {
    const socket_pair pair;
    bool off = false;
    const watch_id id = l.watch(pair.left(), readable | edge, [&] { told_too_late += off; });
    pair.write_right();
    if (i % 2 == 0) std::this_thread::sleep_for(20us);
    off = l.unwatch(id);
    const watch_id silent = l.watch(pair.left(), interest::none, [&] { ++told_too_late; });
    l.poll();
    l.poll();
    l.unwatch(silent);
  }
  settle(l);

  CHECK(told_too_late == 0);
}

// ---- A kernel that refuses ----

namespace {

struct deaf_kernel : kernel_here {
  static inline std::atomic<bool> deaf{false};
  static inline std::atomic<std::size_t> waits{0};
#if SUPPORT_POSIX
  template <class Kernel = kernel_here>
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    ++waits;
    return deaf ? -EBADF : Kernel::epoll_wait(epoll, out, room, milliseconds);
  }
  template <class Event, class Kernel = kernel_here>
  static int kevent_wait(int queue, Event* out, int room, hybridloop::detail::nanos timeout) noexcept {
    ++waits;
    return deaf ? -EBADF : Kernel::kevent_wait(queue, out, room, timeout);
  }
  static int poll(pollfd* descriptors, std::size_t count,
                  hybridloop::detail::nanos timeout) noexcept {
    ++waits;
    return deaf ? -EBADF : kernel_here::poll(descriptors, count, timeout);
  }
#else
  static int port_wait(descriptor port, hybridloop::detail::port_packet* out, int room,
                       hybridloop::detail::nanos timeout) noexcept {
    ++waits;
    return deaf ? -EBADF : kernel_here::port_wait(port, out, room, timeout);
  }
#endif
};

}  // namespace

TEST_CASE("a companion whose poller fails burns no core, and goes on when it recovers") {
  loop_with<deaf_kernel> l(on(fast_path::mini));
  const socket_pair pair;
  bool told = false;
  deaf_kernel::deaf = true;
  l.watch(pair.left(), readable | edge, [&] { told = true; });
  const auto before = process_cpu();

  std::this_thread::sleep_for(30ms);

  CHECK(process_cpu() - before < 15ms);
  CHECK(deaf_kernel::waits < 100);
  deaf_kernel::deaf = false;
  pair.write_right();
  turn_until(l, [&] { return told; });
}

TEST_SUITE_END();
