// wakeup_test.cpp - a loop that sleeps, or is about to, misses nothing; and a wake costs one call
#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>

#include <hybridloop.hpp>

#include "support/running.hpp"
#include "support/stage.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::fence_policy;
using hybridloop::interest;
using hybridloop::loop;
using order = std::vector<int>;

namespace {

// Counts what is asked of the kernel, and fails to ring when told so.
struct seam : hybridloop::detail::system_kernel {
  using kernel = hybridloop::detail::system_kernel;

  static inline thread_local int asked = 0;  // by this thread
  static inline std::atomic<int> futex_wakes{0};
  static inline std::atomic<int> rings{0};
  static inline std::atomic<int> barriers{0};
  static inline std::atomic<int> pollers{0};
  static inline std::atomic<int> ring_error{0};
  static inline std::atomic<int> rings_to_fail{0};

  static void reset() {
    futex_wakes = rings = barriers = pollers = 0;
    ring_error = rings_to_fail = 0;
  }
  static void fail_to_ring(int times, int number) {
    ring_error = number;
    rings_to_fail = times;
  }

  static int futex_wait(const void* word, std::uint32_t expected,
                        hybridloop::detail::nanos deadline) noexcept {
    ++asked;
    return kernel::futex_wait(word, expected, deadline);
  }
  static int futex_wake(const void* word, int count) noexcept {
    ++asked;
    ++futex_wakes;
    return kernel::futex_wake(word, count);
  }
#if SUPPORT_POSIX
  static inline std::atomic<descriptor> latest_bell{-1};

  // Templates, since not every system has what they pass on.
  template <class Kernel = kernel>
  static int membarrier(int command) noexcept {
    ++asked;
    if (command == Kernel::membarrier_expedited) ++barriers;
    return Kernel::membarrier(command);
  }
  template <class Kernel = kernel>
  static int epoll_create() noexcept {
    ++asked;
    ++pollers;
    stage::reached("poller-opens");
    return Kernel::epoll_create();
  }
  template <class Kernel = kernel>
  static int epoll_ctl(int epoll, int what, int fd, epoll_event* event) noexcept {
    ++asked;
    return Kernel::epoll_ctl(epoll, what, fd, event);
  }
  template <class Kernel = kernel>
  static int epoll_wait(int epoll, epoll_event* out, int room, int milliseconds) noexcept {
    ++asked;
    return Kernel::epoll_wait(epoll, out, room, milliseconds);
  }
  template <class Kernel = kernel>
  static int eventfd() noexcept {
    ++asked;
    const int made = Kernel::eventfd();
    latest_bell = made;
    return made;
  }
  static int pipe(int (&ends)[2]) noexcept {
    ++asked;
    ++pollers;
    stage::reached("poller-opens");
    const int made = kernel::pipe(ends);
    latest_bell = ends[1];
    return made;
  }
  static int poll(pollfd* descriptors, std::size_t count,
                  hybridloop::detail::nanos timeout) noexcept {
    ++asked;
    return kernel::poll(descriptors, count, timeout);
  }
  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    ++asked;
    if (rings_to_fail > 0 && rings_to_fail-- > 0) return -ring_error;
    ++rings;
    return kernel::write(fd, bytes, size);
  }
  static int read(int fd, void* bytes, std::size_t size) noexcept {
    ++asked;
    return kernel::read(fd, bytes, size);
  }
  template <class Kernel = kernel>
  static int kqueue() noexcept {
    ++asked;
    ++pollers;
    stage::reached("poller-opens");
    const int made = Kernel::kqueue();
    latest_bell = made;
    return made;
  }
  template <class Kernel = kernel>
  static int kevent_trigger(int queue) noexcept {
    ++asked;
    if (rings_to_fail > 0 && rings_to_fail-- > 0) return -ring_error;
    ++rings;
    return Kernel::kevent_trigger(queue);
  }
  template <class Event, class Kernel = kernel>
  static int kevent_wait(int queue, Event* out, int room, hybridloop::detail::nanos timeout) noexcept {
    ++asked;
    return Kernel::kevent_wait(queue, out, room, timeout);
  }
#else
  static void flush_write_buffers() noexcept {
    ++asked;
    ++barriers;
    kernel::flush_write_buffers();
  }
  static int port_open(descriptor& port) noexcept {
    ++asked;
    ++pollers;
    stage::reached("poller-opens");
    return kernel::port_open(port);
  }
  static int port_post(descriptor port, std::uintptr_t key, void* what) noexcept {
    ++asked;
    if (rings_to_fail > 0 && rings_to_fail-- > 0) return -ring_error;
    ++rings;
    return kernel::port_post(port, key, what);
  }
  static int port_wait(descriptor port, hybridloop::detail::port_packet* out, int room,
                       hybridloop::detail::nanos timeout) noexcept {
    ++asked;
    return kernel::port_wait(port, out, room, timeout);
  }
#endif
  static void yield() noexcept {
    ++asked;
    kernel::yield();
  }
};

