"""What a Prometheus has scraped in a day, and the rules that ask it: Grafana's on the bridge itself, and the twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import yaml

from demo.gauges import families, openmetrics
from demo.stores import backfill, free_port, prometheus_store
from tests.provisioning.agreements import ROOT
from tests.provisioning.alerting import ON_PROMETHEUS, RULES
from tests.provisioning.days.desk import EVERY_MS, Desk
from tests.servers.alerting import Labels, Verdict, judged
from tests.servers.grafana_states import Message, seconds_of, states_of

SCRAPED_MS = 15_000
#: the time that a new block of Prometheus covers
_BLOCK_MS = 7_200_000
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
    "tds_host_disk_used_ratio",
)


@dataclass(frozen=True, slots=True)
class Told:
    """A twin that fired."""

    alert: str
    from_s: int
    labels: Labels


@dataclass(frozen=True, slots=True)
class Wrong:
    """What the bridge's own metrics tell: from one second of the day to another `rts` is down, and older values are served."""

    down_s: tuple[int, int] = (0, 0)
    stale_s: tuple[int, int] = (0, 0)


@contextmanager
def scraped_day(folder: Path, desk: Desk, wrong: Wrong | None = None, *, world: bool = True) -> Iterator[int]:
    """A running Prometheus with the day in it, and the hour before for the longest window: its port."""
    at_ms = np.arange(desk.start_ms - 3_600_000 + SCRAPED_MS, int(desk.at_ms[-1]) + 1, SCRAPED_MS)
    text = folder / "samples.txt"
    # One block at a time, because promtool reads the whole text again for each block.
    for instants in np.split(at_ms, np.flatnonzero(np.diff(at_ms // _BLOCK_MS)) + 1):
        parts = [*(_world_samples(desk, instants) if world else ()), *_bridge_samples(desk, instants, wrong or Wrong())]
        text.write_text("".join([*parts, "# EOF\n"]), encoding="utf-8")
        backfill(text, folder / "data")
    with prometheus_store(folder, free_port()) as port:
        yield port


def _world_samples(desk: Desk, at_ms: np.ndarray) -> Iterator[str]:
    known = [family for family in families(desk.world) if family.name in _WANTED]
    assert {family.name for family in known} == set(_WANTED)
    yield from (part for part in openmetrics(known, at_ms) if part != "# EOF\n")


def _bridge_samples(desk: Desk, at_ms: np.ndarray, wrong: Wrong) -> Iterator[str]:
    at_s, day_s = at_ms // 1000, (at_ms - desk.start_ms) // 1000
    up = 1 - ((day_s >= wrong.down_s[0]) & (day_s < wrong.down_s[1]))
    stale = np.clip(day_s - wrong.stale_s[0], 0, wrong.stale_s[1] - wrong.stale_s[0])
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
