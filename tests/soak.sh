#!/usr/bin/env bash
# Long searches: deeper model check, every fault of a birth, thousands of power cuts, hundreds of
# fault schedules, fuzzing, more random histories, and repeated runs of all tests. Takes at most a day
# and prints what it covered. Needs root, like run.sh.
#
#   tests/soak.sh [ROUNDS]    runs all tests ROUNDS times (default 5), everything else once
#   tests/soak.sh --short     every step, but shorter: within an hour
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/common.sh
. tests/common.sh

rounds=5 model=600 matrix=1 births='every fail point, every founder, every way' cuts=5000 seeds=1..300 cases=20000 fuzz=120
case ${1-} in
  '') ;;
  --short) rounds=0 model=20 matrix=0 births='as in every run of the tests' cuts=300 seeds=11..14 cases=2000 fuzz=2 ;;
  *[!0-9]*) echo "soak.sh: $1 is not a number of rounds" >&2; exit 64 ;;
  *) rounds=$1 ;;
esac
failed=()
# A failed step is reported at the end, after the others.
step() {
  local name=$1 from=$SECONDS how=done
  printf '\n== %s\n' "$name"
  "${@:2}" || { how=FAILED; failed+=("$name"); }
  printf '== %s in %ds\n' "$how" "$((SECONDS - from))"
}

need_root
need_cargo
deploy/prerequisites.sh \
  etcd-server etcd-client openssl iproute2 nftables strace util-linux gcc libc6-dev procps \
  e2fsprogs mount curl faketime nmap ngtcp2-client g++
tools
cargo build --locked --workspace --all-targets --quiet

# Always the whole workspace, as it was built; see run.sh.
step "birth, one more of every fault, each search at most $model s" \
  env MUSTER_MODEL_DEPTH=1 MUSTER_MODEL_SECONDS=$model timeout 3h \
  cargo test --locked --workspace --lib birth::model -- --nocapture
step "births: $births" \
  env MUSTER_BIRTH_MATRIX=$matrix timeout 3h \
  cargo test --locked --workspace --test formation birth_faults:: -- --test-threads=2 --nocapture
step "power cuts: $cuts of each kind" \
  env MUSTER_CUTS=$cuts timeout 6h \
  cargo test --locked --workspace --test disk power_cut -- --nocapture
step "power cuts: names in any order, $cuts" \
  env MUSTER_CUTS=$cuts MUSTER_NAMES=any timeout 3h \
  cargo test --locked --workspace --test disk no_cut_loses -- --nocapture
step "seeded fault schedules: $seeds" env MUSTER_SEEDS=$seeds timeout 8h \
  cargo test --locked --workspace --test group schedules:: -- --nocapture
step "histories of the cluster state: $cases of each kind" \
  env MUSTER_CASES=$cases timeout 1h cargo test --locked --workspace --lib state::
step "fuzz targets, $fuzz s each" tests/fuzz.sh $fuzz
for ((round = 1; round <= rounds; round++)); do
  step "everything, round $round of $rounds" cargo nextest run --locked --workspace --profile ci
done
step 'advisories' tests/advisories.sh --if-reachable
cat <<TEXT

soak: births one fault deeper, each search for $model s at most; births by fail points: $births; $cuts power cuts a kind, fault
schedules $seeds, $cases histories a kind, every fuzz target for $fuzz s, $rounds rounds of all tests; failed: ${#failed[@]}
TEXT
((${#failed[@]} == 0)) || { printf 'soak: FAILED: %s\n' "${failed[@]}" >&2; exit 1; }
