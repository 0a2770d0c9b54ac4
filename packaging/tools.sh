# The tools of a release, each in one version; to be sourced. What is missing is installed: Debian's by apt-get, as root, crates
# by cargo install, and Python packages below target/tools.

tools=$PWD/target/tools
export PATH=$tools/python/bin:$PATH PYTHONPATH=$tools/python${PYTHONPATH:+:$PYTHONPATH}

# crate NAME VERSION PROGRAM. They run once, so they are built quickly rather than well.
crate() {
  command -v "$3" >/dev/null && return
  echo "installing $1 $2"
  CARGO_TARGET_DIR=$tools/build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 cargo install --quiet --locked --version "$2" "$1"
}

install_tools() {
  local pair missing=()
  for pair in strip:binutils rpm:rpm rpmlint:rpmlint skopeo:skopeo umoci:umoci crun:crun debootstrap:debootstrap \
    dpkg-shlibdeps:dpkg-dev lintian:lintian minisign:minisign; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    echo "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
  if ! command -v cargo-zigbuild >/dev/null; then
    pip3 install --quiet --root-user-action=ignore --target "$tools/python" cargo-zigbuild==0.24.1 ziglang==0.17.1
  fi
  crate cargo-deb 3.8.0 cargo-deb
  crate cargo-generate-rpm 0.21.1 cargo-generate-rpm
  crate cargo-auditable 0.7.7 cargo-auditable
  crate cargo-cyclonedx 0.5.9 cargo-cyclonedx
}
