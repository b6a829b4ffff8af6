#!/bin/sh
# A run as Markdown: a line for each row of ours, its median and its share of everybody else's.
#   sh bench/table.sh RUN.json
set -eu
[ -f "${1-}" ] || { echo "no run: make bench-save first, or name one with RUN=FILE" >&2; exit 1; }

awk '
  function text(key) { return match($0, "\"" key "\": \"[^\"]*\"") ? cut(length(key) + 5, 1) : "" }
  function number(key) { return match($0, "\"" key "\": [^,}]*") ? cut(length(key) + 4, 0) : "null" }
  function cut(from, end) { return substr($0, RSTART + from, RLENGTH - from - end) }
  function shown(x) { return x >= 100 ? sprintf("%.0f", x) : x >= 10 ? sprintf("%.1f", x) : sprintf("%.2f", x) }
  function share(r) { return r == "null" ? "-" : r < 0.01 ? sprintf("%.4f", r) : sprintf("%.2f", r) }
  function between(a, b) { return a == "null" ? "" : sprintf(" (%s to %s)", share(a), share(b)) }

  /"head":/ { gsub(/[{}]|"[a-z]*": |"/, ""); sub(/,$/, ""); print "    " $0 }
  text("kind") == "limit" { limit[text("family"), text("row")] = 1 }
  text("kind") == "ours" {
    family = text("family"); row = text("row")
    if (!(family in rows)) { order[++families] = family; unit[family] = text("unit"); of[family] = text("program") }
    line[family, ++rows[family]] = $0
  }
  END {
    split("libuv,Asio,libevent,libev,condvar + deque", rival, ",")
    for (f = 1; f <= families; f++) {
      family = order[f]
      if (of[family] != program) {
        program = of[family]
        print "\n| " program " | median | of libuv | of Asio | of libevent | of libev | of condvar + deque | of another |"
        print "|---|--:|--:|--:|--:|--:|--:|---|"
      }
      for (i = 1; i <= rows[family]; i++) {
        $0 = line[family, i]; row = text("row"); median = number("median")
        rest = $0; sub(/.*"against": \{/, "", rest)
        split("", ratio); others = ""
        while (match(rest, /"[^"]*": \[[^]]*\]/)) {
          one = substr(rest, RSTART, RLENGTH); rest = substr(rest, RSTART + RLENGTH)
          name = one; sub(/^"/, "", name); sub(/".*/, "", name)
          sub(/.*\[/, "", one); split(one, part, /[,\] ]+/)
          ratio[name] = part[1]
          bare = (family, name) in limit
          if (bare || (name ~ /^hybridloop/ && i == 1))
            others = others (others == "" ? "" : "; ") share(part[1]) (bare ? between(part[2], part[3]) : "") " of " name
        }
        sub(/^hybridloop,? ?/, "", row)
        printf "| %s%s | %s %s |", family, row == "" ? "" : ": *" row "*", median == "null" ? "-" : shown(median), unit[family]
        for (r = 1; r <= 5; r++) printf " %s |", rival[r] in ratio ? share(ratio[rival[r]]) : ""
        print " " others " |"
      }
    }
  }' "$1"
