#!/bin/sh
# Runs the benches one after the other, as one report.
#
#   sh bench/run.sh FOLDER [--csv | --json] [--reps N] [--only TEXT] [--scale SHARE] [--full]
#
# FOLDER holds the programs; PROGRAMS names some of them, all by default. --json is one document,
# {"head": {...}, "rows": [...]}, with a row a line.
set -eu
programs=$1; shift
order=${PROGRAMS:-pingpong wakes policies timers descriptors bursts permits queues condvars cost}

all() {
  for program in $order; do
    "$programs/$program" "$@" || { echo "failed: $program" >&2; echo failed; return; }
  done
}
joined() {
  awk '/^failed$/ { exit 1 }
       { printf "%s%s", between, $0; between = ",\n" }'
}
seen() { awk '/^failed$/ { exit 1 } { print; fflush() }'; }

head=$("$programs/head" "$@")
case " $* " in
  *' --json '*)
    printf '{"head": %s,\n"rows": [\n' "$head"
    all "$@" | joined
    printf '\n]}\n' ;;
  *)
    echo "$head"
    all "$@" | seen ;;
esac
