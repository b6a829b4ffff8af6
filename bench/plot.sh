#!/bin/sh
# Draws a run: an SVG for each program, a panel for each table.   sh bench/plot.sh RUN.json
#
# Writes bench/results/PROGRAM.svg. Bars are medians, whiskers the least and the most; a panel whose
# figures lie more than ten times apart is logarithmic.
set -eu
run=${1-}
[ -f "$run" ] || { echo "no run: make bench-save first, or name one with RUN=FILE" >&2; exit 1; }
has() { command -v "$1" > /dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ] || ! has sudo; then "$@"; else sudo "$@"; fi; }

if ! has gnuplot; then
  echo "gnuplot is not here; installing it" >&2
  {
    if has apt-get; then
      as_root apt-get install -y gnuplot-nox || { as_root apt-get update && as_root apt-get install -y gnuplot-nox; }
    elif has dnf; then as_root dnf install -y gnuplot
    elif has pacman; then as_root pacman -S --noconfirm gnuplot
    elif has apk; then as_root apk add gnuplot
    elif has brew; then brew install gnuplot
    fi
  } < /dev/null >&2 || true
  has gnuplot || { echo "The plots need gnuplot: install it." >&2; exit 1; }
fi

mkdir -p bench/results
for program in $(sed -n 's/.*"program": "\([a-z]*\)".*/\1/p' "$run" | awk '!seen[$0]++'); do
  out=bench/results/$program.svg
  rm -f "$out"
  awk -v program="$program" -v out="$out" "$(cat bench/rows.awk)"'
    function shown(x) { return x >= 1000 ? sprintf("%.0f", x) : x >= 10 ? sprintf("%.1f", x) : sprintf("%.2f", x) }

    /"head":/ { title = text("library") " (" text("commit") ")   " text("compiler") "   " text("cpu") ", " text("cores") "   " text("kernel") "   " text("repetitions") }
    text("program") == program {
      family = text("family")
      if (!(family in rows)) { order[++panels] = family; unit[family] = text("unit") }
      n = ++rows[family]
      name[family, n] = text("row"); kind[family, n] = text("kind")
      median[family, n] = number("median") + 0
      least[family, n] = number("min") + 0
      most[family, n] = number("max") + 0
      if (n > tallest) tallest = n
    }
    # A column of names, the bars, and a column of figures at the right edge.
    function panel(family,   n, i, low, high, logarithmic, colour, base, top, room, thick) {
      n = rows[family]; low = 1e300; high = 0; thick = 0.36 * (n + 1) / (tallest + 1)
      for (i = 1; i <= n; i++) {
        if (median[family, i] > 0 && median[family, i] < low) low = median[family, i]
        if (median[family, i] > high) high = median[family, i]
      }
      logarithmic = high > 0 && high / low > 10
      base = logarithmic ? 10 ^ int(log(low / 2) / log(10) - (low < 2 ? 1 : 0)) : 0
      room = logarithmic ? high * (high / base) ^ 0.12 : high * 1.15   # whiskers end here at the latest
      top = logarithmic ? high * (high / base) ^ 0.32 : high > 0 ? high * 1.4 : 1
      print "$data << END"
      for (i = 1; i <= n; i++) {
        colour = kind[family, i] == "ours" ? (i == 1 ? 1926588 : 7118812) : kind[family, i] == "rival" ? 11909820 : 14721868
        printf "%d %g %g %g %d \"%s\" \"%s\"\n", n - i, between(base, median[family, i], top),
               between(base, least[family, i], room), between(base, most[family, i], room), colour,
               name[family, i], shown(median[family, i])
      }
      print "END"
      printf "set label 1 \"%s  (%s)\" at graph 0, 1.0 offset -16, 0.9 left font \",12\" noenhanced\n", family, unit[family]
      print logarithmic ? "set logscale x 10" : "unset logscale x"
      printf "set format x \"%s\"\n", (high > 5000 ? "%.0s%c" : "%g")
      printf "set xrange [%g:%g]\nset yrange [-0.7:%g]\n", base, top, n - 0.3
      printf "plot $data using (%g):1:(%g):2:($1-%g):($1+%g):5:ytic(6) with boxxyerror fs solid noborder lc rgb variable, ", base, base, thick, thick
      printf "$data using 2:1:3:4 with xerrorbars pt -1 lw 1 lc rgb \"#60404040\", "
      printf "$data using (%g):1:7 with labels right offset -0.5, 0 font \",10\" tc rgb \"#202020\"\n", top
      print "unset label"
    }
    function between(a, x, b) { return x < a ? a : x > b ? b : x }
    END {
      columns = panels > 1 ? 2 : 1
      lines = int((panels + columns - 1) / columns)
      names = 230; bars = 330; gap = 66; bar = 20; above = 76
      width = columns * (names + bars + 16); height = above + lines * (tallest * bar + gap)
      printf "set terminal svg size %d,%d dynamic font \"Helvetica,11\" background rgb \"white\"\n", width, height
      printf "set output \"%s\"\n", out
      print "set border 1 lc rgb \"#808080\"; set tics nomirror out scale 0.4; set ytics noenhanced; unset key"
      print "set grid xtics lc rgb \"#e4e4e4\" lt 1"
      printf "set multiplot layout %d,%d margins screen %g,%g,%g,%g spacing screen %g,%g\n", lines, columns,
             names / width, 1 - 16 / width, (gap - 30) / height, 1 - above / height, (names + 16) / width, gap / height
      printf "set label 2 \"%s\" at screen 0.5, %g center font \",13\" noenhanced\n", title, 1 - 24 / height
      for (p = 1; p <= panels; p++) panel(order[p])
      print "unset multiplot"
    }' "$run" | gnuplot
  [ -s "$out" ] || exit 1
  echo "$out"
done