#if SUPPORT_POSIX
// A sandbox that knows no membarrier.
struct seam_without_barrier : seam {
  static int membarrier(int) noexcept { return -ENOSYS; }
};

// One that is closed later on, with or without the slow command, which needs no registration.
template <bool SlowOneToo>
struct seam_losing_barrier : seam {
  static inline std::atomic<int> left{200};
  static inline std::atomic<int> refused{0};
  template <class Kernel = kernel>
  static int membarrier(int command) noexcept {
    const bool slow = command == Kernel::membarrier_global;
    if (slow ? !SlowOneToo : left-- > 0) return seam::membarrier(command);
    ++refused;
    return -EPERM;
  }
};
#else
struct seam_without_barrier : seam {
  static bool can_flush_write_buffers() noexcept { return false; }
};
#endif

// Wine has no barrier to take.
bool can_take_the_barrier() { return hybridloop::default_traits::barrier::available(); }

template <fence_policy Fence, class Kernel = seam>
struct seamed : staged_traits<Fence> {
  using kernel = Kernel;
  using parker = hybridloop::detail::system_parker<Kernel>;
  using poller = hybridloop::detail::system_poller<Kernel>;
  using barrier = hybridloop::detail::system_barrier<Kernel>;
};

using symmetric = seamed<fence_policy::symmetric>;
using asymmetric = seamed<fence_policy::asymmetric>;
using adaptive = seamed<fence_policy::adaptive>;
using barrier_refused = seamed<fence_policy::asymmetric, seam_without_barrier>;
using every_fence = std::tuple<symmetric, asymmetric, adaptive, barrier_refused>;

using seamed_loop = hybridloop::basic_loop<adaptive>;

// A loop that parks as soon as it can.
hybridloop::loop_options sleepy(hybridloop::loop_options options = {}) {
  options.spin = 0ns;
  return options;
}

// The windows through which a loop goes to sleep.
const std::string on_the_way_to_sleep[] = {"before-park", "park-published", "before-sleep"};

// Runs the loop, and has another thread do something in one of those windows.
template <class Loop, class Act, class Run>
void interrupted(const Act& act, const Run& run) {
  for (const std::string& window : on_the_way_to_sleep) {
    for (const place& where : everywhere) {
      CAPTURE(window);
      CAPTURE(where.name);
      loop_in<Loop> l(where);
      const stage meddling(window, [&] { elsewhere([&] { act(*l); }); });

      run(*l);

      CHECK(meddling.entered());
    }
  }
}

// Has the loop go through the act while a poster stands in one of its own windows.
template <class Loop, class Act>
void stalled(const place& where, const std::string& window, const Act& act) {
  CAPTURE(where.name);
  CAPTURE(window);
  loop_in<Loop> l(where);
  const running<Loop> runner(*l);
  await_parks(*l, 1);
  gate done;
  const stage stall(window, [&] { act(*l); });

  must_post(*l, [&] { done.open(); });
  done.pass();

  CHECK(stall.entered());
}

