#!/usr/bin/env bash
# A local Muster cluster on this machine: three control-plane nodes and a worker as processes on
# loopback addresses, with a real etcd.
#
#   deploy/demo.sh            builds, creates the cluster, shows it, leaves it running
#   deploy/demo.sh --check    the same, asserts what it shows, destroys the cluster, exits 0
#   deploy/demo.sh --destroy  destroys what an earlier run left
#
# MUSTER_BIN=DIR takes musterd and musterctl from DIR instead of building them.
set -euo pipefail
cd "$(dirname "$0")/.."

name=demo
check=
# Where the key for etcdctl is kept, next to the cluster's directory.
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
    { echo "demo.sh: Rust is missing: install it with rustup" >&2; exit 1; }
  deploy/prerequisites.sh etcd-server etcd-client gcc libc6-dev
  say 'building (some minutes the first time)'
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
      echo "demo.sh: failed; the logs of the nodes:" >&2
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

say 'its members (musterctl members)'
"$muster" members

say 'etcd, through a stock etcdctl with a one-hour certificate (musterctl etcd client-config)'
rm -rf "$credentials"
"$muster" etcd client-config --out "$credentials" >/dev/null # makes it, mode 0700
set -a
# shellcheck disable=SC1091
. "$credentials/etcdctl.env"
set +a
etcdctl endpoint health --cluster
etcdctl member list -w table

if [[ $check ]]; then
  say 'checking'
  healthy=$(etcdctl endpoint health --cluster 2>&1 | grep -c 'is healthy')
  [[ $healthy == 3 ]] || { echo "demo.sh: $healthy etcd members are healthy, not 3" >&2; exit 1; }
  members=$("$muster" members -o json)
  for word in '"name": *"cp-1"' '"name": *"cp-2"' '"name": *"cp-3"' '"name": *"worker-1"' '"stale": *false'; do
    grep -Eq "$word" <<<"$members" || { echo "demo.sh: no $word in $members" >&2; exit 1; }
  done
  "$muster" health
  echo 'demo.sh: all as it should be'
else
  say 'it is running; try'
  cat <<TEXT
  export PATH=$bin:\$PATH
  musterctl status                      what each node waits for, if anything
  musterctl health
  musterctl pki show                    every authority and certificate
  musterctl token create --role worker  a token for one more machine
  musterctl etcd status
  set -a; . $credentials/etcdctl.env; set +a; etcdctl put hello world
  kill -9 the pid of cp-1 in 'musterctl cluster show $name', then watch 'musterctl members'
  ${MUSTER_BIN:+MUSTER_BIN=$bin }deploy/demo.sh --destroy
                                        stops and removes what was made here, and nothing else
TEXT
fi
