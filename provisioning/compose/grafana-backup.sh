#!/bin/sh
# The profile `backup`: Grafana's PostgreSQL, at the start and then every day; after a failure every hour. A dump has its name only
# once it is whole and pg_restore can read its table of contents. Back again (Grafana stopped):
#   pg_restore -h postgres -U grafana -d grafana --clean --if-exists FILE
set -u
PGPASSWORD="$(cat /run/secrets/postgres_password)"
export PGPASSWORD
while :; do
  file="$FOLDER/grafana-$(date -u +%Y%m%dT%H%M%SZ).dump"
  if pg_dump -h postgres -U grafana -Fc -f "$file.part" grafana && pg_restore -l "$file.part" > /dev/null && mv "$file.part" "$file"; then
    date -u +%FT%TZ > "$FOLDER/last-success"
    find "$FOLDER" -name '*.dump' | sort -r | tail -n "+$((KEEP + 1))" | xargs -r rm --
    sleep 86400
  else
    rm -f "$file.part"
    echo "grafana-backup: failed; the next try is in an hour" >&2
    sleep 3600
  fi
done
