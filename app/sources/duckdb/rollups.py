"""The roll-ups of `account_snapshots` in a DuckDB database: tables of the same columns with fewer of its rows.

account_snapshots_1m   the newest sample of each account (and broker) in each minute
account_snapshots_1h   the newest one in each hour
account_extremes_1h    of each hour the first and the newest sample, and each figure's first lowest, first highest and newest one
rollup_hours           how many samples each hour had when it was rolled up, and their hash

All rows are samples as they were written, so each statement on the raw table may be put to a roll-up instead. `update_rollups`
rolls up the hours whose samples have changed since: it is for writers, at each publication, and for `bridge rollup`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb

RAW = "account_snapshots"
_HOURS = "rollup_hours"
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
#: table -> how long its rows are kept, in days
RETENTION_DAYS = {"account_snapshots_1m": 366, "account_snapshots_1h": 5 * 366, "account_extremes_1h": 5 * 366}
ROLLUPS = tuple(RETENTION_DAYS)
#: hours that are rolled up at once: more need more memory
_AT_ONCE = 24

_AMOUNTS = ("equity", "balance", "margin", "free_margin", "floating_pnl", "open_positions", "pending_orders")
#: The figures that are computed of several columns, as the catalogue computes them, and these columns.
_COMPUTED = (
    (("equity", "margin"), "CASE WHEN margin >= 0.00005 THEN equity::DOUBLE / margin::DOUBLE * 100 END"),
    (
        ("equity", "peak_equity"),
        "CASE WHEN equity > peak_equity THEN 0 ELSE peak_equity::DOUBLE - equity::DOUBLE END"
        " / CASE WHEN peak_equity::DOUBLE >= 0.00005 THEN peak_equity::DOUBLE END * 100",
    ),
)


def update_rollups(database: duckdb.DuckDBPyConnection, *, anew: bool = False) -> int:
    """Make the roll-ups where they are missing, and roll up the hours that have changed; how many that were.

    An hour has changed when the number or the hash of its samples has; `anew` rolls up all hours. What the raw table no longer
    has at its old end stays in the roll-ups, each for its own time. Raises duckdb.Error.
    """
    _create_tables(database)
    changed = _changed_hours(database, anew)
    for first in range(0, len(changed), _AT_ONCE):
        _roll_up(database, changed[first : first + _AT_ONCE])
    for table, days in RETENTION_DAYS.items():
        newest = f"SELECT max(ts) FROM {RAW}"  # noqa: S608  constants
        database.execute(f"DELETE FROM {table} WHERE ts < ({newest}) - INTERVAL {days} DAY")  # noqa: S608  constants
    return len(changed)


def has_rollups(database: duckdb.DuckDBPyConnection) -> bool:
    """Whether the database has all of the tables, each with the columns of the raw one. Raises duckdb.Error."""
    columns = [_columns_of(database, table) for table in (RAW, *ROLLUPS)]
    return all(found == columns[0] for found in columns) and bool(_columns_of(database, _HOURS))


def copy_rollups(database: duckdb.DuckDBPyConnection, other: str) -> None:
    """Take over the roll-ups of an attached database, which `has_rollups` accepts. Raises duckdb.Error."""
    _create_tables(database)
    for table in (*ROLLUPS, _HOURS):
        database.execute(f"DELETE FROM {table}")  # noqa: S608  constants
        database.execute(f"INSERT INTO {table} BY NAME SELECT * FROM {other}.{table}")  # noqa: S608  constants


def _columns_of(database: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    where = "table_name = ? AND database_name = current_database()"
    asked = f"SELECT column_name, data_type FROM duckdb_columns() WHERE {where} ORDER BY 1"  # noqa: S608  constants
    return [(str(name), str(kind)) for name, kind in database.execute(asked, [table]).fetchall()]


def _create_tables(database: duckdb.DuckDBPyConnection) -> None:
    for table in ROLLUPS:
        database.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM {RAW} LIMIT 0")  # noqa: S608  constants
    database.execute(f"CREATE TABLE IF NOT EXISTS {_HOURS} (hour BIGINT, samples BIGINT, content UBIGINT)")


def _changed_hours(database: duckdb.DuckDBPyConnection, anew: bool) -> list[int]:
    """The hours (since the epoch) to roll up, in the order of time.

    Hours that the raw table no longer has at its old end have not changed: they stay as they are.
    """
    counted = _count_hours("TRUE")
    differs = "TRUE" if anew else "(r.samples, r.content) IS DISTINCT FROM (n.samples, n.content)"
    found = database.execute(
        f"""WITH n AS ({counted}), oldest AS (SELECT min(hour) AS hour FROM n)
        SELECT coalesce(n.hour, r.hour) AS hour FROM n FULL JOIN {_HOURS} r USING (hour), oldest
        WHERE coalesce(n.hour, r.hour) >= oldest.hour AND {differs}
        ORDER BY 1"""  # noqa: S608  constants
    ).fetchall()
    return [int(hour) for (hour,) in found]


def _count_hours(condition: str) -> str:
    """The hours of the raw table, each with the number and the hash of its samples."""
    figures = "count(*) AS samples, bit_xor(hash(s)) AS content"
    return f"SELECT epoch_ms(ts) // {_HOUR_MS} AS hour, {figures} FROM {RAW} s WHERE {condition} GROUP BY 1"  # noqa: S608  constants


def _roll_up(database: duckdb.DuckDBPyConnection, hours: Sequence[int]) -> None:
    """Put the rows of these hours in place of what the roll-ups have of them."""
    listed = ", ".join(map(str, hours))
    of_hours = (
        f"ts >= make_timestamp_ms({hours[0] * _HOUR_MS}) AND ts < make_timestamp_ms({(hours[-1] + 1) * _HOUR_MS})"
        f" AND epoch_ms(ts) // {_HOUR_MS} IN ({listed})"
    )
    keys = {
        "account_snapshots_1m": _newest_of(_MINUTE_MS, of_hours),
        "account_snapshots_1h": _newest_of(_HOUR_MS, of_hours),
        "account_extremes_1h": _extremes_of(_columns_of(database, RAW), of_hours),
    }
    database.begin()
    try:
        for table, picked in keys.items():
            # Of the oldest hour the raw table may have lost the begin. What the roll-ups have of that stays.
            database.execute(f"DELETE FROM {table} WHERE {of_hours} AND ts >= (SELECT min(ts) FROM {RAW})")  # noqa: S608  constants
            database.execute(
                f"""INSERT INTO {table} SELECT s.* FROM (SELECT * FROM {RAW} WHERE {of_hours}) s SEMI JOIN ({picked}) p
                ON s.ts = p.ts AND s.account_id = p.account_id AND s.broker_id IS NOT DISTINCT FROM p.broker_id"""  # noqa: S608  constants
            )
        database.execute(f"DELETE FROM {_HOURS} WHERE hour IN ({listed})")  # noqa: S608  constants
        database.execute(f"INSERT INTO {_HOURS} {_count_hours(of_hours)}")
        database.commit()
    except BaseException:
        database.rollback()
        raise


def _newest_of(bucket_ms: int, of_hours: str) -> str:
    """The key (account, broker, time) of each bucket's newest sample."""
    by = f"account_id, broker_id, epoch_ms(ts) // {bucket_ms}"
    return f"SELECT account_id, broker_id, max(ts) AS ts FROM {RAW} WHERE {of_hours} GROUP BY {by}"  # noqa: S608  constants


def _extremes_of(columns: Sequence[tuple[str, str]], of_hours: str) -> str:
    """The keys of each hour's first and newest sample, and of the first lowest and the first highest of each figure."""
    picks = ", ".join(("min(ts)", "max(ts)", *_extreme_times({name for name, _ in columns})))
    by = f"account_id, broker_id, epoch_ms(ts) // {_HOUR_MS}"
    return f"SELECT DISTINCT account_id, broker_id, unnest([{picks}]) AS ts FROM {RAW} WHERE {of_hours} GROUP BY {by}"  # noqa: S608  constants


def _extreme_times(columns: set[str]) -> Iterator[str]:
    figures = [((name,), f"{name}::DOUBLE") for name in _AMOUNTS]
    for needed, figure in (*figures, *_COMPUTED):
        if columns.issuperset(needed):
            for pick, time in (("arg_min", "epoch_ms(ts)"), ("arg_max", "-epoch_ms(ts)")):
                yield f"{pick}(ts, struct_pack(v := {figure}, t := {time})) FILTER (({figure}) IS NOT NULL)"
            # A figure may have no value in the newest sample; the newest value is shown all the same.
            yield f"max(ts) FILTER (({figure}) IS NOT NULL)"
