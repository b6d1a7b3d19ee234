"""`provisioning/clickhouse/cluster.sql`: the tables of `schema.sql` for several servers, made from that file.

Each table becomes a replicated one of each server (`trades_local`) and a `Distributed` one under the table's own name. So what
reads or writes `trades` stays as it is. Views that feed a table work on each server's own part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_HEAD = """\
-- Made by `make docs` from schema.sql, which has the comments; do not edit. For several servers: see README.md here.
-- Run it on each server, after its macros are set. May be run again at any time: what is there stays.
--   clickhouse-client --user schema --password "$CLICKHOUSE_SCHEMA_PASSWORD" --queries-file provisioning/clickhouse/cluster.sql
-- NAME_local is the part of one server; NAME is all of them together, to read and to write.
"""
_DATABASE = re.compile(r"CREATE DATABASE IF NOT EXISTS \w+")
_TABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<database>\w+)\.(?P<table>\w+) \(\n(?P<columns>.*?)\n\)\n"
    r"ENGINE = (?P<engine>\w*MergeTree)(?:\((?P<arguments>[^\n]*)\))?\n(?P<rest>.*)",
    re.DOTALL,
)
_FEEDING_VIEW = re.compile(r"CREATE MATERIALIZED VIEW IF NOT EXISTS (\w+\.\w+) TO (\w+\.\w+) AS\n(.*)", re.DOTALL)
_VIEW = re.compile(r"CREATE VIEW IF NOT EXISTS \w+\.\w+ AS\n.*", re.DOTALL)
#: Columns by which rows are spread over the servers, the first that a table has. No row changes them in a later version, and
#: `FINAL` joins the versions of a row within one server.
_SPREAD_BY = ("account_id", "instance_id", "host_id", "broker_id")
_PLAIN = "MergeTree"
_WINDOW = "non_replicated_deduplication_window = "
_WEEK_S = 7 * 86_400


def cluster_schema(schema: str) -> str:
    """The text of cluster.sql for that of schema.sql. Raises ValueError for a statement that it cannot spread."""
    local = dict[str, str]()
    return "\n\n".join([_HEAD.rstrip(), *(f"{one};" for text in _statements(schema) for one in _spread(text, local))]) + "\n"


def _statements(schema: str) -> Iterator[str]:
    lines = (line for line in schema.splitlines() if not line.startswith("--"))
    return (found for text in "\n".join(lines).split(";\n") if (found := text.strip().rstrip(";")))


def _spread(text: str, local: dict[str, str]) -> Iterator[str]:
    """The statements in place of one. `local` has the local name of each table so far."""
    if _DATABASE.fullmatch(text) or _VIEW.fullmatch(text):
        yield text
    elif found := _FEEDING_VIEW.fullmatch(text):
        view, target, select = found.groups()
        select = re.sub(r"\b\w+\.\w+\b", lambda name: local.get(name[0], name[0]), select)
        yield f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view} TO {local[target]} AS\n{select}"
    elif found := _TABLE.fullmatch(text):
        local[f"{found['database']}.{found['table']}"] = f"{found['database']}.{found['table']}_local"
        yield from _spread_table(found)
    else:
        raise ValueError(f"not known how to spread over servers: {text[:80]!r}")


def _spread_table(found: re.Match[str]) -> Iterator[str]:
    database, table = found["database"], found["table"]
    place = f"'/clickhouse/tables/{{shard}}/{database}/{table}', '{{replica}}'"
    given = f"{place}, {found['arguments']}" if found["arguments"] else place
    # Without a time of its own the server would forget a block after some days, and count it twice if it came again later.
    rest = found["rest"].replace(
        _WINDOW, f"replicated_deduplication_window_seconds = {_WEEK_S}, replicated_deduplication_window = "
    )
    yield (
        f"CREATE TABLE IF NOT EXISTS {database}.{table}_local (\n{found['columns']}\n)\n"
        f"ENGINE = Replicated{found['engine']}({given})\n{rest}"
    )
    yield (
        f"CREATE TABLE IF NOT EXISTS {database}.{table} AS {database}.{table}_local\n"
        f"ENGINE = Distributed('{{cluster}}', '{database}', '{table}_local', cityHash64({_spread_key(found)}))"
    )


def _spread_key(found: re.Match[str]) -> str:
    """The column by which the rows of a table are spread."""
    names = re.findall(r"^    (\w+) ", found["columns"], re.MULTILINE)
    key = next((name for name in _SPREAD_BY if name in names), None)
    if key is None:
        raise ValueError(f"{found['table']}: has none of the columns by which rows are spread: {', '.join(_SPREAD_BY)}")
    order = re.search(r"^ORDER BY \(?([^)\n]*)", found["rest"], re.MULTILINE)
    if found["engine"] != _PLAIN and (order is None or key not in order[1].split(", ")):
        raise ValueError(f"{found['table']}: {key} is not in its ORDER BY, so versions of a row could lie on two servers")
    return key
