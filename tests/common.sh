# Shared by tests/*.sh; sourced, from the root of the workspace.

export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export RUSTDOCFLAGS='-D warnings'

# The tools of `cargo install`. An installed one is used if it is not older than the second version;
# otherwise the first is built.
nextest_version=0.9.151 nextest_minimum=0.9.114
deny_version=0.20.2 deny_minimum=0.19.0

step() {
  printf '\n== %s\n' "$1"
  shift
  local from=$SECONDS
  "$@"
  printf '== done in %ds\n' "$((SECONDS - from))"
}

need_cargo() {
  command -v cargo >/dev/null || { echo "${0##*/}: Rust is missing: install it with rustup" >&2; exit 1; }
}

need_root() {
  ((EUID == 0)) || { echo "${0##*/}: the lab makes network namespaces: run it as root" >&2; exit 1; }
}

# Installs a Cargo subcommand unless one that is new enough is there: name, version, oldest version.
# Built without link-time optimisation, which takes several times as long and buys nothing here.
cargo_tool() {
  local name=$1 version=$2 minimum=$3 found
  found=$(cargo "${name#cargo-}" --version 2>/dev/null | grep -oE -m1 '[0-9]+(\.[0-9]+)+' | head -n 1) || found=
  [[ $found && $(printf '%s\n' "$minimum" "$found" | sort -V | head -n 1) == "$minimum" ]] && return
  echo "installing $name $version${found:+ (found $found)}"
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    cargo install --locked --quiet --force "$name" --version "$version"
}

tools() {
  cargo_tool cargo-nextest "$nextest_version" "$nextest_minimum"
  cargo_tool cargo-deny "$deny_version" "$deny_minimum"
}

# What needs no test binary.
static_checks() {
  step 'format' cargo fmt --all --check
  step 'clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
  step 'rustdoc' cargo doc --locked --workspace --no-deps --document-private-items --quiet
  step 'dependencies' cargo deny --locked --workspace check bans licenses sources
  step 'advisories' tests/advisories.sh --if-reachable
}
