#!/bin/sh
# Sees to it that CXX finds <doctest/doctest.h>.   sh packaging/doctest.sh CXX [FOLDER]
#
# doctest comes from the system's packages and is not copied in. FOLDER gets a link to it and to nothing else: for
# a compiler whose system is not this one.
set -eu
cxx=${1-c++} folder=${2-}

here() { echo '#include <doctest/doctest.h>' | $cxx -E -x c++ - > /dev/null 2>&1; }
share() {
  [ -n "$folder" ] || exit 0
  mkdir -p "$folder"
  ln -sfn "$(echo '#include <doctest/doctest.h>' | $cxx -E -x c++ - | sed -n 's/.*"\(.*\)\/doctest\.h".*/\1/p' | head -1)" "$folder/doctest"
  exit 0
}
has() { command -v "$1" > /dev/null 2>&1; }
as_root() { if [ "$(id -u)" = 0 ] || ! has sudo; then "$@"; else sudo "$@"; fi; }

here && share
echo "doctest is not here; installing it" >&2
{
  if has apt-get; then
    # A fresh container has no package lists; a machine in use has, and then the update is spared.
    as_root apt-get install -y doctest-dev || {
      as_root apt-get update && as_root apt-get install -y doctest-dev
    }
  elif has dnf; then as_root dnf install -y doctest-devel
  elif has pacman; then as_root pacman -S --noconfirm doctest
  elif has apk; then as_root apk add doctest-dev
  elif has brew; then brew install doctest
  fi
} < /dev/null >&2 || true
here && share
echo "The tests need doctest: put <doctest/doctest.h> where $cxx looks for headers." >&2
exit 1
