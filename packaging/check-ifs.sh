#!/bin/sh
# No function in src/ contains `#if`.   sh packaging/check-ifs.sh [ROOT]
#
# Where two kernels need different steps, they are two functions of one name in two files.
#
# A brace is taken for a function's unless the words before it name a namespace, class, struct,
# union or enum and, angle brackets left out, have no parenthesis. Coarse, but wrong only about code
# at which a reader has to look twice as well.
set -eu
LC_ALL=C; export LC_ALL
cd "${1-$(dirname "$0")/..}"

find src -name '*.hpp' | sort | xargs ${AWK:-awk} '
  function is_scope(words) {
    gsub(/alignas *\([^()]*\)/, "", words)
    while (gsub(/<[^<>]*>/, "", words)) {}
    if (words ~ /[()]/) return 0
    return words ~ /(^|[^a-z_])(namespace|class|struct|union|enum|extern)([^a-z_]|$)/
  }
  FNR == 1 { depth = inside = ifs = 0; words = ""; comment = continued = 0 }
  {
    code = $0
    directive = continued || !comment && code ~ /^ *#/
    if (directive) {
      starts = !continued; continued = code ~ /\\$/
      if (!starts) next
      if (code ~ /^ *# *if/) {
        if (inside) { print FILENAME ":" FNR ": a conditional in a function"; bad++ }
        at[++ifs] = depth; in_function[ifs] = inside; seen++
      }
      # Both branches may open the same brace; it is one brace.
      if (code ~ /^ *# *el/) { depth = at[ifs]; inside = in_function[ifs] }
      if (code ~ /^ *# *endif/) ifs--
      next
    }
    gsub(/\047(\\.|[^\\\047])\047/, "0", code)
    gsub(/"(\\.|[^\\"])*"/, "0", code)
    gsub(/\/\*([^*]|\*[^\/])*\*\//, "", code)
    if (comment) { if (!sub(/^.*\*\//, "", code)) next; comment = 0 }
    if (sub(/\/\*.*/, "", code)) comment = 1
    sub(/\/\/.*/, "", code)
    n = length(code); words = words " "
    for (i = 1; i <= n; i++) {
      c = substr(code, i, 1)
      if (c == "{") { if (!(kind[++depth] = is_scope(words))) inside++; words = "" }
      else if (c == "}") { if (depth && !kind[depth--]) inside--; words = "" }
      else if (c == ";") words = ""
      else words = words c
    }
  }
  END { printf "check-ifs: %d conditionals, %d in a function\n", seen, bad; exit bad > 0 }'
