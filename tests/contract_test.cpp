// contract_test.cpp - a broken contract stops with its sentence, and harms nothing before it does
#include <doctest/doctest.h>

#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <deque>
#include <functional>
#include <new>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <hybridloop.hpp>

#include "support/running.hpp"
#include "support/support.hpp"

using namespace support;
using hybridloop::interest;
using hybridloop::loop;

namespace {

// A handler that leaves by longjmp, because some contracts are kept by noexcept functions.
class handler {
 public:
  handler() : before_(hybridloop::set_failure_handler(leave)) {}
  handler(const handler&) = delete;
  handler& operator=(const handler&) = delete;
  ~handler() { hybridloop::set_failure_handler(before_); }

  // The sentence that f runs into on this thread, or nothing.
  std::string hears(const std::function<void()>& f) const {
    call(f);
    return std::exchange(sentence_, {});
  }

 private:
  // Apart, so that no variable of anybody's is alive across the jump.
  [[gnu::noinline]] static void call(const std::function<void()>& f) {
    std::jmp_buf here;
    way_out_ = &here;
    if (setjmp(here) == 0) f();
    way_out_ = nullptr;
  }

  [[noreturn]] static void leave(const char* sentence) {
    sentence_ = sentence;
    if (way_out_ == nullptr) std::abort();
    std::longjmp(*way_out_, 1);
  }

  static inline thread_local std::jmp_buf* way_out_ = nullptr;
  static inline thread_local std::string sentence_;
  hybridloop::failure_handler before_;
};

}  // namespace

TEST_SUITE_BEGIN("contract");

TEST_CASE("a second thread may not run a loop that is being run") {
  const handler contract;
  for (const place& where : everywhere) {
    CAPTURE(where.name);
    loop_in<> l(where);
    const running<loop> runner(*l);
    await_parks(*l, 1);
    const std::string sentence = "run() while another thread runs this loop: post to it, or make a second one";

    CHECK(contract.hears([&] { l->run(); }) == sentence);
    CHECK(contract.hears([&] { l->poll(); }) == sentence);
    CHECK(contract.hears([&] { l->run_for(0s); }) == sentence);
    CHECK_FALSE(l->running_in_this_thread());

    gate ran;
    must_post(*l, [&] { ran.open(); });
    ran.pass();
  }
}

TEST_CASE("a loop may not be destroyed while another thread runs it, asleep or busy") {
  const handler contract;
  for (const bool busy : {false, true}) {
    CAPTURE(busy);
    auto* l = new loop;
    gate entered;
    gate over;
    scoped_thread runner([l] { l->run(); });
    must_post(*l, [&] {
      entered.open();
      if (busy) over.pass();
    });
    entered.pass();
    if (!busy) await_parks(*l, 1);

    CHECK(contract.hears([&] { l->~loop(); }) == "a loop is destroyed inside its own run(), or while another thread runs it: stop() it and let run() return");

    over.open();
    l->stop();
    runner.join();
    delete l;
  }
}

TEST_CASE("a loop may not be destroyed from inside its own run") {
  const handler contract;
  loop l;
  std::string sentence;
  bool ran_on = false;

  must_post(l, [&] { sentence = contract.hears([&] { l.~loop(); }); });
  must_post(l, [&] { ran_on = true; });
  l.run_until_idle();

  CHECK(sentence == "a loop is destroyed inside its own run(), or while another thread runs it: stop() it and let run() return");
  CHECK(ran_on);
}

TEST_CASE("defer and microtask belong to the loop thread") {
  const handler contract;
  loop l;
  loop other;
  std::string from_another_loop;

  CHECK(contract.hears([&] { l.defer([] {}); }) == "defer() outside of the loop thread: post() instead");
  CHECK(contract.hears([&] { l.microtask([] {}); }) == "microtask() outside of the loop thread: post() instead");
  must_post(other, [&] { from_another_loop = contract.hears([&] { l.defer([] {}); }); });
  other.run_until_idle();

  CHECK(from_another_loop == "defer() outside of the loop thread: post() instead");
  CHECK(l.run_until_idle() == 0);
}

