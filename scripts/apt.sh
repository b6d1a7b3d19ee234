#!/usr/bin/env bash
# Installs Debian packages where the user may; says what to run where not.
set -euo pipefail

sudo=""
if [ "$(id -u)" -ne 0 ]; then
  sudo="sudo -n"
fi
if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! $sudo true 2>/dev/null; }; then
  echo "missing: $*. Install them, for example: sudo apt-get install --no-install-recommends $*" >&2
  exit 1
fi

# Packages of servers would start them as system services; they are wanted as programs only.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
  $sudo chmod +x "$policy"
  trap '$sudo rm -f "$policy"' EXIT
fi
here=$(dirname "$0")
"$here/progress.sh" "looking up Debian's packages: some seconds" $sudo apt-get update
"$here/progress.sh" "installing from Debian: $*: one to five minutes, once" \
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
