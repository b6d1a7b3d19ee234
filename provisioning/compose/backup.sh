#!/bin/sh
# The profile `backup`: saves everything that `bridge backup all` knows, at the start and then every day; after a failure every hour.
set -u
while :; do
  if python -m app backup all --keep "$KEEP"; then
    date -u +%FT%TZ > "$FOLDER/last-success"
    sleep 86400
  else
    echo "backup: failed; the next try is in an hour" >&2
    sleep 3600
  fi
done
