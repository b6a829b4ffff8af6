#!/bin/sh
# The macros a user may set, and those that others have set.   sh tests/config_test.sh [CXX] [src|.]
set -u
repo=$(cd "$(dirname "$0")/.." && pwd)
cxx=${1-${CXX:-c++}} from=$repo/${2-src}
root=$(mktemp -d); trap 'rm -rf "$root"' EXIT
cd "$root" || exit 1
passed=0 failed=0

strict='-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wundef'
compile() { $cxx -std=c++17 $strict -Werror -pthread -I"$from" "$@"; }
syntax() { compile -fsyntax-only "$@"; }

# A promise is a sentence and the command that keeps it.
promise() {
  sentence=$1; shift
  (set -e; "$@") > log 2>&1  # not in the `if` itself, where -e would count for nothing
  if [ $? = 0 ]; then echo "ok     $sentence"; passed=$((passed + 1))
  else echo "not ok $sentence"; sed 's/^/       | /' log; failed=$((failed + 1)); fi
}

# `refused WORDS COMMAND...`: the command fails, and says why in these words.
refused() {
  words=$1; shift
  if "$@" > said 2>&1; then echo "not refused: $*"; return 1; fi
  grep -F -e "$words" said > found || { echo "not said: $words"; cat said; return 1; }
}

echo '#include <hybridloop.hpp>' > empty.cpp

# Uses a bit of everything. What was set is still set behind the header, and has taken effect.
cat > program.cpp <<'E'
#include <hybridloop.hpp>

#include <memory>
#include <unistd.h>

#ifdef HYBRIDLOOP_NAMESPACE
namespace library = HYBRIDLOOP_NAMESPACE;
#else
namespace library = hybridloop;
#endif
using library::loop_options;
using namespace std::chrono_literals;

#ifdef HYBRIDLOOP_FAST_PATH
static_assert(library::detail::default_path == library::fast_path::HYBRIDLOOP_FAST_PATH);
#endif
#ifdef HYBRIDLOOP_RING_CAPACITY
static_assert(loop_options().ring_capacity == HYBRIDLOOP_RING_CAPACITY);
#endif
#ifdef HYBRIDLOOP_ARENA_CAPACITY
static_assert(loop_options().arena_capacity == HYBRIDLOOP_ARENA_CAPACITY);
#endif
#ifdef HYBRIDLOOP_SPIN_NS
static_assert(loop_options().spin == std::chrono::nanoseconds(HYBRIDLOOP_SPIN_NS));
#endif
#ifdef HYBRIDLOOP_TASK_SIZE
struct just_fits { char bytes[HYBRIDLOOP_TASK_SIZE]; };
struct too_large { char bytes[HYBRIDLOOP_TASK_SIZE + 1]; };
static_assert(library::detail::unique_task::fits<just_fits>);
static_assert(!library::detail::unique_task::fits<too_large>);
#endif
#ifdef HYBRIDLOOP_CACHE_LINE
using doorbell = library::detail::doorbell<library::default_traits>;
static_assert(alignof(doorbell) == HYBRIDLOOP_CACHE_LINE);
#endif
#ifdef HYBRIDLOOP_RESCUE_MS
static_assert(library::detail::rescue_ns == std::int64_t{HYBRIDLOOP_RESCUE_MS} * 1000000);
#endif
#ifdef HYBRIDLOOP_STATS
static_assert(library::detail::stats_kept == HYBRIDLOOP_STATS);
#endif
#ifdef HYBRIDLOOP_SYNC_PHASE
static_assert(library::sync::default_queue::phase == HYBRIDLOOP_SYNC_PHASE);
#endif

int main() {
  library::loop loop;
  int ran = 0;
  int ends[2];
  if (::pipe(ends) != 0) return 1;
  library::watch_id watch;
  watch = loop.watch(ends[0], library::interest::readable, [&] { ++ran, loop.unwatch(watch); });
  loop.after(1ms, [&] { ran += ::write(ends[1], "x", 1) == 1 ? 1 : 0; });
  for (int i = 0; i < 5000; ++i) {
    if (loop.post([&ran] { ++ran; }) != library::post_result::accepted) return 2;
  }
  struct bulk { char bytes[4096]; };
  const auto large = [&ran, b = bulk()] { ran += 1 + b.bytes[0]; };
  if (loop.post(large) != library::post_result::accepted) return 3;
  library::semaphore permits(0);
  permits.async_acquire(loop, [&ran](library::wait_status) { ++ran; });
  permits.release();
  loop.run_until_idle();
  return ran == 5004 ? 0 : 4;
}
E

