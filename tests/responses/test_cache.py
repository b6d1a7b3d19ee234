from __future__ import annotations

from app.model import Query, Result, TimeRange
from app.responses.cache import ResponseCache
from app.telemetry import Telemetry
from tests.contracts.app_under_test import NOW


def test_finished_responses_never_take_more_than_their_room() -> None:
    responses = ResponseCache(100_000, Telemetry(), lambda: NOW)
    for number in range(1000):
        result = Result(Query("equity", 0, 60_000), range=TimeRange(0, 60_000, 1000), valid_until_ms=NOW + 5)
        responses.keep(("panel", number), [result], "application/json", b"x" * 5000)
        assert 0 < responses.size_bytes <= 100_000
