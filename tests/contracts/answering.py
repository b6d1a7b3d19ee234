"""Sources that answer every statement of the provisioned catalogue with plausible figures, and a bridge over them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx
import numpy as np

from app.catalog import Catalogue, load_folder
from app.config import settings_from
from app.errors import SourceUnavailable
from app.filters import accepts_all
from app.main import Service, build_operations, compose_service
from app.model import Frame, Labels, Statement, Times, frame_of_runs
from tests.contracts.app_under_test import Scripted

KINDS = dict.fromkeys(("rts", "ris", "rtss", "rtrs"), "redis") | {name: name for name in ("clickhouse", "duckdb", "prometheus")}
_ADDRESSES: Mapping[str, Mapping[str, str]] = {"prometheus": {"url": "http://127.0.0.1:1"}, "duckdb": {"snapshots": "nowhere"}}
#: the values of the labels that are not listed in the catalogue
_VALUES = {
    "account": ("ACC1001", "ACC1002", "ACC1003"),
    "broker": ("alpha", "bravo"),
    "symbol": ("EURUSD", "XAUUSD+"),
    "instance": ("MT5_001", "MT5_002"),
    "host": ("host-1", "host-2"),
}
_MOST_BUCKETS = 2000


@dataclass
class Answering:
    """A bridge over sources that answer, or that are all down; its clock stands where it is set."""

    service: Service
    client: httpx.AsyncClient
    catalogue: Catalogue
    sources: Mapping[str, Scripted]
    now_ms: list[int] = field(default_factory=lambda: [0])

    def set_scene(self, now_ms: int, down: bool) -> None:
        """The time, and whether the stores are down."""
        self.now_ms[0] = now_ms
        for name, source in self.sources.items():
            source.answer = SourceUnavailable(name, "refused") if down else self._answer

    async def _answer(self, statement: Statement) -> Frame:
        if statement.metric in self.catalogue.events:
            return _events(statement)
        return _figures(self.catalogue, statement, self.now_ms[0])


def answering_bridge() -> Answering:
    """A bridge with the provisioned catalogue."""
    sources = {
        name: {
            "connect": {"kind": kind, **_ADDRESSES.get(kind, {})},
            "policy": {"fresh_s": 0, "stale_s": 0, "failures": 100, "attempt_timeout_s": 20, "total_timeout_s": 20},
        }
        for name, kind in KINDS.items()
    }
    chosen = settings_from({"sources": sources, "request": {"budget_s": 25}, "agent": {"port": None}}, "test")
    catalogue = load_folder(chosen.catalog_folder, KINDS)
    scripted = {name: Scripted(name) for name in KINDS}
    now_ms = [0]
    service = compose_service(chosen, build_operations(chosen, catalogue, scripted, lambda: now_ms[0]))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(service.app, raise_app_exceptions=False), base_url="http://bridge")
    return Answering(service, client, catalogue, scripted, now_ms)


def _figures(catalogue: Catalogue, statement: Statement, now_ms: int) -> Frame:
    """A value for each label set and bucket; a live store knows the open bucket."""
    span = statement.range
    times: Times = np.arange(span.from_ms, min(span.to_ms, max(now_ms, span.from_ms + 1)), span.step_ms, dtype=np.int64)
    if KINDS[statement.source] == "redis" or len(times) > _MOST_BUCKETS:
        times = times[-1:]
    weighs = statement.read is not None and statement.read.given_parts == "mean"
    runs = []
    for place, labels in enumerate(_label_sets(catalogue, statement)):
        values = np.arange(len(times), dtype=np.float64) % 17 + place
        runs.append((labels, times, np.column_stack((values, np.full(len(times), 50.0))) if weighs else values))
    return frame_of_runs(runs)


def _label_sets(catalogue: Catalogue, statement: Statement) -> Iterator[Labels]:
    """The label sets of the kept labels that the filters leave."""
    used = sorted({*statement.labels, *(matcher.label for matcher in statement.where)})
    test = accepts_all(statement.where)
    values = [catalogue.labels[name].values or _VALUES[name] for name in used]
    sets = (dict(zip(used, row, strict=True)) for row in itertools.product(*values))
    kept = {tuple((name, one[name]) for name in sorted(set(statement.labels))) for one in sets if test(one)}
    return iter(sorted(kept))


def _events(statement: Statement) -> Frame:
    """Three events in the window."""
    span = statement.range
    time: Times = np.linspace(span.from_ms, span.to_ms - 1, 3).astype(np.int64)
    text = {
        "title": ("Crash", "Restart", "Sync failed"),
        "text": ("a", None, "c"),
        "tags": ("x,y", None, "z"),
        "id": ("1", "2", "3"),
    }
    return Frame(time, np.full(3, np.nan), ((),), (0, 3), text)
