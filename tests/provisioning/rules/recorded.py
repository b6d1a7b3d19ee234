"""What the recording rules are to make."""

from __future__ import annotations

from tests.provisioning.rules.case import Records, bridge

CASES = [
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
        "tds_host_disk_used_ratio",
        {
            'node_filesystem_size_bytes{host="h",mountpoint="/var",fstype="ext4"}': "100x60",
            'node_filesystem_avail_bytes{host="h",mountpoint="/var",fstype="ext4"}': "30x60",
            'node_filesystem_size_bytes{host="h",mountpoint="/run",fstype="tmpfs"}': "9x60",
            'node_filesystem_avail_bytes{host="h",mountpoint="/run",fstype="tmpfs"}': "0x60",
        },
        '{host="h",disk="/var"}',
        0.7,
    ),
    Records(
        "tds_host_disk_used_ratio",
        {
            'windows_logical_disk_size_bytes{host="w",volume="C:"}': "100x60",
            'windows_logical_disk_free_bytes{host="w",volume="C:"}': "20x60",
        },
        '{host="w",disk="C:"}',
        0.8,
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
