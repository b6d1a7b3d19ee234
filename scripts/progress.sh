#!/usr/bin/env bash
# progress.sh WHAT COMMAND...: says what begins, then every ten seconds how long it has been and the command's newest line, then
# that it is done. Of a command that fails everything that it has said is shown.
set -euo pipefail

what=$1
shift
every_s=${PROGRESS_EVERY_S:-10}
log=$(mktemp)
"$@" </dev/null >"$log" 2>&1 &
command=$!
# In the background it does not hear Ctrl-C by itself.
trap 'kill "$command" 2>/dev/null || true; rm -f "$log"' EXIT
trap 'exit 130' INT TERM HUP

echo "$what"
next=$every_s
while kill -0 "$command" 2>/dev/null; do
  sleep 0.2
  if [ "$SECONDS" -ge "$next" ]; then
    echo "  ${SECONDS} s: $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-110)"
    next=$((SECONDS + every_s))
  fi
done
code=0
wait "$command" || code=$?
if [ "$code" -ne 0 ]; then
  cat "$log" >&2
  echo "failed after ${SECONDS} s: $what" >&2
  exit "$code"
fi
echo "  done in ${SECONDS} s"