# ---- Wrong values ----

wrong() {
  macro=HYBRIDLOOP_$1; shift
  for value in "$@"; do
    echo "$macro=$value"
    refused "$macro" syntax -Wfatal-errors "-D$macro=$value" empty.cpp
  done
}
wrong_phase() {
  wrong SYNC_PHASE 4 -1 fast queue1 01 1.5 '"1"' ''
  for value in 4 fast 01 ''; do
    refused 'HYBRIDLOOP_SYNC_PHASE: 0, 1, 2 or 3' syntax "-DHYBRIDLOOP_SYNC_PHASE=$value" empty.cpp
  done
}
half_of_a_pair() {
  refused HYBRIDLOOP_FREE syntax -Wfatal-errors -DHYBRIDLOOP_MALLOC=std::malloc empty.cpp
  refused HYBRIDLOOP_MALLOC syntax -Wfatal-errors -DHYBRIDLOOP_FREE=std::free empty.cpp
}
second_copy() {
  printf '#include "%s/hybridloop.hpp"\n' "$repo/src" "$repo" > twice.cpp
  refused 'a second copy' syntax twice.cpp
}

promise "a wrong HYBRIDLOOP_FAST_PATH is refused by name" wrong FAST_PATH fast 1 '"full"' ''
promise "a wrong HYBRIDLOOP_POLLER is refused by name" wrong POLLER queue 1 '"epoll"' ''
if ! echo '#include <sys/event.h>' | $cxx -E -x c++ - > /dev/null 2>&1; then
  promise "kqueue without its header is refused by name" refused 'HYBRIDLOOP_POLLER: kqueue needs' syntax -Wfatal-errors -DHYBRIDLOOP_POLLER=kqueue empty.cpp
fi
promise "a wrong HYBRIDLOOP_PARKER is refused by name" wrong PARKER futex 2 '"condvar"' ''
promise "a wrong HYBRIDLOOP_RING_CAPACITY is refused by name" wrong RING_CAPACITY 1 -2 16777217 many 4096.5 ''
promise "a wrong HYBRIDLOOP_ARENA_CAPACITY is refused by name" wrong ARENA_CAPACITY -1 16777217 none '"0"' ''
promise "a wrong HYBRIDLOOP_TASK_SIZE is refused by name" wrong TASK_SIZE 50 16 -48 1040 large ''
promise "a wrong HYBRIDLOOP_CACHE_LINE is refused by name" wrong CACHE_LINE 48 0 512 line ''
promise "a wrong HYBRIDLOOP_SPIN_NS is refused by name" wrong SPIN_NS -1 1000001 often 1us ''
promise "a wrong HYBRIDLOOP_RESCUE_MS is refused by name" wrong RESCUE_MS -1 10000000000000 often 10ms ''
promise "a wrong HYBRIDLOOP_STATS is refused by name" wrong STATS 2 -1 yes on ''
promise "a wrong HYBRIDLOOP_NO_IO is refused by name" wrong NO_IO 2 -1 yes on ''
promise "a wrong HYBRIDLOOP_SYNC_PHASE is refused by name, and told which there are" wrong_phase
promise "HYBRIDLOOP_MALLOC and HYBRIDLOOP_FREE are refused alone" half_of_a_pair
promise "C++14 is refused in a sentence" refused 'needs C++17' syntax -Wfatal-errors -std=c++14 empty.cpp
promise "a second copy of the header in one file is refused" second_copy

# ---- Right values ----

smallest='-DHYBRIDLOOP_FAST_PATH=mini -DHYBRIDLOOP_POLLER=epoll -DHYBRIDLOOP_PARKER=auto -DHYBRIDLOOP_RING_CAPACITY=2
  -DHYBRIDLOOP_ARENA_CAPACITY=0 -DHYBRIDLOOP_TASK_SIZE=32 -DHYBRIDLOOP_CACHE_LINE=32
  -DHYBRIDLOOP_SPIN_NS=0 -DHYBRIDLOOP_RESCUE_MS=1 -DHYBRIDLOOP_STATS=0 -DHYBRIDLOOP_NO_IO=0
  -DHYBRIDLOOP_SYNC_PHASE=0'
