#!/bin/sh
# What of src/ the tests did not reach.   sh tests/coverage.sh TESTS FOLDER-WITH-PROFRAW
set -eu
LC_ALL=C; export LC_ALL
here=$(dirname "$0")
named=$here/uncovered.txt

llvm-profdata merge -sparse "$2"/*.profraw -o "$2/tests.profdata"
llvm-cov show "$1" -instr-profile="$2/tests.profdata" -show-branches=count -show-instantiations=false \
  "$PWD/src" > "$2/shown.txt"
${AWK:-awk} -v NAMED="$named" -f "$here/coverage.awk" "$named" "$2/shown.txt"
