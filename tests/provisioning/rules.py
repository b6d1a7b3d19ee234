"""What each alert and each recorded series is to do, as data: samples in, what fires or is recorded out.

A series is in promtool's notation, a sample every 15 s: `0+15x40` starts at 0 and grows by 15 forty times (1/s), `1x40` is 1
and forty times more of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, str]


@dataclass(frozen=True)
class Fires:
    """With these series the alert fires at `at` with these labels and this summary, not yet at `before`; with `quiet`, never."""

    alert: str
    series: Series
    quiet: Series
    before: str
    at: str
    labels: Mapping[str, str]
    summary: str
    #: where it has placeholders; else it is taken as it stands in the rule
    description: str | None = None
    #: how often promtool is to evaluate: seldom where `at` is a day away
    every: str = "15s"


@dataclass(frozen=True)
class Records:
    """With these series the expression (a recorded name) has this value and these labels after ten minutes."""

    name: str
    series: Series
    labels: str
    value: float


def bridge(name: str, **labels: str) -> str:
    """A series as one replica shows it."""
    inside = ",".join(f'{label}="{value}"' for label, value in {"job": "bridge", "instance": "b1", **labels}.items())
    return f"{name}{{{inside}}}"


FIRES = [
    Fires(
        "BridgeDown",
        {bridge("up"): "0x40", bridge("up", instance="b2"): "0x40"},
        {bridge("up"): "0x40", bridge("up", instance="b2"): "1x40"},
        "15s",
        "45s",
        {},
        "No bridge answers",
    ),
    Fires(
        "BridgeReplicaDown",
        {bridge("up"): "0x40", bridge("up", instance="b2"): "1x40"},
        {bridge("up"): "1x40", bridge("up", instance="b2"): "1x40"},
        "45s",
        "75s",
        {"job": "bridge", "instance": "b1"},
        "The bridge b1 is down",
    ),
    Fires(
        "BridgeSourceDown",
        {bridge("bridge_source_up", source="rts"): "0x40", bridge("bridge_source_up", instance="b2", source="rts"): "0x40"},
        {bridge("bridge_source_up", source="rts"): "0x40", bridge("bridge_source_up", instance="b2", source="rts"): "1x40"},
        "45s",
        "75s",
        {"source": "rts"},
        "rts answers no bridge",
    ),
    Fires(
        "BridgeReplicaCutOff",
        {bridge("bridge_source_up", source="rts"): "0x40", bridge("bridge_source_up", instance="b2", source="rts"): "1x40"},
        {bridge("bridge_source_up", source="rts"): "0x40", bridge("bridge_source_up", instance="b2", source="rts"): "0x40"},
        "1m45s",
        "2m15s",
        {"job": "bridge", "instance": "b1", "source": "rts"},
        "The bridge b1 does not reach rts, another one does",
    ),
    Fires(
        "BridgeServesStale",
        {bridge("bridge_stale_responses_total", source="rts"): "0+1x60"},
        {bridge("bridge_stale_responses_total", source="rts"): "7x60"},
        "5m",
        "6m",
        {"source": "rts"},
        "Older values of rts have been shown for five minutes",
    ),
    Fires(
        "BridgeServesOld",
        {bridge("bridge_oldest_served_seconds", source="rts"): "420x40"},
        {bridge("bridge_oldest_served_seconds", source="rts"): "299x40"},
        "45s",
        "75s",
        {"source": "rts"},
        "Values of rts that are shown are 7m 0s old",
    ),
    Fires(
        "BridgeSnapshotOld",
        {bridge("bridge_snapshot_age_seconds", source="duckdb"): "3600x40"},
        {bridge("bridge_snapshot_age_seconds", source="duckdb"): "599x40"},
        "1m45s",
        "2m15s",
        {"source": "duckdb"},
        "The newest snapshot of duckdb is 1h 0m 0s old",
    ),
    Fires(
        "BridgeLoopLag",
        {bridge("bridge_event_loop_lag_seconds"): "0.5x40"},
        {bridge("bridge_event_loop_lag_seconds"): "0.01x10 0.5 0.01x30"},
        "1m45s",
        "2m15s",
        {"job": "bridge", "instance": "b1"},
        "The bridge b1 is late by 500ms",
    ),
    Fires(
        "BridgeSheds",
        {bridge("bridge_shed_total", lane="panel"): "0+15x60"},
        {bridge("bridge_shed_total", lane="panel"): "0+1x60"},
        "1m45s",
        "5m",
        {"lane": "panel"},
        "The bridge refuses requests of the lane panel (429)",
    ),
    Fires(
        "BridgeQueriesFail",
        {bridge("bridge_queries_total", status="error"): "0+3x60", bridge("bridge_queries_total", status="fresh"): "0+27x60"},
        {bridge("bridge_queries_total", status="error"): "0+1x60", bridge("bridge_queries_total", status="fresh"): "0+27x60"},
        "5m",
        "5m45s",
        {},
        "10% of the queries are answered with an error",
    ),
    Fires(
        "BridgeSlow",
        {
            bridge("bridge_http_request_seconds_bucket", route="/json/query", le="2.5"): "0x120",
            bridge("bridge_http_request_seconds_bucket", route="/json/query", le="5.0"): "0+10x120",
            bridge("bridge_http_request_seconds_bucket", route="/json/query", le="+Inf"): "0+10x120",
        },
        {
            bridge("bridge_http_request_seconds_bucket", route="/json/query", le="1.0"): "0+10x120",
            bridge("bridge_http_request_seconds_bucket", route="/json/query", le="+Inf"): "0+10x120",
        },
        "10m",
        "11m",
        {},
        "One request in twenty takes longer than 4.875s",
    ),
    Fires(
        "BridgeClockSkew",
        {bridge("bridge_clock_skew_seconds", source="clickhouse"): "-4x40"},
        {bridge("bridge_clock_skew_seconds", source="clickhouse"): "-1.5x40"},
        "4m45s",
        "5m15s",
        {"source": "clickhouse"},
        "The clocks of clickhouse and of a bridge are 4s apart",
    ),
    Fires(
        "BridgeAnswersDiffer",
        {bridge("bridge_self_checks_total", source="clickhouse", outcome="different"): "0x4 1x36"},
        {bridge("bridge_self_checks_total", source="clickhouse", outcome="equal"): "0+1x40"},
        "1m",
        "1m30s",
        {"source": "clickhouse"},
        "An answer put together from kept buckets was not what clickhouse says",
    ),
    Fires(
        "BridgeSyncDropped",
        {bridge("bridge_sync_calls_total", event="redis.up", outcome="dropped"): "0x4 1x36"},
        {bridge("bridge_sync_calls_total", event="redis.up", outcome="failed_attempt"): "0+1x40"},
        "1m",
        "1m30s",
        {"event": "redis.up"},
        "The backend was never told of a redis.up",
    ),
    Fires(
        "BackupOld",
        {'bridge_backup_age_seconds{kind="grafana"}': "97200x60"},
        {'bridge_backup_age_seconds{kind="grafana"}': "86400x60"},
        "9m45s",
        "10m15s",
        {"kind": "grafana"},
        "The newest backup of grafana is 1d 3h 0m 0s old",
    ),
    Fires(
        "BackupMissing",
        {bridge("up"): "1x10"},
        {'bridge_backup_age_seconds{kind="grafana"}': "60x6400"},
        "25h",
        "26h15m",
        {},
        "There is no backup at all",
        every="15m",
    ),
    Fires(
        "TargetDown",
        {'up{job="grafana",instance="g1"}': "0x40"},
        {'up{job="grafana",instance="g1"}': "1x40", bridge("up"): "0x40", 'up{job="prometheus",instance="p1"}': "0x40"},
        "1m45s",
        "2m15s",
        {"job": "grafana", "instance": "g1"},
        "grafana g1 cannot be scraped",
    ),
    Fires(
        "PrometheusReplicaDown",
        {'up{job="prometheus",instance="p1"}': "0x40"},
        {'up{job="prometheus",instance="p1"}': "1x40"},
        "45s",
        "75s",
        {"job": "prometheus", "instance": "p1"},
        "The Prometheus p1 is down",
    ),
    Fires(
        "PrometheusRulesFail",
        {'prometheus_rule_evaluation_failures_total{instance="p1",rule_group="bridge"}': "0x4 3x36"},
        {'prometheus_rule_evaluation_failures_total{instance="p1",rule_group="bridge"}': "3x40"},
        "1m",
        "1m30s",
        {"instance": "p1", "rule_group": "bridge"},
        "A rule of bridge fails",
        "Alerts of this group may be silent. /rules of p1 shows the error.",
    ),
    Fires(
        "HaproxyServerDown",
        {'haproxy_server_status{proxy="be_bridge",server="b1",state="DOWN"}': "1x40"},
        {
            'haproxy_server_status{proxy="be_bridge",server="b1",state="DOWN"}': "0x40",
            'haproxy_server_status{proxy="be_bridge",server="b1",state="DRAIN"}': "1x40",
        },
        "45s",
        "75s",
        {"proxy": "be_bridge", "server": "b1", "state": "DOWN"},
        "HAProxy has taken b1 of be_bridge out (DOWN)",
    ),
    Fires(
        "HaproxyBackendDown",
        {'haproxy_backend_status{proxy="be_bridge",state="DOWN"}': "1x40"},
        {'haproxy_backend_status{proxy="be_bridge",state="DOWN"}': "0x40"},
        "0s",
        "30s",
        {"proxy": "be_bridge", "state": "DOWN"},
        "HAProxy has no server left in be_bridge",
    ),
    Fires(
        "HaproxyRefuses",
        {'haproxy_frontend_requests_denied_total{proxy="fe_bridge"}': "0+75x60"},
        {'haproxy_frontend_requests_denied_total{proxy="fe_bridge"}': "0+7x60"},
        "5m",
        "7m",
        {"proxy": "fe_bridge"},
        "HAProxy refuses 5 requests a second to the bridge",
    ),
    Fires(
        "RedisDown",
        {'redis_up{job="redis",instance="rts"}': "0x40"},
        {'redis_up{job="redis",instance="rts"}': "1x40"},
        "45s",
        "75s",
        {"job": "redis", "instance": "rts"},
        "Redis rts is down",
    ),
    Fires(
        "RedisMemoryHigh",
        {
            'redis_memory_used_bytes{job="redis",instance="rts"}': "95x40",
            'redis_memory_max_bytes{job="redis",instance="rts"}': "100x40",
        },
        {
            'redis_memory_used_bytes{job="redis",instance="tier"}': "100x40",
            'redis_memory_max_bytes{job="redis",instance="tier"}': "100x40",
            'redis_memory_used_bytes{job="redis",instance="ris"}': "95x40",
            'redis_memory_max_bytes{job="redis",instance="ris"}': "0x40",
        },
        "1m45s",
        "2m15s",
        {"job": "redis", "instance": "rts"},
        "Redis rts has used 95% of its memory",
    ),
    Fires(
        "ThanosUploadsFail",
        {'thanos_shipper_upload_failures_total{instance="s1"}': "0+1x400"},
        {'thanos_shipper_upload_failures_total{instance="s1"}': "2x400"},
        "1h",
        "1h5m",
        {"instance": "s1"},
        "Thanos' sidecar s1 does not get its blocks into the store",
        every="1m",
    ),
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

RECORDS = [
    Records("trade_state_updates_per_sec", {"redis_rts_state_updates_total": "0+30x60"}, "", 2),
    Records(
        "sync:tds_sync_failures:per_minute5m",
        {'tds_sync_failure_total{source="a",sink="b",instance="x"}': "0+1x60"},
        '{source="a",sink="b"}',
        4,
    ),
    Records(
        "sync:tds_sync_duration_seconds:p95_5m",
        {
            'tds_sync_duration_seconds_bucket{source="a",sink="b",le="1"}': "0+10x60",
            'tds_sync_duration_seconds_bucket{source="a",sink="b",le="+Inf"}': "0+10x60",
        },
        '{source="a",sink="b"}',
        0.95,
    ),
    Records(
        "broker:tds_orders_executed:per_minute5m",
        {
            'tds_order_responses_total{broker="x",retcode="10009"}': "0+2x60",
            'tds_order_responses_total{broker="x",retcode="10010"}': "0+1x60",
            'tds_order_responses_total{broker="x",retcode="10006"}': "0+9x60",
        },
        '{broker="x"}',
        12,
    ),
    Records(
        "broker:tds_orders_rejected:ratio10m",
        {'tds_order_responses_total{broker="x",retcode="10009"}': "0+2x60"},
        '{broker="x"}',
        0,
    ),
    Records("job:bridge_queries_failed:ratio5m", {bridge("bridge_queries_total", status="fresh"): "0+3x60"}, "", 0),
    Records(
        "route:bridge_http_request_seconds:p95_5m",
        {
            bridge("bridge_http_request_seconds_bucket", route="/v1/rows", le="1.0"): "0+10x60",
            bridge("bridge_http_request_seconds_bucket", route="/v1/rows", le="+Inf"): "0+10x60",
        },
        '{route="/v1/rows"}',
        0.95,
    ),
    Records(
        "tds_host_cpu_load_ratio",
        {
            'node_cpu_seconds_total{host="h",cpu="0",mode="idle"}': "0+9x60",
            'node_cpu_seconds_total{host="h",cpu="1",mode="idle"}': "0+6x60",
        },
        '{host="h"}',
        0.5,
    ),
    Records(
        "tds_host_cpu_load_ratio",
        {'windows_cpu_time_total{host="w",core="0,0",mode="idle"}': "0+3x60"},
        '{host="w"}',
        0.8,
    ),
    Records(
        "tds_host_memory_used_bytes",
        {'node_memory_MemTotal_bytes{host="h"}': "100x60", 'node_memory_MemAvailable_bytes{host="h"}': "30x60"},
        '{host="h"}',
        70,
    ),
    Records(
        "tds_host_memory_used_bytes",
        {
            'windows_memory_physical_total_bytes{host="w"}': "100x60",
            'windows_memory_physical_free_bytes{host="w"}': "40x60",
        },
        '{host="w"}',
        60,
    ),
    Records(
        "tds_host_disk_used_bytes",
        {
            'node_filesystem_size_bytes{host="h",mountpoint="/",fstype="ext4"}': "100x60",
            'node_filesystem_avail_bytes{host="h",mountpoint="/",fstype="ext4"}': "30x60",
            'node_filesystem_size_bytes{host="h",mountpoint="/run",fstype="tmpfs"}': "9x60",
            'node_filesystem_avail_bytes{host="h",mountpoint="/run",fstype="tmpfs"}': "1x60",
        },
        '{host="h"}',
        70,
    ),
    Records(
        "tds_host_disk_used_bytes",
        {
            'windows_logical_disk_size_bytes{host="w",volume="C:"}': "100x60",
            'windows_logical_disk_free_bytes{host="w",volume="C:"}': "20x60",
        },
        '{host="w"}',
        80,
    ),
    Records(
        "tds_host_network_bytes_total",
        {
            'node_network_receive_bytes_total{host="h",device="eth0"}': "5x60",
            'node_network_receive_bytes_total{host="h",device="lo"}': "9x60",
        },
        '{host="h",device="eth0",direction="receive"}',
        5,
    ),
    Records(
        "tds_host_network_bytes_total",
        {'windows_net_bytes_sent_total{host="w",nic="a"}': "6x60"},
        '{host="w",nic="a",direction="transmit"}',
        6,
    ),
]