TEST_CASE("a repeating timer needs a period above zero") {
  const handler contract;
  const std::string sentence = "every() needs a period above zero";
  loop l;

  CHECK(contract.hears([&] { l.every(0ns, [] {}); }) == sentence);
  CHECK(contract.hears([&] { l.every(-1s, [] {}); }) == sentence);

  CHECK(l.run_until_idle() == 0);
}

namespace {
struct bell_out_of_order : hybridloop::detail::system_kernel {
  using kernel = hybridloop::detail::system_kernel;
  static inline std::atomic<descriptor> bell{-1};
  static inline std::atomic<bool> broken{false};
#if SUPPORT_POSIX
  static int eventfd() noexcept {
    bell = kernel::eventfd();
    return bell;
  }
  static int pipe(int (&ends)[2]) noexcept {
    const int made = kernel::pipe(ends);
    bell = ends[1];
    return made;
  }
  static int write(int fd, const void* bytes, std::size_t size) noexcept {
    return broken ? -EIO : kernel::write(fd, bytes, size);
  }
  static void ring_behind_its_back() {
    const std::uint64_t one = 1;
    CHECK(::write(bell, &one, sizeof one) == sizeof one);
  }
#else
  static int port_post(descriptor port, std::uintptr_t key, void* what) noexcept {
    bell = port;
    return broken ? -EIO : kernel::port_post(port, key, what);
  }
  static void ring_behind_its_back() { CHECK(kernel::port_post(bell, kernel::bell_key, nullptr) == 0); }
#endif
};
struct bell_out_of_order_traits : hybridloop::default_traits {
  using kernel = bell_out_of_order;
  using poller = hybridloop::detail::system_poller<kernel>;
};
}  // namespace

TEST_CASE("a bell that cannot be rung at all is reported, and its loop is not left asleep in silence") {
  using mute_loop = hybridloop::basic_loop<bell_out_of_order_traits>;
  const handler contract;
  hybridloop::loop_options options;
  options.path = hybridloop::fast_path::off;
  // Never destroyed: the ringer that was stopped stands inside it for ever.
  alignas(mute_loop) static unsigned char memory[sizeof(mute_loop)];
  auto& l = *::new (static_cast<void*>(memory)) mute_loop(options);
  scoped_thread runner([&l] { l.run(); });
  await_parks(l, 1);

  bell_out_of_order::broken = true;
  const std::string sentence = contract.hears([&] { must_post(l, [] {}); });
  bell_out_of_order::broken = false;
  l.stop();
  bell_out_of_order::ring_behind_its_back();
  runner.join();

  CHECK(sentence == "the kernel refuses to ring the bell of a sleeping loop");
}

TEST_CASE("loops that wait for each other's answer are told, however long the circle") {
  for (const std::size_t size : {std::size_t{2}, std::size_t{3}}) {
    CAPTURE(size);
    const handler listening;
    std::deque<loop> loops(size);
    std::deque<running<loop>> threads;
    for (loop& l : loops) threads.emplace_back(l);
    std::string heard;
    const std::function<void(std::size_t)> ask_from = [&](std::size_t i) {
      if (i + 1 < size) return loops[i + 1].invoke([&, i] { ask_from(i + 1); });
      heard = listening.hears([&] { loops[0].invoke([] {}); });
    };

    loops[0].invoke([&] { ask_from(0); });

    CHECK(heard.find("waits for a loop that waits for this one") != std::string::npos);
    CHECK(loops[0].invoke([&] { return loops[1].invoke([] { return 7; }); }) == 7);
  }
}

TEST_CASE("a loop inside a loop may be asked by the one around it, and asks outwards at once") {
  loop outer;
  loop inner;
  int answer = 0;
  must_post(outer, [&] {
    must_post(inner, [&] {
      answer = outer.invoke([&] { return inner.invoke([] { return 7; }); });
      inner.stop();
    });
    inner.run();
  });

  outer.run_until_idle();

  CHECK(answer == 7);
}

