#!/bin/sh
# Builds the rivals that are written in Rust, from the crates that Debian packages.   sh packaging/rust.sh FOLDER
#
# Writes FOLDER/rust-rivals. Where cargo or a crate is not here it says so, and the benches do without.
set -eu
out=$1/rust-rivals
crates=/usr/share/cargo/registry
leave_out() { echo "rivals: $1, tokio and async-lock left out"; rm -f "$out"; exit 0; }

command -v cargo > /dev/null 2>&1 || leave_out 'cargo is not here'
for crate in tokio async-lock futures-lite; do
  ls -d $crates/$crate-[0-9]* > /dev/null 2>&1 || leave_out "the crate $crate is not here"
done

mkdir -p "$1" build/rust
target=$(pwd)/build/rust
# From its folder: cargo looks for its settings there.
(cd bench/rust && CARGO_TARGET_DIR=$target cargo build --release --offline --quiet) || leave_out 'cargo did not build them'
cmp -s "$target/release/rivals" "$out" || cp "$target/release/rivals" "$out"
