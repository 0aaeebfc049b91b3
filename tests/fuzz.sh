#!/usr/bin/env bash
# Coverage-guided fuzzing with libFuzzer of the targets that `cargo test` runs only briefly. Bounded;
# prints what it covered. New inputs are kept in target/fuzz/found and used by the next run. Only
# --keep writes to the tree.
#
#   tests/fuzz.sh [SECONDS [TARGET…]]   SECONDS for each target (default 60); without TARGET, all
#   tests/fuzz.sh --keep [TARGET…]      copies new inputs that reach new code to tests/fuzz/corpus, so
#                                       that `cargo clean` does not delete them
#   tests/fuzz.sh --list                lists all targets
#
# Needs a C++ compiler (Debian: g++) for libFuzzer, which is part of the crate libfuzzer-sys, and the
# pinned toolchain: stable rustc can enable LLVM's coverage pass.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v g++ >/dev/null || { echo "fuzz.sh: g++ not found: apt-get install g++" >&2; exit 1; }

# With --target these apply to the fuzzed code only, not to build scripts and macros.
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

# Crate and kind of test binary of all targets.
parts=("muster-config --lib" "muster-pki --lib" "muster-transport --lib" "muster-sources --lib"
  "muster-formation --lib" "muster-gossip --lib" "muster-init --lib" "muster-state --lib"
  "muster-storage --lib" "musterd --lib" "musterctl --bins")
cargo_test="cargo test --locked --target $host --target-dir target/fuzz"
# shellcheck disable=SC2086 # each part is two words and more
run() { $cargo_test --quiet -p $1 -- "${@:2}"; }

# Maximum that --keep adds to one target's corpus: `cargo test` reads all of it every time.
kept_inputs=16 kept_bytes=4096

seconds=60 names=() keep=
case ${1-} in
  '') ;;
  --list) seconds=0 ;;
  --keep) keep=yes names=("${@:2}") ;;
  *) seconds=$1 names=("${@:2}") ;;
esac

# Name, crate and test of each target: `mod fuzz` contains nothing else.
targets=$(for part in "${parts[@]}"; do
  run "$part" --list | sed -n 's/: test$//p' | grep -E '(^|::)fuzz::' | while read -r test; do
    printf '%s\t%s\t%s\n' "${test##*::}" "$part" "$test"
  done
done)
[[ -n $targets ]] || { echo "fuzz.sh: no targets found" >&2; exit 1; }
((seconds)) || { cut -f 1 <<<"$targets"; exit 0; }
for name in "${names[@]}"; do
  cut -f 1 <<<"$targets" | grep -qxF "$name" || { echo "fuzz.sh: unknown target $name" >&2; exit 1; }
done

# Adds to a target's corpus the inputs that reach new code, by libFuzzer's merge. Counters are off:
# inputs that only run the same code more often would be hundreds.
keep() {
  local name=$1 part=$2 test=$3 found=$4 corpus=tests/fuzz/corpus/$1 merged=target/fuzz/merged/$1 added=0 binary
  rm -rf "$merged" && mkdir -p "$merged"/{corpus,small} && cp "$corpus"/* "$merged/corpus"
  # libFuzzer merges in a separate process, for which it calls its own name with other arguments.
  # shellcheck disable=SC2086
  binary=$($cargo_test -p $part --no-run 2>&1 | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
  printf '#!/bin/sh\nMUSTER_FUZZ_ARGUMENTS=$(printf "%%s\\n" "$@") exec %q --exact %q --nocapture\n' \
    "$PWD/$binary" "$test" >"$merged/muster-fuzz"
  chmod +x "$merged/muster-fuzz"
  find "$found" -type f -size "-$((kept_bytes + 1))c" -exec cp -t "$merged/small" {} +
  MUSTER_FUZZ_TARGET=$name MUSTER_FUZZ_ARGUMENTS=$(printf '%s\n' -merge=1 -use_counters=0 -timeout=20 \
    -rss_limit_mb=1024 "-artifact_prefix=$found/../$name-" "$PWD/$merged/corpus" "$PWD/$merged/small") \
    PATH=$PWD/$merged:$PATH run "$part" --exact "$test" --nocapture >"$found/../$name.log" 2>&1 </dev/null &&
    grep -q '^MERGE-OUTER: .* new files' "$found/../$name.log" || return
  while read -r _ file; do
    # Old inputs have their own names; new ones are named by their SHA-1.
    [[ ! -e $corpus/$file && ! -e $corpus/found-${file:0:12} ]] || continue
    ((added < kept_inputs)) || break
    cp "$merged/corpus/$file" "$corpus/found-${file:0:12}"
    added=$((added + 1))
  done < <(find "$merged/corpus" -type f -printf '%s %f\n' | sort -n)
  printf '%-20s %3d added, %d kept\n' "$name" "$added" "$(find "$corpus" -type f | wc -l)"
}

total=0 failed=()
while IFS=$'\t' read -r name part test; do
  if ((${#names[@]})) && [[ " ${names[*]} " != *" $name "* ]]; then continue; fi
  found=$PWD/target/fuzz/found/$name
  mkdir -p "$found"
  if [[ $keep ]]; then
    keep "$name" "$part" "$test" "$found" || failed+=("$name")
    continue
  fi
  # One input may take 20 s on a busy machine. The target itself limits its memory.
  arguments=$(printf '%s\n' "-max_total_time=$seconds" -timeout=20 -rss_limit_mb=1024 \
    "-artifact_prefix=$found/../$name-" -print_final_stats=1 "$found")
  log=$found/../$name.log
  code=0
  MUSTER_FUZZ_TARGET=$name MUSTER_FUZZ_ARGUMENTS=$arguments MUSTER_FUZZ_SEEDS=$PWD/target/fuzz/seeds \
    run "$part" --exact "$test" --nocapture >"$log" 2>&1 </dev/null || code=$?
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  first=$(grep -m1 -oE 'INITED .*ft: [0-9]+' "$log" | grep -oE '(cov|ft): [0-9]+' | tr '\n' ' ' || true)
  last=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1 || true)
  total=$((total + ${executions:-0}))
  printf '%-20s %9s executions, from %s to %s, %s\n' "$name" "${executions:-?}" "${first:-?}" \
    "${last:-?}" "$([[ $code == 0 ]] && echo 'no finds' || echo "A FIND: $log")"
  ((code == 0)) || failed+=("$name")
done <<<"$targets"
[[ $keep ]] || printf 'fuzz: %d executions; %d targets with finds %s\n' "$total" "${#failed[@]}" "${failed[*]-}"
((${#failed[@]} == 0))
