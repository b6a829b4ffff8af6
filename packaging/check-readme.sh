#!/bin/sh
# README's first example is the part of examples/hello.cpp between its [readme] marks, which is
# compiled and run: an example that is not compiled rots.
set -eu
cd "${1-$(dirname "$0")/..}"
shown=$(awk '/^```cpp$/ && !seen { seen = in_it = 1; next } /^```$/ { in_it = 0 } in_it' README.md)
run=$(awk '/\[readme\]/ { on = 1; next } /\[\/readme\]/ { on = 0 } on { sub(/^  /, ""); print }' examples/hello.cpp)
if [ -z "$run" ] || [ "$shown" != "$run" ]; then
  echo "check-readme: README.md's first example is not that of examples/hello.cpp" >&2
  exit 1
fi
echo "check-readme: the first example is the one that runs"
