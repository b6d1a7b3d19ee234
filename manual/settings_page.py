"""`docs/settings.md`: every key of the configuration, from the settings' models."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AwareDatetime, BaseModel, HttpUrl, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.config import Settings, SourceSettings
from app.policies import Policy
from app.server.auth import KeySettings
from app.sources.clickhouse.source import ClickHouseConfig
from app.sources.duckdb.source import DuckDBConfig
from app.sources.prometheus.source import PrometheusConfig
from app.sources.redis.source import RedisConfig
from manual.markdown import WARNING, code, table_lines

#: the sections in reading order: the place of the keys, the model, the heading, what stands above the table
SECTIONS: tuple[tuple[str, type[BaseModel], str, str], ...] = (
    ("auth.keys.NAME", KeySettings, "One key", "`bridge key NAME` makes a key and prints these lines."),
    ("sources.NAME", SourceSettings, "One source", "`NAME` is the word that the catalogue uses: `rts`, `clickhouse` and so on."),
    ("sources.NAME.connect", RedisConfig, "Redis", "`kind: redis`."),
    ("sources.NAME.connect", ClickHouseConfig, "ClickHouse", "`kind: clickhouse`."),
    ("sources.NAME.connect", DuckDBConfig, "DuckDB", "`kind: duckdb`."),
    ("sources.NAME.connect", PrometheusConfig, "Prometheus", "`kind: prometheus`, or a store with the same API."),
    (
        "sources.NAME.policy",
        Policy,
        "Policies of one source",
        "The time limits are a ladder: `attempt_timeout_s` <= `total_timeout_s` < `request.budget_s` (4.8 s) < HAProxy (8 s) "
        "< Grafana (10 s). A metric of the catalogue may have a `fresh_s`, `stale_s` and `volatile_s` of its own: see "
        "[add-a-metric.md](add-a-metric.md#cache-times-of-one-metric).",
    ),
)
_MEBIBYTE = 1 << 20
_DAY_S = 86_400
#: an example of each key that has no default, or whose default shows little
_EXAMPLES = {
    "catalog": "/etc/bridge/catalog",
    "state": "/var/lib/bridge",
    "log_style": "json",
    "http.host": "10.0.0.5",
    "http.cors_origins": """'["https://grafana.example"]'""",
    "tier.host": "127.0.0.1",
    "tier.username": "tier",
    "sync.url": "https://backend.example/redis-events",
    "sync.secret": "at-least-16-characters",
    "sync.spool": "/var/lib/bridge/sync",
    "certificates.endpoints": """'["lb.desk.example:8443"]'""",
    "backup.folder": "/var/backups/bridge",
    "backup.keep": "14",
    "backup.grafana.database": "/var/lib/grafana/grafana.db",
    "backup.clickhouse.username": "backup",
    "backup.clickhouse.files": "/var/lib/clickhouse-backups",
    "backup.prometheus.url": "http://127.0.0.1:9091",
    "backup.prometheus.data": "/var/lib/prometheus",
    "backup.config.include": """'["/etc/haproxy/haproxy.cfg"]'""",
    "backup.config.exclude": """'["*.key", "*.pem"]'""",
    "auth.keys.NAME.sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "auth.keys.NAME.expires": "2027-01-31T00:00:00Z",
    "sources.NAME.connect.sentinels": """'["10.0.0.21:26379", "10.0.0.22:26379", "10.0.0.23:26379"]'""",
    "sources.NAME.connect.service": "rts",
    "sources.NAME.connect.sentinel_username": "bridge",
    "sources.NAME.connect.sentinel_password": "change-me",
    "sources.NAME.connect.replica_reads": "true",
    "sources.NAME.connect.cluster": "true",
    "sources.NAME.connect.nodes": """'["10.0.0.31:6379", "10.0.0.32:6379"]'""",
    "sources.NAME.connect.tls_ca_file": "/etc/ssl/store-ca.pem",
    "sources.NAME.connect.ca_file": "/etc/ssl/store-ca.pem",
    "sources.NAME.connect.prefix": "tds:",
    "sources.NAME.connect.path": "data/clickhouse",
    "sources.NAME.connect.snapshots": "/var/lib/tds/snapshots",
    "sources.NAME.connect.newest": "account_snapshots.ts",
    "sources.NAME.connect.url": "http://127.0.0.1:9090",
    "sources.NAME.connect.tenant": "desk",
    "sources.NAME.connect.headers": """'{"X-Key": "change-me"}'""",
    "sources.NAME.connect.params": """'{"partial_response": "true"}'""",
    "sources.NAME.connect.hosts": """'["ch1:8123", "ch2:8123"]'""",
    # for every section that has them
    "username": "bridge",
    "password": "change-me",
    "bearer_token": "change-me",
}
#: patterns in words
_PATTERNS = {
    r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$": "of letters, digits and `_`",
    r"^[A-Za-z_]\w*\.[A-Za-z_]\w*$": "`TABLE.COLUMN`",
    r"^[0-9a-f]{64}$": "of 64 hexadecimal digits",
    r"^\d+(MB|GB)$": "such as `256MB` or `1GB`",
    r"^\w+$": "of letters, digits and `_`",
    r"^[A-Za-z0-9!_.*'()|-]{1,1000}$": "of letters, digits and `!-_.*'()`",
}
_TITLES = {
    "http": "The HTTP server",
    "request": "Limits of one request",
    "auth": "Keys",
    "agent": "HAProxy's agent-check",
    "tier": "The shared cache of several replicas",
    "sync": "The backend sync",
    "backup": "Backups",
    "certificates": "Certificates that are watched",
}
_INTROS = {
    "http": "The address, the connections, and what happens at a stop.",
    "request": "What one request may ask for, and how many requests there may be.",
    "auth": "Without a key the bridge listens on this machine only. Each key has a section of its own, see below.",
    "agent": "A port that tells HAProxy how much of the load this replica should get.",
    "tier": "A Redis through which several replicas share their answers. Each replica works alone without it.",
    "sync": "The bridge tells your backend when a Redis server has failed and when it is back. Off without a `url`.",
    "backup": "What `bridge backup` saves, and where to. Off without a `folder`.",
    "certificates": "When they end is at `/metrics`, and an alert rule tells in time.",
    "backup.grafana": "Grafana's SQLite database. For PostgreSQL and MySQL use their own tools.",
    "backup.clickhouse": "ClickHouse saves its database itself, to a disk of the server.",
    "backup.prometheus": "One Prometheus server, never the load balancer in front of several: its folder is read.",
    "backup.duckdb": "The published snapshot. The writer's own file is never touched.",
    "backup.config": "The configuration, the catalogue, and what else you name.",
}
_HEAD = """\
# Settings