template <class Loop>
void wake_and_sleep_again(Loop& l) {
  const auto parks = l.stats().parks;
  l.wake();
  await_parks(l, parks + 1);
}

// Posts to a sleeping loop while it is kept busy, and waits until it sleeps again.
template <class Loop>
void burst(Loop& l, std::size_t posts) {
  const auto parks = l.stats().parks;
  gate all_posted;
  gate all_ran;
  must_post(l, [&] { all_posted.pass(); });
  for (std::size_t i = 2; i < posts; ++i) must_post(l, [] {});
  must_post(l, [&] { all_ran.open(); });
  all_posted.open();
  all_ran.pass();
  await_parks(l, parks + 1);
}

template <class Loop>
void send_back_and_forth(Loop& l, std::size_t rounds) {
  std::atomic<std::size_t> answered{0};
  for (std::size_t i = 1; i <= rounds; ++i) {
    must_post(l, [&] { ++answered; });
    while (answered != i) std::this_thread::yield();
    for (std::size_t pause = i % 64; pause != 0; --pause) hybridloop::detail::cpu_pause();
  }
}

// Each task meets a loop that sleeps.
template <class Loop>
void send_to_sleeper(Loop& l, std::size_t rounds) {
  await_parks(l, 1);
  for (std::size_t i = 0; i < rounds; ++i) {
    const auto parks = l.stats().parks;
    must_post(l, [] {});
    await_parks(l, parks + 1);
  }
}

}  // namespace

TYPE_TO_STRING(symmetric);
TYPE_TO_STRING(asymmetric);
TYPE_TO_STRING(adaptive);
TYPE_TO_STRING(barrier_refused);

TEST_SUITE_BEGIN("wakeup");

// ---- Whatever comes while the loop goes to sleep ----

TEST_CASE_TEMPLATE_DEFINE("a post between the last look and the sleep still wakes the loop", traits,
                          post_on_the_way_to_sleep) {
  using loop_type = hybridloop::basic_loop<traits>;
  interrupted<loop_type>([](loop_type& l) { must_post(l, [&l] { l.stop(); }); },
                         [](loop_type& l) { CHECK(l.run() == 1); });
}
TEST_CASE_TEMPLATE_APPLY(post_on_the_way_to_sleep, every_fence);

TEST_CASE_TEMPLATE_DEFINE("a stop, a close or a wake between the last look and the sleep is not lost",
                          traits, ended_on_the_way_to_sleep) {
  using loop_type = hybridloop::basic_loop<traits>;
  interrupted<loop_type>([](loop_type& l) { l.stop(); }, [](loop_type& l) { l.run(); });
  interrupted<loop_type>([](loop_type& l) { l.close(); }, [](loop_type& l) { l.run(); });
  interrupted<loop_type>([](loop_type& l) { l.wake(); },
                         [](loop_type& l) {
                           l.poll();
                           CHECK(l.run_once() == 0);
                         });
}
TEST_CASE_TEMPLATE_APPLY(ended_on_the_way_to_sleep, every_fence);

TEST_CASE("what ends the last reason to wait, between the last look and the sleep, is not lost") {
  using loop_type = hybridloop::basic_loop<symmetric>;
  std::optional<hybridloop::basic_keep_alive<symmetric>> guard;
  hybridloop::timer_id timer;
  hybridloop::watch_id watch;
  socket_pair wire;

  interrupted<loop_type>([&](loop_type&) { guard.reset(); },
                         [&](loop_type& l) {
                           guard.emplace(l.hold());
                           CHECK(l.run_until_idle() == 0);
                         });
  interrupted<loop_type>([&](loop_type& l) { CHECK(l.cancel(timer)); },
                         [&](loop_type& l) {
                           timer = l.after(1h, [] {});
                           CHECK(l.run_until_idle() == 0);
                         });
  interrupted<loop_type>([&](loop_type& l) { CHECK(l.unwatch(watch)); },
                         [&](loop_type& l) {
                           watch = l.watch(wire.left(), interest::readable, [] {});
                           CHECK(l.run_until_idle() == 0);
                         });
}

