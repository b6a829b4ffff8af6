#!/bin/sh
# Every atomic line in src/ says why its order is enough.   sh packaging/check-edges.sh [ROOT]
#
# The remark stands on the line itself, and is one of three:
#
#   // [sleep] P2      one end of a happens-before edge, which is drawn once, in a comment that
#                      starts with `// Edge [sleep]:`, and has at least two ends in the code;
#                      one read-modify-write can be both: `// [free] F1, F2`. The drawing names the
#                      rule of C++ that it rests on: `Rule: ...`
#   // ours alone      one thread writes the word, and that thread reads it here
#   // a hint; ...     a wrong answer is allowed, and the remark says who corrects it
set -eu
LC_ALL=C; export LC_ALL
cd "${1-$(dirname "$0")/..}"

find src -name '*.hpp' | sort | xargs ${AWK:-awk} '
  function refuse(where, what) { print where ": " what; bad++ }
  { where = FILENAME ":" FNR }
  open != "" && (!/^ *\/\// || /^ *\/\/ Edge/) {
    if (!ruled) refuse(drawn[open], "[" open "] is drawn without the rule that it rests on")
    open = ""
  }
  open != "" && /Rule:/ { ruled = 1 }
  /^ *\/\/ Edge \[[a-z-]+\]:/ {
    split($0, part, /[][]/); edge = part[2]
    if (edge in drawn) refuse(where, "[" edge "] is drawn at " drawn[edge] " already")
    else { drawn[edge] = where; drawings++; open = edge; ruled = /Rule:/ }
  }
  /^ *\/\// || !/memory_order_/ { next }
  {
    atomics++; edges = 0
    remark = index($0, "//") ? substr($0, index($0, "//")) : ""
    for (rest = remark; match(rest, /\[[a-z-]+\]/); edges++) {
      edge = substr(rest, RSTART + 1, RLENGTH - 2); rest = substr(rest, RSTART + RLENGTH)
      if (!cited[edge]++) first[edge] = where
      if (rest ~ /^ [A-Z][0-9]+, [A-Z][0-9]+/) cited[edge]++
    }
    if (edges) ends++
    else if (remark ~ /ours alone/) alone++
    else if (remark ~ /a hint/) hints++
    else refuse(where, "a memory order without [edge], `ours alone` or `a hint`")
  }
  END {
    for (edge in cited) if (!(edge in drawn)) refuse(first[edge], "[" edge "] is drawn nowhere")
    for (edge in drawn) if (cited[edge] < 2)
      refuse(drawn[edge], "[" edge "] has fewer than two ends in the code")
    printf "check-edges: %d atomic lines (%d on an edge, %d ours alone, %d a hint), ",
           atomics, ends, alone, hints
    printf "%d edges drawn, %d refused\n", drawings, bad
    exit bad > 0
  }'
