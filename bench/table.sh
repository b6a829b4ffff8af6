#!/bin/sh
# A run as Markdown: a line for each row of ours, its median and its share of everybody else's.
#   sh bench/table.sh RUN.json
set -eu
[ -f "${1-}" ] || { echo "no run: make bench-save first, or name one with RUN=FILE" >&2; exit 1; }

awk "$(cat bench/rows.awk)"'
  function shown(x) { return x >= 100 ? sprintf("%.0f", x) : x >= 10 ? sprintf("%.1f", x) : sprintf("%.2f", x) }
  function share(r) { return r == "null" ? "-" : r < 0.01 ? sprintf("%.4f", r) : sprintf("%.2f", r) }
  function between(a, b) { return a == "null" ? "" : sprintf(" (%s to %s)", share(a), share(b)) }

  /"head":/ { print "    " head() }
  text("kind") == "limit" { limit[text("family"), text("row")] = 1 }
  text("kind") == "ours" {
    family = text("family"); row = text("row")
    if (!(family in rows)) { order[++families] = family; unit[family] = text("unit"); of[family] = text("program") }
    line[family, ++rows[family]] = $0
  }
  END {
    all_rivals[""] = "libuv;Asio;libevent;libev;condvar + deque"
    all_rivals["permits"] = "std::counting_semaphore;sem_t;LightweightSemaphore;std::mutex + condvar;std::mutex + deque, first come;nsync;Abseil"
    all_rivals["queues"] = "hybridloop phase 0"
    all_rivals["condvars"] = "std::condition_variable;nsync;Abseil"
    for (f = 1; f <= families; f++) {
      family = order[f]
      if (of[family] != program) {
        program = of[family]
        rivals = split(all_rivals[program in all_rivals ? program : ""], rival, ";")
        printf "\n| %s | median |", program
        for (r = 1; r <= rivals; r++) printf " of %s |", rival[r]
        printf " of another |\n|---|--:|"
        for (r = 1; r <= rivals; r++) printf "--:|"
        print "---|"
      }
      for (i = 1; i <= rows[family]; i++) {
        $0 = line[family, i]; row = text("row"); median = number("median")
        split("", share_of); against = ""
        count = others(name, ratio, low, high)
        for (o = 1; o <= count; o++) {
          share_of[name[o]] = ratio[o]
          bare = (family, name[o]) in limit
          if (bare || (name[o] ~ /^hybridloop/ && i == 1))
            against = against (against == "" ? "" : "; ") share(ratio[o]) (bare ? between(low[o], high[o]) : "") " of " name[o]
        }
        sub(/^hybridloop,? ?/, "", row)
        printf "| %s%s | %s %s |", family, row == "" ? "" : ": *" row "*", median == "null" ? "-" : shown(median), unit[family]
        for (r = 1; r <= rivals; r++) printf " %s |", rival[r] in share_of ? share(share_of[rival[r]]) : ""
        print " " against " |"
      }
    }
  }' "$1"
