"""The rules about hosts and their disks, and what Prometheus alone watches of the trading system."""

from __future__ import annotations

from dashboards.rule import Rule

_DISKS = "100 * max by (host, disk) (tds_host_disk_used_ratio)"
#: A quantile would end at the histogram's last bound; the share above it does not.
_LATE_ORDERS = (
    '100 * (1 - sum by (broker) (increase(tds_order_execution_seconds_bucket{le=~"5|5.0"}[<window>]))'
    " / (sum by (broker) (increase(tds_order_execution_seconds_count[<window>])) >= <least>))"
)

SYSTEM_HEALTH = (
    Rule(
        uid="tds-disk-fills",
        alert="DiskFills",
        title="More than {limit} of a disk is used",
        metric="disk_fullness",
        by=("host", "disk"),
        promql=_DISKS,
        than="gt",
        limit=85,
        unit="percent",
        lasts_s=600,
        severity="warning",
        no_data="OK",
        says="Host {host}: {value} of {disk} is used",
        without="How full the disks are is not known",
        does="Over {limit} for {lasts}. A full disk stops whatever writes there. Make room.",
    ),
    Rule(
        uid="tds-disk-full",
        alert="DiskFull",
        title="More than {limit} of a disk is used",
        metric="disk_fullness",
        by=("host", "disk"),
        promql=_DISKS,
        than="gt",
        limit=95,
        unit="percent",
        lasts_s=60,
        severity="critical",
        no_data="OK",
        says="Host {host}: {value} of {disk} is used",
        without="How full the disks are is not known",
        does="Over {limit} for {lasts}. A full disk stops whatever writes there. Make room now.",
    ),
)

#: What Prometheus alone watches of the trading system.
TRADING = (
    Rule(
        alert="InstancesCrashed",
        title="An instance has crashed",
        promql='sum(tds_instances{state="crashed"})',
        than="gt",
        limit=0,
        unit="count",
        lasts_s=60,
        severity="critical",
        says="{value} instances have crashed",
        does='Restart them; on the dashboard "MT5 instances" they are those whose heartbeat is old.',
    ),
    Rule(
        alert="InstanceBusy",
        title="An instance uses more than {limit} of its processor",
        promql="100 * avg_over_time(tds_instance_cpu_ratio[<window>])",
        window_s=600,
        than="gt",
        limit=80,
        unit="percent",
        lasts_s=300,
        severity="warning",
        says="Instance {instance} used {value} of its processor in the last {window}",
        does="Over {limit} orders become late. Move accounts to another terminal.",
    ),
    Rule(
        alert="ExecutionSlow",
        title="More than {limit} of the orders take longer than 5 seconds",
        promql=_LATE_ORDERS,
        window_s=600,
        least=50,
        than="gt",
        limit=5,
        unit="percent",
        lasts_s=60,
        severity="critical",
        says="{value} of the orders at {broker} took longer than 5 seconds in the last {window}",
        does="Over {limit} of at least {least} orders. Slippage grows with it.",
    ),
    Rule(
        alert="HostBusy",
        title="A host uses more than {limit} of its processors",
        promql="100 * avg by (host) (avg_over_time(tds_host_cpu_load_ratio[<window>]))",
        window_s=600,
        than="gt",
        limit=80,
        unit="percent",
        lasts_s=300,
        severity="warning",
        says="Host {host} used {value} of its processors in the last {window}",
        does="Over {limit} everything on it becomes late.",
    ),
    Rule(
        alert="HostNetworkSlow",
        title="Brokers are more than {limit} away",
        promql="max by (host) (tds_host_network_latency_seconds)",
        than="gt",
        limit=0.5,
        unit="seconds",
        lasts_s=60,
        severity="critical",
        says="Brokers are {value} away from host {host}",
        does="A round trip of over {limit} for {lasts}; orders are filled at other prices than asked.",
    ),
)
