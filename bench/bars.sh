#!/bin/sh
# How a run stands against its bars.   sh bench/bars.sh RUN.json
#
# A line for each bar: met or missed, figure, bound. A ratio of medians; where a bar asks for the lower
# end of the 95 % interval and the run has fewer than 21 repetitions, the ratio, marked with "~".
set -eu
[ -f "${1-}" ] || { echo "no run: make bench-save first, or name one with RUN=FILE" >&2; exit 1; }

awk "$(cat bench/rows.awk)"'
  /"head":/ { title = head(); cores = text("cores") + 0 }
  /"family":/ {
    family = text("family"); row = text("row")
    median[family, row] = number("median")
    allocated[family, row] = number("allocations")
    if (!(family in seen)) { seen[family] = 1; families[++count] = family; first[family] = row }
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

  # ---- Semaphores and condvars: what is meant by default is the first row of a table ----

  function say_least(what, figure, bound) {
    if (figure == "" || figure == "null") { absent++; printf "  %-8s %9s          %s\n", "-", "-", what; return }
    figure += 0; verdict = figure >= bound ? "met" : "missed"; tally[verdict]++
    printf "  %-8s %9.3f  >= %-6g %s\n", verdict, figure, bound, what
  }
  # Hoped for, and not a bar.
  function report(what, figure, hope) {
    if (figure != "") printf "  %-8s %9.3f  hope %-4g %s\n", "figure", figure, hope, what
  }
  function had(family, row) { return ((family, row) in median) && median[family, row] != "null" }
  function against_semaphores(what, family, ours,   b) {
    b = best(family, semaphores)
    say(what " / the best rival" (b == "null" ? "" : " (" best_name ")"), b == "null" || !had(family, ours) ? "" : median[family, ours] / b, 1, "")
  }
  function loss(family, row,   with) {
    with = row ", busy neighbour"
    return had(family, row) && had(family, with) ? median[family, with] / median[family, row] : ""
  }
  function loss_bar(family, ours,   theirs, mine) {
    best(family, semaphores); theirs = loss(family, best_name); mine = loss(family, ours)
    if (mine != "" && mine < 1) mine = 1  # who was faster beside it has lost nothing
    if (theirs != "" && theirs < 1) theirs = 1
    say(family ": loss of " ours " / of " best_name, mine == "" || theirs == "" ? "" : mine / theirs, 1.5, "")
  }
  # How many times the throughput, over all tables whose threads are at least four.
  function times_faster(new, old,   i, f, n, sum, threads) {
    for (i = 1; i <= count; i++) {
      f = families[i]; threads = f; sub(/.*threads: /, "", threads)
      if (f !~ /^queue: .*threads: / || threads + 0 < 4 || !had(f, new) || !had(f, old)) continue
      sum += log(median[f, old] / median[f, new]); n++
    }
    return n ? exp(sum / n) : ""
  }
  function most_allocated(row,   i, f, most) {
    most = ""
    for (i = 1; i <= count; i++) {
      f = families[i]
      if (f ~ /^queue: / && (f, row) in allocated && allocated[f, row] != "null" && (most == "" || allocated[f, row] + 0 > most)) most = allocated[f, row] + 0
    }
    return most
  }
  function sync_bars(   f, i, d, words) {
    semaphores = "std::counting_semaphore;sem_t;LightweightSemaphore;std::mutex + condvar;std::mutex + deque, first come;nsync;Abseil"
    f = "semaphore: uncontended, acquire + release"; d = first[f]
    say(f ": by default / phase 0, or 1 ns more", ratio[f, d, "hybridloop phase 0"] == "" ? (d == "hybridloop phase 0" ? 1 : "") : ratio[f, d, "hybridloop phase 0"],
        had(f, "hybridloop phase 0") && 1 / median[f, "hybridloop phase 0"] > 0.03 ? 1 + 1 / median[f, "hybridloop phase 0"] : 1.03, "")
    against(f, f, d, "two bare read-modify-writes", 1.25)
    against_semaphores(f, f, d)
    for (i = 1; i <= count; i++) {
      f = families[i]; d = first[f]; split(f, words, " ")
      if (f ~ /^semaphore: [0-9]+ threads, [0-9]+ permit/ && f !~ /Jain/ && words[2] + 0 > words[4] + 0) {
        against_semaphores(f ": barging", f, d ", barging")
        against(f ": fifo", f, d, "std::mutex + deque, first come", 1)
        # With a permit for each core nobody waits but for who was preempted: that is as even as the scheduler.
        if (words[4] + 0 < cores) say_least(f ": fifo, Jain index", median[f ": Jain index", d], 0.95)
        else report(f ": fifo, Jain index", median[f ": Jain index", d], 0.95)
      }
      if (f ~ /^semaphore: busy neighbour/) { loss_bar(f, d); loss_bar(f, d ", barging") }
      if (f ~ /^condvar: a buffer/ || f == "condvar: notify_all of 64 threads") against(f, f, d, "std::condition_variable", 1)
    }
    f = "semaphore: hand-off, thread to thread"
    against(f, f, first[f], "LightweightSemaphore", 2)
    say_least("queue: phase 1, times the throughput of phase 0, 4 threads and more", times_faster("hybridloop phase 1", "hybridloop phase 0"), 1.15)
    report("queue: phase 2, times the throughput of phase 1, 4 threads and more", times_faster("hybridloop phase 2", "hybridloop phase 1"), 1.3)
    report("queue: phase 3, times the throughput of phase 0, 4 threads and more", times_faster("hybridloop phase 3", "hybridloop phase 0"), 1.8)
    say("queue: phase 3, allocations at the most", most_allocated("hybridloop phase 3"), 0, "")
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
    sync_bars()
    printf "\n%d met, %d missed, %d not in this run\n", tally["met"], tally["missed"], absent
  }' "$1"
