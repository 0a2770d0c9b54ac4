#!/bin/sh
# Builds the Debian package: first the program, then what it generates (manual pages, completions), then the .deb.
# Usage: packaging/build-deb.sh [options of cargo deb], such as --output DIR.
# Tests set PINWATCH_BINARY to an existing program, which is packaged instead of a release build.
set -eu
cd "$(dirname "$0")/.."

# Lists everything that is missing at once, with the commands that install it.
missing='' packages='' commands=''
for pair in strip:binutils gzip:gzip sed:sed python3:python3 dpkg-shlibdeps:dpkg-dev; do
  command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair%%:*}" packages="$packages ${pair#*:}"
done
[ -z "$packages" ] || commands="$commands
  sudo apt-get install$packages"
command -v cargo >/dev/null || missing="$missing cargo" commands="$commands
  rustup toolchain install stable    # rustup itself: https://rustup.rs"
command -v cargo-deb >/dev/null || missing="$missing cargo-deb" commands="$commands
  cargo install --locked --version 3.8.0 cargo-deb"
if [ -n "$missing" ]; then
  echo "build-deb.sh: this machine lacks what the package is built with:$missing. Install it:$commands" >&2
  exit 1
fi

target=${CARGO_TARGET_DIR:-target}
if [ -z "${PINWATCH_BINARY:-}" ]; then
  cargo build --release --locked
  PINWATCH_BINARY=$target/release/pinwatch
fi
# [package.metadata.deb] in Cargo.toml takes the files from where this writes them.
packaging/generate.sh "$PINWATCH_BINARY"
cargo deb --no-build --no-strip "$@"
