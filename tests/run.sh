#!/usr/bin/env bash
# Runs every check of the project on a Debian machine with Rust, as root (for network namespaces).
# Never writes to the tree. A missing prerequisite is a failure; nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export RUSTDOCFLAGS='-D warnings'

started=$SECONDS
step() {
  printf '\n== %s\n' "$1"
  shift
  local from=$SECONDS
  "$@"
  printf '== done in %ds\n' "$((SECONDS - from))"
}

((EUID == 0)) || { echo "run.sh: network namespaces need root" >&2; exit 1; }
command -v cargo >/dev/null || { echo "run.sh: cargo not found: install Rust with rustup" >&2; exit 1; }
step 'prerequisites' deploy/prerequisites.sh \
  etcd-server etcd-client openssl iproute2 nftables strace util-linux gcc libc6-dev procps \
  e2fsprogs mount curl faketime nmap ngtcp2-client

step 'format' cargo fmt --all --check
step 'clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
step 'rustdoc' cargo doc --locked --workspace --no-deps --document-private-items --quiet
step 'build' cargo build --locked --workspace --all-targets
# Property tests use the same cases each time, so that the result depends on the commit only.
# `tests/soak.sh` and manual runs use other cases.
export PROPTEST_RNG_SEED=2026
# The whole workspace at once, as it was built: a part of it would select other features of the
# dependencies and rebuild them. Shows every failure, not only the first.
step 'unit, model, store and lab tests' \
  cargo test --locked --workspace --no-fail-fast -- --test-threads=2
step 'demo' env MUSTER_BIN="$PWD/target/debug" deploy/demo.sh --check
printf '\nall checks passed in %d minutes\n' "$(((SECONDS - started) / 60))"
