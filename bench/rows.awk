# rows.awk - reads a line of a run: its fields, and what its median is against each other row of its table
function text(key) { return match($0, "\"" key "\": \"[^\"]*\"") ? cut(length(key) + 5, 1) : "" }
function number(key) { return match($0, "\"" key "\": [^,}]*") ? cut(length(key) + 4, 0) : "null" }
function cut(from, end) { return substr($0, RSTART + from, RLENGTH - from - end) }

# One line of all that the head says.
function head(   all) { all = $0; gsub(/[{}]|"[a-z]*": |"/, "", all); sub(/,$/, "", all); return all }

# name[i], ratio[i], and the 95 % interval low[i] to high[i], of the i-th of so many others.
function others(name, ratio, low, high,   rest, one, part, n) {
  rest = $0; sub(/.*"against": \{/, "", rest)
  for (n = 0; match(rest, /"[^"]*": \[[^]]*\]/); rest = substr(rest, RSTART + RLENGTH)) {
    one = substr(rest, RSTART, RLENGTH)
    name[++n] = one; sub(/^"/, "", name[n]); sub(/".*/, "", name[n])
    sub(/.*\[/, "", one); split(one, part, /[,\] ]+/)
    ratio[n] = part[1]; low[n] = part[2]; high[n] = part[3]
  }
  return n
}