Every key of the configuration. The file is `provisioning/bridge.yaml`, or the one that `--config` or `BRIDGE_CONFIG` names;
`bridge init` writes a sample. It is read once, at the start: restart the bridge to apply a change (SIGHUP changes nothing).
`bridge check` lists every mistake in it.

**One environment variable sets one key.** Its name is `BRIDGE_` and the key in capitals, with `__` for each dot:
`BRIDGE_SOURCES__RTS__CONNECT__PASSWORD` sets `sources.rts.connect.password`. A list is JSON:
`BRIDGE_HTTP__CORS_ORIGINS='["https://grafana.example"]'`. A variable that begins with `BRIDGE_` and sets no key is an error.
A variable of the environment overrides the secrets file, the secrets file overrides the configuration file. Keep passwords
out of the configuration file. The last column of each table has an example of such a variable; `NAME` in it stands for the
name of the source or key. In the file keys look like this:

```yaml
http: {port: 8090}
sources:
  rts:
    connect: {kind: redis, host: 10.0.0.7, port: 6379, username: bridge}
    policy: {attempt_timeout_s: 1.0, total_timeout_s: 2.2, fresh_s: 5}
```

| variable | means |
| --- | --- |
| `BRIDGE_CONFIG` | the configuration file |
| `BRIDGE_SECRETS` | a file with lines `BRIDGE_...=...`, for example of a Windows service |
| `BRIDGE_URL` | the bridge that `bridge query` asks |
| `BRIDGE_KEY` | the key that `bridge query` sends |

