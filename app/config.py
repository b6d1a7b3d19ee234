"""Settings: the environment overrides secrets, which override one YAML file. Frozen; unknown keys are refused."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from app.backup import BackupHealthReader, BackupSettings, configured_kinds
from app.documents.environment import (
    FILE_VARIABLE,
    KEY_VARIABLE,
    SECRETS_VARIABLE,
    URL_VARIABLE,
    Overlay,
    environment_variables,
    secrets_variables,
)
from app.documents.nearest import name_hint
from app.documents.problems import key_text, place_of, reason_of, secret_at, without_followers
from app.documents.schema import Name, Strict
from app.documents.yaml_text import read_yaml
from app.errors import ConfigError, Problem
from app.operations.certificates import CertificateSettings
from app.operations.redis_shared_cache import SharedCacheSettings
from app.policies import Policy
from app.server.auth import AuthSettings
from app.server.settings import AgentSettings, HttpSettings, RequestSettings
from app.sources import READS, AnySource
from app.sources.off import OFF, with_kind
from app.sync import SyncSettings

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_FILE = "provisioning/bridge.yaml"


class SourceSettings(Strict):
    """One source: its connection, and the numbers of its policies.

    `enabled: false` alone is enough for a source that does not exist; answers then say that it is off.
    """

    connect: AnySource = Field(description="the address and how to log in; `kind` decides which keys are allowed")
    policy: Policy = Field(Policy(), description="time limits, retries, caching and the circuit breaker of this source")
    enabled: bool = Field(True, description="false: there is no such store here; its metrics use their fallbacks or say so")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_kind(cls, raw: Any) -> Any:
        return with_kind(raw)


class Settings(Strict):
    """Everything that can be configured. `BRIDGE_SOURCES__RTS__CONNECT__PASSWORD` overrides one nested field."""

    model_config = ConfigDict(hide_input_in_errors=True)

    http: HttpSettings = HttpSettings()
    request: RequestSettings = RequestSettings()
    auth: AuthSettings = AuthSettings()
    catalog: Path | None = Field(None, description="a folder of catalogue files; left out: the one that comes with the bridge")
    state: Path | None = Field(
        None, description="a folder of this replica's own: cached answers and sync calls survive a restart there"
    )
    agent: AgentSettings = AgentSettings()
    tier: SharedCacheSettings = SharedCacheSettings()
    sync: SyncSettings = SyncSettings()
    backup: BackupSettings = BackupSettings()
    certificates: CertificateSettings = CertificateSettings()
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least severe lines to log")
    log_style: Literal["text", "json"] = Field("text", description="json: one object a line")
    sources: dict[Name, SourceSettings] = Field(default_factory=dict, description="the stores, by the names in the catalogue")

    @property
    def catalog_folder(self) -> Path:
        """The folder of the catalogue: the configured one, else the one that comes with the bridge."""
        return self.catalog or shipped_catalogue()

    @model_validator(mode="after")
    def _check_time_ladder(self) -> Settings:
        budget_s = self.request.budget_s
        above = [name for name, source in self.sources.items() if source.policy.total_timeout_s >= budget_s]
        if above:
            names = ", ".join(above)
            raise ValueError(f"request.budget_s ({budget_s:g}) must be above policy.total_timeout_s of every source; see {names}")
        return self

    @model_validator(mode="after")
    def _require_key(self) -> Settings:
        if not (self.auth.keys or self.auth.open or _is_loopback(self.http.host)):
            raise ValueError(
                f"http.host ({self.http.host}) lets other machines in without a key; add one to auth.keys "
                "(`bridge key NAME` makes it), or set `auth: {open: true}` if something else decides who may ask"
            )
        return self

    @model_validator(mode="after")
    def _check_workers(self) -> Settings:
        if self.http.workers > 1 and (reason := self.one_worker_reason()):
            raise ValueError(f"http.workers ({self.http.workers}) must be 1 here: {reason}")
        return self

    def one_worker_reason(self) -> str | None:
        """Why several worker processes cannot work here; None if they can."""
        if sys.platform == "win32":
            return "on Windows several processes cannot share a port; run a second service behind HAProxy"
        alone = [name for name, source in self.sources.items() if source.connect.enabled and source.connect.one_process_only]
        return f"{', '.join(alone)} is an engine inside the process, on a folder that only one may open" if alone else None

    @property
    def backups(self) -> BackupHealthReader | None:
        """The reader of the ages of backups; None if no backups are configured."""
        sources = {name: source.connect for name, source in self.sources.items()}
        return BackupHealthReader(self.backup.folder, configured_kinds(self.backup, sources)) if self.backup.folder else None

    @property
    def kinds(self) -> dict[str, str]:
        """Source -> kind."""
        return {name: source.connect.kind for name, source in self.sources.items()}


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_key() -> str | None:
    """The key that commands send to a bridge."""
    return os.environ.get(KEY_VARIABLE)


def bridge_url(given: str | None) -> tuple[str, str]:
    """The bridge that commands ask, and where its address comes from: `given`, else BRIDGE_URL, else the default."""
    named = os.environ.get(URL_VARIABLE)
    return (given, "--url") if given else (named, URL_VARIABLE) if named else (DEFAULT_URL, "the default")


def sample_file() -> Path:
    """The sample configuration: in the package, else in the repository."""
    packaged = Path(__file__).with_name("bridge.yaml")
    return packaged if packaged.is_file() else Path(__file__).parents[1] / "provisioning" / "bridge.yaml"


def chosen_file(file: Path | None) -> Path:
    """The configuration file: `file`, else the one that BRIDGE_CONFIG names, else the default."""
    return file or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def shipped_catalogue() -> Path:
    """The folder of the catalogue that comes with the bridge: in the package, else in the repository."""
    packaged = Path(__file__).with_name("catalog_files")
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "provisioning" / "catalog"


def read_settings(file: Path | None, secrets: Path | None = None) -> Settings:
    """The settings from the configuration file (see `chosen_file`), the secrets and the environment.

    Raises ConfigError with every problem.
    """
    return survey_settings(file, secrets).or_raise()


def settings_from(values: dict[str, Any], place: str, secrets: Path | None = None) -> Settings:
    """The settings from given values, the secrets file (else the one that BRIDGE_SECRETS names) and the environment.

    Raises ConfigError with every problem, found at `place`.
    """
    return _survey_values(values, place, secrets).or_raise()


@dataclass(frozen=True, slots=True)
class Survey:
    """The valid part of a configuration, and all its problems."""

    problems: list[Problem]
    settings: Settings | None
    #: The valid parts of the settings, with defaults for the others.
    partial: Settings
    #: Source -> kind, as far as it is known; None if nothing is known.
    kinds: Mapping[str, str] | None
    #: The configured folder of the catalogue.
    catalog: Path | None = None

    def or_raise(self) -> Settings:
        """The settings. Raises ConfigError with every problem."""
        if self.settings is None or self.problems:
            raise ConfigError(self.problems)
        return self.settings


def survey_settings(file: Path | None, secrets: Path | None = None) -> Survey:
    """As `read_settings`, but with the valid parts beside the problems. Raises nothing."""
    file = chosen_file(file)
    try:
        values = _read_file(file)
        if not isinstance(values, dict):
            keys = ", ".join(Settings.model_fields)
            raise ConfigError([Problem(str(file), "", f"expected a mapping with the keys {keys}")])
    except ConfigError as wrong:
        beside = _survey_values({}, str(file), secrets)
        return Survey(sorted({*wrong.problems, *beside.problems}), None, beside.partial, None)
    return _survey_values(values, str(file), secrets)


def _read_file(file: Path) -> Any:
    if not file.exists():
        text = (
            f"cannot be read: No such file or directory; `bridge init` writes a sample, --config or {FILE_VARIABLE} names another"
        )
        raise ConfigError([Problem(str(file), "", text)])
    return read_yaml(file, str(file))


def _survey_values(values: dict[str, Any], place: str, secrets: Path | None) -> Survey:
    overlay = Overlay(values, Settings)
    problems = _apply_overrides(overlay, secrets)
    problems += _misnamed_sources(overlay, place)
    settings = None
    try:
        settings = Settings(**overlay.values)
    except ValidationError as wrong:
        found = without_followers(wrong.errors(include_url=False), Settings)
        problems += [_problem_of(place, error, overlay) for error in found]
    problems += overlay.problems
    catalog = overlay.values.get("catalog")
    kinds = settings.kinds if settings else _named_kinds(overlay.values.get("sources"))
    partial = settings or _valid_settings(overlay.values)
    return Survey(sorted(set(problems)), settings, partial, kinds, Path(catalog) if isinstance(catalog, str | Path) else None)


def _valid_settings(values: dict[str, Any]) -> Settings:
    """The settings that are valid by themselves, with defaults for the others."""
    valid = dict[str, Any]()
    for name, found in Settings.model_fields.items():
        with suppress(ValidationError):
            if name in values and name != "sources":
                valid[name] = TypeAdapter(cast("type[Any]", found.annotation)).validate_python(values[name])
    sources, given = dict[str, SourceSettings](), values.get("sources")
    for name, source in given.items() if isinstance(given, dict) else ():
        alone = {key: source[key] for key in ("connect", "enabled") if key in source} if isinstance(source, dict) else source
        for one in (alone, source):  # a source with an invalid policy is kept: it can still be asked
            with suppress(ValidationError):
                sources[name] = SourceSettings.model_validate(one)
    return Settings.model_construct(**valid, sources=sources)


def _apply_overrides(overlay: Overlay, secrets: Path | None) -> list[Problem]:
    """Apply the secrets and the environment over the file."""
    problems = list[Problem]()
    named = secrets or os.environ.get(SECRETS_VARIABLE)
    if named:
        try:
            variables, problems = secrets_variables(Path(named))
            overlay.add_variables(variables)
        except ConfigError as wrong:
            problems = wrong.problems
    overlay.add_variables(environment_variables(os.environ))
    return problems


def _misnamed_sources(overlay: Overlay, file: str) -> list[Problem]:
    """Drop sources that only variables name and that have no kind: their names are misspelt."""
    found, problems = overlay.values.get("sources"), list[Problem]()
    sources: dict[str, Any] = found if isinstance(found, dict) else {}
    for name, source in list(sources.items()):
        variables = overlay.variables_below(("sources", name))
        owner = overlay.owner_of(("sources", name))
        if owner is not None and variables and isinstance(source, dict) and not _has_kind(source):
            del sources[name]
            others = name_hint(name, sources)
            problems += [one.as_problem(f"{file} has no source {name}; {others}") for one in variables]
    return problems


def _has_kind(source: dict[str, Any]) -> bool:
    connect = source.get("connect")
    return "enabled" in source or (isinstance(connect, dict) and ("kind" in connect or "enabled" in connect))


def _named_kinds(sources: Any) -> dict[str, str] | None:
    """The kinds of the sources when the settings as a whole are invalid."""
    if not isinstance(sources, dict):
        return None if sources else {}
    connects = {name: source.get("connect") if isinstance(source, dict) else None for name, source in sources.items()}
    kinds = {name: connect.get("kind") if isinstance(connect, dict) else None for name, connect in connects.items()}
    return {name: kind if isinstance(kind, str) and kind in READS else OFF for name, kind in kinds.items()}


def _problem_of(file: str, error: Any, overlay: Overlay) -> Problem:
    """A pydantic error as a problem, at the variable that set the value, else at the key in the file."""
    place = place_of(error, Settings)
    owner = overlay.owner_of(place)
    if owner is not None:
        return owner.as_problem(f"{key_text(place)}: {reason_of(error, Settings, showing=False)}")
    return Problem(file, key_text(place), reason_of(error, Settings, showing=not secret_at(Settings, error["loc"])))
