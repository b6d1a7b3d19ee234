"""The section `backup` of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, HttpUrl, SecretStr

from app.backup.manifest import KindName
from app.documents.schema import Name, Strict
from app.sources.base import SourceConfig
from app.sources.duckdb.source import DuckDBConfig


class GrafanaBackup(Strict):
    """Grafana's own database, if it is SQLite (MySQL and PostgreSQL have their own tools)."""

    database: Path = Field(description="the file that Grafana's `[database] path` names")


class ClickHouseBackup(Strict):
    """The history. ClickHouse saves it to a disk that its `backups.allowed_disk` names."""

    source: Name = Field("clickhouse", description="the source whose address and database are used")
    username: str | None = Field(None, description="a user who may BACKUP and RESTORE; left out: the source's user")
    password: SecretStr | None = Field(None, description="the password of that user")
    disk: str = Field("backups", pattern=r"^\w+$", description="the disk's name in ClickHouse")
    files: Path | None = Field(None, description="that disk's folder as it is seen from here; needed for SHA-256 and pruning")
    full_every_days: int = Field(
        7, ge=1, le=366, description="days between two full backups; the ones in between are incremental"
    )
    prove: bool = Field(True, description="restore each new backup under another name at once and compare its tables")
    timeout_s: float = Field(6 * 3600, gt=0, description="time limit of one BACKUP or RESTORE")


class PrometheusBackup(Strict):
    """One Prometheus server. The URL must not be a load balancer's, because this server's folder is read."""

    url: HttpUrl = Field(description="the server's own address; it must run with --web.enable-admin-api")
    data: Path = Field(description="the folder that --storage.tsdb.path names, as it is seen from here")
    bearer_token: SecretStr | None = Field(None, description="sent as `Authorization: Bearer`")
    username: str | None = Field(None, description="for HTTP Basic")
    password: SecretStr | None = Field(None, description="for HTTP Basic")
    timeout_s: float = Field(600.0, gt=0, description="time limit of the snapshot")


class DuckDBBackup(Strict):
    """The published snapshot of a source. The live file belongs to the writer."""

    source: Name = Field("duckdb", description="the source whose published snapshot is saved")


class ConfigBackup(Strict):
    """Configuration, catalogue and provisioning."""

    include: tuple[Path, ...] = Field((), description="files and folders besides the configuration's folder and the catalogue")
    exclude: tuple[str, ...] = Field(
        ("*.key", "*.pem", ".env", "*.env"),
        description="patterns of names or paths to leave out; the manifest lists what they matched",
    )
    secrets: bool = Field(False, description="true: also save files with passwords and keys in plain text")


class BackupSettings(Strict):
    """Off without a folder."""

    folder: Path | None = Field(None, description="where the backups go; nothing is saved without it")
    keep: int | None = Field(
        None, ge=1, le=10_000, description="backups to keep of each kind; left out: all; --keep overrides it"
    )
    grafana: GrafanaBackup | None = None
    clickhouse: ClickHouseBackup | None = None
    prometheus: PrometheusBackup | None = None
    duckdb: DuckDBBackup = DuckDBBackup()
    config: ConfigBackup = ConfigBackup()


def configured_kinds(settings: BackupSettings, sources: Mapping[str, SourceConfig]) -> tuple[KindName, ...]:
    """The kinds that `all` takes."""
    given: dict[KindName, bool] = {
        "grafana": settings.grafana is not None,
        "clickhouse": settings.clickhouse is not None,
        "prometheus": settings.prometheus is not None,
        "duckdb": isinstance(sources.get(settings.duckdb.source), DuckDBConfig),
        "config": True,
    }
    return tuple(kind for kind, there in given.items() if there)
