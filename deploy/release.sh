#!/usr/bin/env bash
# The files of a release, below dist/: builds musterd and musterctl twice, in two clones at different
# paths, compares the results, and adds an SBOM for each binary and the checksums. Signs nothing.
#
#   deploy/release.sh VERSION [REF]    REF: what to build, a tag or commit (default: the tag vVERSION)
#
# Only committed files are built. What is compared depends on the toolchain, so BUILD.txt names it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/common.sh
. tests/common.sh

auditable_version=0.7.7 cyclonedx_version=0.5.9

(($# == 1 || $# == 2)) || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64; }
version=$1 ref=${2:-v$1} dist=$PWD/dist
need_cargo
deploy/prerequisites.sh git gcc libc6-dev binutils
cargo_tool cargo-auditable "$auditable_version" 0.7.0
cargo_tool cargo-cyclonedx "$cyclonedx_version" 0.5.7
commit=$(git rev-parse --verify "$ref^{commit}")
[[ ! -e $dist ]] || { echo "release.sh: $dist exists: move it away" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$commit")
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# Builds the commit in a new clone at $1. The paths of the clone and of the sources of the dependencies
# stay out of the binaries.
build() {
  git clone --quiet --no-checkout . "$1"
  git -C "$1" checkout --quiet --detach "$commit"
  [[ $(sed -n 's/^version = "\(.*\)"/\1/p' "$1/Cargo.toml" | head -n 1) == "$version" ]] ||
    { echo "release.sh: Cargo.toml of $ref is not of version $version" >&2; exit 1; }
  (cd "$1" && CARGO_TARGET_DIR=$1/target \
    CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$1=/muster"$'\x1f'"--remap-path-prefix=$cargo_home=/cargo" \
    CFLAGS="-ffile-prefix-map=$1=/muster -ffile-prefix-map=$cargo_home=/cargo" \
    cargo auditable build --locked --release --quiet -p musterd -p musterctl)
}

step "build, first of two" build "$work/a"
step "build, second of two" build "$work/another/clone"
for binary in musterd musterctl; do
  cmp "$work/a/target/release/$binary" "$work/another/clone/target/release/$binary" ||
    { echo "release.sh: two builds of $binary differ" >&2; exit 1; }
  ! strings "$work/a/target/release/$binary" | grep -F -m 3 -e "$work" -e "$cargo_home" ||
    { echo "release.sh: $binary holds paths of this machine" >&2; exit 1; }
done

cd "$work/a"
for crate in daemon:musterd ctl:musterctl; do
  cargo cyclonedx --quiet --format json --spec-version 1.5 --manifest-path "${crate%:*}/Cargo.toml" \
    --override-filename "${crate#*:}.cdx"
done
# As in the binaries: the same document on every machine.
sed -i "s|$work/a|/muster|g" daemon/musterd.cdx.json ctl/musterctl.cdx.json
mkdir "$dist"
cp target/release/musterd target/release/musterctl daemon/musterd.cdx.json ctl/musterctl.cdx.json \
  deploy/musterd.service deploy/muster.sysctl.conf LICENSE "$dist"
{
  printf 'Muster %s, commit %s\n' "$version" "$commit"
  rustc -vV
  gcc --version | head -n 1
  ld --version | head -n 1
  . /etc/os-release && printf '%s\n' "$PRETTY_NAME"
} >"$dist/BUILD.txt"
cd "$dist"
# In one order everywhere.
LC_ALL=C sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .
printf '\n%s: both builds are equal; sign dist/SHA256SUMS (docs/release.md)\n' "$dist"
