#!/bin/sh
# Writes what every package contains beside the program's source files into target/packaging: the stripped program, its manual
# pages and completions, the configuration, the changelogs and the notices of others' crates.
# Usage: packaging/generate.sh PROGRAM
set -eu
cd "$(dirname "$0")/.."

made=target/packaging
rm -rf "$made"
mkdir -p "$made"
# As dh_strip does it; otherwise the symbols of a debug build would be most of the package.
strip --remove-section=.comment --remove-section=.note -o "$made/pinwatch" "$1"
"$made/pinwatch" man --dir "$made/man"
gzip -9n "$made"/man/*.1
for shell in bash zsh fish; do
  "$made/pinwatch" completions "$shell" > "$made/pinwatch.$shell"
done
gzip -9nc CHANGELOG.md > "$made/changelog.gz"
packaging/third-party.py > "$made/third-party"
gzip -9n "$made/third-party"
# Debian requires a changelog of the package in its own format, in which "1.0.0~rc.1" is older than "1.0.0". It is dated so that
# two builds of a commit are identical.
version=$("$made/pinwatch" --version | cut -d' ' -f2 | sed 's/-/~/')
date=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
cat > "$made/changelog.Debian" <<END
pinwatch ($version-1) unstable; urgency=medium

  * Version $version: changelog.gz beside this file has the changes.

 -- $(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)  $(date -uRd "@$date")
END

# A package's configuration has every key as in config/pinwatch.toml, but writes outcomes to a file that logrotate rotates,
# and the log to the journal with its fields.
sed -e 's|^#format = "text"$|format = "journald"|' \
    -e '/^# The same lines, appended to a file/,/^#path = /{s|^#\[\[sink\]\]|[[sink]]|;s|^#type = |type = |;s|^#path = |path = |}' \
    config/pinwatch.toml > "$made/pinwatch.toml"
# Checks that the program accepts the configuration that the packages install.
env -i PINWATCH__API__KEY=example "$made/pinwatch" --config "$made/pinwatch.toml" check-config > "$made/check" 2>/dev/null
grep -q '"log.format".*journald' "$made/check"
grep -q '"sink\[0\].path".*/var/log/pinwatch/outcomes.jsonl' "$made/check"
rm "$made/check"