largest='-DHYBRIDLOOP_FAST_PATH=off -DHYBRIDLOOP_POLLER=auto -DHYBRIDLOOP_RING_CAPACITY=16777216
  -DHYBRIDLOOP_ARENA_CAPACITY=16777216 -DHYBRIDLOOP_TASK_SIZE=1024 -DHYBRIDLOOP_CACHE_LINE=256
  -DHYBRIDLOOP_SPIN_NS=1000000 -DHYBRIDLOOP_RESCUE_MS=86400000 -DHYBRIDLOOP_STATS=1
  -DHYBRIDLOOP_SYNC_PHASE=3'
between='-DHYBRIDLOOP_FAST_PATH=full -DHYBRIDLOOP_POLLER=poll -DHYBRIDLOOP_PARKER=condvar -DHYBRIDLOOP_RING_CAPACITY=3000 -DHYBRIDLOOP_ARENA_CAPACITY=100
  -DHYBRIDLOOP_TASK_SIZE=80 -DHYBRIDLOOP_CACHE_LINE=128 -DHYBRIDLOOP_SYNC_PHASE=2'

builds_and_runs() { compile "$@" program.cpp -o program; ./program; }
from_a_file() {
  printf '%s\n' $smallest | sed 's/^-D/#define /; s/=/ /' > settings.hpp
  syntax -I. '-DHYBRIDLOOP_CONFIG_HEADER="settings.hpp"' program.cpp
  echo '#define HYBRIDLOOP_TASK_SIZE 50' > settings.hpp
  refused 'a multiple of 16' syntax -I. '-DHYBRIDLOOP_CONFIG_HEADER="settings.hpp"' empty.cpp
}
allocator() {
  cat > counts.cpp <<'E'
#include <cstdlib>
inline int allocations = 0;
inline void* counted_malloc(std::size_t n) { return ++allocations, std::malloc(n); }
inline void counted_free(void* p) { --allocations, std::free(p); }
#include <hybridloop.hpp>
int main() {
  hybridloop::loop_options options;
  options.ring_capacity = 2;
  options.arena_capacity = 0;
  hybridloop::loop loop(options);
  const int before = allocations;
  struct large { char bytes[1000]; void operator()() {} };
  for (int i = 0; i < 10; ++i) static_cast<void>(loop.post(large{}));
  const int during = allocations;
  loop.poll();
  return during == before + 10 && allocations == before ? 0 : 1;
}
E
  compile -DHYBRIDLOOP_MALLOC=counted_malloc -DHYBRIDLOOP_FREE=counted_free counts.cpp -o counts
  ./counts
}
contract() {
  cat > broken.cpp <<'E'
#include <cstdio>
#include <cstdlib>
#define HYBRIDLOOP_CONTRACT(condition, sentence) \
  ((condition) ? void() : (std::puts(sentence), std::exit(7)))
#include <hybridloop.hpp>
int main() {
  hybridloop::loop loop;
  loop.defer([] {});
}
E
  compile broken.cpp -o broken
  code=0; ./broken > said || code=$?
  [ $code = 7 ]
  grep -F 'defer() outside of the loop thread: post() instead' said
}
schedule_points() {
  cat > points.cpp <<'E'
#include <set>
#include <string>
inline std::set<std::string> seen;
#define HYBRIDLOOP_SCHEDULE_POINT(name) seen.insert(name)
#include <hybridloop.hpp>
int main() {
  hybridloop::loop loop;
  static_cast<void>(loop.post([] {}));
  return seen.count("claimed") + seen.count("published") == 2 ? 0 : 1;
}
E
  compile points.cpp -o points; ./points
}
two_vendors() {
  for vendor in one two; do cat > $vendor.cpp <<E
#include <hybridloop.hpp>
int run_$vendor();
int run_$vendor() {
  vendor_$vendor::parts::loop loop;
  int ran = 0;
  static_cast<void>(loop.post([&ran] { ++ran; }));
  loop.run_until_idle();
  return ran;
}
E
  done
  echo 'int run_one(), run_two(); int main() { return run_one() + run_two() - 2; }' > both.cpp
  compile -DHYBRIDLOOP_NAMESPACE=vendor_one::parts -c one.cpp
  compile -DHYBRIDLOOP_NAMESPACE=vendor_two::parts -DHYBRIDLOOP_TASK_SIZE=64 -c two.cpp
  compile one.o two.o both.cpp -o both; ./both
  echo '#include <hybridloop.hpp>
    hybridloop::loop loop;' > old.cpp
  refused hybridloop syntax -DHYBRIDLOOP_NAMESPACE=other old.cpp
}
layouts_do_not_mix() {
  echo '#include <hybridloop.hpp>
    void use(hybridloop::loop& l);
    void use(hybridloop::loop& l) { l.stop(); }' > user.cpp
  echo '#include <hybridloop.hpp>
    void use(hybridloop::loop& l);
    int main() { hybridloop::loop l; use(l); }' > maker.cpp
  compile -DHYBRIDLOOP_TASK_SIZE=64 -c user.cpp
  compile -c maker.cpp
  refused task48 compile user.o maker.o -o mixed
  compile -DHYBRIDLOOP_POLLER=poll -c user.cpp
  refused epoll_poller compile user.o maker.o -o mixed
  compile -DHYBRIDLOOP_PARKER=condvar -c user.cpp
  refused auto_parker compile user.o maker.o -o mixed
  compile -c user.cpp
  compile user.o maker.o -o mixed; ./mixed
}
calls() { nm -u "$1" | sed 's/.* //; s/@.*//' | sort; }
absent() { if grep "$@"; then echo "found: $*"; return 1; fi; }
each_poller() {
  echo '#include <hybridloop.hpp>
    #include <cstring>
    int main() { return std::strcmp(hybridloop::loop::poller_name(), EXPECTED); }' > name.cpp
  for poller in epoll poll; do
    compile -DHYBRIDLOOP_POLLER=$poller "-DEXPECTED=\"$poller\"" name.cpp -o name; ./name
    compile -DHYBRIDLOOP_POLLER=$poller program.cpp -o $poller; ./$poller; calls $poller > $poller.calls
  done
  grep -x epoll_ctl epoll.calls; absent -x ppoll epoll.calls
  grep -x ppoll poll.calls; absent -x epoll_ctl poll.calls
}
without_io() {
  cat > without_io.cpp <<'E'
#include <hybridloop.hpp>

#include <thread>

using hybridloop::fast_path;
using hybridloop::interest;
using namespace std::chrono_literals;

int main() {
  hybridloop::loop_options options;
  std::error_code code;
  for (const fast_path path : {fast_path::full, fast_path::mini}) {
    options.path = path;
    hybridloop::loop loop(options);
    if (loop.watch(0, interest::readable, [] {}, code)) return 1;
    if (code != std::errc::not_supported) return 2;
    int ran = 0;
    int refused = 0;
    std::thread worker([&] {
      loop.invoke([&ran] { ++ran; });
      loop.watch(0, interest::readable, [&](const hybridloop::ready& what) {
        refused = what.native_error;
        loop.after(1ms, [&] { ++ran, loop.stop(); });
      });
    });
    loop.run();
    worker.join();
    if (ran != 2 || refused != ENOTSUP) return 3;
  }
  options.path = fast_path::off;
  const hybridloop::loop loop(options, code);
  return code == std::errc::not_supported ? 0 : 4;
}
E
  compile -DHYBRIDLOOP_NO_IO=1 without_io.cpp -o without_io; ./without_io
  compile -M empty.cpp > with; compile -M -DHYBRIDLOOP_NO_IO=1 empty.cpp > without
  for header in sys/epoll.h sys/eventfd.h include/poll.h; do
    grep -F $header with; absent -F $header without
  done
  compile program.cpp -o program; calls program > with; calls without_io > without
  for call in epoll_create1 epoll_ctl epoll_wait eventfd; do
    grep -x $call with; absent -x $call without
  done
  absent -x -e ppoll -e pipe2 without
}

