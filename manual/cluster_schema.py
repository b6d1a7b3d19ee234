"""`provisioning/clickhouse/cluster.sql`: the tables of `schema.sql` for several servers, made from that file.

Each table becomes a replicated one of each server (`trades_local`) and a `Distributed` one under the table's own name. So what
reads or writes `trades` stays as it is. Views that feed a table work on each server's own part. A table without an account, a
terminal, a host or a broker is small: each server has the whole of it, so that a query of a part can look into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEAD = """\
-- Made by `make docs` from schema.sql, which has the comments; do not edit. For several servers: see README.md here.
-- Run it on each server, after its macros are set. May be run again at any time: what is there stays.
--   clickhouse-client --user schema --password "$CLICKHOUSE_SCHEMA_PASSWORD" --queries-file provisioning/clickhouse/cluster.sql
-- NAME_local is the part of one server; NAME is all of them together, to read and to write.
"""
_DATABASE = re.compile(r"CREATE DATABASE IF NOT EXISTS \w+")
_TABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<database>\w+)\.(?P<table>\w+) (?:\(\n(?P<columns>.*?)\n\)|AS (?P<twin>\w+\.\w+))\n"
    r"ENGINE = (?P<engine>\w*MergeTree)(?:\((?P<arguments>[^\n]*)\))?\n(?P<rest>.*)",
    re.DOTALL,
)
_FILL = re.compile(r"INSERT INTO \w+\.\w+ .*", re.DOTALL)
_FEEDING_VIEW = re.compile(r"CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+\.\w+) TO (\w+\.\w+) AS\n(.*)", re.DOTALL)
_VIEW = re.compile(r"CREATE VIEW IF NOT EXISTS \w+\.\w+ AS\n.*", re.DOTALL)
#: Columns by which rows are spread over the servers, the first that a table has. No row changes them in a later version, and
#: `FINAL` joins the versions of a row within one server.
_SPREAD_BY = ("account_id", "instance_id", "host_id", "broker_id")
_PLAIN = "MergeTree"
_WINDOW = "non_replicated_deduplication_window = "
_WEEK_S = 7 * 86_400
#: Where the replicas of a table find each other: those of a shard, and all servers.
_PLACE = "'/clickhouse/tables/{{shard}}/{table}', '{{replica}}'"
_PLACE_OF_WHOLE = "'/clickhouse/tables/all/{table}', '{{shard}}-{{replica}}'"


def cluster_schema(schema: str) -> str:
    """The text of cluster.sql for that of schema.sql. Raises ValueError for a statement that it cannot spread."""
    tables = dict[str, _Table]()
    spread = [one for text in _statements(schema) for one in _spread(text, tables)]
    # What fills a table reads from all servers, so it comes when they have their tables.
    spread.sort(key=lambda text: _FILL.fullmatch(text) is not None)
    return "\n\n".join([_HEAD.rstrip(), *(f"{text};" for text in spread)]) + "\n"


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the schema: its name on one server, and its columns."""

    local: str
    columns: str


def _statements(schema: str) -> Iterator[str]:
    lines = (line for line in schema.splitlines() if not line.startswith("--"))
    return (found for text in "\n".join(lines).split(";\n") if (found := text.strip().rstrip(";")))


def _spread(text: str, tables: dict[str, _Table]) -> Iterator[str]:
    """The statements in place of one. `tables` are those so far, by their names."""
    if _DATABASE.fullmatch(text) or _VIEW.fullmatch(text) or _FILL.fullmatch(text):
        yield text
    elif found := _FEEDING_VIEW.fullmatch(text):
        view, target, select = found.groups()
        select = re.sub(r"\b\w+\.\w+\b", lambda name: tables[name[0]].local if name[0] in tables else name[0], select)
        yield f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view} TO {tables[target].local} AS\n{select}"
    elif found := _TABLE.fullmatch(text):
        yield from _spread_table(found, tables)
    else:
        raise ValueError(f"not known how to spread over servers: {text[:80]!r}")


def _spread_table(found: re.Match[str], tables: dict[str, _Table]) -> Iterator[str]:
    database, table, twin = found["database"], found["table"], found["twin"]
    columns = tables[twin].columns if twin else found["columns"]
    key = _spread_key(found, columns)
    local = f"{database}.{table}_local" if key else f"{database}.{table}"
    tables[f"{database}.{table}"] = _Table(local, columns)
    shape = f"AS {tables[twin].local}" if twin else f"(\n{columns}\n)"
    place = _PLACE if key else _PLACE_OF_WHOLE
    given = ", ".join(filter(None, (place.format(table=f"{database}/{table}"), found["arguments"])))
    # Without a time of its own the server would forget a block after some days, and count it twice if it came again later.
    rest = found["rest"].replace(
        _WINDOW, f"replicated_deduplication_window_seconds = {_WEEK_S}, replicated_deduplication_window = "
    )
    yield f"CREATE TABLE IF NOT EXISTS {local} {shape}\nENGINE = Replicated{found['engine']}({given})\n{rest}"
    if key:
        yield (
            f"CREATE TABLE IF NOT EXISTS {database}.{table} AS {local}\n"
            f"ENGINE = Distributed('{{cluster}}', '{database}', '{table}_local', cityHash64({key}))"
        )


def _spread_key(found: re.Match[str], columns: str) -> str | None:
    """The column by which the rows of a table are spread; None for a table that each server has as a whole."""
    names = re.findall(r"^    (\w+) ", columns, re.MULTILINE)
    key = next((name for name in _SPREAD_BY if name in names), None)
    order = re.search(r"^ORDER BY \(?([^)\n]*)", found["rest"], re.MULTILINE)
    if key and found["engine"] != _PLAIN and (order is None or key not in order[1].split(", ")):
        raise ValueError(f"{found['table']}: {key} is not in its ORDER BY, so versions of a row could lie on two servers")
    return key
