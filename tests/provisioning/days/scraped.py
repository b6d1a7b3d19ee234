"""What a Prometheus has scraped in a day, and the rules that ask it: Grafana's on the bridge itself, and the twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import httpx
import numpy as np
import yaml

from demo.gauges import families, openmetrics
from tests.provisioning.agreements import ROOT
from tests.provisioning.alerting import ON_PROMETHEUS, RULES
from tests.provisioning.days.desk import EVERY_MS, Desk
from tests.servers.alerting import Labels, Verdict, judged
from tests.servers.grafana_states import Message, seconds_of, states_of

SCRAPED_MS = 15_000
_STORES = ("rts", "clickhouse", "duckdb", "prometheus")
_TWINS = ROOT / "provisioning" / "prometheus" / "rules"
#: the families that the twins ask for
_WANTED = (
    "tds_order_responses",
    "tds_order_execution_seconds",
    "tds_instance_last_heartbeat_timestamp_seconds",
    "tds_instance_cpu_ratio",
    "tds_instances",
    "tds_sync_failure",
    "tds_sync_duration_seconds",
    "redis_tss_pending_signals",
    "redis_trs_pending_results",
    "tds_host_cpu_load_ratio",
    "tds_host_network_latency_seconds",
)


@dataclass(frozen=True, slots=True)
class Told:
    """A twin that fired."""

    alert: str
    from_s: int
    labels: Labels


def scrapes_of(desk: Desk) -> np.ndarray:
    """When Prometheus has scraped: from an hour before the day on, for the longest window."""
    return np.arange(desk.start_ms - 3_600_000 + SCRAPED_MS, int(desk.at_ms[-1]) + 1, SCRAPED_MS)


def world_samples(desk: Desk) -> Iterator[str]:
    """The trading system's exporter, as OpenMetrics text without its end."""
    known = [family for family in families(desk.world) if family.name in _WANTED]
    assert {family.name for family in known} == set(_WANTED)
    yield from (part for part in openmetrics(known, scrapes_of(desk)) if part != "# EOF\n")


def bridge_samples(desk: Desk, down_s: tuple[int, int] = (0, 0), stale_s: tuple[int, int] = (0, 0)) -> Iterator[str]:
    """The bridge's own metrics: `rts` is down from one second of the day to another, and older values are served."""
    at_s = scrapes_of(desk) // 1000
    day_s = at_s - desk.start_ms // 1000
    up = 1 - ((day_s >= down_s[0]) & (day_s < down_s[1]))
    stale = np.clip(day_s - stale_s[0], 0, stale_s[1] - stale_s[0])
    yield "# TYPE bridge_source_up gauge\n"
    for store in _STORES:
        yield from _lines("bridge_source_up", store, at_s, up if store == "rts" else np.ones(len(at_s)))
    yield "# TYPE bridge_stale_responses counter\n"
    for store in _STORES:
        yield from _lines("bridge_stale_responses_total", store, at_s, stale if store == "rts" else np.zeros(len(at_s)))


def _lines(name: str, store: str, at_s: np.ndarray, values: np.ndarray) -> Iterator[str]:
    labels = f'{name}{{job="bridge",instance="b1",source="{store}"}}'
    yield from (f"{labels} {value:g} {at}\n" for value, at in zip(values.tolist(), at_s.tolist(), strict=True))


def grafana_messages(port: int, desk: Desk) -> list[Message]:
    """What Grafana's rules on Prometheus tell in the day."""
    found = []
    for uid in ON_PROMETHEUS:
        rule, states = RULES[uid], states_of(RULES[uid])
        series = _asked(port, rule["data"][0]["model"]["expr"], desk, EVERY_MS // 1000)
        for at_ms in desk.at_ms.tolist():
            states.evaluate((at_ms - desk.start_ms) // 1000, _verdict(rule, series, at_ms // 1000))
        found += states.messages
    return found


def _verdict(rule: Mapping[str, object], series: Mapping[Labels, Mapping[int, float]], at_s: int) -> Verdict:
    return judged(rule, {labels: [values[at_s]] for labels, values in series.items() if at_s in values})


def _asked(port: int, expression: str, desk: Desk, step_s: int) -> Mapping[Labels, Mapping[int, float]]:
    window = {"start": desk.start_ms / 1000, "end": int(desk.at_ms[-1]) / 1000, "step": step_s}
    params: dict[str, str | float] = {"query": expression, **window}
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query_range", params=params, timeout=120)
    assert answer.status_code == 200, answer.text
    return {
        frozenset((name, value) for name, value in one["metric"].items() if name != "__name__"): {
            round(at): float(value) for at, value in one["values"]
        }
        for one in answer.json()["data"]["result"]
    }


def twins_told(port: int, desk: Desk, files: Iterable[str] = ("trading",)) -> list[Told]:
    """The twins that fire in the day, as Prometheus evaluates them every 15 s: `for` begins anew after each gap."""
    told = []
    for name in files:
        [group] = yaml.safe_load((_TWINS / f"{name}.yml").read_text("utf-8"))["groups"]
        for rule in group["rules"]:
            held_s = seconds_of(rule.get("for", "0s"))
            for labels, values in _asked(port, rule["expr"], desk, SCRAPED_MS // 1000).items():
                told += [Told(rule["alert"], at, labels) for at in _firings(sorted(values), held_s)]
    return told


def _firings(at_s: list[int], held_s: int) -> Iterator[int]:
    """When an alert begins to fire, given the evaluations at which its expression holds."""
    since, fires = None, False
    for before, at in zip([None, *at_s[:-1]], at_s, strict=True):
        if before is None or at - before > SCRAPED_MS // 1000:
            since, fires = at, False
        if not fires and since is not None and at - since >= held_s:
            fires = True
            yield at


def openmetrics_of(*parts: Callable[[], Iterator[str]] | Iterator[str]) -> str:
    """Families as one OpenMetrics text."""
    return "".join("".join(part() if callable(part) else part) for part in parts) + "# EOF\n"
