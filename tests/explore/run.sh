#!/bin/sh
# The explorer with ARGS, or all of it and then its mutants.   sh tests/explore/run.sh DIR COMPILE [ARGS]
#
# The last line counts scenarios and mutants together.
set -u
dir=$1 compile=$2; shift 2
if [ $# != 0 ]; then exec "$dir/explore" "$@"; fi

log=$dir/verdicts
{ "$dir/explore"; sh tests/explore/mutants.sh "$dir" "$compile"; } 2>&1 | tee "$log" |
  grep -Ev '^[0-9]+ passed, [0-9]+ failed$'
${AWK:-awk} '/^[0-9]+ passed, [0-9]+ failed$/ { good += $1; bad += $3; parts++ }
  END { if (parts < 2) bad++; print good + 0 " passed, " bad + 0 " failed"; exit bad > 0 }' "$log"
