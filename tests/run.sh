#!/usr/bin/env bash
# Runs every check of the project on a Debian machine with Rust, as root (for network namespaces).
# Never writes to the tree. A missing prerequisite is a failure; nothing is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/common.sh
. tests/common.sh

need_root
need_cargo
step 'prerequisites' deploy/prerequisites.sh \
  etcd-server etcd-client openssl iproute2 nftables strace util-linux gcc libc6-dev procps \
  e2fsprogs mount curl faketime nmap ngtcp2-client
step 'tools' tools
static_checks
# The whole workspace at once: see check.sh.
step 'build' cargo build --locked --workspace --all-targets
# Property tests draw the same cases each time, so that a commit passes or fails by its content.
# soak.sh, and a test run by hand, draw others.
export PROPTEST_RNG_SEED=2026
# Each test in a process of its own, with a time limit. Every failure is shown, not only the first.
step 'unit, model, store and lab tests' cargo nextest run --locked --workspace --profile ci
step 'demo' env MUSTER_BIN="$PWD/target/debug" deploy/demo.sh --check
printf '\nall checks passed in %d minutes\n' "$((SECONDS / 60))"
