#!/usr/bin/env bash
# install.sh LOCK HOW-LONG: what a lock file names, by hash, into .venv.
set -euo pipefail

packages=$(grep -c '^[a-z0-9].*==' "$1")
scripts/progress.sh "installing $packages packages of $1 into .venv: $2" \
  .venv/bin/pip install --disable-pip-version-check --progress-bar off --require-hashes -r "$1"
scripts/link.sh
