#!/bin/sh
# How a run stands against its bars.   sh bench/bars.sh RUN.json
#
# A line for each bar: met or missed, figure, bound. A ratio of medians; where a bar asks for the lower
# end of the 95 % interval and the run has fewer than 21 repetitions, the ratio, marked with "~".
set -eu
[ -f "${1-}" ] || { echo "no run: make bench-save first, or name one with RUN=FILE" >&2; exit 1; }

awk "$(cat bench/rows.awk)"'
  /"head":/ { title = head() }
  /"family":/ {
    family = text("family"); row = text("row")
    median[family, row] = number("median")
    allocated[family, row] = number("allocations")
    if (!(family in seen)) { seen[family] = 1; families[++count] = family }
    for (i = others(name, r, l, h); i != 0; i--) { ratio[family, row, name[i]] = r[i]; low[family, row, name[i]] = l[i] }
  }

  function say(what, figure, bound, mark) {
    if (figure == "" || figure == "null") { absent++; printf "  %-8s %9s          %s\n", "-", "-", what; return }
    figure += 0; verdict = figure <= bound ? "met" : "missed"; tally[verdict]++
    printf "  %-8s %9.3f%1s <= %-6g %s\n", verdict, figure, mark, bound, what
  }
  function against(what, family, ours, other, bound) {
    say(what " / " other, ratio[family, ours, other], bound, "")
  }
  function at_least(what, family, ours, other, bound,   l) {
    l = low[family, ours, other]
    if (l == "" || l == "null") say(what " / " other, ratio[family, ours, other], bound, "~")
    else say(what " / " other ", lower 95 % bound", l, bound, "")
  }
  function best(family, names,   i, n, b, m) {
    b = "null"
    n = split(names, rivals, ";")
    for (i = 1; i <= n; i++) {
      m = median[family, rivals[i]]
      if (m != "" && m != "null" && (b == "null" || m + 0 < b + 0)) { b = m; best_name = rivals[i] }
    }
    return b
  }
  function against_best(what, family, bound, ours, names,   b, m) {
    b = best(family, names); m = median[family, ours]
    say(what " / the best of libuv, Asio, libevent" (b == "null" ? "" : " (" best_name ")"), b == "null" || m == "" ? "" : m / b, bound, "")
  }
  # A delay counts from now or from the turn for all of them alike.
  function timer_bars(what, family) {
    against_best("timers: " what ", 200 k live, from now", family, 0.35, "hybridloop", "libuv, from now;Asio;libevent, from now")
    against_best("timers: " what ", 200 k live, from the turn", family, 0.35, "hybridloop, from the turn", "libuv;libevent")
  }

  END {
    print title "\n"
    ours = "hybridloop"; lane = "hybridloop lane"; lent = "hybridloop invoke, caller_runs"
    f = "PingPong"
    against("PingPong, post", f, ours, "libuv", 0.45)
    against("PingPong, post", f, ours, "Asio", 0.07)
    against("PingPong, lane", f, lane, "libuv", 0.25)
    f = "PingPongLatency, waiter spins"
    against(f, f, ours, "a bare cache line", 1.3)
    against(f, f, ours, "Asio", 0.15)
    f = "PingPongLatency, waiter blocks"
    against(f, f, ours, "Asio", 0.2)
    against(f, f, ours, "libuv", 0.2)
    against("invoke, caller_runs", "invoke, back to back", lent, "Asio", 0.005)
    f = "MultiProducer, 10 producers"
    against(f, f, ours, "libuv", 1)
    against(f, f, ours, "Asio", 0.3)

    f = "allocation pressure"; bare = "bare malloc + free of the block"; figure = ""
    if ((f, ours) in median && (f, "libuv") in median && (f, bare) in median && median[f, "libuv"] > median[f, bare])
      figure = (median[f, ours] - median[f, bare]) / (median[f, "libuv"] - median[f, bare])
    say(f ", the block subtracted / libuv", figure, 0.6, "")
    figure = allocated[f, ours]
    if (figure != "" && figure != "null") figure = figure - allocated[f, bare]
    say(f ", allocations by the library per task", figure, 0.0005, "")

    for (i = 1; i <= count; i++) {
      f = families[i]
      if (f ~ /^wake: parked, nothing/) at_least(f, f, ours, "a bare futex wake", 1.1)
      if (f ~ /^wake: parked, one idle/) at_least(f, f, ours, "a bare eventfd + epoll", 1.1)
    }
    timer_bars("cancel + add", "timers: cancel one of many, arm another, 200000 live")
    timer_bars("add + cancel", "timers: arm, cancel at once, 200000 live")
    timer_bars("add + fire", "timers: arm, fire, 200000 live")
    split("1 token,50 tokens", tokens, ",")
    for (i = 1; i <= 2; i++) {
      f = "descriptors: 100 socket pairs, " tokens[i]
      at_least(f, f, ours, "a bare epoll loop", 1.05)
      against_best(f, f, 1, ours, "libuv;Asio;libevent")
    }
    for (i = 1; i <= count; i++) if (families[i] ~ /^cost: compile time/) against(families[i], families[i], ours, "Asio", 0.35)
    split("spins,blocks", waiter, ",")
    for (i = 1; i <= 2; i++) {
      f = "policies: PingPongLatency, waiter " waiter[i]
      against(f ": full", f, ours, "hybridloop off", 0.2)
    }
    for (i = 1; i <= count; i++) if (families[i] ~ /^policies: /) at_least(families[i] ": full", families[i], ours, "hybridloop off", 1)
    printf "\n%d met, %d missed, %d not in this run\n", tally["met"], tally["missed"], absent
  }' "$1"
