"""A bridge that starts before anything else has: no store answers, no snapshot was published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.config import settings_from
from app.main import build_service
from tests.e2e.conftest import client_of


async def test_health_and_metrics_are_answered_before_the_first_snapshot(tmp_path: Path) -> None:
    sources: dict[str, Any] = {"duckdb": {"connect": {"kind": "duckdb", "snapshots": str(tmp_path / "none")}}}
    for name in ("rts", "ris", "rtss", "rtrs", "clickhouse", "prometheus"):
        kind = {"clickhouse": "clickhouse", "prometheus": "prometheus"}.get(name, "redis")
        where: dict[str, Any] = {"url": "http://127.0.0.1:9"} if kind == "prometheus" else {"port": 9}
        sources[name] = {"connect": {"kind": kind, **where}}
    async with client_of(build_service(settings_from({"sources": sources, "agent": {"port": None}}, "test")).app) as client:
        metrics, health = await client.get("/metrics"), await client.get("/health/sources")
    assert (metrics.status_code, health.status_code) == (200, 200)
    assert "bridge_snapshot_age_seconds{" not in metrics.text
    assert (health.json()["sources"]["duckdb"]["up"], health.json()["sources"]["duckdb"]["data_age_s"]) == (False, None)
