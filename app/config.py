"""Settings: environment over one YAML file; frozen, unknown keys refused, read once by `main`."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from app.auth import AuthSettings
from app.backup import BackupSettings, Standings, configured
from app.errors import ConfigError, Problem
from app.policies import Policy
from app.sources import AnySource
from app.sources.base import Name, Strict
from app.sync import SyncSettings
from app.tier import TierSettings

FILE_VARIABLE = "BRIDGE_CONFIG"
KEY_VARIABLE = "BRIDGE_KEY"
#: names a file of lines BRIDGE_...=...: secrets where there is no environment to put them into, such as a Windows service's
SECRETS_VARIABLE = "BRIDGE_SECRETS"
DEFAULT_FILE = "provisioning/bridge.yaml"


class SourceSettings(Strict):
    """One source: how it is reached, and the numbers of the policies around it."""

    connect: AnySource
    policy: Policy = Policy()


class HttpSettings(Strict):
    """The listening side."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    #: above the 90 s for which Grafana's proxy keeps an idle connection
    keep_alive_s: int = Field(120, ge=1, le=3600)
    graceful_stop_s: int = Field(5, ge=0, le=300)
    #: how long it still serves after it was told to stop, not ready any more, so that the load balancer turns away first
    lame_duck_s: float = Field(3.0, ge=0, le=60)
    max_body_bytes: int = Field(4 << 20, ge=1024, le=64 << 20)
    #: for `access: direct` data sources, whose browser calls the bridge itself
    cors_origins: tuple[str, ...] = ()
    gzip: bool = Field(True, description="send answers that are sent again compressed to those who take that")


class RequestSettings(Strict):
    """The limits of one request."""

    budget_s: float = Field(4.8, gt=0, le=60, description="for the whole answer; above every source's total, below Grafana's 5 s")
    concurrent: int = Field(20, ge=1, le=1000, description="askings of all sources at the same time in the process")
    under_way: int = Field(256, ge=1, le=100_000, description="requests at the same time; one more is refused with 429")
    max_targets: int = Field(50, ge=1, le=1000)
    max_points: int = Field(1000, ge=2, le=10_000)
    max_rows: int = Field(100_000, ge=1, le=5_000_000)
    max_range_s: int = Field(400 * 86400, ge=60)
    ready_bytes: int = Field(32 << 20, ge=0, description="finished answers kept while every part of them is fresh; 0 keeps none")


class AgentSettings(Strict):
    """HAProxy's agent-check: a port that tells the weight of this replica; off without a port."""

    host: str = "127.0.0.1"
    port: int | None = Field(8081, ge=0, le=65535)


class Settings(BaseSettings):
    """Everything that can be configured. `BRIDGE_SOURCES__RTS__CONNECT__PASSWORD` overrides one nested field."""

    model_config = SettingsConfigDict(
        env_prefix="BRIDGE_", env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    http: HttpSettings = HttpSettings()
    request: RequestSettings = RequestSettings()
    auth: AuthSettings = AuthSettings()
    #: a folder of catalogue files; the one that comes with the bridge when left out
    catalog: Path | None = None
    #: a folder of this replica's own: answers over a restart, undelivered sync calls; nothing is kept without it
    state: Path | None = None
    agent: AgentSettings = AgentSettings()
    tier: TierSettings = TierSettings()
    sync: SyncSettings = SyncSettings()
    backup: BackupSettings = BackupSettings()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_style: Literal["text", "json"] = "text"
    sources: dict[Name, SourceSettings] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The precedence."""
        return env_settings, dotenv_settings, init_settings

    @property
    def catalog_folder(self) -> Path:
        """Where the catalogue is: configured, else in the package, else in the repository."""
        packaged = Path(__file__).with_name("catalog_files")
        return self.catalog or (packaged if packaged.is_dir() else Path(__file__).parents[1] / "provisioning" / "catalog")

    @model_validator(mode="after")
    def _ladder(self) -> Settings:
        budget_s = self.request.budget_s
        above = [name for name, source in self.sources.items() if source.policy.total_timeout_s >= budget_s]
        if above:
            names = ", ".join(above)
            raise ValueError(f"request.budget_s ({budget_s:g}) must be above policy.total_timeout_s of every source; see {names}")
        return self

    @model_validator(mode="after")
    def _closed(self) -> Settings:
        if not (self.auth.keys or self.auth.open or _is_here(self.http.host)):
            raise ValueError(
                f"http.host ({self.http.host}) lets others in, and nobody has to show a key; add one to auth.keys "
                "(`bridge key NAME` makes it), or say `auth: {open: true}` where something else looks after that"
            )
        return self

    @property
    def backups(self) -> Standings | None:
        """Where it is looked how old the backups are; None where none are taken."""
        sources = {name: source.connect for name, source in self.sources.items()}
        return Standings(self.backup.folder, configured(self.backup, sources)) if self.backup.folder else None

    @property
    def kinds(self) -> dict[str, str]:
        """Each source's kind."""
        return {name: source.connect.kind for name, source in self.sources.items()}


def _is_here(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def asking_key() -> str | None:
    """The key of who asks a bridge from the command line."""
    return os.environ.get(KEY_VARIABLE)


def read_settings(file: Path | None, secrets: Path | None = None) -> Settings:
    """The settings from `file` (else the one that BRIDGE_CONFIG names, else the default), the secrets and the environment."""
    file = file or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    return settings_from(_yaml(file), str(file), secrets)


def settings_from(values: dict[str, Any], place: str, secrets: Path | None = None) -> Settings:
    """The settings from given values, the secrets file (else the one that BRIDGE_SECRETS names) and the environment.

    Raises ConfigError with every problem, found at `place`.
    """
    try:
        return Settings(
            _env_file=_readable(secrets or os.environ.get(SECRETS_VARIABLE)), _env_file_encoding="utf-8-sig", **values
        )
    except ValidationError as problem:
        raise ConfigError([_problem(place, error) for error in problem.errors(include_url=False)]) from problem
    except SettingsError as problem:  # its text names the field, not the value
        text = f"{problem}; allowed: JSON, or BRIDGE_SECTION__KEY=... for one key"
        raise ConfigError([Problem("the environment", "", text)]) from problem


def _readable(secrets: Path | str | None) -> Path | str | None:
    """The secrets file, which must be there once it is named: pydantic-settings would say nothing."""
    if secrets:
        try:
            Path(secrets).open("rb").close()
        except OSError as problem:
            raise ConfigError([Problem(str(secrets), "", f"cannot be read: {problem.strerror}")]) from problem
    return secrets


def _problem(place: str, error: Any) -> Problem:
    key = ".".join(str(part) for part in error["loc"])
    message = "unknown key" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    return Problem(place, key, message)


def _yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError([Problem(str(file), "", f"cannot be read: {problem.strerror}")]) from problem
    except yaml.YAMLError as problem:
        raise ConfigError([Problem(str(file), "", f"not YAML: {problem}".replace("\n", " "))]) from problem
    if not isinstance(values, dict):
        raise ConfigError([Problem(str(file), "", "expected a mapping with the keys " + ", ".join(Settings.model_fields))])
    return values
