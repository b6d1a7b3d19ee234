#!/usr/bin/env bash
# Makes .venv with a Python of 3.11 or newer. Plain Debian has no venv module: it is installed where that is allowed.
set -euo pipefail

python=""
for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13; do
  if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
if [ -z "$python" ]; then
  echo "Python 3.11 or newer is needed and not on the PATH; install it, or name it: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

[ -x .venv/bin/pip ] && exit 0
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  echo "installing $package (this Python has no venv module)"
  scripts/apt.sh "$package"
fi
echo "making .venv with $("$python" --version): some seconds"
"$python" -m venv .venv