promise "the smallest values build and run" builds_and_runs $smallest
promise "the largest values build and run" builds_and_runs $largest
promise "values in between build and run" builds_and_runs $between
promise "values may stand in a file of the user's" from_a_file
promise "what is allocated comes from the user's functions" allocator
promise "a broken contract goes where the user sends it" contract
promise "a program runs with contracts mapped to nothing" \
  builds_and_runs '-DHYBRIDLOOP_CONTRACT(condition, sentence)=static_cast<void>(0)'
promise "schedule points call the user's hook" schedule_points
promise "two vendored copies live in one program, each in its namespace" two_vendors
promise "files that disagree about a layout do not link" layouts_do_not_mix
promise "each poller can be chosen, and is the one that is called" each_poller
promise "without pollers a loop runs, refuses to watch, and asks nothing of the kernel" without_io

# ---- What stays defined ----

nothing_but() {
  compile -dM -E "$@" empty.cpp | sed -n 's/^#define \(HYBRIDLOOP_[A-Za-z_]*\).*/\1/p' | sort > found
  { printf 'HYBRIDLOOP_VERSION_%s\n' MAJOR MINOR PATCH
    for define in "$@"; do echo "$define" | sed 's/^-D\([A-Z_]*\).*/\1/'; done; } | sort | diff - found
}
each_alone() {
  for define in $smallest -DHYBRIDLOOP_NAMESPACE=other '-DHYBRIDLOOP_CONTRACT(c,s)=void(0)' \
      '-DHYBRIDLOOP_SCHEDULE_POINT(n)=void(n)'; do
    nothing_but "$define"
  done
}
together() { nothing_but $smallest -DHYBRIDLOOP_MALLOC=std::malloc -DHYBRIDLOOP_FREE=std::free; }
with_their_values() {
  compile -dM -E $smallest empty.cpp > found
  printf '%s\n' $smallest | sed 's/^-D/#define /; s/=/ /' | while read -r line; do
    grep -x -F -e "$line" found
  done
}

