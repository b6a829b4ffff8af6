#!/bin/sh
# The flags for the rivals that are on this machine.   sh packaging/rivals.sh CXX
#
# For example: -DHAVE_LIBUV=1 -DHAVE_LIBEV=1 -luv -lev. One that is absent is named on stderr, and
# the benches do without. On Debian, root (or sudo without a password) installs what is missing.
set -eu
cxx=${1-c++}
defines=; libraries=

here() { echo "#include <$1>" | $cxx -E -x c++ - > /dev/null 2>&1; }
has() { command -v "$1" > /dev/null 2>&1; }
links() { echo 'int main() {}' | $cxx -x c++ - -o "$trial" "$@" > /dev/null 2>&1; }

rival() {  # NAME, HEADER, its -D and -l
  if ! here "$2"; then echo "rivals: $1 is not here, left out" >&2; return; fi
  defines="$defines -DHAVE_$1=1"; libraries="$libraries $3"
}

all_here() {
  for header in uv.h asio.hpp event2/event.h ev.h concurrentqueue/concurrentqueue.h nsync.h absl/synchronization/mutex.h; do
    here $header || return
  done
}

install() {
  get="apt-get install -y --no-install-recommends $*"
  if [ "$(id -u)" != 0 ]; then get="sudo -n $get"; fi
  { $get || { ${get%% install*} update && $get; }; } < /dev/null >&2 || true
}

if ! all_here && has apt-get; then
  install libuv1-dev libasio-dev libevent-dev libev-dev libconcurrentqueue-dev libnsync-dev libabsl-dev
fi

# Of Rust, as Debian packages them; packaging/rust.sh builds with them.
crates=/usr/share/cargo/registry
if ! { has cargo && ls -d $crates/tokio-[0-9]* $crates/async-lock-[0-9]* $crates/futures-lite-[0-9]*; } > /dev/null 2>&1 && has apt-get; then
  install cargo librust-tokio-dev librust-async-lock-dev librust-futures-lite-dev
fi

trial=$(mktemp); trap 'rm -f "$trial"' EXIT
# So that a bench loads only those that it uses.
if links -Wl,--as-needed; then libraries=' -Wl,--as-needed'; fi
abseil='-labsl_synchronization -labsl_time -labsl_base'
if has pkg-config; then abseil=$(pkg-config --libs absl_synchronization absl_time 2> /dev/null || echo "$abseil"); fi

rival LIBUV uv.h -luv
rival ASIO asio.hpp -DASIO_STANDALONE
rival LIBEVENT event2/event.h '-levent_pthreads -levent_core'
rival LIBEV ev.h -lev
rival LIGHTWEIGHTSEMAPHORE concurrentqueue/concurrentqueue.h ''
rival NSYNC nsync.h -lnsync_cpp
rival ABSL absl/synchronization/mutex.h "$abseil"
echo "${defines# }$libraries"
