"""What is saved, where it is, and where the backups go: the section `backup` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr

from app.backup.manifest import KindName
from app.sources.base import Name, SourceConfig, Strict
from app.sources.duckdb import DuckDBConfig


class GrafanaBackup(Strict):
    """Grafana's own database; only SQLite has a file (MySQL and PostgreSQL have tools of their own)."""

    database: Path = Field(description="the file that Grafana's `[database] path` names")


class ClickHouseBackup(Strict):
    """The history, saved by ClickHouse itself to a disk that its `backups.allowed_disk` names."""

    source: Name = Field("clickhouse", description="the source whose address and database are taken")
    username: str | None = Field(None, description="who may BACKUP and RESTORE; the source's user when left out")
    password: SecretStr | None = None
    disk: str = Field("backups", pattern=r"^\w+$", description="the disk's name in ClickHouse")
    files: Path | None = Field(None, description="that disk's folder as it is seen from here; needed for SHA-256 and pruning")
    full_every_days: int = Field(7, ge=1, le=366, description="in between only what is new since the last full one")
    prove: bool = Field(True, description="restore each new backup aside at once and hash its tables")
    timeout_s: float = Field(6 * 3600, gt=0, description="for one BACKUP or RESTORE")


class PrometheusBackup(Strict):
    """One Prometheus server: itself, never the load balancer in front of several, since its folder is read."""

    url: HttpUrl = Field(description="started with --web.enable-admin-api")
    data: Path = Field(description="the folder that --storage.tsdb.path names, as it is seen from here")
    bearer_token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    timeout_s: float = Field(600.0, gt=0, description="for the snapshot")


class DuckDBBackup(Strict):
    """The published snapshot of a source; the live file is the writer's alone."""

    source: Name = "duckdb"


class ConfigBackup(Strict):
    """Configuration, catalogue and provisioning."""

    include: tuple[Path, ...] = Field((), description="files and folders besides the configuration's folder and the catalogue")
    exclude: tuple[str, ...] = Field(
        ("*.key", "*.pem", ".env", "*.env"), description="patterns of names or paths; what they match is named in the manifest"
    )
    secrets: bool = Field(False, description="save files with passwords and keys in plain text too")


class BackupSettings(Strict):
    """Off without a folder."""

    folder: Path | None = None
    keep: int | None = Field(None, ge=1, le=10_000, description="backups kept of each kind; all when left out; --keep overrides")
    grafana: GrafanaBackup | None = None
    clickhouse: ClickHouseBackup | None = None
    prometheus: PrometheusBackup | None = None
    duckdb: DuckDBBackup = DuckDBBackup()
    config: ConfigBackup = ConfigBackup()


def configured(settings: BackupSettings, sources: Mapping[str, SourceConfig]) -> tuple[KindName, ...]:
    """Those that `all` takes."""
    given: dict[KindName, bool] = {
        "grafana": settings.grafana is not None,
        "clickhouse": settings.clickhouse is not None,
        "prometheus": settings.prometheus is not None,
        "duckdb": isinstance(sources.get(settings.duckdb.source), DuckDBConfig),
        "config": True,
    }
    return tuple(kind for kind, there in given.items() if there)
