// fork_test.cpp - the child of a fork may destroy its copy of a loop, or make it its own
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/interrupt.hpp"
#include "support/proc.hpp"
#include "support/running.hpp"
#include "support/support.hpp"

namespace {

using namespace support;
using hybridloop::fast_path;
using hybridloop::interest;
using hybridloop::loop;
using hybridloop::loop_options;

// What a child ends with. A hang in it is a hang here.
int exit_code_of(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Whether f() is true in a child.
template <class F>
bool in_child(const F& f) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f() ? 0 : 1);
  return exit_code_of(child) == 0;
}

constexpr int contract_code = 42;
[[noreturn]] void leave_with_contract_code(const char*) { ::_exit(contract_code); }

// Whether f() breaks a contract, in a child.
template <class F>
bool breaks_contract_in_child(const F& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    hybridloop::set_failure_handler(leave_with_contract_code);
    f();
    ::_exit(0);
  }
  return exit_code_of(child) == contract_code;
}

loop_options sleeping_at(fast_path path) {
  loop_options options;
  options.path = path;
  return options;
}

// With `mini` the child starts a companion.
const std::vector<fast_path> paths =
    forked_threads_die() ? std::vector<fast_path>{fast_path::full, fast_path::off}
                         : std::vector<fast_path>{fast_path::full, fast_path::mini, fast_path::off};

bool readable_now(int fd) {
  pollfd look{fd, POLLIN, 0};
  return ::poll(&look, 1, 0) == 1;
}

template <class Loop, class Done>
void turn_until(Loop& l, const Done& done) {
  while (!done()) l.run_once();
}

}  // namespace

TEST_SUITE_BEGIN("fork");

TEST_CASE("the child destroys its copy, and the parent's watches, bell and timers go on") {
  for (const fast_path path : paths) {
    CAPTURE(static_cast<int>(path));
    const socket_pair wire;
    auto l = std::make_unique<loop>(sleeping_at(path));
    std::size_t told = 0;
    l->watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });

    CHECK(in_child([&] {
      l.reset();
      return true;
    }));

    wire.write_right();
    turn_until(*l, [&told] { return told == 1; });
    bool ran = false;
    const scoped_thread other([&] { must_post(*l, [&ran] { ran = true; }); });
    turn_until(*l, [&ran] { return ran; });
    bool fired = false;
    l->after(1ms, [&fired] { fired = true; });
    turn_until(*l, [&fired] { return fired; });
  }
}

TEST_CASE(
    "a copy that is destroyed closes what the child had of it, and destroys each closure once") {
  for (const fast_path path : paths) {
    CAPTURE(static_cast<int>(path));
    const socket_pair wire;
    const std::size_t before = open_descriptors().size();
    auto l = std::make_unique<loop>(sleeping_at(path));
    const auto alive = std::make_shared<int>(0);
    l->watch(wire.left(), interest::readable, [alive] {});
    l->after(1h, [alive] {});
    must_post(*l, [alive] {});

    CHECK(in_child([&] {
      l.reset();
      return open_descriptors().size() == before && alive.use_count() == 1;
    }));

    CHECK(alive.use_count() == 4);
  }
}

TEST_CASE(
    "a copy of a loop that another thread was running is destroyed, whatever that was doing") {
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    for (const bool busy : {false, true}) {
      auto l = std::make_unique<loop_in<>>(where);
      gate go;
      const running<loop> it(**l);
      await_parks(**l, 1);
      if (busy) must_post(**l, [&go] { go.pass(); });

      CHECK(in_child([&] {
        l.reset();
        return true;
      }));

      go.open();
      CHECK((*l)->invoke([] { return 7; }) == 7);
    }
  }
}

TEST_CASE("posters that wait for room are not waited for in the child") {
  auto l = std::make_unique<loop>(tiny(2, 0, hybridloop::overflow::block));
  must_post(*l, [] {});
  must_post(*l, [] {});
  std::atomic<bool> there{false};
  scoped_thread waiting([&] {
    there = true;
    must_post(*l, [] {});
  });
  while (!there) std::this_thread::yield();
  std::this_thread::sleep_for(5ms);

  CHECK(in_child([&] {
    l.reset();
    return true;
  }));

  l->poll();
}

TEST_CASE("a claim whose owner is not in the child holds nobody up there") {
  for (const bool destroyed : {false, true}) {
    auto l = std::make_unique<loop>();
    std::vector<int> ran;
    gate claimed;
    gate go;
    const slow_closure slow(ran, 1, claimed, go);
    scoped_thread stalled([&] { must_post(*l, slow); });
    claimed.pass();
    must_post(*l, [&ran] { ran.push_back(2); });

    CHECK(in_child([&] {
      if (destroyed) {
        l.reset();
        return ran.empty();
      }
      l->after_fork_child();
      l->run_until_idle();
      return ran == std::vector<int>{2};
    }));

    go.open();
    stalled.join();
    l->run_until_idle();
    CHECK(ran == std::vector<int>{1, 2});
  }
}

