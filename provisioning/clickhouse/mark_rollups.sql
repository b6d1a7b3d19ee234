-- Marks the hours in which a roll-up differs from the raw table, so that they are read from the raw table. To be run by the user `schema`
-- after rows were deleted or changed by hand, after a block was inserted again in another form, and once a night to be sure:
--   clickhouse-client --host 127.0.0.1 --user schema --password "$CLICKHOUSE_SCHEMA_PASSWORD" --queries-file provisioning/clickhouse/mark_rollups.sql
-- It looks at the last 89 days, which the raw table of the accounts still has. The hour that runs is looked at an hour later.

INSERT INTO trade_system.rollup_gaps (source, hour, reason)
SELECT DISTINCT 'trades', hour, 'differs from the trades'
FROM (
    SELECT toStartOfHour(ts) AS hour, broker_id, symbol,
           (sum(requests), sum(fills), sum(rejects), sum(failed), sum(executed), sum(fill_slippage), sum(executed_slippage),
            toString(quantilesExactInclusiveMerge(0.5, 0.95, 0.99)(latency))) AS figures
    FROM trade_system.orders
    WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
    GROUP BY hour, broker_id, symbol
    UNION ALL
    SELECT toStartOfHour(ts) AS hour, broker_id, symbol,
           (sum(requests), sum(fills), sum(rejects), sum(failed), sum(executed), sum(fill_slippage), sum(executed_slippage),
            toString(quantilesExactInclusiveMerge(0.5, 0.95, 0.99)(latency))) AS figures
    FROM trade_system.orders_1m
    WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
    GROUP BY hour, broker_id, symbol
    UNION ALL
    SELECT toStartOfHour(ts) AS hour, broker_id, symbol,
           (sum(requests), sum(fills), sum(rejects), sum(failed), sum(executed), sum(fill_slippage), sum(executed_slippage),
            toString(quantilesExactInclusiveMerge(0.5, 0.95, 0.99)(latency))) AS figures
    FROM trade_system.orders_1h
    WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
    GROUP BY hour, broker_id, symbol
)
WHERE hour NOT IN (SELECT hour FROM trade_system.rollup_gaps WHERE source = 'trades')
GROUP BY hour, broker_id, symbol
HAVING count() != 3 OR uniqExact(figures) != 1;

INSERT INTO trade_system.rollup_gaps (source, hour, reason)
SELECT DISTINCT 'account_snapshots', hour, 'differs from the samples'
FROM (
    SELECT hour, account_id, broker_id, groupBitXor(cityHash64(minute, newest)) AS figures
    FROM (
        SELECT toStartOfHour(ts) AS hour, toStartOfMinute(ts) AS minute, account_id, broker_id, argMax((balance, credit, equity, margin, free_margin, floating_pnl, peak_equity, open_positions, pending_orders), ts) AS newest
        FROM trade_system.account_snapshots
        WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
        GROUP BY hour, minute, account_id, broker_id
    )
    GROUP BY hour, account_id, broker_id
    UNION ALL
    SELECT hour, account_id, broker_id, groupBitXor(cityHash64(minute, newest)) AS figures
    FROM (
        SELECT toStartOfHour(ts) AS hour, toStartOfMinute(ts) AS minute, account_id, broker_id, argMax((balance, credit, equity, margin, free_margin, floating_pnl, peak_equity, open_positions, pending_orders), ts) AS newest
        FROM trade_system.account_snapshots_1m
        WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
        GROUP BY hour, minute, account_id, broker_id
    )
    GROUP BY hour, account_id, broker_id
)
WHERE hour NOT IN (SELECT hour FROM trade_system.rollup_gaps WHERE source = 'account_snapshots')
GROUP BY hour, account_id, broker_id
HAVING count() != 2 OR uniqExact(figures) != 1;

INSERT INTO trade_system.rollup_gaps (source, hour, reason)
SELECT DISTINCT 'account_snapshots', hour, 'differs from the samples'
FROM (
    SELECT toStartOfHour(ts) AS hour, account_id, broker_id, (max(ts), argMax((balance, credit, equity, margin, free_margin, floating_pnl, peak_equity, open_positions, pending_orders), ts)) AS figures
    FROM trade_system.account_snapshots
    WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
    GROUP BY hour, account_id, broker_id
    UNION ALL
    SELECT toStartOfHour(ts) AS hour, account_id, broker_id, (max(ts), argMax((balance, credit, equity, margin, free_margin, floating_pnl, peak_equity, open_positions, pending_orders), ts)) AS figures
    FROM trade_system.account_snapshots_1h
    WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
    GROUP BY hour, account_id, broker_id
)
WHERE hour NOT IN (SELECT hour FROM trade_system.rollup_gaps WHERE source = 'account_snapshots')
GROUP BY hour, account_id, broker_id
HAVING count() != 2 OR uniqExact(figures) != 1;

INSERT INTO trade_system.rollup_gaps (source, hour, reason)
SELECT DISTINCT 'account_snapshots', hour, 'differs from the samples'
FROM (
    SELECT toStartOfHour(ts) AS hour, account_id, broker_id,
           (min((balance, toUnixTimestamp64Milli(ts))), max((balance, -toUnixTimestamp64Milli(ts))),
            min((equity, toUnixTimestamp64Milli(ts))), max((equity, -toUnixTimestamp64Milli(ts))),
            min((margin, toUnixTimestamp64Milli(ts))), max((margin, -toUnixTimestamp64Milli(ts))),
            min((free_margin, toUnixTimestamp64Milli(ts))), max((free_margin, -toUnixTimestamp64Milli(ts))),
            min((floating_pnl, toUnixTimestamp64Milli(ts))), max((floating_pnl, -toUnixTimestamp64Milli(ts))),
            min((open_positions, toUnixTimestamp64Milli(ts))), max((open_positions, -toUnixTimestamp64Milli(ts))),
            min((pending_orders, toUnixTimestamp64Milli(ts))), max((pending_orders, -toUnixTimestamp64Milli(ts)))) AS figures
    FROM trade_system.account_snapshots
    WHERE ts >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND ts < toStartOfHour(now('UTC'))
    GROUP BY hour, account_id, broker_id
    UNION ALL
    SELECT hour, account_id, broker_id,
           (min(balance_low), max(balance_high),
            min(equity_low), max(equity_high),
            min(margin_low), max(margin_high),
            min(free_margin_low), max(free_margin_high),
            min(floating_pnl_low), max(floating_pnl_high),
            min(open_positions_low), max(open_positions_high),
            min(pending_orders_low), max(pending_orders_high)) AS figures
    FROM trade_system.account_extremes_1h
    WHERE hour >= toStartOfHour(now('UTC')) - INTERVAL 89 DAY AND hour < toStartOfHour(now('UTC'))
    GROUP BY hour, account_id, broker_id
)
WHERE hour NOT IN (SELECT hour FROM trade_system.rollup_gaps WHERE source = 'account_snapshots')
GROUP BY hour, account_id, broker_id
HAVING count() != 2 OR uniqExact(figures) != 1;