TEST_CASE("set_failure_handler answers the handler before it") {
  const hybridloop::failure_handler mine = [](const char*) {};

  const auto before = hybridloop::set_failure_handler(mine);

  const bool was_mine = hybridloop::set_failure_handler(before) == mine;
  CHECK(was_mine);
}

#if SUPPORT_POSIX
TEST_CASE("a handler that returns, or none, ends the program with the sentence on stderr") {
  for (const bool has_handler : {false, true}) {
    CAPTURE(has_handler);
    int ends[2];
    CHECK(::pipe(ends) == 0);

    const pid_t child = ::fork();
    if (child == 0) {
      const rlimit none{0, 0};
      ::setrlimit(RLIMIT_CORE, &none);
      ::dup2(ends[1], STDERR_FILENO);
      std::signal(SIGABRT, SIG_DFL);
      if (has_handler) hybridloop::set_failure_handler([](const char*) {});
      loop l;
      l.every(0ns, [] {});
      ::_exit(0);
    }
    ::close(ends[1]);
    std::string said;
    char buffer[256];
    for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
      said.append(buffer, static_cast<std::size_t>(got));
    }
    ::close(ends[0]);
    int how = 0;
    CHECK(::waitpid(child, &how, 0) == child);

    CHECK(WIFSIGNALED(how));
    CHECK(WTERMSIG(how) == SIGABRT);
    CHECK(said.substr(0, said.find('\n')) == "hybridloop: every() needs a period above zero");
  }
}
#endif

#if defined(__cpp_exceptions)
TEST_CASE("a handler may throw, and the loop is none the worse for it") {
  const auto before = hybridloop::set_failure_handler(
      [](const char* sentence) { throw std::logic_error(sentence); });
  const auto breaks = [](const std::function<void()>& f) {
    try {
      f();
    } catch (const std::logic_error&) {
      return true;
    }
    return false;
  };
  loop l;
  fate fates;
  int ran = 0;
  {
    const running<loop> runner(l);
    await_parks(l, 1);

    CHECK(breaks([&] { l.run(); }));
    CHECK(breaks([&] { l.run_until_idle(); }));
    CHECK(breaks([&] { l.defer(witness<>(fates)); }));
    CHECK(breaks([&] { l.microtask(witness<100>(fates)); }));
    CHECK(breaks([&] { l.every(0ns, witness<>(fates)); }));
    CHECK(fates.destroyed == 3);

    gate done;
    must_post(l, [&] { l.defer([&] { ++ran; }); });
    must_post(l, [&] { l.defer([&] { done.open(); }); });
    done.pass();
  }
  must_post(l, [&] { ++ran; });
  l.run_until_idle();
  hybridloop::set_failure_handler(before);

  CHECK(ran == 2);
  CHECK(fates.ran == 0);
}

TEST_CASE("a broken contract inside a task leaves run like any exception") {
  const auto before = hybridloop::set_failure_handler(
      [](const char* sentence) { throw std::logic_error(sentence); });
  loop l;
  loop other;
  std::string sentence;
  must_post(l, [&] { other.defer([] {}); });
  must_post(l, [] {});

  try {
    l.run_until_idle();
  } catch (const std::logic_error& error) {
    sentence = error.what();
  }
  hybridloop::set_failure_handler(before);

  CHECK(sentence == "defer() outside of the loop thread: post() instead");
  CHECK(l.run_until_idle() == 1);
}
#else
TEST_CASE("without exceptions a refusal ends in the failure handler") {
  const handler contract;
  hybridloop::loop_options wrong;
  wrong.spin = -1ns;
  loop closed;
  closed.close();

  CHECK(contract.hears([&] { const loop l(wrong); }) == "hybridloop: loop: a value outside of its range: capacities go up to 16777216, spin is not negative");
  CHECK(contract.hears([&] { closed.invoke([] {}); }) == "hybridloop: invoke: the loop is closed");
  CHECK(contract.hears([&] { closed.watch(STDIN_FILENO, interest::readable, [] {}); }) ==
        "hybridloop: watch: the loop is closed");
}
#endif

TEST_SUITE_END();