TEST_CASE("what was queued, armed and watched lives on in both processes") {
  for (const fast_path path : paths) {
    CAPTURE(static_cast<int>(path));
    const socket_pair wire;
    loop l(sleeping_at(path));
    std::size_t ran = 0;
    std::size_t fired = 0;
    std::size_t told = 0;
    l.watch(wire.left(), interest::readable | interest::oneshot, [&told] { ++told; });
    l.after(1ms, [&fired] { ++fired; });
    must_post(l, [&ran] { ++ran; });
    const auto all_happened = [&] {
      turn_until(l, [&] { return ran == 1 && fired == 1 && told == 1; });
      return true;
    };

    CHECK(in_child([&] {
      l.after_fork_child();
      wire.write_right();
      return all_happened();
    }));

    CHECK(all_happened());
  }
}

// TSan takes the child's thread for the parent's.
TEST_CASE(
    "in the child posts of its own threads wake the loop, and the parent hears nothing of it" *
    doctest::skip(thread_sanitized || forked_threads_die())) {
  for (const fast_path path : paths) {
    CAPTURE(static_cast<int>(path));
    const socket_pair wire;
    loop l(sleeping_at(path));
    l.watch(wire.left(), interest::readable, [] {});
    const running<loop> it(l);
    await_parks(l, 1);
    const auto turns = l.stats().turns;

    CHECK(in_child([&] {
      l.after_fork_child();
      std::size_t ran = 0;
      const scoped_thread poster([&] {
        for (int i = 0; i < 1000; ++i) must_post(l, [&ran] { ++ran; });
      });
      turn_until(l, [&ran] { return ran == 1000; });
      return true;
    }));

    CHECK(l.stats().turns == turns);
  }
}

TEST_CASE("a task that forks goes on in the child as a task of the child's loop") {
  for (const fast_path path : paths) {
    CAPTURE(static_cast<int>(path));
    const socket_pair wire;
    loop l(sleeping_at(path));
    std::size_t told = 0;
    l.watch(wire.left(), interest::readable, [&] {
      wire.drain_left();
      ++told;
    });
    pid_t child = -1;
    must_post(l, [&] {
      child = ::fork();
      if (child != 0) return;
      l.after_fork_child();
      l.after(1ms, [&wire] { wire.write_right(); });
    });

    turn_until(l, [&] { return child > 0 || told == 1; });
    if (child == 0) ::_exit(l.running_in_this_thread() ? 1 : 0);

    CHECK(exit_code_of(child) == 0);
  }
}

TEST_CASE("the handle for a foreign loop keeps its number in the child, and hears the child only" *
          doctest::skip(forked_threads_die())) {
  loop l;
  std::error_code refused;
  const auto handle = l.backend_handle(refused);
  if (refused == hybridloop::errc::unsupported) return;  // poll(2) has none
  l.poll();
  CHECK_FALSE(readable_now(handle));

  CHECK(in_child([&] {
    l.after_fork_child();
    if (l.backend_handle() != handle) return false;
    l.poll();
    const bool silent = !readable_now(handle);
    const scoped_thread other([&l] { must_post(l, [] {}); });
    while (!readable_now(handle)) std::this_thread::yield();
    return silent;
  }));

  CHECK_FALSE(readable_now(handle));
  must_post(l, [] {});
  CHECK(readable_now(handle));
}

TEST_CASE("the child has no more descriptors than its parent") {
  for (const fast_path path : paths) {
    CAPTURE(static_cast<int>(path));
    const socket_pair wire;
    loop l(sleeping_at(path));
    l.watch(wire.left(), interest::readable, [] {});
    const auto before = open_descriptors();

    CHECK(in_child([&] {
      l.after_fork_child();
      return open_descriptors() == before;
    }));
  }
}

TEST_CASE("a call that waits for its answer in the parent is not answered by the child") {
  loop l;
  std::atomic<int> asked{0};
  scoped_thread caller([&] { l.invoke([&asked] { ++asked; }); });
  await([&] { return l.stats().posts == 1; });

  CHECK(in_child([&] {
    l.after_fork_child();
    l.run_until_idle();
    return asked == 0;
  }));

  l.run_until_idle();
  CHECK(asked == 1);
}

TEST_CASE("a loop may be forked again and again, each child from the one before") {
  loop l(sleeping_at(fast_path::off));
  const socket_pair wire;
  std::size_t told = 0;
  l.watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });
  const std::function<bool(int)> descend = [&](int generations) {
    wire.write_right();
    turn_until(l, [&told] { return told != 0; });
    told = 0;
    return generations == 0 || in_child([&] {
             l.after_fork_child();
             return descend(generations - 1);
           });
  };

  CHECK(descend(3));
}

TEST_CASE("to whom it is no news, after_fork_child() does nothing") {
  loop l(sleeping_at(fast_path::off));
  const auto before = open_descriptors();

  l.after_fork_child();

  CHECK(open_descriptors() == before);
  CHECK(in_child([&l] {
    l.after_fork_child();
    l.after_fork_child();
    return l.run_until_idle() == 0;
  }));
}

