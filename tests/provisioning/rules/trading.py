"""What the trading system's alerts are to do."""

from __future__ import annotations

from tests.provisioning.rules.case import Fires

CASES = [
    Fires(
        "InstanceHeartbeatLate",
        {'tds_instance_last_heartbeat_timestamp_seconds{instance="mt5-01"}': "0x40"},
        {'tds_instance_last_heartbeat_timestamp_seconds{instance="mt5-01"}': "0+15x40"},
        "15s",
        "30s",
        {"instance": "mt5-01"},
        "Instance mt5-01: last heartbeat 30s ago",
    ),
    Fires(
        "InstanceHeartbeatLost",
        # The second exporter cannot be scraped any more: what it said last is not the terminal's silence.
        {'tds_instance_last_heartbeat_timestamp_seconds{instance="mt5-01"}': "0x40"},
        {'tds_instance_last_heartbeat_timestamp_seconds{instance="mt5-01"}': "0+15x2 _x40"},
        "30s",
        "45s",
        {"instance": "mt5-01"},
        "Instance mt5-01: last heartbeat 45s ago",
    ),
    Fires(
        "InstancesCrashed",
        {'tds_instances{state="crashed"}': "2x40"},
        {'tds_instances{state="crashed"}': "0x40", 'tds_instances{state="stopped"}': "3x40"},
        "45s",
        "75s",
        {},
        "2 instances have crashed",
    ),
    Fires(
        "InstanceBusy",
        {'tds_instance_cpu_ratio{instance="mt5-01"}': "0.9x80"},
        {'tds_instance_cpu_ratio{instance="mt5-01"}': "0.7x80"},
        "4m45s",
        "5m15s",
        {"instance": "mt5-01"},
        "Instance mt5-01 used 90.0 % of its processor in the last 10 minutes",
    ),
    Fires(
        "SyncFails",
        {'tds_sync_failure_total{source="rtrs",sink="duckdb"}': "0+1.5x60"},
        {'tds_sync_failure_total{source="rtrs",sink="duckdb"}': "0+0.5x60"},
        "1m",
        "6m",
        {"source": "rtrs", "sink": "duckdb"},
        "rtrs to duckdb: 6 syncs a minute fail",
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
        "1m",
        "1m30s",
        {"source": "rtrs", "sink": "duckdb"},
        "rtrs to duckdb: one sync in twenty takes longer than 975ms",
    ),
    Fires(
        "SignalsWait",
        {'redis_tss_pending_signals{group="a"}': "150x40"},
        {'redis_tss_pending_signals{group="a"}': "100x40"},
        "15s",
        "30s",
        {"group": "a"},
        "a: 150 signals wait",
    ),
    Fires(
        "SignalBacklog",
        {'redis_tss_pending_signals{group="a",shard="1"}': "150x40", 'redis_tss_pending_signals{group="a",shard="2"}': "100x40"},
        {'redis_tss_pending_signals{group="a"}': "150x40", 'redis_tss_pending_signals{group="b"}': "150x40"},
        "0s",
        "15s",
        {"group": "a"},
        "a: 250 signals wait",
    ),
    Fires(
        "ResultBacklog",
        {'redis_trs_pending_results{group="sync"}': "101x40"},
        {'redis_trs_pending_results{group="sync"}': "100x40"},
        "45s",
        "1m",
        {"group": "sync"},
        "sync: 101 results wait for their sync",
    ),
    Fires(
        "RejectsHigh",
        {
            'tds_order_responses_total{broker="x",retcode="10006"}': "0+3x280",
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+97x280",
        },
        {
            'tds_order_responses_total{broker="x",retcode="10006"}': "0+1x280",
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+99x280",
            # one of a hundred orders, and no more than that for an hour
            'tds_order_responses_total{broker="quiet",retcode="10006"}': "0 10x279",
            'tds_order_responses_total{broker="quiet",retcode="10009"}': "0 90x279",
        },
        "1m",
        "2m",
        {"broker": "x"},
        "Broker x rejected 3.0 % of the orders of the last hour",
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
            'tds_order_responses_total{broker="quiet",retcode="10009"}': "0 1x79",
        },
        "1m",
        "1m30s",
        {"broker": "x"},
        "Broker x rejected 10.0 % of the orders of the last 15 minutes",
    ),
    Fires(
        "RejectsHalf",
        {
            'tds_order_responses_total{broker="night",retcode="10027"}': "0+1x80",
            'tds_order_responses_total{broker="night",retcode="10009"}': "0x80",
        },
        {
            'tds_order_responses_total{broker="quiet",retcode="10006"}': "0 1x79",
            'tds_order_responses_total{broker="half",retcode="10006"}': "0+1x80",
            'tds_order_responses_total{broker="half",retcode="10009"}': "0+1x80",
        },
        "15s",
        "3m",
        {"broker": "night"},
        "Broker night rejected 100.0 % of the orders of the last 15 minutes",
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
            # one slow order of two
            'tds_order_execution_seconds_bucket{broker="quiet",le="5"}': "0 1x79",
            'tds_order_execution_seconds_count{broker="quiet"}': "0 2x79",
        },
        "1m",
        "1m30s",
        {"broker": "x"},
        "10.0 % of the orders at x took longer than 5 seconds in the last 10 minutes",
    ),
    Fires(
        "HostBusy",
        {'tds_host_cpu_load_ratio{host="h1"}': "0.95x80"},
        {'tds_host_cpu_load_ratio{host="h1"}': "0.5x80"},
        "4m45s",
        "5m15s",
        {"host": "h1"},
        "Host h1 used 95.0 % of its processors in the last 10 minutes",
    ),
    Fires(
        "HostNetworkSlow",
        {'tds_host_network_latency_seconds{host="h1"}': "0.75x40"},
        {'tds_host_network_latency_seconds{host="h1"}': "0.75x1 0.1 0.75x2 0.1 0.75x2 0.1 0.75x2 0.1 0.75x2"},
        "45s",
        "1m",
        {"host": "h1"},
        "Brokers are 750ms away from host h1",
    ),
]
