-- Fills the roll-ups of one month from the raw tables: a month from before the roll-ups were made, or one with corrected trades. Until then
-- the month's hours are read from the raw tables. To be run by the user `schema`, for each month, as often as one likes:
--   clickhouse-client --host 127.0.0.1 --user schema --password "$CLICKHOUSE_SCHEMA_PASSWORD" --param_month=202610 \
--     --queries-file provisioning/clickhouse/fill_rollups.sql
-- Only for months that are over: the system goes on writing into the present one, and what comes while this runs would be lost.

CREATE TABLE IF NOT EXISTS trade_system.rollup_filling (begun_at DateTime('UTC')) ENGINE = Memory;

TRUNCATE TABLE trade_system.rollup_filling;

INSERT INTO trade_system.rollup_filling SELECT now('UTC') WHERE throwIf(toYYYYMM(now('UTC')) <= {month:UInt32}, 'this month is not over') = 0;

-- The newest sample of a bucket, the lowest and the highest: rows that are there already make no difference.
INSERT INTO trade_system.account_snapshots_1m
SELECT * FROM trade_system.account_snapshots
WHERE toYYYYMM(ts) = {month:UInt32}
ORDER BY ts DESC LIMIT 1 BY account_id, broker_id, toStartOfMinute(ts);

INSERT INTO trade_system.account_snapshots_1h
SELECT * FROM trade_system.account_snapshots
WHERE toYYYYMM(ts) = {month:UInt32}
ORDER BY ts DESC LIMIT 1 BY account_id, broker_id, toStartOfHour(ts);

INSERT INTO trade_system.account_extremes_1h
SELECT toStartOfHour(toDateTime(ts, 'UTC')) AS hour, account_id, broker_id,
       min((balance, toUnixTimestamp64Milli(ts))), max((balance, -toUnixTimestamp64Milli(ts))),
       min((equity, toUnixTimestamp64Milli(ts))), max((equity, -toUnixTimestamp64Milli(ts))),
       min((margin, toUnixTimestamp64Milli(ts))), max((margin, -toUnixTimestamp64Milli(ts))),
       min((free_margin, toUnixTimestamp64Milli(ts))), max((free_margin, -toUnixTimestamp64Milli(ts))),
       min((floating_pnl, toUnixTimestamp64Milli(ts))), max((floating_pnl, -toUnixTimestamp64Milli(ts))),
       min((open_positions, toUnixTimestamp64Milli(ts))), max((open_positions, -toUnixTimestamp64Milli(ts))),
       min((pending_orders, toUnixTimestamp64Milli(ts))), max((pending_orders, -toUnixTimestamp64Milli(ts)))
FROM trade_system.account_snapshots
WHERE toYYYYMM(ts) = {month:UInt32}
GROUP BY hour, account_id, broker_id;

-- Sums: counted anew, beside the roll-up, and put in its place at once.
DROP TABLE IF EXISTS trade_system.orders_1m_filled;

CREATE TABLE trade_system.orders_1m_filled AS trade_system.orders_1m;

INSERT INTO trade_system.orders_1m_filled
SELECT toDateTime64(toStartOfMinute(ts), 3, 'UTC') AS bucket, broker_id, symbol, sum(requests), sum(fills), sum(rejects), sum(failed), sum(executed),
       sum(fill_slippage), sum(executed_slippage), quantilesExactInclusiveMergeState(0.5, 0.95, 0.99)(latency)
FROM trade_system.orders
WHERE toYYYYMM(ts) = {month:UInt32}
GROUP BY bucket, broker_id, symbol;

ALTER TABLE trade_system.orders_1m REPLACE PARTITION ID {month:String} FROM trade_system.orders_1m_filled;

DROP TABLE trade_system.orders_1m_filled;

DROP TABLE IF EXISTS trade_system.orders_1h_filled;

CREATE TABLE trade_system.orders_1h_filled AS trade_system.orders_1h;

INSERT INTO trade_system.orders_1h_filled
SELECT toDateTime64(toStartOfHour(ts), 3, 'UTC') AS bucket, broker_id, symbol, sum(requests), sum(fills), sum(rejects), sum(failed), sum(executed),
       sum(fill_slippage), sum(executed_slippage), quantilesExactInclusiveMergeState(0.5, 0.95, 0.99)(latency)
FROM trade_system.orders
WHERE toYYYYMM(ts) = {month:UInt32}
GROUP BY bucket, broker_id, symbol;

ALTER TABLE trade_system.orders_1h REPLACE PARTITION ID {month:String} FROM trade_system.orders_1h_filled;

DROP TABLE trade_system.orders_1h_filled;

-- A correction that has come meanwhile stays marked.
DELETE FROM trade_system.rollup_gaps
WHERE toYYYYMM(hour) = {month:UInt32} AND marked_at < (SELECT max(begun_at) FROM trade_system.rollup_filling);

DROP TABLE trade_system.rollup_filling;
