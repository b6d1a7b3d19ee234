-- Made by `make docs` from schema.sql, which has the comments; do not edit. For several servers: see README.md here.
-- Run it on each server, after its macros are set. May be run again at any time: what is there stays.
--   clickhouse-client --user schema --password "$CLICKHOUSE_SCHEMA_PASSWORD" --queries-file provisioning/clickhouse/cluster.sql
-- NAME_local is the part of one server; NAME is all of them together, to read and to write.

CREATE DATABASE IF NOT EXISTS trade_system;

CREATE TABLE IF NOT EXISTS trade_system.trades_local (
    trade_id UUID,
    signal_id UUID,
    account_id LowCardinality(String),
    instance_id LowCardinality(String),
    broker_id LowCardinality(String),
    symbol LowCardinality(String),
    direction Enum8('buy' = 1, 'sell' = -1),
    order_type LowCardinality(String),
    state LowCardinality(String),
    lot_size Decimal(12, 4),
    requested_price Decimal(18, 8),
    execution_price Decimal(18, 8),
    point Decimal(18, 8),
    retcode UInt16,
    slippage_points Float64 MATERIALIZED ifNull(toFloat64((execution_price - requested_price) / nullIf(point, 0)) * toInt8(direction), 0),
    pnl Decimal(18, 4),
    commission Decimal(18, 4),
    swap Decimal(18, 4),
    fees Decimal(18, 4),
    currency LowCardinality(String),
    signal_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    executed_at DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    closed_at Nullable(DateTime64(3, 'UTC')),
    execution_latency_ms UInt32 CODEC(T64, ZSTD(1)),
    version UInt64
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/trade_system/trades', '{replica}', version)
PARTITION BY toYYYYMM(executed_at)
ORDER BY (account_id, symbol, executed_at, trade_id)
TTL toDateTime(executed_at) + INTERVAL 5 YEAR
SETTINGS replicated_deduplication_window_seconds = 604800, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS trade_system.trades AS trade_system.trades_local
ENGINE = Distributed('{cluster}', 'trade_system', 'trades_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS trade_system.account_snapshots_local (
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    account_id LowCardinality(String),
    broker_id LowCardinality(String),
    balance Decimal(18, 4),
    credit Decimal(18, 4),
    equity Decimal(18, 4),
    margin Decimal(18, 4),
    free_margin Decimal(18, 4),
    floating_pnl Decimal(18, 4),
    peak_equity Decimal(18, 4),
    open_positions UInt16,
    pending_orders UInt16
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/trade_system/account_snapshots', '{replica}')
PARTITION BY toYYYYMM(ts)
ORDER BY (account_id, ts)
TTL toDateTime(ts) + INTERVAL 90 DAY;

CREATE TABLE IF NOT EXISTS trade_system.account_snapshots AS trade_system.account_snapshots_local
ENGINE = Distributed('{cluster}', 'trade_system', 'account_snapshots_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS trade_system.execution_1m_local (
    minute DateTime('UTC'),
    broker_id LowCardinality(String),
    symbol LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    fills SimpleAggregateFunction(sum, UInt64),
    rejects SimpleAggregateFunction(sum, UInt64),
    slip AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64),
    lat AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64),
    slip_sum SimpleAggregateFunction(sum, Float64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/trade_system/execution_1m', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (broker_id, symbol, minute)
TTL minute + INTERVAL 2 YEAR
SETTINGS replicated_deduplication_window_seconds = 604800, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS trade_system.execution_1m AS trade_system.execution_1m_local
ENGINE = Distributed('{cluster}', 'trade_system', 'execution_1m_local', cityHash64(broker_id));

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.execution_1m_of_trades TO trade_system.execution_1m_local AS
SELECT
    toStartOfMinute(toDateTime(executed_at, 'UTC')) AS minute,
    broker_id,
    symbol,
    count() AS requests,
    countIf(retcode IN (10009, 10010)) AS fills,
    countIf(retcode NOT IN (0, 10008, 10009, 10010, 10025)) AS rejects,
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(slippage_points, retcode IN (10009, 10010)) AS slip,
    quantilesTDigestStateIf(0.5, 0.95, 0.99)(toFloat64(execution_latency_ms), retcode IN (10009, 10010)) AS lat,
    sumIf(slippage_points, retcode IN (10009, 10010)) AS slip_sum
FROM trade_system.trades_local
WHERE version = 1
GROUP BY minute, broker_id, symbol;

CREATE TABLE IF NOT EXISTS trade_system.account_snapshots_1m_local AS trade_system.account_snapshots_local
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/trade_system/account_snapshots_1m', '{replica}', ts)
PARTITION BY toYYYYMM(ts)
ORDER BY (account_id, broker_id, toStartOfMinute(ts))
TTL toDateTime(ts) + INTERVAL 1 YEAR;

CREATE TABLE IF NOT EXISTS trade_system.account_snapshots_1m AS trade_system.account_snapshots_1m_local
ENGINE = Distributed('{cluster}', 'trade_system', 'account_snapshots_1m_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS trade_system.account_snapshots_1h_local AS trade_system.account_snapshots_local
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/trade_system/account_snapshots_1h', '{replica}', ts)
PARTITION BY toYYYYMM(ts)
ORDER BY (account_id, broker_id, toStartOfHour(ts))
TTL toDateTime(ts) + INTERVAL 5 YEAR;

CREATE TABLE IF NOT EXISTS trade_system.account_snapshots_1h AS trade_system.account_snapshots_1h_local
ENGINE = Distributed('{cluster}', 'trade_system', 'account_snapshots_1h_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS trade_system.account_extremes_1h_local (
    hour DateTime('UTC'),
    account_id LowCardinality(String),
    broker_id LowCardinality(String),
    balance_low SimpleAggregateFunction(min, Tuple(Decimal(18, 4), Int64)),
    balance_high SimpleAggregateFunction(max, Tuple(Decimal(18, 4), Int64)),
    equity_low SimpleAggregateFunction(min, Tuple(Decimal(18, 4), Int64)),
    equity_high SimpleAggregateFunction(max, Tuple(Decimal(18, 4), Int64)),
    margin_low SimpleAggregateFunction(min, Tuple(Decimal(18, 4), Int64)),
    margin_high SimpleAggregateFunction(max, Tuple(Decimal(18, 4), Int64)),
    free_margin_low SimpleAggregateFunction(min, Tuple(Decimal(18, 4), Int64)),
    free_margin_high SimpleAggregateFunction(max, Tuple(Decimal(18, 4), Int64)),
    floating_pnl_low SimpleAggregateFunction(min, Tuple(Decimal(18, 4), Int64)),
    floating_pnl_high SimpleAggregateFunction(max, Tuple(Decimal(18, 4), Int64)),
    open_positions_low SimpleAggregateFunction(min, Tuple(UInt16, Int64)),
    open_positions_high SimpleAggregateFunction(max, Tuple(UInt16, Int64)),
    pending_orders_low SimpleAggregateFunction(min, Tuple(UInt16, Int64)),
    pending_orders_high SimpleAggregateFunction(max, Tuple(UInt16, Int64))
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/trade_system/account_extremes_1h', '{replica}')
PARTITION BY toYYYYMM(hour)
ORDER BY (account_id, broker_id, hour)
TTL hour + INTERVAL 5 YEAR;

CREATE TABLE IF NOT EXISTS trade_system.account_extremes_1h AS trade_system.account_extremes_1h_local
ENGINE = Distributed('{cluster}', 'trade_system', 'account_extremes_1h_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS trade_system.orders_1m_local (
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    broker_id LowCardinality(String),
    symbol LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    fills SimpleAggregateFunction(sum, UInt64),
    rejects SimpleAggregateFunction(sum, UInt64),
    failed SimpleAggregateFunction(sum, UInt64),
    executed SimpleAggregateFunction(sum, UInt64),
    fill_slippage SimpleAggregateFunction(sum, Decimal(38, 8)),
    executed_slippage SimpleAggregateFunction(sum, Decimal(38, 8)),
    latency AggregateFunction(quantilesExactInclusive(0.5, 0.95, 0.99), UInt32)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/trade_system/orders_1m', '{replica}')
PARTITION BY toYYYYMM(ts)
ORDER BY (broker_id, symbol, ts)
TTL toDateTime(ts) + INTERVAL 2 YEAR
SETTINGS replicated_deduplication_window_seconds = 604800, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS trade_system.orders_1m AS trade_system.orders_1m_local
ENGINE = Distributed('{cluster}', 'trade_system', 'orders_1m_local', cityHash64(broker_id));

CREATE TABLE IF NOT EXISTS trade_system.orders_1h_local (
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    broker_id LowCardinality(String),
    symbol LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64),
    fills SimpleAggregateFunction(sum, UInt64),
    rejects SimpleAggregateFunction(sum, UInt64),
    failed SimpleAggregateFunction(sum, UInt64),
    executed SimpleAggregateFunction(sum, UInt64),
    fill_slippage SimpleAggregateFunction(sum, Decimal(38, 8)),
    executed_slippage SimpleAggregateFunction(sum, Decimal(38, 8)),
    latency AggregateFunction(quantilesExactInclusive(0.5, 0.95, 0.99), UInt32)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/trade_system/orders_1h', '{replica}')
PARTITION BY toYYYYMM(ts)
ORDER BY (broker_id, symbol, ts)
TTL toDateTime(ts) + INTERVAL 5 YEAR
SETTINGS replicated_deduplication_window_seconds = 604800, replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS trade_system.orders_1h AS trade_system.orders_1h_local
ENGINE = Distributed('{cluster}', 'trade_system', 'orders_1h_local', cityHash64(broker_id));

CREATE VIEW IF NOT EXISTS trade_system.orders AS
SELECT
    executed_at AS ts,
    account_id,
    broker_id,
    symbol,
    toUInt64(1) AS requests,
    toUInt64(retcode IN (10009, 10010)) AS fills,
    toUInt64(retcode NOT IN (0, 10008, 10009, 10010, 10025)) AS rejects,
    toUInt64(state = 'failed') AS failed,
    toUInt64(state != 'failed') AS executed,
    if(retcode IN (10009, 10010), ifNull(toDecimal128((execution_price - requested_price) / nullIf(point, 0), 8) * toInt8(direction), 0), 0) AS fill_slippage,
    if(state != 'failed', ifNull(toDecimal128((execution_price - requested_price) / nullIf(point, 0), 8) * toInt8(direction), 0), 0) AS executed_slippage,
    arrayReduce('quantilesExactInclusiveState(0.5, 0.95, 0.99)', if(state != 'failed', [execution_latency_ms], [])) AS latency
FROM trade_system.trades FINAL;

CREATE TABLE IF NOT EXISTS trade_system.rollup_gaps (
    source LowCardinality(String),
    hour DateTime('UTC'),
    reason LowCardinality(String),
    marked_at DateTime('UTC') DEFAULT now('UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/trade_system/rollup_gaps', '{shard}-{replica}', marked_at)
ORDER BY (source, hour);

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.account_snapshots_1m_of_samples TO trade_system.account_snapshots_1m_local AS
SELECT * FROM trade_system.account_snapshots_local ORDER BY ts DESC LIMIT 1 BY account_id, broker_id, toStartOfMinute(ts);

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.account_snapshots_1h_of_samples TO trade_system.account_snapshots_1h_local AS
SELECT * FROM trade_system.account_snapshots_local ORDER BY ts DESC LIMIT 1 BY account_id, broker_id, toStartOfHour(ts);

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.account_extremes_1h_of_samples TO trade_system.account_extremes_1h_local AS
SELECT
    toStartOfHour(toDateTime(ts, 'UTC')) AS hour,
    account_id,
    broker_id,
    min((balance, toUnixTimestamp64Milli(ts))) AS balance_low,
    max((balance, -toUnixTimestamp64Milli(ts))) AS balance_high,
    min((equity, toUnixTimestamp64Milli(ts))) AS equity_low,
    max((equity, -toUnixTimestamp64Milli(ts))) AS equity_high,
    min((margin, toUnixTimestamp64Milli(ts))) AS margin_low,
    max((margin, -toUnixTimestamp64Milli(ts))) AS margin_high,
    min((free_margin, toUnixTimestamp64Milli(ts))) AS free_margin_low,
    max((free_margin, -toUnixTimestamp64Milli(ts))) AS free_margin_high,
    min((floating_pnl, toUnixTimestamp64Milli(ts))) AS floating_pnl_low,
    max((floating_pnl, -toUnixTimestamp64Milli(ts))) AS floating_pnl_high,
    min((open_positions, toUnixTimestamp64Milli(ts))) AS open_positions_low,
    max((open_positions, -toUnixTimestamp64Milli(ts))) AS open_positions_high,
    min((pending_orders, toUnixTimestamp64Milli(ts))) AS pending_orders_low,
    max((pending_orders, -toUnixTimestamp64Milli(ts))) AS pending_orders_high
FROM trade_system.account_snapshots_local
GROUP BY hour, account_id, broker_id;

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.orders_1m_of_trades TO trade_system.orders_1m_local AS
SELECT
    toDateTime64(toStartOfMinute(toDateTime(executed_at, 'UTC')), 3, 'UTC') AS ts,
    broker_id,
    symbol,
    count() AS requests,
    countIf(retcode IN (10009, 10010)) AS fills,
    countIf(retcode NOT IN (0, 10008, 10009, 10010, 10025)) AS rejects,
    countIf(state = 'failed') AS failed,
    countIf(state != 'failed') AS executed,
    sumIf(ifNull(toDecimal128((execution_price - requested_price) / nullIf(point, 0), 8) * toInt8(direction), 0),
          retcode IN (10009, 10010)) AS fill_slippage,
    sumIf(ifNull(toDecimal128((execution_price - requested_price) / nullIf(point, 0), 8) * toInt8(direction), 0),
          state != 'failed') AS executed_slippage,
    quantilesExactInclusiveStateIf(0.5, 0.95, 0.99)(execution_latency_ms, state != 'failed') AS latency
FROM trade_system.trades_local
WHERE version = 1
GROUP BY ts, broker_id, symbol;

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.orders_1h_of_trades TO trade_system.orders_1h_local AS
SELECT
    toDateTime64(toStartOfHour(toDateTime(executed_at, 'UTC')), 3, 'UTC') AS ts,
    broker_id,
    symbol,
    count() AS requests,
    countIf(retcode IN (10009, 10010)) AS fills,
    countIf(retcode NOT IN (0, 10008, 10009, 10010, 10025)) AS rejects,
    countIf(state = 'failed') AS failed,
    countIf(state != 'failed') AS executed,
    sumIf(ifNull(toDecimal128((execution_price - requested_price) / nullIf(point, 0), 8) * toInt8(direction), 0),
          retcode IN (10009, 10010)) AS fill_slippage,
    sumIf(ifNull(toDecimal128((execution_price - requested_price) / nullIf(point, 0), 8) * toInt8(direction), 0),
          state != 'failed') AS executed_slippage,
    quantilesExactInclusiveStateIf(0.5, 0.95, 0.99)(execution_latency_ms, state != 'failed') AS latency
FROM trade_system.trades_local
WHERE version = 1
GROUP BY ts, broker_id, symbol;

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_system.rollup_gaps_of_trades TO trade_system.rollup_gaps AS
SELECT 'trades' AS source, toStartOfHour(toDateTime(executed_at, 'UTC')) AS hour, 'a correction' AS reason, now('UTC') AS marked_at
FROM trade_system.trades_local
WHERE version > 2
GROUP BY hour;

CREATE TABLE IF NOT EXISTS trade_system.instance_performance_local (
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    instance_id LowCardinality(String),
    broker_id LowCardinality(String),
    cpu_usage Float64,
    memory_usage Float64,
    network_usage Float64,
    disk_usage Float64,
    socket_failures_total UInt64
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/trade_system/instance_performance', '{replica}')
PARTITION BY toYYYYMM(ts)
ORDER BY (instance_id, ts)
TTL toDateTime(ts) + INTERVAL 90 DAY;

CREATE TABLE IF NOT EXISTS trade_system.instance_performance AS trade_system.instance_performance_local
ENGINE = Distributed('{cluster}', 'trade_system', 'instance_performance_local', cityHash64(instance_id));

CREATE TABLE IF NOT EXISTS trade_system.host_performance_local (
    ts DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    host_id LowCardinality(String),
    cpu_load Float64,
    network_latency Float64,
    memory_used Float64,
    disk_used Float64,
    network_bytes_total UInt64
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/trade_system/host_performance', '{replica}')
PARTITION BY toYYYYMM(ts)
ORDER BY (host_id, ts)
TTL toDateTime(ts) + INTERVAL 90 DAY;

CREATE TABLE IF NOT EXISTS trade_system.host_performance AS trade_system.host_performance_local
ENGINE = Distributed('{cluster}', 'trade_system', 'host_performance_local', cityHash64(host_id));

CREATE TABLE IF NOT EXISTS trade_system.system_event_log_local (
    ts DateTime64(3, 'UTC'),
    ts_end Nullable(DateTime64(3, 'UTC')),
    event_id UUID,
    level LowCardinality(String),
    source LowCardinality(String),
    instance_id LowCardinality(String),
    title String,
    text String,
    tags Array(LowCardinality(String))
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/trade_system/system_event_log', '{replica}')
PARTITION BY toYYYYMM(ts)
ORDER BY ts
TTL toDateTime(ts) + INTERVAL 1 YEAR;

CREATE TABLE IF NOT EXISTS trade_system.system_event_log AS trade_system.system_event_log_local
ENGINE = Distributed('{cluster}', 'trade_system', 'system_event_log_local', cityHash64(instance_id));

CREATE VIEW IF NOT EXISTS trade_system.trade_failure_log AS
SELECT executed_at AS failed_at, trade_id, signal_id, account_id, instance_id, broker_id, symbol, direction, order_type, lot_size,
       requested_price, retcode, execution_latency_ms
FROM trade_system.trades FINAL
WHERE state = 'failed';

CREATE VIEW IF NOT EXISTS trade_system.commission_log AS
SELECT assumeNotNull(closed_at) AS charged_at, trade_id, account_id, broker_id, symbol, commission, swap, fees, currency
FROM trade_system.trades FINAL
WHERE closed_at IS NOT NULL;

CREATE VIEW IF NOT EXISTS trade_system.broker_performance AS
SELECT
    toDate(executed_at, 'UTC') AS day,
    broker_id,
    count() AS requests,
    countIf(retcode IN (10009, 10010)) AS fills,
    countIf(retcode NOT IN (0, 10008, 10009, 10010, 10025)) AS rejects,
    avgIf(slippage_points, retcode IN (10009, 10010)) AS average_slippage_points,
    avgIf(execution_latency_ms, retcode IN (10009, 10010)) AS average_execution_latency_ms,
    sumIf(pnl + commission + swap - fees, closed_at IS NOT NULL) AS realised_pnl
FROM trade_system.trades FINAL
GROUP BY day, broker_id;

CREATE VIEW IF NOT EXISTS trade_system.account_performance AS
SELECT
    toDate(assumeNotNull(closed_at), 'UTC') AS day,
    account_id,
    currency,
    count() AS closed_trades,
    countIf(pnl + commission + swap - fees > 0) AS won_trades,
    sum(commission) AS paid_commission,
    sum(swap) AS paid_swap,
    sum(fees) AS paid_fees,
    sum(pnl + commission + swap - fees) AS realised_pnl
FROM trade_system.trades FINAL
WHERE closed_at IS NOT NULL
GROUP BY day, account_id, currency;

CREATE VIEW IF NOT EXISTS trade_system.alert_log AS
SELECT ts, ts_end, event_id, level, source, instance_id, title, text, tags
FROM trade_system.system_event_log
WHERE level IN ('warning', 'error', 'critical');

INSERT INTO trade_system.rollup_gaps (source, hour, reason)
SELECT 'account_snapshots', hour, 'before the roll-up'
FROM (
    SELECT toDateTime(0, 'UTC') AS hour
    UNION DISTINCT SELECT toStartOfHour(toDateTime(ts, 'UTC')) FROM trade_system.account_snapshots
    UNION DISTINCT SELECT toStartOfHour(now('UTC')) + INTERVAL number HOUR FROM numbers(2) WHERE (SELECT count() FROM trade_system.account_snapshots) > 0
)
WHERE (SELECT count() FROM trade_system.rollup_gaps WHERE source = 'account_snapshots') = 0;

INSERT INTO trade_system.rollup_gaps (source, hour, reason)
SELECT 'trades', hour, 'before the roll-up'
FROM (
    SELECT toDateTime(0, 'UTC') AS hour
    UNION DISTINCT SELECT toStartOfHour(toDateTime(executed_at, 'UTC')) FROM trade_system.trades
    UNION DISTINCT SELECT toStartOfHour(now('UTC')) + INTERVAL number HOUR FROM numbers(2) WHERE (SELECT count() FROM trade_system.trades) > 0
)
WHERE (SELECT count() FROM trade_system.rollup_gaps WHERE source = 'trades') = 0;
