#!/usr/bin/env bash
# Security advisories on the dependencies (RustSec), by cargo-deny and the exceptions of deny.toml.
#
#   tests/advisories.sh                  fails if an advisory matches, or if the database cannot be had
#   tests/advisories.sh --if-reachable   an unreachable database is reported, and is no failure
#
# MUSTER_ADVISORY_DB=DIR uses a clone of the database instead of the one on the network, for machines
# that do not reach it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/common.sh
. tests/common.sh

optional=
case ${1-} in
  '') ;;
  --if-reachable) optional=yes ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
esac
need_cargo
cargo_tool cargo-deny "$deny_version" "$deny_minimum"

url=https://github.com/RustSec/advisory-db
if [[ ${MUSTER_ADVISORY_DB-} ]]; then
  # cargo-deny fetches the database with git, which takes the clone instead.
  export GIT_CONFIG_COUNT=1 GIT_CONFIG_VALUE_0=$url
  GIT_CONFIG_KEY_0=url.file://$(realpath -- "$MUSTER_ADVISORY_DB").insteadOf
  export GIT_CONFIG_KEY_0
fi

deny=(cargo deny --locked --workspace)
if ! reason=$(GIT_TERMINAL_PROMPT=0 timeout 120 "${deny[@]}" fetch db 2>&1); then
  printf 'the advisory database %s could not be fetched:\n%s\n' "$url" "$(tail -n 5 <<<"$reason")"
  if [[ $optional ]] && ! GIT_TERMINAL_PROMPT=0 timeout 60 git ls-remote -q "$url" HEAD >/dev/null 2>&1; then
    echo 'ADVISORIES NOT CHECKED: this machine does not reach the database; tests/advisories.sh checks them elsewhere'
    exit 0
  fi
  echo 'advisories.sh: repeat it where the database is reachable, or set MUSTER_ADVISORY_DB to a clone' >&2
  exit 1
fi
"${deny[@]}" --offline check advisories
echo "advisories checked against ${MUSTER_ADVISORY_DB:-$url}"
