#!/bin/sh
# Runs a program for Windows.   sh tests/wine.sh PROGRAM [ARGS...]
#
# In Wine, as Windows 10, in a prefix of its own in build/wine, which takes some 700 MB and 10 s to make. What the
# program says goes through a file: Wine's servers outlive it and would hold a pipe open.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
command -v wine > /dev/null || { echo "wine is not here; the package is called wine64, or wine"; exit 1; }
export WINEPREFIX="$here/build/wine" WINEDEBUG="${WINEDEBUG:--all}" WINEDLLOVERRIDES='mscoree,mshtml='
unset DISPLAY WAYLAND_DISPLAY
if [ ! -f "$WINEPREFIX/ready" ]; then
  mkdir -p "$WINEPREFIX"
  { wineboot -i && wine winecfg -v win10; } > "$WINEPREFIX.log" 2>&1 || { cat "$WINEPREFIX.log"; exit 1; }
  touch "$WINEPREFIX/ready"
fi
program=$1; shift
said=$(mktemp); trap 'rm -f "$said"' EXIT
status=0; wine "$program" "$@" > "$said" 2>&1 || status=$?
grep -v '^it looks like wine32\|^multiarch needs\|^execute "dpkg\|^wine32:i386' "$said" || true
exit $status
