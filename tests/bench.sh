#!/usr/bin/env bash
# Figures of Muster beside etcd and serf, taken in one run on this machine: a table, or with --json
# every figure. Never part of the tests. Root: it makes network namespaces, and ends what it started.
# About a quarter of an hour after the build; a machine that does nothing else gives figures worth
# keeping.
#
#   tests/bench.sh [--quick] [--json] [--charts DIR] [SECTION…]     tests/bench.sh --list
#
# The charts of docs/: tests/bench.sh --charts docs/charts
set -euo pipefail
cd "$(dirname "$0")/.."

((EUID == 0)) || { echo "bench.sh: the lab makes network namespaces: run it as root" >&2; exit 1; }
command -v cargo >/dev/null || { echo "bench.sh: Rust is missing: install it with rustup" >&2; exit 1; }
# Standard output is the figures' alone.
deploy/prerequisites.sh etcd-server etcd-client serf iproute2 nftables util-linux gcc libc6-dev procps >&2
cargo build --locked --release --quiet -p musterd -p musterctl -p muster-bench \
  --bin musterd --bin musterctl --bin bench --bin gossip-scale >&2
# Every host holds files and sockets open, and the bench reads all logs.
ulimit -n "$(ulimit -Hn)"
MUSTER_BIN=$(cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
export MUSTER_BIN
exec "$MUSTER_BIN/bench" "$@"
