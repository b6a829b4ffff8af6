#!/bin/sh
# The joiner and the checkers, each promise on a scratch tree.   sh tests/join_test.sh
set -u
packaging=$(cd "$(dirname "$0")/../packaging" && pwd)
root=$(mktemp -d); trap 'rm -rf "$root"' EXIT
cd "$root" || exit 1
passed=0 failed=0

# A promise is a sentence and the function that keeps it. Each starts from a fresh, joined tree.
promise() {
  (set -e; fresh; "$2") > log 2>&1  # not in the `if` itself, where -e would count for nothing
  if [ $? = 0 ]; then echo "ok     $1"; passed=$((passed + 1))
  else echo "not ok $1"; sed 's/^/       | /' log; failed=$((failed + 1)); fi
}

join() { sh "$packaging/join.sh" join "$root"; }
split() { sh "$packaging/join.sh" split "$root"; }
check() { sh "$packaging/join.sh" check "$root"; }
edit() { sed "$1" "$2" > edited && cat edited > "$2"; }

# `refused WORDS COMMAND...`: the command fails, and says why in these words.
refused() {
  words=$1; shift
  if "$@" > said 2>&1; then echo "not refused: $*"; return 1; fi
  grep -F -e "$words" said > found || { echo "not said: $words"; cat said; return 1; }
}

fresh() {
  rm -rf src hybridloop.hpp; mkdir -p src/base src/ingress src/timer src/loop
  cat > src/hybridloop.hpp <<'E'
// hybridloop - a tree to try the joiner on.
//
//   @contents
#pragma once

// @includes

#include "base/os.hpp"
#include "base/clock.hpp"

#include "ingress/ring.hpp"
#include "timer/heap.hpp"
#include "loop/loop.hpp"
E
  cat > src/base/os.hpp <<'E'
// base/os.hpp - what we run on.
#pragma once

#if defined(__linux__)
#include <linux/futex.h>
#endif
E
  cat > src/base/clock.hpp <<'E'
// base/clock.hpp - what time it is.
#pragma once

#include <cstdint>
#include <chrono>

#include "base/os.hpp"

int now();
E
  cat > src/ingress/ring.hpp <<'E'
// ingress/ring.hpp - many threads publish, the loop thread drains.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.hpp"

// A backslash \ and a percent %s and an ampersand & are bytes like others.

int ring();
E
  printf '// timer/heap.hpp - the deadlines.\n#pragma once\n\nint heap();\n' > src/timer/heap.hpp
  printf '// loop/loop.hpp - turns.\n#pragma once\n\n#include "ingress/ring.hpp"\n\nint turn();\n' \
    > src/loop/loop.hpp
  join
}

joins_to_these_bytes() { diff hybridloop.hpp - <<'E'
// hybridloop - a tree to try the joiner on.
//
//   base/    os clock
//   ingress/ ring
//   timer/   heap
//   loop/    loop
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

// >>> base/os.hpp - what we run on.
#if defined(__linux__)
#include <linux/futex.h>
#endif
// <<< base/os.hpp

// >>> base/clock.hpp - what time it is.
int now();
// <<< base/clock.hpp

// >>> ingress/ring.hpp - many threads publish, the loop thread drains.
// A backslash \ and a percent %s and an ampersand & are bytes like others.

int ring();
// <<< ingress/ring.hpp

// >>> timer/heap.hpp - the deadlines.
int heap();
// <<< timer/heap.hpp

// >>> loop/loop.hpp - turns.
int turn();
// <<< loop/loop.hpp
E
}

joins_to_the_same_bytes_in_any_awk_and_locale() {
  cp hybridloop.hpp first
  for awk in mawk gawk original-awk 'busybox awk'; do
    command -v "${awk%% *}" > /dev/null || continue
    echo > hybridloop.hpp; AWK=$awk join; cmp hybridloop.hpp first
  done
  LC_ALL=en_US.UTF-8 join; cmp hybridloop.hpp first
}
round_trip() {
  check
  edit 's/^int ring();/int ring(int);  \/\/ wider \&/' hybridloop.hpp
  cp hybridloop.hpp by_hand; cp src/base/clock.hpp clock
  split
  grep -F 'int ring(int);  // wider &' src/ingress/ring.hpp
  cmp src/base/clock.hpp clock
  join; cmp hybridloop.hpp by_hand; check
}
guarded() {
  [ "$(grep -c 'linux/futex.h' hybridloop.hpp)" = 1 ]
  sed -n '/^#if defined/,/^#endif/p' hybridloop.hpp | grep '<linux/futex.h>'
}
stale() { edit 's/int turn/int turns/' src/loop/loop.hpp
  refused 'make join' check; refused 'make split' check; }