TEST_CASE(
    "a refused after_fork_child(), and the destructor behind it, leave the parent's watches "
    "alone") {
  const socket_pair wire;
  auto l = std::make_unique<loop>(sleeping_at(fast_path::off));
  std::size_t told = 0;
  l->watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });

  CHECK(in_child([&] {
    rlimit none{};
    ::getrlimit(RLIMIT_NOFILE, &none);
    none.rlim_cur = 3;
    ::setrlimit(RLIMIT_NOFILE, &none);
    std::error_code code;
    l->after_fork_child(code);
    l.reset();
    return static_cast<bool>(code);
  }));

  wire.write_right();
  turn_until(*l, [&told] { return told == 1; });
}

TEST_CASE("after_fork_child() may be called again when it was refused" *
          doctest::skip(forked_threads_die())) {
  const socket_pair wire;
  loop l(sleeping_at(fast_path::mini));
  std::size_t told = 0;
  l.watch(wire.left(), interest::readable, [&] { told += wire.drain_left(); });

  CHECK(in_child([&] {
    rlimit before{};
    ::getrlimit(RLIMIT_NOFILE, &before);
    const rlimit none{3, before.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    std::error_code code;
    l.after_fork_child(code);
    ::setrlimit(RLIMIT_NOFILE, &before);
    l.after_fork_child();
    wire.write_right();
    turn_until(l, [&told] { return told == 1; });
    return static_cast<bool>(code);
  }));
}

TEST_CASE("a handle of a loop that the child destroyed answers closed") {
  auto l = std::make_unique<loop>();
  const auto handle = l->handle();

  CHECK(in_child([&] {
    l.reset();
    return handle.closed() && handle.post([] {}) == hybridloop::post_result::closed;
  }));
}

TEST_CASE("a loop that another thread let sleep inside a task cannot go on in the child") {
  loop l;
  must_post(l, [&l] { l.run_once(); });
  const running<loop> it(l);
  await_parks(l, 1);

  CHECK(breaks_contract_in_child([&l] { l.after_fork_child(); }));
}

TEST_CASE("a handle for a foreign loop falls silent, though a child still holds the old set") {
  loop l;
  std::error_code refused;
  const auto handle = l.backend_handle(refused);
  if (refused == hybridloop::errc::unsupported) return;  // poll(2) has none
  const socket_pair wire;
  const int gone = ::dup(wire.left());
  const auto id = l.watch(gone, interest::readable, [] {});
  l.poll();
  const socket_pair leash;
  const pid_t child = ::fork();
  if (child == 0) {
    pollfd pulled{leash.left(), POLLIN, 0};
    ::poll(&pulled, 1, -1);
    ::_exit(0);
  }
  ::close(gone);
  CHECK_FALSE(l.modify(id, interest::readable));
  wire.write_right();

  std::size_t polls = 0;
  for (; readable_now(handle) && polls < 1000; ++polls) l.poll();

  CHECK(polls < 1000);
  leash.write_right();
  CHECK(exit_code_of(child) == 0);
}

TEST_CASE("an invoked function that forks goes on in the child without its caller") {
  loop l;
  pid_t child = -1;
  std::atomic<int> answer{0};
  const scoped_thread caller([&] {
    answer = l.invoke([&child] {
      child = ::fork();
      return 7;
    });
  });
  await([&l] { return l.stats().posts == 1; });

  l.run_until_idle();
  if (child == 0) ::_exit(answer == 0 ? 0 : 1);
  await([&answer] { return answer == 7; });

  CHECK(exit_code_of(child) == 0);
}

TEST_CASE("using a parent's loop in the child breaks a contract") {
  const socket_pair wire;
  loop l(sleeping_at(fast_path::off));
  const auto id = l.watch(wire.left(), interest::readable, [] {});

  CHECK(breaks_contract_in_child([&l] { l.run_until_idle(); }));
  CHECK(breaks_contract_in_child([&l] { l.poll(); }));
  CHECK(breaks_contract_in_child([&] { l.watch(wire.left(), interest::writable, [] {}); }));
  CHECK(breaks_contract_in_child([&] { l.unwatch(id); }));
  CHECK(breaks_contract_in_child([&l] { l.backend_handle(); }));
}

TEST_CASE("ringing the parent's bell from the child breaks a contract, and does not ring") {
  loop l(sleeping_at(fast_path::off));
  const running<loop> it(l);
  await_parks(l, 1);
  const auto turns = l.stats().turns;

  CHECK(breaks_contract_in_child([&l] { l.wake(); }));
  CHECK(breaks_contract_in_child([&l] { must_post(l, [] {}); }));

  CHECK(l.stats().turns == turns);
}

TEST_CASE("a loop that another thread was running cannot go on in the child") {
  loop l;
  gate go;
  gate there;
  const running<loop> it(l);
  must_post(l, [&] {
    there.open();
    go.pass();
  });
  there.pass();

  CHECK(breaks_contract_in_child([&l] { l.after_fork_child(); }));

  go.open();
}

TEST_SUITE_END();
