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
# [package.metadata.deb] in Cargo.toml takes the files from here.
made=target/packaging
rm -rf "$made"
mkdir -p "$made"
# As dh_strip does it; otherwise the symbols of a debug build would be most of the package.
strip --remove-section=.comment --remove-section=.note -o "$made/pinwatch" "$PINWATCH_BINARY"
"$made/pinwatch" man --dir "$made/man"
gzip -9n "$made"/man/*.1
for shell in bash zsh fish; do
  "$made/pinwatch" completions "$shell" > "$made/pinwatch.$shell"
done
gzip -9nc CHANGELOG.md > "$made/changelog.gz"
packaging/third-party.py > "$made/third-party"
gzip -9n "$made/third-party"
# Debian requires a changelog of the package in its own format. It is dated so that two builds of a commit are identical.
version=$("$made/pinwatch" --version | cut -d' ' -f2)
date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
cat > "$made/changelog.Debian" <<END
pinwatch ($version-1) unstable; urgency=medium

  * Version $version; what users notice of it is in changelog.gz beside this file.

 -- $(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)  $(date -uRd "@$date")
END

# The package's configuration has every key as in config/pinwatch.toml, but writes outcomes to a file that logrotate
# rotates, and the log to the journal with its fields.
sed -e 's|^#format = "text"$|format = "journald"|' \
    -e '/^# The same lines, appended to a file/,/^#path = /{s|^#\[\[sink\]\]|[[sink]]|;s|^#type = |type = |;s|^#path = |path = |}' \
    config/pinwatch.toml > "$made/pinwatch.toml"
# Checks that the program accepts the configuration that the package installs.
env -i PINWATCH__API__KEY=example "$made/pinwatch" --config "$made/pinwatch.toml" check-config > "$made/check" 2>/dev/null
grep -q '"log.format".*journald' "$made/check"
grep -q '"sink\[0\].path".*/var/log/pinwatch/outcomes.jsonl' "$made/check"

cargo deb --no-build --no-strip "$@"
