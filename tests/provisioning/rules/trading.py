"""What the trading system's alerts are to do."""

from __future__ import annotations

from tests.provisioning.rules.case import Fires

CASES = [
    Fires(
        "InstanceHeartbeatLate",
        {'tds_instance_last_heartbeat_timestamp_seconds{instance="mt5-01"}': "0x40"},
        {'tds_instance_last_heartbeat_timestamp_seconds{instance="mt5-01"}': "0+15x40"},
        "1m",
        "1m30s",
        {"instance": "mt5-01"},
        "MT5 terminal mt5-01 has been silent for 1m 30s",
    ),
    Fires(
        "InstancesCrashed",
        {'tds_instances{state="crashed"}': "2x40"},
        {'tds_instances{state="crashed"}': "0x40", 'tds_instances{state="stopped"}': "3x40"},
        "45s",
        "75s",
        {},
        "2 MT5 terminals have crashed",
    ),
    Fires(
        "InstanceBusy",
        {'tds_instance_cpu_ratio{instance="mt5-01"}': "0.9x80"},
        {'tds_instance_cpu_ratio{instance="mt5-01"}': "0.7x80"},
        "4m45s",
        "5m15s",
        {"instance": "mt5-01"},
        "MT5 terminal mt5-01 uses 90% of its processor",
    ),
    Fires(
        "SyncFails",
        {'tds_sync_failure_total{source="rtrs",sink="duckdb"}': "0+1.5x60"},
        {'tds_sync_failure_total{source="rtrs",sink="duckdb"}': "0+0.5x60"},
        "1m",
        "6m",
        {"source": "rtrs", "sink": "duckdb"},
        "6 syncs a minute from rtrs to duckdb fail",
    ),
    Fires(
        "SyncSlow",
        {
            'tds_sync_duration_seconds_bucket{source="rtrs",sink="duckdb",le="0.5"}': "0x60",
            'tds_sync_duration_seconds_bucket{source="rtrs",sink="duckdb",le="1"}': "0+10x60",
            'tds_sync_duration_seconds_bucket{source="rtrs",sink="duckdb",le="+Inf"}': "0+10x60",
        },
        {
            'tds_sync_duration_seconds_bucket{source="rtrs",sink="duckdb",le="0.1"}': "0+10x60",
            'tds_sync_duration_seconds_bucket{source="rtrs",sink="duckdb",le="+Inf"}': "0+10x60",
        },
        "5m",
        "5m45s",
        {"source": "rtrs", "sink": "duckdb"},
        "A sync from rtrs to duckdb takes 975ms",
    ),
    Fires(
        "SignalBacklog",
        {'redis_tss_pending_signals{group="a"}': "150x40", 'redis_tss_pending_signals{group="b"}': "100x40"},
        {'redis_tss_pending_signals{group="a"}': "150x40"},
        "45s",
        "75s",
        {},
        "250 trade signals are waiting",
    ),
    Fires(
        "ResultBacklog",
        {'redis_trs_pending_results{group="sync"}': "101x40"},
        {'redis_trs_pending_results{group="sync"}': "100x40"},
        "1m45s",
        "2m15s",
        {},
        "101 trade results are not synced",
    ),
    Fires(
        "RejectsHigh",
        {
            'tds_order_responses_total{broker="x",retcode="10006"}': "0+3x80",
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+97x80",
        },
        {
            'tds_order_responses_total{broker="x",retcode="10006"}': "0+1x80",
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+99x80",
            'tds_order_responses_total{broker="quiet",retcode="10006"}': "0 1x79",
        },
        "5m",
        "5m45s",
        {"broker": "x"},
        "x rejects 3% of the orders",
    ),
    Fires(
        "RejectsCritical",
        {
            'tds_order_responses_total{broker="x",retcode="10006"}': "0+10x80",
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+90x80",
        },
        {
            'tds_order_responses_total{broker="x",retcode="10025"}': "0+10x80",
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+90x80",
            'tds_order_responses_total{broker="quiet",retcode="10006"}': "0 1x79",
        },
        "1m45s",
        "2m30s",
        {"broker": "x"},
        "x rejects 10% of the orders",
    ),
    Fires(
        "ExecutionSlow",
        {
            'tds_order_execution_seconds_bucket{broker="x",le="5"}': "0+90x80",
            'tds_order_execution_seconds_count{broker="x"}': "0+100x80",
        },
        {
            'tds_order_execution_seconds_bucket{broker="x",le="5.0"}': "0+100x80",
            'tds_order_execution_seconds_count{broker="x"}': "0+100x80",
        },
        "1m45s",
        "2m30s",
        {"broker": "x"},
        "10% of the orders at x take longer than 5 s",
    ),
    Fires(
        "HostBusy",
        {'tds_host_cpu_load_ratio{host="h1"}': "0.95x80"},
        {'tds_host_cpu_load_ratio{host="h1"}': "0.5x80"},
        "4m45s",
        "5m15s",
        {"host": "h1"},
        "Host h1 uses 95% of its processors",
    ),
    Fires(
        "HostNetworkSlow",
        {'tds_host_network_latency_seconds{host="h1"}': "0.75x40"},
        {'tds_host_network_latency_seconds{host="h1"}': "0.75x1 0.1 0.75x2 0.1 0.75x2 0.1 0.75x2 0.1 0.75x2"},
        "45s",
        "75s",
        {"host": "h1"},
        "Brokers are 750ms away from host h1",
    ),
]
