#!/bin/sh
# Files that were built differently share a loop.   sh tests/mixed_build_test.sh [CXX] [src|.]
set -u
repo=$(cd "$(dirname "$0")/.." && pwd)
cxx=${1-${CXX:-c++}} from=$repo/${2-src}
root=$(mktemp -d); trap 'rm -rf "$root"' EXIT
cd "$root" || exit 1
passed=0 failed=0

# Without optimisation each inline function is one symbol, of which the linker keeps the first.
compile() { $cxx -Wall -Wextra -Werror -O0 -g -pthread -I"$from" "$@"; }

# A promise is a sentence and the command that keeps it.
promise() {
  sentence=$1; shift
  (set -e; "$@") > log 2>&1  # not in the `if` itself, where -e would count for nothing
  if [ $? = 0 ]; then echo "ok     $sentence"; passed=$((passed + 1))
  else echo "not ok $sentence"; sed 's/^/       | /' log; failed=$((failed + 1)); fi
}

# What all files instantiate. These closures throw when they are armed, which only the file with
# exceptions does; it also defines what throws, for an inline function here could lose its cleanups.
cat > shared.hpp <<'E'
#pragma once
#include <hybridloop.hpp>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <unistd.h>
#include <utility>

#define expect(what) \
  ((what) ? void() : (std::printf("%s:%d: %s\n", __FILE__, __LINE__, #what), std::exit(1)))

using namespace std::chrono_literals;

inline bool armed = false;
void raise_if_armed();

// Throws when it runs.
struct runs {
  std::shared_ptr<int> token;
  void operator()() const { raise_if_armed(); }
};
struct runs_large : runs {
  explicit runs_large(std::shared_ptr<int> t) : runs{std::move(t)} {}
  char padding[64] = {};
};

// Throws when it is copied.
struct copies : runs {
  explicit copies(std::shared_ptr<int> t) : runs{std::move(t)} {}
  copies(const copies& other);
  copies(copies&&) noexcept = default;
};
struct copies_large : copies {
  using copies::copies;
  char padding[64] = {};
};

struct pipe_ends {
  pipe_ends() { expect(::pipe(ends) == 0 && ::write(ends[1], "x", 1) == 1); }
  ~pipe_ends() { ::close(ends[0]), ::close(ends[1]); }
  int ends[2];
};

inline void accept(hybridloop::post_result got) {
  expect(got == hybridloop::post_result::accepted);
}

// What a file does to a loop of another one.
static std::size_t use(hybridloop::loop& loop) {
  const auto token = std::make_shared<int>(0);
  const runs small{token};
  const runs_large large(token);
  const copies copied(token);
  const copies_large copied_large(token);
  const runs range[] = {small, small, small};
  const pipe_ends pipe;
  std::size_t ran = 0;

  for (int i = 0; i < 4; ++i) {
    accept(loop.post(small));
    accept(loop.post(large));
    accept(loop.post(copied));
    accept(loop.handle().post(copied_large));
  }
  loop.poll();
  accept(loop.try_post(small));
  loop.poll();
  accept(loop.post_range(range, range + 3).result);
  accept(loop.post([&] {
    ++ran;
    loop.defer(small);
    loop.microtask(large);
    accept(loop.dispatch(small));
    loop.invoke(small);
    accept(loop.post([&ran] { ++ran; }));
    loop.poll();
  }));
  loop.after(0ns, small);
  loop.after(0ns, copied);
  loop.after(0ns, copied_large);
  const hybridloop::timer_id often = loop.every(1ns, large);
  const hybridloop::watch_id small_watch =
      loop.watch(pipe.ends[0], hybridloop::interest::readable, small);
  const hybridloop::watch_id copied_watch =
      loop.watch(pipe.ends[0], hybridloop::interest::readable, copied);
  for (int i = 0; i < 5; ++i) loop.run_once();
  expect(loop.cancel(often));
  expect(loop.unwatch(small_watch));
  expect(loop.unwatch(copied_watch));
  loop.run_until_idle();

  expect(loop.stats().arena_in_use == 0);
  return ran;
}
E

cat > throwing.cpp <<'E'
#include "shared.hpp"

#include <stdexcept>
#include <system_error>
#include <thread>

std::size_t use_in_newer(hybridloop::loop& loop);
std::size_t use_without(hybridloop::loop& loop);
void borrow_without(hybridloop::loop& loop, const runs& microtask);

void raise_if_armed() {
  if (armed) throw std::runtime_error("armed");
}
copies::copies(const copies& other) : runs(other) { raise_if_armed(); }

namespace {

int handled = 0;

// Whether f throws.
template <class F>
bool throws(const F& f) {
  bool thrown = false;
  armed = true;
  try {
    f();
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  armed = false;
  return thrown;
}

class scenes {
 public:
  explicit scenes(const hybridloop::loop_options& options) : loop_(options) {}

  void play() {
    task(runs{token_});
    task(runs_large(token_));
    spilled_task();
    constructor(copies(token_));
    constructor(copies_large(token_));
    deferred_task();
    microtask();
    timer();
    repeating_timer();
    watch();
    nested_run();
    invoked_task();
    expect(use(loop_) == 2 && use_in_newer(loop_) == 2 && use_without(loop_) == 2);
  }

 private:
  // Nothing is left of what threw, and the loop goes on.
  void goes_on() {
    int ran = 0;
    accept(loop_.post([&ran] { ++ran; }));
    loop_.run_until_idle();
    expect(ran == 1);
    expect(token_.use_count() == 1);
    expect(loop_.stats().arena_in_use == 0);
  }

  template <class F>
  void task(F&& f) {
    accept(loop_.post(std::forward<F>(f)));
    expect(throws([this] { loop_.run_until_idle(); }));
    goes_on();
  }

  void spilled_task() {
    for (int i = 0; i < 4; ++i) accept(loop_.post([] {}));
    task(runs_large(token_));
  }

  template <class F>
  void constructor(F&& f) {
    {
      const F closure = std::move(f);
      const pipe_ends pipe;
      for (int i = 0; i < 4; ++i) expect(throws([&] { accept(loop_.post(closure)); }));
      expect(loop_.poll() == 0);
      expect(throws([&] { accept(loop_.try_post(closure)); }));
      expect(throws([&] { loop_.after(0ns, closure); }));
      expect(throws([&] { loop_.watch(pipe.ends[0], hybridloop::interest::readable, closure); }));
      accept(loop_.post([&] { loop_.defer(closure); }));
      expect(throws([this] { loop_.run_until_idle(); }));
      accept(loop_.post([&] { loop_.microtask(closure); }));
      expect(throws([this] { loop_.run_until_idle(); }));
    }
    goes_on();
  }

  void deferred_task() {
    accept(loop_.post([this] { loop_.defer(runs_large(token_)); }));
    expect(throws([this] { loop_.run_until_idle(); }));
    goes_on();
  }

  void microtask() {
    accept(loop_.post([this] { loop_.microtask(runs_large(token_)); }));
    expect(throws([this] { loop_.run_until_idle(); }));
    goes_on();
  }

  void timer() {
    loop_.after(0ns, runs_large(token_));
    expect(throws([this] { loop_.run_until_idle(); }));
    expect(loop_.stats().timers == 0);
    goes_on();
  }

  void repeating_timer() {
    const auto often = loop_.every(1ns, runs_large(token_));
    expect(throws([this] { loop_.run_until_idle(); }));
    expect(throws([this] { loop_.run_until_idle(); }));
    expect(loop_.cancel(often));
    goes_on();
  }

  void watch() {
    const pipe_ends pipe;
    const auto id = loop_.watch(pipe.ends[0], hybridloop::interest::readable, runs_large(token_));
    expect(throws([this] { loop_.run_until_idle(); }));
    expect(throws([this] { loop_.run_until_idle(); }));
    expect(loop_.unwatch(id));
    goes_on();
  }

  void nested_run() {
    accept(loop_.post([this] {
      accept(loop_.post(runs{token_}));
      expect(throws([this] { loop_.poll(); }));
    }));
    loop_.run_until_idle();
    goes_on();
  }

  void invoked_task() {
    bool thrown = false;
    {
      const auto alive = loop_.hold();
      std::thread runner([this] { loop_.run(); });
      thrown = throws([this] { loop_.invoke(runs{token_}); });
      loop_.stop();
      runner.join();
    }
    expect(thrown);
    goes_on();
  }

  hybridloop::loop loop_;
  std::shared_ptr<int> token_ = std::make_shared<int>(0);
};

void refusal() {
  hybridloop::loop_options options;
  options.ring_capacity = ~std::size_t{0};
  bool thrown = false;
  try {
    const hybridloop::loop loop(options);
  } catch (const std::system_error& error) {
    thrown = error.code() == hybridloop::errc::invalid_argument;
  }
  expect(thrown);
}

void handler() {
  hybridloop::loop_options options;
  options.on_exception = [](std::exception_ptr) { ++handled; };
  hybridloop::loop loop(options);
  for (int i = 0; i < 5; ++i) accept(loop.post(runs{}));
  loop.after(0ns, runs{});
  expect(!throws([&loop] { loop.run_until_idle(); }));
  expect(handled == 6);
}

// A caller without exceptions borrows the loop. What a task throws there leaves run() here.
void loan() {
  const auto token = std::make_shared<int>(0);
  bool thrown = false;
  hybridloop::loop_options options;
  options.caller_runs = true;
  hybridloop::loop loop(options);
  std::thread runner([&] {
    try {
      loop.run();
    } catch (const std::runtime_error&) {
      thrown = true;
    }
  });
  borrow_without(loop, runs{token});
  runner.join();
  armed = false;
  expect(thrown);
  expect(token.use_count() == 1);
  expect(use(loop) == 2);
}

}  // namespace

int main() {
  hybridloop::loop_options options;
  options.ring_capacity = 2;
  for (const auto path : {hybridloop::fast_path::full, hybridloop::fast_path::mini,
                          hybridloop::fast_path::off}) {
    options.path = path;
    scenes(options).play();
  }
  refusal();
  handler();
  loan();
}
E

cat > newer.cpp <<'E'
#include "shared.hpp"
static_assert(__cplusplus > 201703L);
std::size_t use_in_newer(hybridloop::loop& loop);
std::size_t use_in_newer(hybridloop::loop& loop) { return use(loop); }
E

cat > without.cpp <<'E'
#include "shared.hpp"
#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this file is built without exceptions"
#endif
std::size_t use_without(hybridloop::loop& loop);
std::size_t use_without(hybridloop::loop& loop) { return use(loop); }

void borrow_without(hybridloop::loop& loop, const runs& microtask);
void borrow_without(hybridloop::loop& loop, const runs& microtask) {
  const auto caller = std::this_thread::get_id();
  bool done = false;
  while (!done) {
    loop.invoke([&] {
      if (std::this_thread::get_id() != caller) return;
      armed = done = true;
      loop.microtask(microtask);
    });
  }
}
E

builds() {
  compile -std=c++17 -c throwing.cpp
  compile -std=c++20 -c newer.cpp
  compile -std=c++17 -fno-exceptions -fno-rtti -c without.cpp
}
links_and_runs() { compile "$@" -o program; ./program; }

promise "one header builds as C++17, as C++20, and without exceptions and RTTI" builds
promise "they share a loop, and what throws is caught, the file with exceptions first" \
  links_and_runs throwing.o newer.o without.o
promise "they share a loop, and what throws is caught, the file without exceptions first" \
  links_and_runs without.o newer.o throwing.o
promise "they share a loop, and what throws is caught, the newer file first" \
  links_and_runs newer.o without.o throwing.o

# A semaphore of each phase, in one program; and one that a file of another phase asks for.
cat > phase.cpp <<'E'
#include <hybridloop.hpp>
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
void release_one(hybridloop::semaphore& s);
#ifndef BORROWS
void release_one(hybridloop::semaphore& s) { s.release(); }
#endif
bool JOIN(works_in_, OWN)();
bool JOIN(works_in_, OWN)() {
  hybridloop::semaphore s(0);
  release_one(s);
  return s.try_acquire();
}
E
echo 'bool works_in_0(); bool works_in_1(); bool works_in_2(); bool works_in_3();
int main() { return works_in_0() && works_in_1() && works_in_2() && works_in_3() ? 0 : 1; }' > phases.cpp
phases_coexist() {
  for phase in 0 1 2 3; do
    compile -std=c++17 -DHYBRIDLOOP_SYNC_PHASE=$phase -DOWN=$phase -c phase.cpp -o phase$phase.o
  done
  compile -std=c++17 phases.cpp phase[0-3].o -o phases
  ./phases
}
phases_are_told_apart() {
  compile -std=c++17 -DHYBRIDLOOP_SYNC_PHASE=2 -DOWN=2 -DBORROWS -c phase.cpp -o borrows.o
  if compile -std=c++17 phases.cpp phase[013].o borrows.o -o phases > said 2>&1; then return 1; fi
  grep release_one said
}
promise "files of different phases have semaphores of their own in one program" phases_coexist
promise "a semaphore that is handed to a file of another phase does not link" phases_are_told_apart

echo "$passed passed, $failed failed"
[ $failed = 0 ]