spine_edit() { edit 's/a tree to try/a bush to try/' hybridloop.hpp
  refused 'no part holds these lines' split; }
lost_marker() {
  cp -R src before; edit '/^\/\/ <<< base\/clock/d; s/int turn/int turns/' hybridloop.hpp
  refused 'no part can take this' split; diff -r src before
}
newer_part() {
  edit 's/int turn/int turns/' src/loop/loop.hpp; touch -t 203001010000 src/loop/loop.hpp
  refused 'changed after' split; grep 'int turns' src/loop/loop.hpp
}

upward() { edit 's|^#include "base/os.hpp"|#include "loop/loop.hpp"|' src/base/clock.hpp
  refused 'src/base/clock.hpp:7: upward include: loop/loop.hpp' check; }
sister() { edit 's|^#include "base/clock.hpp"|#include "timer/heap.hpp"|' src/ingress/ring.hpp
  refused 'src/ingress/ring.hpp:7: sister include: timer/heap.hpp' check; }
orphan() { cp src/base/os.hpp src/base/lost.hpp; refused 'src/base/lost.hpp:1: orphan' check; }
missing() { rm src/base/os.hpp
  refused 'src/hybridloop.hpp:8: missing part: base/os.hpp' check
  refused 'src/base/clock.hpp:7: missing part: base/os.hpp' check; }
twice() { echo '#include "base/os.hpp"' >> src/hybridloop.hpp; refused 'listed twice' check; }
order() { edit '/base\/os.hpp/d' src/hybridloop.hpp
  echo '#include "base/os.hpp"' >> src/hybridloop.hpp
  refused 'wrong order: the spine lists base/os.hpp later' check; }
attic() { mkdir src/attic; sed 's|base/os|attic/os|' src/base/os.hpp > src/attic/os.hpp
  echo '#include "attic/os.hpp"' >> src/hybridloop.hpp; refused 'no floor is known' check; }

title() { edit '1s/base/bass/' src/base/os.hpp; refused 'src/base/os.hpp:1: opens with' check; }
prose() { edit '1s/$/ \
\/\/ Prose./' src/base/os.hpp; refused 'prose is body' check; }
late() { echo '#include "base/os.hpp"' >> src/loop/loop.hpp
  refused 'src/loop/loop.hpp:7: a quoted include in the body' check; }
bytes() {
  for byte in '\t' '\r' '\303\244' ' '; do
    fresh; printf "int x;$byte\n" >> src/loop/loop.hpp
    refused 'src/loop/loop.hpp:7: a tab, a CR, a trailing blank or not ASCII' check
  done
}

promise "src/ joins to exactly these bytes" joins_to_these_bytes
promise "the bytes depend on no awk and no locale" joins_to_the_same_bytes_in_any_awk_and_locale
promise "an edit of the joined file goes to its part and comes back unchanged" round_trip
promise "an include inside an #if stays in the body" guarded
promise "a stale joined file is refused, and both ways out are named" stale
promise "an edit that belongs to no part is not carried silently" spine_edit
promise "a lost marker changes no part" lost_marker
promise "a split never undoes a part that is newer than the joined file" newer_part
promise "an upward include is refused" upward
promise "an include of a sister folder is refused" sister
promise "an orphan part is refused" orphan
promise "a missing part is refused" missing
promise "a part listed twice is refused" twice
promise "a part before what it includes is refused" order
promise "a folder without a floor is refused" attic
promise "a title that does not name its file is refused" title
promise "prose above #pragma once is refused" prose
promise "a quoted include in a body is refused" late
promise "a tab, a CR, a trailing blank and a byte beyond ASCII are refused" bytes

