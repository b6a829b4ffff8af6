#!/bin/sh
# What hybridloop.hpp leaves defined.   sh packaging/check-macros.sh CXX [ROOT]
#
# Only the version may stay. An empty file is preprocessed with the header and without it, so that a
# list of what to #undef cannot be wrong silently. Both src/ and the joined header are asked.
set -eu
cxx=${1?name a compiler}; cd "${2-$(dirname "$0")/..}"
before=$(mktemp); after=$(mktemp); trap 'rm -f "$before" "$after"' EXIT
bad=0

for std in c++17 c++20; do
  for from in src .; do
    echo | $cxx -std=$std -dM -E -x c++ - > "$before"
    echo '#include <hybridloop.hpp>' | $cxx -std=$std -I$from -dM -E -x c++ - > "$after"
    left=$(awk '
      { sub(/\(.*/, "", $2) }
      NR == FNR { before[$2]; next }
      $2 in before || $2 ~ /^HYBRIDLOOP_VERSION_(MAJOR|MINOR|PATCH)$/ { next }
      $2 ~ /^HYBRIDLOOP_/ || $2 == "min" || $2 == "max" { print $2 }' "$before" "$after" | sort)
    [ -z "$left" ] || { echo "$cxx -std=$std -I$from leaves:" $left; bad=1; }
  done
done
[ $bad = 1 ] || echo "check-macros: $cxx sees the version and nothing else"
exit $bad
