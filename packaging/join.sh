#!/bin/sh
# hybridloop.hpp from the parts in src/, and back.   sh packaging/join.sh join|split|check [ROOT]
#
# In sh and awk, which a bare Debian, macOS and MSYS all have; python3 is not on a bare Debian.
# No date, host or commit goes in: the same src/ gives the same bytes everywhere.
#
# A part is a title line, `// ingress/ring.hpp - many threads publish, the loop thread drains.`,
# then `#pragma once`, a preamble of blank lines and includes, and the body, which is all the rest.
# The spine, src/hybridloop.hpp, is copied as it is, but for three kinds of line:
#
#   #include "ingress/ring.hpp"    becomes the body of that part, byte for byte, between markers
#   // @includes                   becomes the <...> of all preambles; a body keeps its own
#   //   @contents                 becomes the parts of each folder, in order
set -eu; LC_ALL=C; export LC_ALL  # bytes, and one order of sorting
verb=${1-}; cd "${2-$(dirname "$0")/..}"
out=$(mktemp); trap 'rm -f "$out"' EXIT

# Prints the joined header; given that file as well, carries its bodies to the parts instead.
# What is refused is named on stderr, and then nothing is written.
parts() {
  newer=$([ $# = 0 ] || find src -name '*.hpp' -newer "$1" | tr '\n' ' ')
  find src -name '*.hpp' | ${AWK:-awk} -v BINMODE=3 -v newer=" $newer" '
    function refuse(file, line, what) { print file ":" line ": " what > "/dev/stderr"; bad = 1 }
    function folder(path) { sub("/.*", "", path); return path }
    function quoted(line) { split(line, piece, "\""); return piece[2] }
    function inspect(file, n, line) {
      if (line ~ /[^ -~]| $/) refuse(file, n, "a tab, a CR, a trailing blank or not ASCII")
    }
    function lean(mine, its, on, file, n) {  # may a part in folder `mine` include `on`?
      if (!(("src/" on) in exists)) refuse(file, n, "missing part: " on)
      else if (floor[its] > floor[mine]) refuse(file, n, "upward include: " on)
      else if (floor[its] == floor[mine] && its != mine) refuse(file, n, "sister include: " on)
      else if (!(on in body)) refuse(file, n, "wrong order: the spine lists " on " later or never")
    }
    function take(path, file, at,   line, n, text) {
      if (listed[path]++) return refuse(FILENAME, at, "listed twice: " path)
      if (!(file in exists)) return refuse(FILENAME, at, "missing part: " path)
      if (!(folder(path) in floor)) return refuse(FILENAME, at, "no floor is known for " path)
      while ((getline line < file) > 0) {
        inspect(file, ++n, line)
        if (n == 1) title[path] = substr(line, length(path) + 7)
        if (n > 2 && line !~ /^$|^#include (<[^>]+>|"[^"]+")/) text = 1
        if (text && line ~ /^ *# *include *"/) refuse(file, n, "a quoted include in the body")
        if (text) code[path] = code[path] line "\n"; else head[path] = head[path] line "\n"
        if (n > 2 && !text && match(line, /<[^>]+>/)) std[substr(line, RSTART, RLENGTH)]
        else if (n > 2 && !text && line != "") lean(folder(path), folder(quoted(line)), quoted(line), file, n)
      }
      close(file); body[path] = code[path]
      split(path, word, /[\/.]/); fresh = word[1] == room ? "" : (room = word[1]) "/"
      if (fresh || length(row word[2]) > 98) { contents = contents row "\n"; row = "" }
      row = (row ? row : sprintf("//   %-8s", fresh)) " " word[2]
      if (!title[path] || index(head[path], "// " path " - " title[path] "\n#pragma once\n") != 1)
        refuse(file, 1, "opens with `// " path " - title`, then `#pragma once`; prose is body")
    }
    BEGIN {
      n = split("base task wait poller ingress timer watch loop sync coro", name)
      for (split("0 1 1 2 2 2 3 4 5 6", at); n; n--) floor[name[n]] = at[n]
    }
    what == "files" { if ($0 != "src/hybridloop.hpp") exists[$0]; next }
    what == "spine" {
      inspect(FILENAME, FNR, $0); spine[lines = FNR] = $0
      if (/^ *# *include *"/) take(part[FNR] = quoted($0), "src/" quoted($0), FNR)
      next
    }
    open && $0 == "// <<< " open { open = ""; next }
    /^\/\/ (>>>|<<<) / {
      if (open || !($3 in body)) refuse(FILENAME, FNR, "no part can take this: " $0)
      edited[open = $3] = ""; next
    }
    open { edited[open] = edited[open] $0 "\n" }
    END {
      for (file in exists) if (!listed[substr(file, 5)]) refuse(file, 1, "orphan: not in the spine")
      for (path in edited) if (edited[path] != body[path] && index(newer, " src/" path " "))
        refuse("src/" path, 1, "changed after " FILENAME ", so a split would undo that change")
      if (open) refuse(FILENAME, FNR, "no end marker: " open)
      if (bad) exit 1
      for (path in edited) if (edited[path] != body[path]) {
        file = "src/" path; print "split: " file
        printf "%s%s", head[path], edited[path] > file; close(file)
      }
      for (i = 1; i <= lines && what == "spine"; i++)
        if (i in part) {
          print ((i - 1) in part ? "\n" : "") "// >>> " part[i] " - " title[part[i]]
          printf "%s// <<< %s\n", body[part[i]], part[i]
        } else if (spine[i] == "// @includes") {
          fflush(); for (header in std) print "#include " header | "sort"; close("sort")
        } else if (spine[i] == "//   @contents") print substr(contents row, 2)
        else print spine[i]
    }' what=files - what=spine src/hybridloop.hpp ${1:+what=joined "$1"}
}

case $verb in
  join) parts > "$out"; cmp -s "$out" hybridloop.hpp || cat "$out" > hybridloop.hpp; exit ;;
  split) parts hybridloop.hpp; why='no part holds these lines: edit src/ and run `make join`' ;;
  check) why='stale hybridloop.hpp: run `make join`, or `make split` if you edited that file' ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
parts > "$out"
cmp -s "$out" hybridloop.hpp || { diff hybridloop.hpp "$out" | head; echo "$why"; exit 1; } >&2
