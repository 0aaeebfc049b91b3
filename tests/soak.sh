#!/usr/bin/env bash
# The long searches: deeper model check, thousands of power cuts, many more random histories, the lab
# again and again. Bounded; prints what was covered. Root, like run.sh.
#
#   tests/soak.sh [ROUNDS]    ROUNDS of the lab (default 5); everything else once
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5}
step() {
  printf '\n== %s\n' "$1"
  shift
  local from=$SECONDS
  "$@"
  printf '== done in %ds\n' "$((SECONDS - from))"
}

((EUID == 0)) || { echo "soak.sh: the lab makes network namespaces: run it as root" >&2; exit 1; }
step 'prerequisites' deploy/prerequisites.sh \
  etcd-server etcd-client openssl iproute2 nftables strace util-linux gcc libc6-dev procps
cargo build --locked --workspace --all-targets --quiet

step 'birth, one more of every fault (the state count is printed)' \
  env MUSTER_MODEL_DEPTH=1 timeout 3h cargo test --locked -p muster-discovery --lib model -- --nocapture
step 'power cuts: 5000 of each kind' \
  env MUSTER_CUTS=5000 cargo test --locked -p muster-tests --test power_cut -- --nocapture
step 'histories of the cluster state: 20000 of each kind' \
  env MUSTER_CASES=20000 cargo test --locked -p musterd --lib state
for ((round = 1; round <= rounds; round++)); do
  step "lab, round $round of $rounds" cargo test --locked -p muster-tests -- --test-threads=2
done
printf '\nsoak: birth one fault deeper, 5000 power cuts a kind, 20000 histories a kind, %d rounds of the lab\n' "$rounds"
