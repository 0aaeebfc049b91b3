#!/usr/bin/env bash
# Installs the Debian packages named as arguments, those that are missing, without starting any of
# their services. Needs root only if something is missing.
set -euo pipefail
missing=()
for package in "$@"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
((${#missing[@]})) || exit 0
echo "installing ${missing[*]}"
as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "missing: ${missing[*]}; install them as root: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
# RUNLEVEL=1 keeps the packages' maintainer scripts from starting their daemons (invoke-rc.d).
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null ||
  { echo "apt-get could not install ${missing[*]}" >&2; exit 1; }
