"""Makes each kind of backup from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.backup.clickhouse import ClickHouseKind
from app.backup.config_files import ConfigKind
from app.backup.duckdb import DuckDBKind
from app.backup.grafana import GrafanaKind
from app.backup.kind import Kind
from app.backup.manifest import KindName
from app.backup.prometheus import PrometheusKind
from app.backup.settings import BackupSettings
from app.sources.base import SourceConfig
from app.sources.clickhouse.source import ClickHouseConfig
from app.sources.duckdb.source import DuckDBConfig


def build_kinds(settings: BackupSettings, sources: Mapping[str, SourceConfig], roots: tuple[Path, ...]) -> dict[KindName, Kind]:
    """Every kind. One that is not configured raises when it is used. `roots`: the folders of configuration and catalogue."""
    history = sources.get(settings.clickhouse.source) if settings.clickhouse else None
    analytics = sources.get(settings.duckdb.source)
    return {
        "grafana": GrafanaKind(settings.grafana.database if settings.grafana else None),
        "clickhouse": ClickHouseKind(settings.clickhouse, history if isinstance(history, ClickHouseConfig) else None),
        "prometheus": PrometheusKind(settings.prometheus),
        "duckdb": DuckDBKind(analytics.snapshots if isinstance(analytics, DuckDBConfig) else None),
        "config": ConfigKind(settings.config, roots),
    }
