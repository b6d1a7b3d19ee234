"""The tables of the Trade Distribution System in ClickHouse (the file that production loads too) and DuckDB."""

from __future__ import annotations

from pathlib import Path

DATABASE = "trade_system"


def clickhouse_statements() -> tuple[str, ...]:
    """The statements of schema.sql, in order. Each can be repeated."""
    packaged = Path(__file__).with_name("schema.sql")
    file = packaged if packaged.is_file() else Path(__file__).parents[1] / "provisioning" / "clickhouse" / "schema.sql"
    lines = (line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("--"))
    return tuple(found for text in "\n".join(lines).split(";\n") if (found := text.strip().rstrip(";")))


DUCKDB = """CREATE TABLE IF NOT EXISTS account_snapshots (
    ts TIMESTAMP_MS, account_id VARCHAR, broker_id VARCHAR, balance DECIMAL(18, 4), credit DECIMAL(18, 4), equity DECIMAL(18, 4),
    margin DECIMAL(18, 4), free_margin DECIMAL(18, 4), floating_pnl DECIMAL(18, 4), peak_equity DECIMAL(18, 4),
    open_positions USMALLINT, pending_orders USMALLINT)"""
