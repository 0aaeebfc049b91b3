#!/usr/bin/env bash
# Installs those of the Debian packages given as arguments that are missing, without starting their
# services. Needs root only if a package is missing.
set -euo pipefail
missing=()
for package in "$@"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0
echo "installing ${missing[*]}"
as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "missing packages: ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
# RUNLEVEL=1: the packages' maintainer scripts do not start their daemons (invoke-rc.d).
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null ||
  { echo "apt-get failed to install ${missing[*]}" >&2; exit 1; }