`_s` is seconds, `_bytes` is bytes. "none" as a default means that the key may be left out and is off then; "required" means
that it must be given. In YAML a bare `no`, `on` or `12:30` is a text; only `true` and `false` are truth values.
"""


def settings_page() -> str:
    """The page as Markdown."""
    lines = [WARNING.format(source="the `description` of a field in the settings' models"), _HEAD]
    lines += ["## The top level\n", *_table(Settings, ""), ""]
    for name, found in Settings.model_fields.items():
        model = model_of(found.annotation)
        if model is not None:
            lines += _section_lines(name, model, _TITLES[name], 2)
    for place, model, title, above in SECTIONS:
        lines += [f"## {title}: `{place}`\n", f"{above}\n", *_table(model, place), ""]
    return "\n".join(lines)


def _section_lines(place: str, model: type[BaseModel], title: str, depth: int) -> Iterator[str]:
    heading = f"{title}: `{place}`" if title else f"`{place}`"
    yield f"{'#' * depth} {heading}\n"
    yield f"{_INTROS[place]}\n"
    if rows(model, place):
        yield from _table(model, place)
        yield ""
    for name, found in model.model_fields.items():
        inner = model_of(found.annotation)
        if inner is not None:
            yield from _section_lines(f"{place}.{name}", inner, "", depth + 1)


def _table(model: type[BaseModel], place: str) -> Iterable[str]:
    return table_lines(("key", "meaning", "default", "allowed", "example"), rows(model, place))


def rows(model: type[BaseModel], place: str) -> list[tuple[str, str, str, str, str]]:
    """The cells of each key that holds a value itself; keys with keys below them have tables of their own."""
    found = []
    for name, field in model.model_fields.items():
        if model_of(field.annotation) is None and not _has_entries(field):
            path = f"{place}.{name}" if place else name
            found.append(
                (code(name), field.description or "", _shown_default(name, field), allowed_text(field), _example(path, field))
            )
    return found


def _example(path: str, field: FieldInfo) -> str:
    """The environment variable of a key, with a value that is allowed."""
    value = _EXAMPLES.get(path) or _EXAMPLES.get(path.rpartition(".")[2]) or default_text(field).partition("` (")[0].strip("`")
    return code(f"{variable_name(path)}={value}")


def _shown_default(name: str, field: FieldInfo) -> str:
    """The default, and in days where it is a long time."""
    value, text = field.default, default_text(field)
    if name.endswith("_s") and isinstance(value, int | float) and value >= _DAY_S and not value % _DAY_S:
        return f"{text} ({value / _DAY_S:g} day{'s' if value > _DAY_S else ''})"
    return text


def variable_name(path: str) -> str:
    """The environment variable of a key."""
    return "BRIDGE_" + "__".join(part if part == "NAME" else part.upper() for part in path.split("."))


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of the keys below a key; None where a value stands."""
    options = [one for one in _options(annotation) if one is not type(None)]
    models = [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]
    return models[0] if len(options) == len(models) == 1 else None


def _has_entries(field: FieldInfo) -> bool:
    """Whether the keys below this one have names that the writer of the file chooses, or depend on a `kind`."""
    options = _options(field.annotation)
    named = any(get_origin(one) is dict and _is_model(get_args(one)[1]) for one in options)
    return named or len([one for one in options if _is_model(one)]) > 1


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _options(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def default_text(field: FieldInfo) -> str:
    """The default as people write it in YAML."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or value == SecretStr(""):
        return "none"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return code(f"[{', '.join(value)}]")
    if value == {}:
        return "none"
    if isinstance(value, int) and value >= _MEBIBYTE and not value % _MEBIBYTE:
        return f"{code(str(value))} ({value // _MEBIBYTE} MiB)"
    return code(f"{value:g}" if isinstance(value, float) else str(value)) or "empty"


def allowed_text(field: FieldInfo) -> str:
    """The values that are accepted."""
    options = [one for one in _options(field.annotation) if one is not type(None)]
    text = " or ".join(_type_text(one) for one in options)
    return f"{text}{_bounds_text(field)}" + (
        ", or `null`" if field.default is not None and len(options) < len(_options(field.annotation)) else ""
    )


def _type_text(option: Any) -> str:
    if get_origin(option) is Literal:
        return ", ".join(code(str(one)) for one in get_args(option))
    if get_origin(option) is tuple:
        return f"a list of {'files or folders' if get_args(option)[0] is Path else 'texts'}"
    if get_origin(option) is dict:
        return f"names, each with {'a secret' if get_args(option)[1] is SecretStr else 'a text'}"
    words = {
        bool: "`true`, `false`",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
        SecretStr: "a secret",
        HttpUrl: "an http or https address",
        AwareDatetime: "a time with a zone",
    }
    return words.get(option, "a text")


def _bounds_text(field: FieldInfo) -> str:
    found = {type(one): one for one in field.metadata}
    parts = []
    if Ge in found:
        parts.append(f"from {_number(found[Ge].ge)}")
    if Gt in found:
        parts.append(f"above {_number(found[Gt].gt)}")
    if Le in found:
        parts.append(f"{'and up ' if Gt in found else ''}to {_number(found[Le].le)}")
    if Lt in found:
        parts.append(f"below {_number(found[Lt].lt)}")
    patterns = [one.pattern for one in field.metadata if getattr(one, "pattern", None)]
    parts += [_PATTERNS.get(pattern, f"that matches `{pattern}`") for pattern in patterns]
    return f" {' '.join(parts)}" if parts else ""


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
