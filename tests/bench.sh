#!/usr/bin/env bash
# Benchmarks of Muster next to etcd and serf, taken in one run on this machine: a table, or with --json
# every measurement. Not part of the tests. Needs root for network namespaces, and stops what it
# started. Takes about a quarter of an hour after the build. Use an otherwise idle machine.
#
#   tests/bench.sh [--quick] [--json] [--charts DIR] [SECTION…]     tests/bench.sh --list
#
# The charts of docs/: tests/bench.sh --charts docs/charts
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "bench.sh: network namespaces need root" >&2; exit 1; }
command -v cargo >/dev/null || { echo "bench.sh: cargo not found: install Rust with rustup" >&2; exit 1; }
# Standard output has the measurements only.
deploy/prerequisites.sh etcd-server etcd-client serf iproute2 nftables util-linux gcc libc6-dev procps >&2
cargo build --locked --release --quiet -p musterd -p musterctl -p muster-bench \
  --bin musterd --bin musterctl --bin bench --bin gossip-scale >&2
# Every host has open files and sockets, and the benchmarks read all logs.
ulimit -n "$(ulimit -Hn)"
MUSTER_BIN=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
export MUSTER_BIN
exec "$MUSTER_BIN/bench" "$@"
