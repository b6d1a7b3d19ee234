"""What the alerts of everything around the bridge are to do."""

from __future__ import annotations

from tests.provisioning.rules.case import Fires, bridge

CASES = [
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
]
