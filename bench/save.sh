#!/bin/sh
# Keeps a run.   sh bench/save.sh FOLDER [--reps N] [--only TEXT]
#
# Writes bench/results/COMMIT-COMPILER-CPUSxMACHINE-DAY.json, and names it.
set -eu
programs=$1
compiler=$("$programs/head" --json | sed 's/.*"compiler": "\([^"]*\)".*/\1/' | tr -c 'a-z0-9.+\n' '-')
commit=$(git describe --always --dirty 2> /dev/null || echo no-commit)
cpus=$(getconf _NPROCESSORS_ONLN)x$(uname -m)
out=bench/results/$commit-$compiler-$cpus-$(date +%Y-%m-%d).json
mkdir -p bench/results
sh bench/run.sh "$@" --json > "$out.now" || { rm -f "$out.now"; exit 1; }
mv "$out.now" "$out"
echo "$out"
