#!/usr/bin/env bash
# Builds everything that a release consists of into dist/, from a clean checkout, and checks each artifact. What this machine
# can't build is listed at the end, with the reason.
#
# Usage: packaging/release.sh
#   PINWATCH_BINARY=FILE   packages this program instead of building one, for trying out changes to the packaging
#   PINWATCH_CHECKS=no     leaves out the checks that need root and a root file system of an old Debian
#
# The same commit gives the same bytes, wherever it is built with the same toolchain (packaging/check-reproducible.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
source packaging/tools.sh

target=x86_64-unknown-linux-gnu
# RHEL 8 has glibc 2.28, and everything that is still supported has that or a later one.
glibc=2.28
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}
export SOURCE_DATE_EPOCH
# A tar archive that depends on nothing but its files.
tar=(tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu)
not_built=()

step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }

# build_for TARGET: prints nothing but what cargo says; the program is in target/TARGET/release.
build_for() {
  # No path of this machine gets into the program.
  local cargo_home=${CARGO_HOME:-$HOME/.cargo}
  RUSTFLAGS="--remap-path-prefix=$PWD=/pinwatch --remap-path-prefix=$cargo_home=/cargo" \
    CFLAGS="-ffile-prefix-map=$PWD=/pinwatch -ffile-prefix-map=$cargo_home=/cargo" CARGO_INCREMENTAL=0 \
    cargo auditable zigbuild --release --locked --target "$1"
}

build_program() {
  step "the program, for $target with glibc $glibc"
  build_for "$target.$glibc"
  PINWATCH_BINARY=${CARGO_TARGET_DIR:-target}/$target/release/pinwatch
  # Depends on the glibc that the program needs; dpkg-shlibdeps would name the one that this machine's symbols came with.
  deb_variant=release
}

# Programs for other kinds of machines, where rustup has the target.
build_others() {
  local other installed
  installed=$(ls "$(rustc --print sysroot)/lib/rustlib")
  for other in x86_64-unknown-linux-musl aarch64-unknown-linux-gnu aarch64-unknown-linux-musl; do
    if ! grep -qx "$other" <<<"$installed"; then
      not_built+=("$other: this machine's Rust has no such target (rustup target add $other)")
      continue
    fi
    step "the program, for $other"
    build_for "$([[ $other == *-gnu ]] && echo "$other.$glibc" || echo "$other")"
    make_tarball "$other" "${CARGO_TARGET_DIR:-target}/$other/release/pinwatch"
  done
}

# make_tarball TARGET PROGRAM. The man pages and completions are those of this machine's program; they are the same.
make_tarball() {
  step "the archive for $1"
  local name=pinwatch-$version folder=target/tarball
  rm -rf "$folder"
  install -d "$folder/$name"/{bin,config,systemd,man,completions,licenses}
  install -m 755 "$2" "$folder/$name/bin/pinwatch"
  install -m 644 target/packaging/man/*.gz "$folder/$name/man"
  install -m 644 target/packaging/pinwatch.{bash,zsh,fish} "$folder/$name/completions"
  install -m 644 systemd/* packaging/logrotate "$folder/$name/systemd"
  install -m 644 target/packaging/pinwatch.toml "$folder/$name/config"
  install -m 644 LICENSE target/packaging/third-party.gz "$folder/$name/licenses"
  cp -R ./*.md docs "$folder/$name"
  install -D -m 644 packaging/compose.yml "$folder/$name/packaging/compose.yml"
  "${tar[@]}" -C "$folder" -c "$name" | gzip -9n > "dist/pinwatch-$version-$1.tar.gz"
}

make_deb() {
  step "the .deb"
  # The files are made already; build-deb.sh makes them again, the same.
  PINWATCH_BINARY=$PINWATCH_BINARY packaging/build-deb.sh --quiet ${deb_variant:+--variant "$deb_variant"} --output dist/
}

make_rpm() {
  step "the .rpm"
  # A "~" sorts before everything, so that 1.0.0 is newer than its release candidates.
  cargo generate-rpm --set-metadata "version = \"${version/-/\~}\"" --payload-compress gzip --output dist/
}

make_image() {
  step "the container image"
  packaging/oci-image.py target/packaging/pinwatch "$version" "$commit" "dist/pinwatch-$version-oci.tar"
}

make_sbom() {
  step "the list of what it contains (CycloneDX)"
  cargo cyclonedx --format json --spec-version 1.5 --target "$target" --override-filename "pinwatch-$version.cdx"
  # The serial number and the time are of this run, and nothing refers to them.
  python3 - "pinwatch-$version.cdx.json" "dist/pinwatch-$version.cdx.json" <<'PYTHON'
import json, os, pathlib, sys
made, kept = map(pathlib.Path, sys.argv[1:])
text = made.read_text().replace(f"path+file://{os.getcwd()}", "path+file:///pinwatch")
sbom = json.loads(text)
sbom.pop("serialNumber", None)
sbom["metadata"].pop("timestamp", None)
assert len(sbom["components"]) > 100, "the list is too short"
kept.write_text(json.dumps(sbom, indent=1) + "\n")
made.unlink()
PYTHON
}

make_sums() {
  step "checksums"
  (cd dist && sha256sum -- * > ../target/SHA256SUMS && mv ../target/SHA256SUMS .)
  cat dist/SHA256SUMS
}

# The commit that the program names must be what it is built from.
require_clean_checkout() {
  if [ -z "${PINWATCH_BINARY:-}${CI:-}" ] && [ -n "$(git status --porcelain 2>/dev/null)" ]; then
    echo "release.sh: the checkout has changes that no commit has; commit or stash them first" >&2
    exit 1
  fi
}

main() {
  require_clean_checkout
  rm -rf dist && mkdir dist
  install_tools
  if [ -z "${PINWATCH_BINARY:-}" ]; then build_program; fi
  packaging/generate.sh "$PINWATCH_BINARY"
  make_tarball "$target" target/packaging/pinwatch
  make_deb
  make_rpm
  make_image
  make_sbom
  if [ -z "${CI:-}" ]; then build_others; fi
  make_sums
  if [ "${PINWATCH_CHECKS:-yes}" = yes ]; then packaging/check-release.sh "$glibc"; fi
  step "in dist/, in bytes:"
  (cd dist && stat -c '%10s %n' -- *)
  for reason in ${not_built[@]+"${not_built[@]}"}; do echo "NOT BUILT: $reason"; done
  echo "To sign: minisign -S -s KEY -m dist/SHA256SUMS (docs/releasing.md)"
}

main
