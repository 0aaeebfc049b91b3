#!/usr/bin/env bash
# The checks before each commit: format, clippy, rustdoc, dependency rules, unit and in-process tests,
# and the rules of the source tree. Without root, in about five minutes once the workspace is built.
#
# Not part of it: the tests that .config/nextest.toml leaves out of the profile `default`, because they
# need root or start whole clusters. tests/run.sh runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/common.sh
. tests/common.sh

need_cargo
# Root is asked for only if a package is missing.
step 'prerequisites' deploy/prerequisites.sh \
  etcd-server etcd-client openssl gcc libc6-dev procps strace util-linux
step 'tools' tools
static_checks
# The whole workspace at once, as everything else builds it: a part of it would choose other features of
# the dependencies and build them again.
step 'build' cargo build --locked --workspace --all-targets
# Property tests draw the same cases each time, so that a commit passes or fails by its content.
# soak.sh, and a test run by hand, draw others.
export PROPTEST_RNG_SEED=2026
step 'unit and in-process tests' cargo nextest run --locked --workspace
printf '\nall checks of check.sh passed in %ds; tests/run.sh has the rest\n' "$SECONDS"
