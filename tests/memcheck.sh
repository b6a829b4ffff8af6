#!/bin/sh
# The tests in valgrind: no error in any process.   sh tests/memcheck.sh TESTS LOG ARGS...
#
# In two halves at a time, since valgrind runs one thread of a process at a time. The suite's malloc stays before
# valgrind's, and so counts and refuses as ever. What is lost is asked of the first process of each half alone: the
# child of a fork lacks the stacks of the other threads, and takes for lost what is known there.
set -u
LC_ALL=C; export LC_ALL
tests=$1 log=$2
shift 2

# Files that take as long as all others together.
heavy='*/waits_*,*/price_*,*/stress_*,*/fault_*,*/semaphore_*,*/barging_*,*/watch_*'

# half NAME FILTER ARGS...
half() {
  part=$log.$1
  shift
  valgrind --fair-sched=yes --soname-synonyms=somalloc=nouserintercepts --error-exitcode=99 --leak-check=full \
    --show-leak-kinds=definite --errors-for-leak-kinds=none --log-file="$part" "$tests" "$@" > "$part.said" 2>&1
  status=$?
  cat "$part.said"
  ${AWK:-awk} '
    NR == 1 { first = $1 }
    $1 == first && /definitely lost: / { lost = $4 }
    /ERROR SUMMARY: / { ++processes; errors += $4 }
    END {
      printf "memcheck: %d processes, %d errors, %s bytes lost\n", processes, errors, lost == "" ? 0 : lost
      exit processes == 0 || errors + lost > 0
    }' "$part" || status=1
  [ $status = 0 ] || cat "$part"
  return $status
}

half heavy -sf="$heavy" "$@" &
half light -sfe="$heavy" "$@"
status=$?
wait $! || status=1
exit $status
