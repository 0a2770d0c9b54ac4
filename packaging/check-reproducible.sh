#!/usr/bin/env bash
# Builds the release of the current commit twice, in two folders of different names, and compares every file of dist/.
# Usage: packaging/check-reproducible.sh [OPTIONS of cargo's profile as NAME=VALUE, such as CARGO_PROFILE_RELEASE_LTO=off]
# With CARGO_PROFILE_RELEASE_LTO=off and CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 it is much quicker; what could differ (paths,
# times, order) is the same.
set -euo pipefail
cd "$(dirname "$0")/.."
for setting in "$@"; do export "${setting?}"; done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

build() {
  local folder=$scratch/$1
  git clone --quiet --no-hardlinks . "$folder"
  # The tools are those of this folder; building them twice would show nothing.
  mkdir -p "$folder/target"
  ln -s "$PWD/target/tools" "$folder/target/tools"
  (cd "$folder" && PINWATCH_CHECKS=no CI=true packaging/release.sh)
}

mkdir -p target/tools
build one
build another/and/a/longer/one
diff <(cd "$scratch/one/dist" && sha256sum -- *) <(cd "$scratch/another/and/a/longer/one/dist" && sha256sum -- *)
echo "both builds have the same bytes"
