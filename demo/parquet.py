"""Columns as a Parquet file, written by DuckDB. ClickHouse takes it several times faster than JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from demo.rows import Columns

_MONEY = "DECIMAL(18, 4)"
_PRICE = "DECIMAL(18, 8)"
#: The SQL types of amounts. A float is rounded to them here: a store that converts a float itself may cut it off.
_DECIMALS: Mapping[str, str] = {
    **dict.fromkeys(("requested_price", "execution_price", "point"), _PRICE),
    **dict.fromkeys(("pnl", "commission", "swap", "fees", "lot_size"), _MONEY),
    **dict.fromkeys(("balance", "credit", "equity", "margin", "free_margin", "floating_pnl", "peak_equity"), _MONEY),
}
_TIMES = ("ts", "ts_end", "signal_at", "executed_at", "closed_at")


def typed_columns(columns: Columns) -> str:
    """The list of a SELECT that gives each column the type of its table. Times are epoch ms."""
    return ", ".join(_typed_column(name) for name in columns)


class ParquetEncoder:
    """Encodes columns, one call at a time."""

    def __init__(self) -> None:
        self._database = duckdb.connect()

    def encode(self, columns: Columns) -> bytes:
        """The columns (arrays of equal length by name) as one Parquet file."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / "columns.parquet"
            # DuckDB finds the variable `columns` by its name and reads the arrays without a copy.
            selected = f"SELECT {typed_columns(columns)} FROM columns"  # noqa: S608  the tables' own names
            self._database.execute(f"COPY ({selected}) TO '{file}' (FORMAT parquet, COMPRESSION lz4_raw)")
            return file.read_bytes()


def _typed_column(name: str) -> str:
    if name in _TIMES:
        return f"make_timestamp_ms({name}) AS {name}"
    return f"{name}::{_DECIMALS[name]} AS {name}" if name in _DECIMALS else name