TEST_CASE("a nearer timer or a ready descriptor, between the last look and the sleep, is not lost") {
  using loop_type = hybridloop::basic_loop<symmetric>;
  socket_pair wire;
  wire.write_right();

  interrupted<loop_type>([](loop_type& l) { l.after(1ms, [&l] { l.stop(); }); },
                         [](loop_type& l) {
                           l.after(1h, [] {});
                           CHECK(l.run() == 1);
                         });
  interrupted<loop_type>([&](loop_type& l) { l.watch(wire.left(), interest::readable, [&l] { l.stop(); }); },
                         [](loop_type& l) { CHECK(l.run() == 1); });
}

// ---- Posters that stall on their way ----

TEST_CASE_TEMPLATE_DEFINE("a poster that stalls anywhere in post() wakes the loop when it goes on", traits,
                          stalled_posters) {
  using loop_type = hybridloop::basic_loop<traits>;
  for (const place& where : everywhere) {
    for (const char* window : {"claimed", "published", "before-ring"}) {
      stalled<loop_type>(where, window, [](loop_type& l) { wake_and_sleep_again(l); });
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(stalled_posters, every_fence);

TEST_CASE_TEMPLATE_DEFINE("a poster that stalls while it spills wakes the loop when it goes on", traits,
                          stalled_spillers) {
  using loop_type = hybridloop::basic_loop<traits>;
  for (const std::string window : {"ticket", "spilled"}) {
    CAPTURE(window);
    loop_type l(tiny(2, 4));
    order ran;
    gate ring_is_full;
    const stage stall(window, [&] {
      ring_is_full.open();
      await_parks(l, 1);
    });

    const scoped_thread poster([&] {
      for (int i = 1; i <= 3; ++i) must_post(l, [&ran, i] { ran.push_back(i); });
      must_post(l, [&l] { l.stop(); });
    });
    ring_is_full.pass();
    l.run();

    CHECK(stall.entered());
    CHECK(ran == order{1, 2, 3});
  }
}
TEST_CASE_TEMPLATE_APPLY(stalled_spillers, every_fence);

TEST_CASE("a stalled claim holds back what was posted behind it, and nothing is lost") {
  staged_loop l;
  order ran;
  gate claimed;
  const stage stall("claimed", [&] {
    claimed.open();
    await_parks(l, 2);
  });

  scoped_thread first([&] { must_post(l, [&] { ran.push_back(1); }); });
  claimed.pass();
  const scoped_thread second([&] {
    await_parks(l, 1);
    must_post(l, [&] {
      ran.push_back(2);
      l.stop();
    });
  });
  l.run();

  CHECK(ran == order{1, 2});
}

// ---- Posters at any moment ----

TEST_CASE_TEMPLATE_DEFINE("a poster that waits for every answer gets every answer", traits, ping_pong) {
  using loop_type = hybridloop::basic_loop<traits>;
  for (const place& where : everywhere) {
    for (const auto& options : {sleepy(), hybridloop::loop_options()}) {
      CAPTURE(where.name);
      loop_in<loop_type> l(where, options);
      const running<loop_type> runner(*l);

      send_back_and_forth(*l, scaled(2000));
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(ping_pong, every_fence);

TEST_CASE_TEMPLATE_DEFINE("posters that come and go in any rhythm are all served", traits, any_rhythm) {
  using loop_type = hybridloop::basic_loop<traits>;
  constexpr std::size_t posters = 3;
  const std::size_t rounds = scaled(20);
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<loop_type> l(where, sleepy(tiny(8, 64)));
    std::array<std::atomic<std::size_t>, posters> ran{};
    const running<loop_type> runner(*l);

    std::vector<scoped_thread> threads;
    for (std::size_t p = 0; p < posters; ++p) {
      threads.emplace_back([&, p] {
        std::size_t sent = 0;
        for (std::size_t round = 1; round <= rounds; ++round) {
          for (std::size_t i = 0; i < round * 7 % 40; ++i, ++sent) must_post(*l, [&, p] { ++ran[p]; });
          while (ran[p] != sent) std::this_thread::yield();
        }
      });
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(any_rhythm, every_fence);

// ---- Who pays for [sleep] ----

TEST_CASE("a busy loop takes the barrier on itself, a quiet one gives it back, while posters post") {
  if (!can_take_the_barrier()) return;
  seamed_loop l;
  const running<seamed_loop> runner(l);
  await_parks(l, 1);
  const auto barriers_of = [&](std::size_t posts) {
    for (int i = 0; i < 40; ++i) burst(l, posts);
    const int before = seam::barriers;
    for (int i = 0; i < 5; ++i) burst(l, posts);
    return seam::barriers - before;
  };

  for (int round = 0; round < 3; ++round) {
    CHECK(barriers_of(200) == 5);
    send_back_and_forth(l, scaled(200));
    CHECK(barriers_of(2) == 0);
    send_back_and_forth(l, scaled(200));
  }
}

TEST_CASE("posters in flood and drought lose nothing while the fence goes to and fro") {
  const std::size_t rounds = scaled(20);
  seamed_loop l(sleepy());
  const running<seamed_loop> runner(l);
  const auto post_in_waves = [&] {
    std::atomic<std::size_t> ran{0};
    std::size_t sent = 0;
    for (std::size_t round = 0; round < rounds; ++round) {
      for (int i = 0; i < 5000; ++i, ++sent) must_post(l, [&] { ++ran; });
      while (ran != sent) std::this_thread::yield();
      send_back_and_forth(l, 40);
    }
  };

  const scoped_thread one(post_in_waves);
  const scoped_thread two(post_in_waves);
}

namespace {
// The loop's choice of a fence is the one 32-bit flag that is stored sequentially consistent.
struct fence_watch {
  static inline std::atomic<bool> turned_symmetric{false};
  static inline std::atomic<bool> interrupted{false};
  static inline std::atomic<int> barriers_then{0};
  static inline std::atomic<int> unpaid{0};
  static inline std::function<void()> interrupt;
};

template <class T>
struct fence_watching_atomic : std::atomic<T> {
  using std::atomic<T>::atomic;
  void store(T value, std::memory_order order) noexcept {
    std::atomic<T>::store(value, order);
    if constexpr (std::is_same_v<T, std::uint32_t>) {
      if (order == std::memory_order_seq_cst && value == 1) fence_watch::turned_symmetric = true;
    }
  }
};

struct fence_watching : adaptive {
  template <class T>
  using atomic = fence_watching_atomic<T>;

  static void schedule_point(const char* name) noexcept {
    if (std::strcmp(name, "before-park") == 0 && fence_watch::turned_symmetric.exchange(false)) {
      fence_watch::barriers_then = seam::barriers.load();
      fence_watch::interrupted = true;
      fence_watch::interrupt();
    }
    if (std::strcmp(name, "before-sleep") == 0 && fence_watch::interrupted.exchange(false)) {
      if (seam::barriers == fence_watch::barriers_then) ++fence_watch::unpaid;
    }
  }
};
}  // namespace

TEST_CASE("a wake that comes between the choice of a fence and the sleep leaves its barrier owed") {
  if (!can_take_the_barrier()) return;
  using loop_type = hybridloop::basic_loop<fence_watching>;
  loop_type l;
  std::atomic<int> interruptions{0};
  fence_watch::interrupt = [&] {
    ++interruptions;
    l.wake();
  };
  const running<loop_type> runner(l);
  await_parks(l, 1);

  for (int i = 0; i < 40; ++i) burst(l, 200);
  for (int i = 0; i < 40; ++i) burst(l, 2);

  CHECK(interruptions == 1);
  CHECK(fence_watch::unpaid == 0);
}

#if SUPPORT_POSIX
TEST_CASE_TEMPLATE("a kernel that comes to refuse its barrier loses no wake", kernel,
                   seam_losing_barrier<false>, seam_losing_barrier<true>) {
  using loop_type = hybridloop::basic_loop<seamed<fence_policy::asymmetric, kernel>>;
  loop_type l(sleepy());
  loop_type other(sleepy());
  const running<loop_type> runner(l);
  const running<loop_type> other_runner(other);

  const scoped_thread poster([&] { send_to_sleeper(other, 300); });
  send_to_sleeper(l, 300);
  const int refused = kernel::refused;
  CHECK(refused > 0);
  send_back_and_forth(l, scaled(2000, 1000));

  CHECK(kernel::refused <= refused + 4);
}
#endif

// ---- What a wake costs ----

TEST_CASE("a thousand posts to a parked loop ring once") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<seamed_loop> l(where);
    const running<seamed_loop> runner(*l);
    await_parks(*l, 1);
    seam::reset();

    burst(*l, 1000);

    CHECK(seam::futex_wakes + seam::rings == 1);
    CHECK(l->stats().wakes_channel + l->stats().wakes_poller == 1);
  }
}

namespace {
// Calls to the kernel while a running loop is given work of every kind.
int calls_of_posters(const place& where, const hybridloop::loop_options& options) {
  gate busy;
  gate over;
  loop_in<seamed_loop> l(where, options);
  const running<seamed_loop> runner(*l);
  must_post(*l, [&] {
    busy.open();
    over.pass();
  });
  busy.pass();
  const auto timer = l->after(1h, [] {});
  seam::asked = 0;

  for (int i = 0; i < 1000; ++i) must_post(*l, [] {});
  const auto another = l->after(1h, [] {});
  l->reschedule(timer, loop::clock::now() + 2h);
  l->cancel(timer);
  l->cancel(another);
  l->wake();
  const int asked = seam::asked;
  over.open();
  return asked;
}
}  // namespace

TEST_CASE("a loop that is awake costs its posters no call to the kernel, but for giving way when the ring is full") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    auto hasty = tiny(64, 4096);
    hasty.spin = 0ns;

    CHECK(calls_of_posters(where, tiny(2048, 4096)) == 0);
    CHECK(calls_of_posters(where, hasty) == 0);
    const int given_way = calls_of_posters(where, tiny(64, 4096));
    const bool patient = where.path != hybridloop::fast_path::off && seam::usable_cpus() > 1;
    CHECK(given_way <= 1000 / 64 + 2);
    CHECK((given_way > 0) == patient);
  }
}

TEST_CASE("a loop gives itself work without a call to the kernel") {
  seamed_loop l;
  int left = 1000;
  std::function<void()> again = [&] {
    if (--left != 0) must_post(l, again);
  };
  must_post(l, again);
  const int before = seam::asked;

  l.run_until_idle();

  CHECK(left == 0);
  CHECK(seam::asked == before);
}

TEST_CASE("a loop that watches nothing owns no kernel object") {
  const auto before = open_descriptors();
  seam::reset();
  {
    seamed_loop l;
    const scoped_thread poster([&] {
      await_parks(l, 1);
      must_post(l, [] {});
      l.after(1ms, [&l] { l.close(); });
    });

    CHECK(l.run() == 2);

    CHECK((open_descriptors() == before || !SUPPORT_POSIX));  // there a thread is one, too
    CHECK(seam::pollers == 0);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("what a loop owned of the kernel goes with it") {
  const auto before = open_descriptors();
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    {
      loop_in<> l(where);
      l->poll();
    }
    CHECK(open_descriptors() == before);
  }
}

// ---- From one place of sleep to the other ----

TEST_CASE("posts keep their order while the loop changes its place of sleep") {
  const std::size_t rounds = scaled(500);
  loop l(tiny(8, 64));
  socket_pair wire;
  std::size_t next = 0;
  std::size_t out_of_order = 0;
  const auto expect = [&](std::size_t i) {
    return [&, i] {
      if (next++ != i) ++out_of_order;
    };
  };

  {
    const running<loop> runner(l);
    std::size_t sent = 0;
    for (std::size_t round = 0; round < rounds; ++round) {
      must_post(l, expect(sent++));
      const auto id = l.watch(wire.left(), interest::readable, [] {});
      for (std::size_t i = 0; i < round % 12; ++i) must_post(l, expect(sent++));
      CHECK(l.unwatch(id, expect(sent++)));
      must_post(l, expect(sent++));
    }
    gate done;
    must_post(l, [&] { done.open(); });
    done.pass();
    CHECK(next == sent);
  }

  CHECK(out_of_order == 0);
}

TEST_CASE("a loop that goes to and fro between channel and poller is woken in both") {
  const std::size_t rounds = scaled(300);
  loop l;
  const running<loop> runner(l);
  socket_pair wire;
  const auto settle = [&](bool in_the_poller) {
    const auto parks = [&] { return in_the_poller ? l.stats().in_poller : l.stats().in_channel; };
    const auto before = parks();
    gate ran;
    must_post(l, [&] { ran.open(); });
    ran.pass();
    await([&] { return parks() != before; });
  };

  for (std::size_t round = 0; round < rounds; ++round) {
    const auto id = l.watch(wire.left(), interest::readable, [] {});
    settle(true);
    settle(true);
    CHECK(l.unwatch(id));
    settle(false);
    settle(false);
  }

  CHECK(l.stats().wakes_poller >= rounds);
  CHECK(l.stats().wakes_channel >= rounds);
}

TEST_CASE("posts and watches of several threads share a loop that keeps changing its place of sleep") {
  const std::size_t rounds = scaled(300);
  loop l(tiny(8, 64));
  std::atomic<std::size_t> ran{0};
  {
    const running<loop> runner(l);
    const auto post = [&] {
      for (std::size_t i = 0; i < rounds * 4; ++i) {
        must_post(l, [&] { ++ran; });
        if (i % 8 == 0) std::this_thread::yield();
      }
    };
    const auto toggle = [&] {
      socket_pair wire;
      wire.write_right();
      for (std::size_t i = 0; i < rounds; ++i) {
        gate heard;
        gate gone;
        const auto id = l.watch(wire.left(), interest::readable | interest::oneshot, [&] { heard.open(); });
        heard.pass();
        if (!l.unwatch(id, [&] { gone.open(); })) std::abort();
        gone.pass();
        ++ran;
      }
    };
    const scoped_thread one(post);
    const scoped_thread two(toggle);
    const scoped_thread three(toggle);
  }
  l.run_until_idle();

  CHECK(ran == rounds * 6);
  CHECK(l.stats().watches == 0);
}

TEST_CASE("a watch from another thread is heard by a loop parked in the channel") {
  loop l;
  const running<loop> runner(l);
  socket_pair wire;
  wire.write_right();
  gate heard;
  await_parks(l, 1);
  CHECK(l.stats().in_channel == 1);

  const auto id = l.watch(wire.left(), interest::readable | interest::oneshot, [&] { heard.open(); });

  CHECK(id);
  heard.pass();
}

TEST_CASE("a post that comes while the first watch opens the poller is run at once") {
  for (const auto path : {hybridloop::fast_path::full, hybridloop::fast_path::mini}) {
    hybridloop::loop_options options;
    options.path = path;
    seamed_loop l(options);
    socket_pair wire;
    const stage opening("poller-opens",
                        [&] { elsewhere([&] { must_post(l, [&l] { l.stop(); }); }); });

    must_post(l, [&] { l.watch(wire.left(), interest::readable, [] {}); });
    const std::size_t ran = l.run();

    CHECK(opening.entered());
    CHECK(ran == 2);
  }
}

TEST_CASE("after the last unwatch a loop parked in the poller hears posts at once, far timer or not") {
  for (const bool has_timer : {false, true}) {
    CAPTURE(has_timer);
    loop l;
    socket_pair wire;
    const auto id = l.watch(wire.left(), interest::readable, [] {});
    if (has_timer) l.after(1h, [] {});
    const running<loop> runner(l);
    await_parks(l, 1);
    CHECK(l.stats().in_poller == 1);

    CHECK(l.unwatch(id));
    gate ran;
    must_post(l, [&] { ran.open(); });
    ran.pass();
    await([&] { return l.stats().in_channel != 0; });

    gate ran_again;
    must_post(l, [&] { ran_again.open(); });
    ran_again.pass();
  }
}

TEST_CASE("a timer of more than a second fires in the channel, and nothing else has to wake the loop") {
  loop l;
  const auto begin = loop::clock::now();

  l.after(1100ms, [&l] { l.stop(); });
  l.run();

  CHECK(loop::clock::now() - begin >= 1100ms);
  CHECK(l.stats().in_channel >= 1);
  CHECK(l.stats().parks <= 3);
  CHECK(l.stats().wakes_channel == 0);
}

// ---- Bells that are hard to ring ----

namespace {
// A full pipe is a bell that was rung, so EAGAIN is no trouble there; and only POSIX has EINTR.
bool means_trouble(int number) {
  const std::string poller = seamed_loop::poller_name();
  if (poller == "windows") return number != EINTR;
  return number != EAGAIN || poller != "poll";
}
}  // namespace

TEST_CASE("a bell that rings at the second or the hundredth try wakes the loop") {
  struct trouble {
    int number;
    int times;
  };
  for (const trouble t : {trouble{EINTR, 1000}, trouble{EAGAIN, 1}, trouble{EAGAIN, 5}, trouble{EIO, 100}}) {
    if (!means_trouble(t.number)) continue;
    CAPTURE(t.number);
    loop_in<seamed_loop> l(in_bare_poller);
    l->after(1h, [] {});
    const running<seamed_loop> runner(*l);
    await_parks(*l, 1);
    for (int round = 0; round < 3; ++round) {
      const auto parks = l->stats().parks;
      gate ran;
      seam::fail_to_ring(t.times, t.number);
      must_post(*l, [&] { ran.open(); });
      ran.pass();
      await_parks(*l, parks + 1);
    }
    CHECK(seam::rings_to_fail <= 0);
    seam::reset();
  }
}

TEST_CASE("stop and close reach a sleeping loop through a bell that is hard to ring") {
  for (const int number : {EINTR, EAGAIN, EIO}) {
    if (!means_trouble(number)) continue;
    CAPTURE(number);
    loop_in<seamed_loop> l(in_bare_poller);
    const auto tell = [&](void (seamed_loop::*what)() noexcept) {
      const auto parks = l->stats().parks;
      const scoped_thread other([&] {
        await_parks(*l, parks + 1);
        seam::fail_to_ring(50, number);
        ((*l).*what)();
      });
      l->run();
    };

    tell(&seamed_loop::stop);
    tell(&seamed_loop::close);

    CHECK(seam::rings_to_fail <= 0);
    seam::reset();
  }
}

#if SUPPORT_POSIX
TEST_CASE("a bell that was rung until its counter is full still wakes the loop") {
  if (std::string(seamed_loop::poller_name()) == "kqueue") return;  // whose bell has no counter
  loop_in<seamed_loop> l(in_bare_poller);
  const int bell = seam::latest_bell;
  const running<seamed_loop> runner(*l);
  await_parks(*l, 1);

  for (int round = 0; round < 3; ++round) {
    const auto parks = l->stats().parks;
    const std::uint64_t nearly_full = 0xfffffffffffffffe;
    std::uint64_t count = 0;
    while (::read(bell, &count, sizeof count) > 0) {
    }
    CHECK(::write(bell, &nearly_full, sizeof nearly_full) == sizeof nearly_full);
    await_parks(*l, parks + 1);

    gate ran;
    must_post(*l, [&] { ran.open(); });
    ran.pass();
    await_parks(*l, parks + 2);
  }
}
#endif

TEST_SUITE_END();
