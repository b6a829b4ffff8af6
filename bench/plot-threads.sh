#!/bin/sh
# Draws throughput over threads, from a run with queues and permits.   sh bench/plot-threads.sh RUN.json
#
# Writes bench/results/threads.svg: the phases' queues by themselves, and semaphores of one permit. Points are
# medians; a table that is not in the run is a point that is not there. Needs gnuplot, as bench/plot.sh does.
set -eu
run=${1-}
[ -f "$run" ] || { echo "no run: make bench-save first, or name one with RUN=FILE" >&2; exit 1; }
command -v gnuplot > /dev/null 2>&1 || { echo "The plots need gnuplot: install it." >&2; exit 1; }

mkdir -p bench/results
out=bench/results/threads.svg
rm -f "$out"
awk -v out="$out" "$(cat bench/rows.awk)"'
  function threads_of(family,   n) {
    n = family
    if (family ~ /^queue: 50 % wait, 50 % release, 0 % cancel, threads: [0-9]+$/) { sub(/.*: /, "", n); return n }
    if (family ~ /^semaphore: [0-9]+ threads, 1 permit$/) { sub(/^semaphore: /, "", n); return n + 0 }
    return 0
  }
  /"head":/ { title = text("library") " (" text("commit") ")   " text("compiler") "   " text("cpu") ", " text("cores") "   " text("repetitions") }
  text("kind") != "limit" && number("median") + 0 > 0 {
    threads = threads_of(text("family")) + 0
    if (threads < 2 || threads > 64) next
    panel = text("program"); row = text("row")
    if (!((panel, row) in points)) { name[panel, ++rows[panel]] = row; kind[panel, row] = text("kind") }
    points[panel, row] = points[panel, row] sprintf("%d %g\n", threads, 1000 / number("median"))
  }
  # Ours: a colour for each phase, dashed where it is barging. Rivals: thin, and greys.
  function style(panel, row,   phase) {
    if (kind[panel, row] != "ours") {
      grey = (grey + 1) % 9
      return sprintf("lw 1.2 lc rgb \"#%s\" dt %d pt %d ps 0.4", substr("787878989898b0b0b0606060c0a080a08060806040507050a07890", grey * 6 + 1, 6), 1 + grey % 5, 4 + grey)
    }
    phase = row; sub(/^hybridloop phase /, "", phase)
    return sprintf("lw 2.4 lc rgb \"#%s\" dt %d pt 7 ps 0.5", substr("7f7f7f1d65bc2ca02cd62728", phase * 6 + 1, 6), row ~ /barging/ ? 2 : 1)
  }
  function draw(panel, heading,   i, row, plots) {
    if (!rows[panel]) return
    grey = 0
    for (i = 1; i <= rows[panel]; i++) {
      row = name[panel, i]
      printf "$%s%d << END\n%sEND\n", panel, i, points[panel, row]
      plots = plots (i == 1 ? "plot " : ", ") sprintf("$%s%d using 1:2 smooth unique with linespoints %s title \"%s\" noenhanced", panel, i, style(panel, row), row)
    }
    printf "set title \"%s\" noenhanced font \",12\"\n%s\n", heading, plots
  }
  END {
    panels = (rows["queues"] > 0) + (rows["permits"] > 0)
    if (!panels) { print "threads.svg: no such table in this run" > "/dev/stderr"; exit }
    printf "set terminal svg size %d,%d dynamic font \"Helvetica,11\" background rgb \"white\"\n", 880, 350 * panels + 30
    printf "set output \"%s\"\n", out
    print "set border 3 lc rgb \"#808080\"; set tics nomirror out scale 0.4; set grid lc rgb \"#e4e4e4\" lt 1"
    print "set logscale x 2; set logscale y 10; set xtics (2, 4, 8, 16, 32, 64); set xrange [1.8:72]; set xlabel \"threads\" offset 0,0.4; set ylabel \"million operations a second\""
    print "set key at graph 1.03, 1.02 left top vertical maxcols 1 Left reverse samplen 2.5 spacing 1.0 font \",10\""
    printf "set label 1 \"%s\" at screen 0.5, screen 0.975 center font \",10\" noenhanced\n", title
    printf "set multiplot layout %d,1 margins screen 0.08,0.59,%g,%g spacing screen 0,%g\n", panels, 0.16 / panels, 1 - 0.18 / panels, 0.25 / panels
    draw("queues", "A queue by itself: half wait, half release")
    draw("permits", "A semaphore of one permit, acquire + release")
    print "unset multiplot"
  }' "$run" | gnuplot
[ ! -s "$out" ] || echo "$out"
