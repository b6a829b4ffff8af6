#!/bin/sh
# The models, and the mutants that must be rejected.   sh tests/model/check.sh [BUILD-DIR] [NAME...]
#
# A model holds when a full search finds no failed assertion, no deadlock and no statement that is
# never reached, and a second one no fair run in which its ltl property fails. A mutant is rejected
# when the search fails for the reason that its `// mutant: NAME expects: REASON` line names. A search
# that was cut short (depth, memory) counts as a failure.
set -u
here=$(cd "$(dirname "$0")" && pwd)
dir=${1-$here/../../build/model}
[ $# = 0 ] || shift
command -v spin > /dev/null || { echo "check.sh: spin is not here; Debian's package is called spin" >&2; exit 1; }
mkdir -p "$dir" && dir=$(cd "$dir" && pwd) || exit 1
rm -f "$dir"/*.verdict

# build MODEL NAME SPIN-FLAGS GCC-FLAGS: a checker in a folder of its own.
build() {
  rm -rf "$dir/$2"; mkdir -p "$dir/$2"; cd "$dir/$2" || return 1
  # shellcheck disable=SC2086
  { cp "$here/$1.pml" . && spin -a $3 "$1.pml" && ${CC:-cc} -w $4 -DMEMLIM=1500 -o pan pan.c; } > log 2>&1
}

# verdict NAME WORDS: one line, with states and seconds of the search.
verdict() {
  awk -v name="$1" -v words="$2" '
    /states, stored/ { states = $1 } /elapsed time/ { seconds = $4 }
    END { printf "%-28s %9s states %6s s  %s\n", name, states + 0, seconds + 0, words }' "$dir/$1/log" > "$dir/$1.verdict"
  cat "$dir/$1.verdict"
}

# Why a search is no proof; nothing if it is one.
doubt() {
  if ! grep -q 'errors: 0' "$1"; then grep '^pan:1:' "$1" || echo 'no verdict in time'
  elif grep -q -e 'max search depth too small' -e 'Search not completed' -e 'out of memory' \
    -e 'hash conflicts.*omitted' "$1"; then echo 'the search was cut short'
  else sed -n 's/^[[:space:]]*\(.*\.pml:[0-9]*\), state.*"\(.*\)"/unreached: \1 \2/p' "$1" | grep -v -e '-end-' | head -1; fi
}

# `safety` looks for bad states, `live` for fair runs that never settle.
model() {
  name=$1-$2 spin_flags= gcc_flags='-O2 -DSAFETY' pan_flags=-m1000000
  [ "$2" = safety ] || { spin_flags=-DLIVE gcc_flags='-O2 -DNFAIR=3' pan_flags="$pan_flags -a -f"; }
  if ! build "$1" "$name" "$spin_flags" "$gcc_flags"; then
    verdict "$name" "FAILED to build: $(grep -m1 -i error "$dir/$name/log")"; return; fi
  # shellcheck disable=SC2086
  timeout ${MODEL_LIMIT:-120} "$dir/$name/pan" $pan_flags >> "$dir/$name/log" 2>&1
  why=$(doubt "$dir/$name/log")
  # What only the other search can reach is no news.
  case $2$why in live*unreached:*) why= ;; esac
  if [ -z "$why" ]; then verdict "$name" holds; else verdict "$name" "FAILED: $why"; fi
}

mutant() {
  name=$1-$2 spin_flags=-DMUTANT_$2 gcc_flags='-O0 -DSAFETY' pan_flags=-m1000000
  case $3 in acceptance*)
    spin_flags="$spin_flags -DLIVE" gcc_flags='-O0 -DNFAIR=3' pan_flags="$pan_flags -a -f" ;; esac
  if ! build "$1" "$name" "$spin_flags" "$gcc_flags"; then
    verdict "$name" "FAILED to build: $(grep -m1 -i error "$dir/$name/log")"; return; fi
  # shellcheck disable=SC2086
  timeout ${MODEL_LIMIT:-120} "$dir/$name/pan" $pan_flags >> "$dir/$name/log" 2>&1
  said=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' "$dir/$name/log" | head -1)
  case $said in
    *"$3"*) verdict "$name" "rejected: $said" ;;
    '') verdict "$name" "FAILED: not rejected" ;;
    *) verdict "$name" "FAILED: rejected for another reason: $said" ;;
  esac
}

one() {
  case $2 in safety | live) model "$1" "$2" ;; *) mutant "$1" "$2" "$3" ;; esac
}

# One line a search: MODEL, what, reason. The long ones first.
searches() {
  for what in live safety; do
    for file in "$here"/*.pml; do echo "$(basename "$file" .pml) $what"; done
  done
  for file in "$here"/*.pml; do
    sed -n "s|^// mutant: \([A-Z_]*\) expects: \(.*\) -- .*|$(basename "$file" .pml) \1 \2|p" "$file"
  done
}

# Two at a time, each taking every second search.
worker() {
  turn=0
  searches | while read -r file what reason; do
    turn=$((turn + 1))
    [ $((turn % 2)) = "$1" ] || continue
    case " $2 " in "  " | *" $file "*) one "$file" "$what" "$reason" ;; esac
  done
}
worker 0 "$*" & worker 1 "$*"
wait

passed=$(cat "$dir"/*.verdict | grep -c -e ' holds$' -e ' rejected: ')
failed=$(cat "$dir"/*.verdict | grep -c ' FAILED')
expected=$(searches | while read -r file what reason; do
  case " $* " in "  " | *" $file "*) echo "$what" ;; esac; done | grep -c .)
[ $((passed + failed)) = "$expected" ] || failed=$((expected - passed))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
