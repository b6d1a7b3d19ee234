"""The list of wire contracts. A new one is one file and one line here."""

from __future__ import annotations

from app.contracts.catalogue import router as discovery
from app.contracts.frames import router as frames
from app.contracts.grafana_json.discovery import router as grafana_json_discovery
from app.contracts.grafana_json.routes import router as grafana_json
from app.contracts.rows import router as rows

ROUTERS = (grafana_json, grafana_json_discovery, rows, frames, discovery)
