#!/bin/sh
# Every fault of mutants.txt is caught.   sh tests/explore/mutants.sh DIR COMPILE [NAME...]
#
# DIR holds the explorer's objects and takes the copies of src/; COMPILE is the compiler with its flags,
# without include paths. Prints the schedule that caught each; the last line is the verdict. A mutant
# whose text is not found exactly once, that does not compile, or that nobody catches, has failed.
set -eu
LC_ALL=C; export LC_ALL
here=tests/explore
table=$here/mutants.txt

field() { ${AWK:-awk} -v name="$1" -v key="$2" '
  /^== / { mine = $2 == name } mine && $1 == key { sub(/^[a-z]+ +/, ""); print }' $table; }

# The file with each block of `-` lines replaced by the `+` lines behind it.
mutate() { ${AWK:-awk} -v name="$1" '
  function swap(  at) {
    if (!have) return
    at = index(text, find)
    if (!at || index(substr(text, at + 1), find)) { bad = 1; print name ": not there exactly once: " find > "/dev/stderr" }
    text = substr(text, 1, at - 1) put substr(text, at + length(find))
    find = put = ""; have = 0
  }
  FNR == NR { text = text $0 "\n"; next }
  /^== / { swap(); mine = $2 == name; next }
  !mine { next }
  /^-/ { if (was == "+") swap(); find = find substr($0, 2) "\n"; have = 1; was = "-" }
  /^\+/ { put = put substr($0, 2) "\n"; was = "+" }
  END { swap(); printf "%s", text; exit bad }' "$2" $table; }

try() {
  dir=$1/mutants/$2; compile=$3
  file=$(field "$2" file); scenario=$(field "$2" caught)
  unit=$(grep -lE "^EXPLORE(_ROUSED)?\($scenario," $here/*.cpp) || { echo "FAILED  $2: no scenario $scenario"; return 1; }
  rm -rf "$dir"; mkdir -p "$dir"; cp -r src "$dir/src"
  mutate "$2" "src/$file" > "$dir/src/$file" || { echo "FAILED  $2: the text to replace is not there"; return 1; }
  $compile -w -O0 -DEXPLORE_ONLY="\"$scenario\"" -I"$dir/src" -Itests -c "$unit" -o "$dir/scene.o" > "$dir/log" 2>&1 &&
    $compile "$1"/engine/*.o "$dir/scene.o" -o "$dir/explore" >> "$dir/log" 2>&1 ||
    { echo "FAILED  $2: does not compile"; cat "$dir/log"; return 1; }
  if "$dir/explore" --only "$scenario" > "$dir/log" 2>&1; then
    echo "FAILED  $2: not caught by $scenario"; return 1
  fi
  sed -n "s/^FAILED  //p; s/^ *--replay/    --replay/p" "$dir/log" | sed "1s/^/caught  $2 by /"
  grep -q '^FAILED' "$dir/log" || { echo "FAILED  $2: died"; cat "$dir/log"; return 1; }
  schedule=$(sed -n "s/^ *--replay '\(.*\)'$/\1/p" "$dir/log")
  "$dir/explore" --replay "$schedule" 2>&1 | grep -Fqx "$(grep '^FAILED' "$dir/log")" ||
    { echo "FAILED  $2: its schedule does not replay"; return 1; }
}

# One by one, each in a process of its own, as many at once as there are CPUs.
if [ "$1" = --one ]; then
  out=$(try "$2" "$4" "$3") && status=passed || status=failed
  printf '%s\n' "$out"
  echo "$4 $status" >> "$2/mutants/outcome"
  exit 0
fi
dir=$1 compile=$2; shift 2
mkdir -p "$dir/mutants"; : > "$dir/mutants/outcome"
if [ $# = 0 ]; then set -- $(sed -n 's/^== //p' $table); fi
cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
printf '%s\n' "$@" | xargs -P "$cpus" -n 1 sh "$0" --one "$dir" "$compile"
passed=$(grep -c ' passed$' "$dir/mutants/outcome" || true)
echo "$passed passed, $(($# - passed)) failed"
[ "$passed" = $# ]
