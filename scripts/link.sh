#!/usr/bin/env bash
# Makes the checkout importable in .venv and gives it the `bridge` command: what an editable install does, without a build backend
# that would have to be downloaded unhashed.
set -euo pipefail

site="$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
pwd > "$site/bridge-checkout.pth"
cat > .venv/bin/bridge <<'COMMAND'
#!/bin/sh
exec "$(dirname "$0")/python" -m app "$@"
COMMAND
chmod +x .venv/bin/bridge
