# From `llvm-cov show -show-branches=count`: what of src/ was never reached, and is not named in NAMED.
#
# Counts are summed over all instantiations of a template. A branch is `true` or `false`: the side
# that a condition never took. Whether a compare-exchange fails is chance, and explore/ sees to it.
function trimmed(s) { gsub(/^[ \t]+|[ \t]+$/, "", s); return s }
function miss(file, line, what,    text, key) {
  text = trimmed(source[file, line])
  if (text == "}" || text ~ /compare_exchange|change\(/) return
  key = file " | " what " | " text
  missed[key] = 1
  if (key in named) return
  if (!told[key]++) print "not reached: " key
  bad++
}
FILENAME == NAMED {
  if (/^#/ || !NF) next
  if (split($0, part, / \| /) < 4) { print "not FILE | WHAT | SOURCE | REASON: " $0; bad++; next }
  named[trimmed(part[1]) " | " trimmed(part[2]) " | " trimmed(part[3])] = 1
  next
}
/^\/.*:$/ { file = $0; sub(/:$/, "", file); sub(/^.*\/src\//, "", file); next }
match($0, /Branch \([0-9]+:[0-9]+\): \[True: [0-9.kMGTE]+, False: [0-9.kMGTE]+\]/) {
  split(substr($0, RSTART, RLENGTH), part, /[(:), \]]+/)
  key = file SUBSEP part[2] SUBSEP part[3]
  if (!(key in yes)) branch[++branches] = key
  yes[key] += part[5] != "0"; no[key] += part[7] != "0"
  next
}
match($0, /^ *[0-9]+\| *[0-9.kMGTE]*\|/) {
  split($0, part, "|"); line = part[1] + 0; count = trimmed(part[2])
  source[file, line] = substr($0, RLENGTH + 1)
  if (count == "") next
  if (!((file, line) in runs)) lines[++all] = file SUBSEP line
  runs[file, line] += count != "0"
}
END {
  for (i = 1; i <= all; i++) { split(lines[i], part, SUBSEP); if (!runs[lines[i]]) { miss(part[1], part[2], "line"); dark++ } }
  for (i = 1; i <= branches; i++) {
    split(branch[i], part, SUBSEP)
    if (!yes[branch[i]]) { miss(part[1], part[2], "true"); sides++ }
    if (!no[branch[i]]) { miss(part[1], part[2], "false"); sides++ }
  }
  for (key in named) {
    split(key, part, / \| /); found = 0
    for (at in source) if (index(at, part[1] SUBSEP) == 1 && trimmed(source[at]) == part[3]) found = 1
    if (!found) { print "named, but not there: " key; bad++ }
    known += key in missed
  }
  printf "coverage: %d of %d lines (%.1f %%), %d of %d branches (%.1f %%); %d places named in tests/uncovered.txt, %d unnamed\n",
         all - dark, all, 100 * (all - dark) / all, 2 * branches - sides, 2 * branches, 100 - 50 * sides / branches, known, bad
  exit bad > 0
}
