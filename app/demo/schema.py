"""The tables of the Trade Distribution System: ClickHouse (database `trade_system`) and DuckDB."""

from __future__ import annotations

DATABASE = "trade_system"

CLICKHOUSE = (
    f"CREATE DATABASE IF NOT EXISTS {DATABASE}",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.trades (
        trade_id UUID, signal_id UUID, account_id LowCardinality(String), instance_id LowCardinality(String),
        broker_id LowCardinality(String), symbol LowCardinality(String), direction Enum8('buy' = 1, 'sell' = -1),
        order_type LowCardinality(String), state LowCardinality(String), lot_size Decimal(12, 4), requested_price Decimal(18, 8),
        execution_price Decimal(18, 8), point Decimal(18, 8), retcode UInt16,
        slippage_points Float64 MATERIALIZED
            if(point = 0, 0, toFloat64((execution_price - requested_price) / point) * toInt8(direction)),
        pnl Decimal(18, 4), commission Decimal(18, 4), swap Decimal(18, 4), fees Decimal(18, 4), currency LowCardinality(String),
        signal_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)), executed_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
        closed_at Nullable(DateTime64(3, 'UTC')), execution_latency_ms UInt32 CODEC(T64, ZSTD(1)), version UInt64
    ) ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(executed_at)
    ORDER BY (account_id, symbol, executed_at, trade_id) TTL toDateTime(executed_at) + INTERVAL 5 YEAR""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.account_snapshots (
        ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)), account_id LowCardinality(String), broker_id LowCardinality(String),
        balance Decimal(18, 4), credit Decimal(18, 4), equity Decimal(18, 4), margin Decimal(18, 4), free_margin Decimal(18, 4),
        floating_pnl Decimal(18, 4), peak_equity Decimal(18, 4), open_positions UInt16, pending_orders UInt16
    ) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (account_id, ts) TTL toDateTime(ts) + INTERVAL 90 DAY""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.execution_1m (
        minute DateTime('UTC'), broker_id LowCardinality(String), symbol LowCardinality(String),
        requests SimpleAggregateFunction(sum, UInt64), fills SimpleAggregateFunction(sum, UInt64),
        rejects SimpleAggregateFunction(sum, UInt64), slip AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64),
        lat AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64), slip_sum SimpleAggregateFunction(sum, Float64)
    ) ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(minute) ORDER BY (broker_id, symbol, minute)
    TTL minute + INTERVAL 2 YEAR""",
    # Trades are inserted again when they close (version 2); only the first version counts, or each would be counted twice.
    f"""CREATE MATERIALIZED VIEW IF NOT EXISTS {DATABASE}.execution_1m_of_trades TO {DATABASE}.execution_1m AS
    SELECT toStartOfMinute(toDateTime(executed_at, 'UTC')) AS minute, broker_id, symbol, count() AS requests,
        countIf(retcode IN (10009, 10010)) AS fills, countIf(retcode NOT IN (0, 10008, 10009, 10010, 10025)) AS rejects,
        quantilesTDigestStateIf(0.5, 0.95, 0.99)(slippage_points, retcode IN (10009, 10010)) AS slip,
        quantilesTDigestStateIf(0.5, 0.95, 0.99)(toFloat64(execution_latency_ms), retcode IN (10009, 10010)) AS lat,
        sumIf(slippage_points, retcode IN (10009, 10010)) AS slip_sum
    FROM {DATABASE}.trades WHERE version = 1 GROUP BY minute, broker_id, symbol""",  # noqa: S608  constants only
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.instance_performance (
        ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)), instance_id LowCardinality(String), broker_id LowCardinality(String),
        cpu_usage Float64, memory_usage Float64, network_usage Float64, disk_usage Float64, socket_failures_total UInt64
    ) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (instance_id, ts) TTL toDateTime(ts) + INTERVAL 90 DAY""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.host_performance (
        ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)), host_id LowCardinality(String), cpu_load Float64,
        network_latency Float64, memory_used Float64, disk_used Float64, network_bytes_total UInt64
    ) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (host_id, ts) TTL toDateTime(ts) + INTERVAL 90 DAY""",
    f"""CREATE TABLE IF NOT EXISTS {DATABASE}.system_event_log (
        ts DateTime64(3, 'UTC'), ts_end Nullable(DateTime64(3, 'UTC')), event_id UUID, level LowCardinality(String),
        source LowCardinality(String), instance_id LowCardinality(String), title String, text String,
        tags Array(LowCardinality(String))
    ) ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY ts TTL toDateTime(ts) + INTERVAL 1 YEAR""",
)

DUCKDB = """CREATE TABLE account_snapshots (
    ts TIMESTAMP_MS, account_id VARCHAR, broker_id VARCHAR, balance DECIMAL(18, 4), credit DECIMAL(18, 4), equity DECIMAL(18, 4),
    margin DECIMAL(18, 4), free_margin DECIMAL(18, 4), floating_pnl DECIMAL(18, 4), peak_equity DECIMAL(18, 4),
    open_positions USMALLINT, pending_orders USMALLINT)"""
