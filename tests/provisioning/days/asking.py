"""A bridge over a desk's day: the real routes and the real plan, over stores in this process that answer from its figures."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx
import numpy as np

from app.catalog import load_folder
from app.config import Settings, settings_from, shipped_catalogue
from app.errors import SourceUnavailable
from app.main import build_operations, compose_service
from app.model import Frame, Statement, frame_of_runs
from tests.contracts.app_under_test import Scripted
from tests.provisioning.alerting import ENVIRONMENT, ON_THE_BRIDGE, RULES, SOURCES
from tests.provisioning.days.desk import Desk
from tests.servers.alerting import Json, Verdict, figures, infinity_request, judged

_KINDS: Mapping[str, Json] = {
    **{name: {"kind": "redis"} for name in ("rts", "ris", "rtss", "rtrs")},
    "clickhouse": {"kind": "clickhouse"},
    "duckdb": {"kind": "duckdb", "snapshots": "nowhere"},
    "prometheus": {"kind": "prometheus", "url": "http://127.0.0.1:1"},
}
#: what Prometheus alone knows
_SPANS = ("sync_failure", "sync_latency", "disk_fullness")


def _settings() -> Settings:
    policy = {"fresh_s": 0, "stale_s": 0, "failures": 100, "attempt_timeout_s": 20, "total_timeout_s": 25}
    sources = {name: {"connect": connect, "policy": policy} for name, connect in _KINDS.items()}
    return settings_from({"sources": sources, "request": {"budget_s": 28}, "agent": {"port": None}}, "a day")


@dataclass
class Clock:
    """The day's clock."""

    now_ms: int

    def __call__(self) -> int:
        return self.now_ms


def _answers(desk: Desk, source: str, clock: Clock) -> Callable[[Statement], Awaitable[Frame]]:
    """What one store says: of a sampled figure its value of now, of a figure over a window the whole of it."""

    async def answer(statement: Statement) -> Frame:
        failing = desk.failure(source, clock.now_ms, statement.metric)
        if failing is not None and not failing.metric:
            raise SourceUnavailable(source, "planted: it does not answer")
        if failing is not None:
            return Frame()
        if statement.metric == "reject_rate":
            return _share_frame(desk, statement, clock.now_ms)
        if source in ("duckdb", "clickhouse", "prometheus") and statement.metric not in _SPANS:
            return Frame()  # its history: the rules ask for the value of now
        return _now_frame(desk, statement, clock.now_ms)

    return answer


def _share_frame(desk: Desk, statement: Statement, now_ms: int) -> Frame:
    since, until = statement.range.from_ms, min(statement.range.to_ms, now_ms)
    at_ms = np.array([statement.range.bucket_ms(since)])
    shares = desk.shares(np.array([since]), np.array([max(until, since)]))
    runs = [
        ((("broker", broker),), at_ms, np.column_stack((share, orders)))
        for broker, (share, orders) in shares.items()
        if orders[0]
    ]
    return frame_of_runs(runs)


def _now_frame(desk: Desk, statement: Statement, now_ms: int) -> Frame:
    found = desk.figure(statement.metric)
    at_ms = np.array([statement.range.bucket_ms(min(now_ms, statement.range.to_ms - 1))])
    row = found.values[desk.place(now_ms)]
    return frame_of_runs([(labels, at_ms, np.array([row[place]])) for place, labels in enumerate(found.labels)])


class DayOfBridge:
    """The application over a desk's day; a client asks what the rules ask."""

    def __init__(self, desk: Desk) -> None:
        self.clock = Clock(desk.start_ms)
        settings = _settings()
        sources = {name: Scripted(name, _answers(desk, name, self.clock)) for name in _KINDS}
        catalogue = load_folder(shipped_catalogue(), settings.kinds)
        service = compose_service(settings, build_operations(settings, catalogue, sources, self.clock))
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://bridge", timeout=30)

    async def verdicts(self, now_ms: int) -> dict[str, Verdict | None]:
        """What each rule on the bridge says at that instant; None is an error. Equal questions are asked once."""
        self.clock.now_ms = now_ms
        answers: dict[str, Json | None] = {}
        found: dict[str, Verdict | None] = {}
        for uid in ON_THE_BRIDGE:
            query = RULES[uid]["data"][0]
            asked = json.dumps(query["model"]["url_options"], sort_keys=True)
            if asked not in answers:
                answers[asked] = await self._ask(query)
            body = answers[asked]
            found[uid] = None if body is None else judged(RULES[uid], figures(query["model"], body))
        return found

    async def _ask(self, query: Json) -> Json | None:
        answer = await self._client.send(infinity_request(SOURCES[query["datasourceUid"]], query["model"], ENVIRONMENT))
        if answer.status_code in (502, 503, 504):
            return None
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body
