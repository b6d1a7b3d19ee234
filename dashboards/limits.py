"""The values from which an operator should look, as usual in the field. They only set colours in dashboards.

Alert rules have their own limits (`provisioning/grafana/alerting`, `provisioning/prometheus/rules`).
"""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

Steps = tuple[tuple[float | None, str], ...]

#: Colours of Okabe and Ito, which people with any kind of colour blindness tell apart: green, yellow, orange, vermilion.
GOOD, NOTE, WARN, BAD, PLAIN = "#009E73", "#F0E442", "#E69F00", "#D55E00", "text"
#: What is old, partial or missing.
OLD = "#8C8C8C"

#: Metric -> (from this value, colour). The first colour holds below the second value.
LIMITS: Mapping[str, Steps] = {
    # margin call and stop-out are set per account at the broker; these are the usual distances to them
    "margin_level": ((None, BAD), (150, WARN), (200, NOTE), (300, GOOD)),
    "free_margin": ((None, BAD), (0.01, GOOD)),
    # 5 % a day and 10 % in all are what funding firms allow; at 20 % the trade system throttles
    "drawdown": ((None, GOOD), (5, NOTE), (10, WARN), (20, BAD)),
    "floating_pnl": ((None, BAD), (0, GOOD)),
    "total_pnl": ((None, BAD), (0, GOOD)),
    # one pip is 10 points on a symbol of 3 or 5 digits
    "slippage": ((None, GOOD), (10, WARN), (30, BAD)),
    "broker_slippage": ((None, GOOD), (10, WARN), (30, BAD)),
    "failed_trades": ((None, GOOD), (1, WARN)),
    "execution_latency": ((None, GOOD), (200, WARN), (5000, BAD)),
    "reject_rate": ((None, GOOD), (2, WARN), (5, BAD)),
    "order_execution_rate": ((None, GOOD), (500, BAD)),
    "sync_latency": ((None, GOOD), (0.2, BAD)),
    "sync_failure": ((None, GOOD), (0.001, WARN), (3, BAD)),
    "signal_backlog": ((None, GOOD), (100, WARN), (200, BAD)),
    "result_backlog": ((None, GOOD), (100, WARN)),
    "signals_failed": ((None, GOOD), (0.001, WARN)),
    "connection_errors": ((None, GOOD), (0.001, WARN)),
    "account_age": ((None, GOOD), (20, WARN), (60, BAD)),
    "heartbeat_age": ((None, GOOD), (20, WARN), (30, BAD)),
    "socket_failures": ((None, GOOD), (0.001, WARN)),
    "cpu_usage": ((None, GOOD), (80, BAD)),
    "cpu_load": ((None, GOOD), (80, BAD)),
    "disk_fullness": ((None, GOOD), (85, WARN), (95, BAD)),
    "network_latency": ((None, GOOD), (0.5, BAD)),
}

NONE: Steps = ((None, PLAIN),)


def thresholds(steps: Steps) -> ThresholdsConfig:
    """The steps as the threshold settings of a panel."""
    made = [Threshold(value=value, color=color) for value, color in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def as_json(steps: Steps) -> dict[str, object]:
    """The steps as the value of an override."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}
