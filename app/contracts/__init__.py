"""The wire contracts there are. A new one is one file and one line here."""

from __future__ import annotations

from app.contracts.discovery import router as discovery
from app.contracts.frames import router as frames
from app.contracts.grafana_json import router as grafana_json
from app.contracts.grafana_json_discovery import router as grafana_json_discovery
from app.contracts.rows import router as rows

ROUTERS = (grafana_json, grafana_json_discovery, rows, frames, discovery)