# The checkers.

edges() { sh "$packaging/check-edges.sh" "$root"; }
ifs() { sh "$packaging/check-ifs.sh" "$root"; }
macros() { sh "$packaging/check-macros.sh" "${CXX:-c++}" "$root"; }
part() { cat >> src/loop/loop.hpp; }  # which ends at line 6

edges_sound() { part <<'E'
// Edge [sleep]: a drawing, in which memory_order_seq_cst is prose.
// Rule: one order.
  a.store(1, std::memory_order_seq_cst);             // [sleep] P1
  b.load(std::memory_order_seq_cst);                 // [sleep] P2
  head[i].load(std::memory_order_relaxed);           // ours alone
  tail.load(std::memory_order_relaxed);              // a hint; push looks again
E
  edges; }
edge_of_one_line() { part <<'E'
// Edge [free]: who frees it sees all. Rule: a release sequence.
  if (holders.fetch_sub(1, std::memory_order_acq_rel) != 1) return;  // [free] F1, F2
E
  edges; }
edge_bare() { echo 'a.load(std::memory_order_relaxed);' | part
  refused 'src/loop/loop.hpp:7: a memory order without' edges; }
edge_undrawn() { echo 'a.load(std::memory_order_acquire);  // [sleep] P2' | part
  refused '[sleep] is drawn nowhere' edges; }
edge_twice() { printf '// Edge [sleep]: one.\n// Edge [sleep]: two.\n' | part
  refused 'src/loop/loop.hpp:8: [sleep] is drawn at src/loop/loop.hpp:7 already' edges; }
edge_unruled() { printf '// Edge [sleep]: one.\n\n// Rule: of something else.\n' | part
  refused 'src/loop/loop.hpp:7: [sleep] is drawn without the rule' edges; }
edge_half() { printf '// Edge [sleep]: one.\na.load(memory_order_acquire);  // [sleep] P2\n' | part
  refused 'src/loop/loop.hpp:7: [sleep] has fewer than two ends' edges; }

ifs_sound() { part <<'E'
namespace a { inline namespace b {
template <class T, class = enable_if_t<(sizeof(T) > 4)>>
class alignas(64) loop : public base<T> {
#if A
  int x_{0};
#endif
  void f() { g("{", '{'); }  // {
#if A
  void h() {
#else
  void h() noexcept {
#endif
  }
};
#if A
enum class e : int {
#  if B
  one,
#  endif
};
#endif
}}
E
  ifs; }
ifs_inside() { printf 'struct a {\n  void f() {\n    if (x) {\n#if A\n#endif\n}\n}\n};\n' | part
  refused 'src/loop/loop.hpp:10: a conditional in a function' ifs; }

macros_sound() { echo '#define HYBRIDLOOP_VERSION_MAJOR 0' | part; edit '/futex/d' src/base/os.hpp
  join; macros; }
macros_left() { echo '#define HYBRIDLOOP_OS(x) 1' | part; join
  refused '-std=c++17 -Isrc leaves: HYBRIDLOOP_OS' macros
  refused '-std=c++20 -I. leaves: HYBRIDLOOP_OS' macros; }
macros_max() { echo '#define max 1' | part; join; refused 'leaves: max' macros; }
macros_broken() { echo '#error no' | part; join; refused '#error' macros; }

promise "an edge drawn once and cited at both ends passes" edges_sound
promise "a read-modify-write can be both ends of an edge" edge_of_one_line
promise "a memory order without a remark is refused" edge_bare
promise "an edge that is drawn nowhere is refused" edge_undrawn
promise "an edge that is drawn twice is refused" edge_twice
promise "an edge that names no rule is refused" edge_unruled
promise "an edge with one end is refused" edge_half
promise "a conditional around functions and members passes" ifs_sound
promise "a conditional inside a function is refused" ifs_inside
promise "a header that leaves its version passes" macros_sound
promise "a macro of ours that stays is refused" macros_left
promise "min and max are refused" macros_max
promise "a header that does not preprocess is refused" macros_broken

echo "$passed passed, $failed failed"
[ $failed = 0 ]
