#!/usr/bin/env bash
# A local Muster cluster on this machine: three control-plane nodes and a worker as processes on
# loopback addresses, with a real etcd.
#
#   deploy/demo.sh            builds, creates the cluster, shows it, leaves it running
#   deploy/demo.sh --check    builds, creates the cluster, checks it, destroys it
#   deploy/demo.sh --destroy  destroys the cluster of an earlier run
#
# MUSTER_BIN=DIR takes musterd and musterctl from DIR instead of building them.
set -euo pipefail
cd "$(dirname "$0")/.."

name=demo
check=
# Directory of the key for etcdctl, next to the cluster's directory.
state=${XDG_STATE_HOME:-}
[[ $state == /* ]] || state=${HOME:-}/.local/state
credentials=$state/muster/demo-etcdctl
case "${1:-}" in
  '') ;;
  --check) check=1 name=demo-check ;;
  --destroy)
    rm -rf "$credentials"
    exec "${MUSTER_BIN:-target/debug}/musterctl" cluster destroy "$name"
    ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

if [[ ${MUSTER_BIN:-} ]]; then
  deploy/prerequisites.sh etcd-server etcd-client
  bin=$(realpath -- "$MUSTER_BIN")
else
  command -v cargo >/dev/null ||
    { echo "demo.sh: cargo not found: install Rust with rustup" >&2; exit 1; }
  deploy/prerequisites.sh etcd-server etcd-client gcc libc6-dev
  say 'building (takes minutes the first time)'
  cargo build --locked --quiet -p musterd -p musterctl
  bin=$PWD/target/debug
fi
muster=$bin/musterctl

if [[ $check ]]; then
  home=$(mktemp -d)
  export MUSTER_CONFIG=$home/config
  credentials=$home/etcdctl
  cluster_dir=(--dir "$home/cluster")
  cleanup() {
    status=$?
    trap - EXIT
    if ((status)); then
      echo "demo.sh: failed; last log lines of the nodes:" >&2
      tail -n 20 "$home"/cluster/*/musterd.log >&2 || true
    fi
    "$muster" cluster destroy "$name" || status=1
    rm -rf "$home"
    exit "$status"
  }
  trap cleanup EXIT
else
  cluster_dir=()
fi

say "creating the cluster \"$name\": three control-plane nodes, one worker"
"$muster" cluster create --name "$name" --control-planes 3 --workers 1 "${cluster_dir[@]}"

say 'members (musterctl members)'
"$muster" members

say 'etcd, through a stock etcdctl with a one-hour certificate (musterctl etcd client-config)'
rm -rf "$credentials"
"$muster" etcd client-config --out "$credentials" -o json >/dev/null # creates it, mode 0700
set -a
# shellcheck disable=SC1091
. "$credentials/etcdctl.env"
set +a
etcdctl endpoint health --cluster
etcdctl member list -w table

if [[ $check ]]; then
  say 'checking'
  healthy=$(etcdctl endpoint health --cluster 2>&1 | grep -c 'is healthy')
  [[ $healthy == 3 ]] || { echo "demo.sh: $healthy healthy etcd members, expected 3" >&2; exit 1; }
  members=$("$muster" members -o json)
  for word in '"name": *"cp-1"' '"name": *"cp-2"' '"name": *"cp-3"' '"name": *"worker-1"' '"stale": *false'; do
    grep -Eq "$word" <<<"$members" || { echo "demo.sh: $word not found in $members" >&2; exit 1; }
  done
  "$muster" health
  echo 'demo.sh: all checks passed'
else
  say 'the cluster is running; try'
  cat <<TEXT
  export PATH=$bin:\$PATH
  musterctl status                      shows what each node is waiting for
  musterctl health
  musterctl pki show                    every authority and certificate
  musterctl token create --role worker  a token for one more machine
  musterctl etcd status
  set -a; . $credentials/etcdctl.env; set +a; etcdctl put hello world
  kill -9 PID                           PID of cp-1 from 'musterctl cluster show $name'; then 'musterctl members'
  ${MUSTER_BIN:+MUSTER_BIN=$bin }deploy/demo.sh --destroy
                                        stops and removes what this demo created, and nothing else
TEXT
fi
