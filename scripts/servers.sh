#!/usr/bin/env bash
# What the tests run against, and the further programs named: installed from Debian where they are missing. A missing one
# is an error, never a skip.
set -euo pipefail
# Where Debian puts servers; not on everybody's PATH.
PATH="$PATH:/usr/sbin"

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need redis-server redis-server
need prometheus prometheus
need promtool prometheus
need victoria-metrics victoria-metrics
need node nodejs
need npm npm
need haproxy haproxy
need systemd-analyze systemd
need openssl openssl
need docker-compose docker-compose
# a Windows machine for the services: wine, and a compiler for the few DLLs that it lacks
need wine wine
need x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64-win32
for further in "$@"; do
  need "$further" "$further"
done
if [ "${#missing[@]}" -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  scripts/apt.sh "${missing[@]}"
fi
