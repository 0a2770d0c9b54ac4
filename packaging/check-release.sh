#!/usr/bin/env bash
# Tries out what packaging/release.sh has made in dist/: each artifact is used as its users would use it. Needs root, and an
# archive of Debian for the oldest suite that it still has.
# Usage: packaging/check-release.sh GLIBC     the newest version of glibc that the program may need
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/.."
source packaging/tools.sh
glibc=$1

step() { printf '\n== check: %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "check-release.sh: $*" >&2; exit 1; }

# only FILES: the one file that this matches.
only() { [ $# -eq 1 ] && [ -e "$1" ] || fail "expected one file: $*"; echo "$1"; }

# crun wants the second version of cgroups alone, which this machine may have beside the first. Nobody else sees this mount.
if [ -z "${in_own_mounts:-}" ]; then
  in_own_mounts=yes exec unshare --mount "$self" "$@"
fi
mountpoint -q /sys/fs/cgroup && [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ] && mount -t cgroup2 cgroup2 /sys/fs/cgroup

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

check_symbols() {
  step "no symbol of a glibc later than $glibc"
  tar -xzf "$(only dist/pinwatch-*-x86_64-unknown-linux-gnu.tar.gz)" -C "$scratch"
  program=$(only "$scratch"/pinwatch-*/bin/pinwatch)
  local newest
  newest=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
  echo "it needs $newest"
  # A program built without zig, for trying out, needs what this machine has.
  [ -n "${PINWATCH_BINARY:-}" ] || [ "$(printf '%s\nGLIBC_%s\n' "$newest" "$glibc" | sort -V | tail -1)" = "GLIBC_$glibc" ] ||
    fail "the program needs $newest"
  # cargo auditable's list of what is in the program, which `cargo audit bin` reads.
  [ -n "${PINWATCH_BINARY:-}" ] || readelf --sections --wide "$program" | grep -q '\.dep-v0' ||
    fail "the program does not list what it contains"
}

# The oldest Debian that the archive still has, without any package beyond the essential ones. Kept for the next run.
make_root() {
  local suite suites=(buster bullseye bookworm)
  # A program built for trying out runs on this machine's version only.
  [ -z "${PINWATCH_BINARY:-}" ] || suites=(bookworm)
  for suite in "${suites[@]}"; do
    root=$PWD/target/root-$suite
    [ -e "$root/etc/debian_version" ] && break
    rm -rf "$root"
    step "a root file system of Debian $suite"
    if debootstrap --variant=minbase "$suite" "$root" >"$scratch/debootstrap" 2>&1; then break; fi
    tail -1 "$scratch/debootstrap"
    rm -rf "$root"
  done
  [ -d "$root" ] || fail "no suite of Debian could be had"
  # As empty as it was, whatever an earlier run left.
  cp -a --reflink=auto "$root" "$scratch/root"
  root=$scratch/root
  echo "Debian $(cat "$root/etc/debian_version"), $(chroot "$root" ldd --version 2>&1 | head -1)"
}

# inside COMMAND…: runs it in the root file system, which has /proc for as long as that takes.
inside() {
  unshare --mount --pid --fork --kill-child sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" "$@"
}

check_tarball() {
  step "the archive's program in that root: a PIN from its submission to its outcome"
  cp "$program" "$root/usr/local/bin/pinwatch"
  inside pinwatch --version --verbose
  inside timeout 120 pinwatch demo >"$scratch/demo" 2>&1 || { cat "$scratch/demo"; fail "the demo failed there"; }
  tail -3 "$scratch/demo"
  rm "$root/usr/local/bin/pinwatch"
}

# The program that is linked statically, for Alpine, Amazon Linux 2 and whatever else has no such glibc.
check_static() {
  local archive=dist/pinwatch-$version-x86_64-unknown-linux-musl.tar.gz
  [ -e "$archive" ] || return 0
  step "the static program in an otherwise empty root: a PIN from its submission to its outcome"
  (
    root=$scratch/static
    mkdir -p "$root"/{dev,proc,tmp}
    mknod -m 666 "$root/dev/null" c 1 3
    tar -xzf "$archive" -C "$root" --strip-components 2 "pinwatch-$version/bin/pinwatch"
    inside /pinwatch --version --verbose
    inside /pinwatch demo >"$scratch/demo" 2>&1 || { cat "$scratch/demo"; fail "the demo failed there"; }
    tail -3 "$scratch/demo"
  )
}

check_deb() {
  step "the .deb: lintian, and an installation in that root, with what it depends on"
  local deb
  deb=$(only dist/pinwatch_*_amd64.deb)
  lintian --fail-on=error,warning "$deb"
  dpkg-deb --field "$deb" Package Version Depends
  cp -a "$root" "$scratch/root-with-deb"
  (
    root=$scratch/root-with-deb
    cp "$deb" "$root/tmp"
    cp /etc/resolv.conf "$root/etc"
    inside apt-get update -qq || fail "the archive no longer has the suite of that root: remove target/root-* and try again"
    inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "/tmp/$(basename "$deb")" \
      >"$scratch/apt" 2>&1 || { cat "$scratch/apt"; fail "the .deb can't be installed there"; }
    inside pinwatch --version
    inside id pinwatch
    inside env DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq pinwatch >"$scratch/apt" 2>&1 ||
      { cat "$scratch/apt"; fail "the .deb can't be removed there"; }
    [ ! -e "$root/usr/bin/pinwatch" ] && [ ! -e "$root/etc/pinwatch" ] || fail "something is left of the .deb"
  )
  rm -rf "$scratch/root-with-deb"
}

check_rpm() {
  step "the .rpm: rpmlint, and an installation"
  local rpm
  rpm=$(only dist/pinwatch-*.rpm)
  rpm -qp --qf '%{NAME} %{VERSION} %{LICENSE} %{ARCH}\n' "$rpm"
  rpm -qp --configfiles "$rpm" | sort | tr '\n' ' '
  rpmlint --config packaging/rpm/rpmlint.toml "$rpm"
  # Its own database, and Debian's /bin/sh and useradd for the scripts: the packages that it requires are of Fedora.
  rpm --root "$root" --initdb
  rpm --root "$root" --force-debian --nodeps --install "$rpm"
  inside pinwatch --version
  inside id pinwatch
  echo '# mine' >> "$root/etc/pinwatch/pinwatch.toml"
  rpm --root "$root" --force-debian --nodeps --upgrade --replacepkgs "$rpm"
  grep -q '# mine' "$root/etc/pinwatch/pinwatch.toml" || fail "the .rpm replaced a changed configuration"
  rpm --root "$root" --verify --nodeps --nomode pinwatch | grep -v ' c /etc/pinwatch/pinwatch.toml' && fail "installed files differ"
  rpm --root "$root" --force-debian --nodeps --erase pinwatch
  local left
  # rpm keeps the configuration that was changed above.
  left=$(find "$root"/usr "$root"/etc -path '*pinwatch*' ! -name pinwatch.toml.rpmsave ! -path "$root/etc/pinwatch")
  [ -z "$left" ] || fail "this is left of the .rpm: $left"
}

# run_image NAME ARGUMENTS…: runs the program in the unpacked image as an engine would: its user, a read-only root file
# system, no rights, and the volume as the one place to write.
run_image() {
  local name=$1
  shift
  python3 packaging/oci-config.py "$scratch/bundle" "$scratch/volume" "$@"
  crun --cgroup-manager=disabled --root "$scratch/crun" run --bundle "$scratch/bundle" "$name"
}

check_image() {
  step "the image: its form, its size, and a run"
  local image bytes
  image=$(only dist/pinwatch-*-oci.tar)
  bytes=$(stat -c %s "$image")
  [ "$bytes" -lt 30000000 ] || fail "the image has $bytes bytes, more than 30 MB"
  mkdir -p "$scratch/layout"
  tar -xf "$image" -C "$scratch/layout"
  skopeo inspect --config "oci:$scratch/layout:$version" > "$scratch/config.json"
  skopeo inspect "oci:$scratch/layout:$version" | grep -E '"(Digest|Architecture)"'
  umoci unpack --image "$scratch/layout:$version" "$scratch/bundle" >/dev/null
  echo "$bytes bytes; $(du -sm "$scratch/bundle/rootfs" | cut -f1) MB unpacked; no shell: $(
    ! find "$scratch/bundle/rootfs" -name 'sh' -o -name 'bash' -o -name 'busybox' | grep . || fail "the image has a shell")yes"
  install -d -o 65532 -g 65532 -m 0700 "$scratch/volume"
  run_image version --version
  (run_image daemon run > "$scratch/daemon.log" 2>&1; echo "$?" > "$scratch/daemon.exit") &
  local try
  for try in $(seq 100); do
    if crun --cgroup-manager=disabled --root "$scratch/crun" exec --user 65532:65532 daemon /usr/bin/pinwatch ping 2>"$scratch/ping.log"; then break; fi
    [ "$try" -lt 100 ] || { cat "$scratch/daemon.log" "$scratch/ping.log"; fail "the daemon in the image does not answer"; }
    sleep 0.2
  done
  crun --cgroup-manager=disabled --root "$scratch/crun" kill daemon TERM
  wait
  cat "$scratch/daemon.log"
  [ "$(cat "$scratch/daemon.exit")" = 0 ] || fail "SIGTERM ended the image with $(cat "$scratch/daemon.exit")"
  [ -s "$scratch/volume/pinwatch.db" ] || fail "the state is not in the volume"
}

check_symbols
make_root
check_tarball
check_static
check_deb
check_rpm
check_image
step "the checksums"
(cd dist && sha256sum --check --quiet SHA256SUMS)
echo "everything in dist/ works"