promise "only the version stays when nothing was set" nothing_but
promise "a macro that was set stays, and none of ours beside it" each_alone
promise "all that were set stay together" together
promise "they stay as they were set" with_their_values

# ---- What others define ----

# Macros of <windows.h>, X11, Qt, AssertMacros.h, <sys/sysmacros.h> and <complex.h>.
cat > theirs.hpp <<'E'
#define near
#define far
#define small char
#define interface struct
#define ERROR 0
#define IN
#define OUT
#define OPTIONAL
#define DELETE 0x00010000L
#define CONST const
#define VOID void
#define TRUE 1
#define FALSE 0
#define Yield()
#define None 0L
#define Bool int
#define Status int
#define True 1
#define False 0
#define Success 0
#define Always 2
#define Complex 0
#define KeyPress 2
#define emit
#define signals public
#define slots
#define forever for (;;)
#define foreach for
#define check(assertion)
#define verify(assertion)
#define require(assertion, label)
#define major(device) 0
#define minor(device) 0
#define I 1
E
cat > min_max.hpp <<'E'
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
E
defined_still() {
  sed -n 's/^#define \([A-Za-z]*\).*/\1/p' "$@" | while read -r name; do
    printf '#ifndef %s\n#error %s is gone\n#endif\n' "$name" "$name"
  done
}
standard_headers() { cat "$from"/hybridloop.hpp "$from"/*/*.hpp | grep -x '#include <[a-z_]*>' | sort -u; }

beside_theirs() {
  { cat theirs.hpp program.cpp; defined_still theirs.hpp; } > clash.cpp
  syntax clash.cpp
}
beside_min_and_max() {
  { standard_headers; cat theirs.hpp min_max.hpp program.cpp
    defined_still theirs.hpp min_max.hpp; } > clash.cpp
  syntax clash.cpp
}
gnu_mode() { syntax -std=gnu++17 program.cpp; }
included_twice() { { cat program.cpp empty.cpp; } > again.cpp; syntax again.cpp; }

promise "it builds behind the macros of Windows, X11 and Qt, and leaves them" beside_theirs
promise "it builds behind min and max" beside_min_and_max
promise "it builds where linux and unix are macros" gnu_mode
promise "it may be included twice" included_twice

echo "$passed passed, $failed failed"
[ $failed = 0 ]
