#!/usr/bin/env bash
# The long searches: deeper model check, every fault of a birth, thousands of power cuts, hundreds of
# fault schedules, fuzzing, many more random histories, and all tests again and again. Bounded (a day
# at most); prints what was covered. Root, like run.sh.
#
#   tests/soak.sh [ROUNDS]    ROUNDS of all tests (default 5); everything else once
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
  etcd-server etcd-client openssl iproute2 nftables strace util-linux gcc libc6-dev procps \
  e2fsprogs mount faketime nmap ngtcp2-client g++
cargo build --locked --workspace --all-targets --quiet

# Always the whole workspace, as it was built: see run.sh.
step 'birth, one more of every fault, each search at most ten minutes' \
  env MUSTER_MODEL_DEPTH=1 MUSTER_MODEL_SECONDS=600 timeout 3h \
  cargo test --locked --workspace --lib birth::model -- --nocapture
step 'births: every fail point, every founder, every way' \
  env MUSTER_BIRTH_MATRIX=1 timeout 3h \
  cargo test --locked --workspace --test birth_faults -- --test-threads=2 --nocapture
step 'power cuts: 5000 of each kind' \
  env MUSTER_CUTS=5000 timeout 6h \
  cargo test --locked --workspace --test power_cut --test power_cut_files -- --nocapture
step 'seeded fault schedules: 300' env MUSTER_SEEDS=1..300 timeout 8h \
  cargo test --locked --workspace --test schedules -- --nocapture
step 'histories of the cluster state: 20000 of each kind' \
  env MUSTER_CASES=20000 timeout 1h cargo test --locked --workspace --lib state::
step 'fuzz targets, 120 s each' tests/fuzz.sh 120
for ((round = 1; round <= rounds; round++)); do
  step "everything, round $round of $rounds" \
    cargo test --locked --workspace --no-fail-fast -- --test-threads=2
done
cat <<TEXT

soak: births one fault deeper and killed or cut off at every step, 5000 power cuts a kind, 300 fault
schedules, 20000 histories a kind, every fuzz target for 120 s, $rounds rounds of all tests
TEXT
