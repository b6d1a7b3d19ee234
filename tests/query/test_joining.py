"""Two stores for one bucket: who is asked for which part, what they must be able to give, and a live store that begins late."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalog import load
from app.clock import instant_text
from app.errors import ConfigError, SourceUnavailable
from app.model import Frame, Query, Result, Statement
from app.query.bridge import Bridge
from app.telemetry import Telemetry
from tests.frames import frame, shown

MINUTE, DAY = 60_000, 86_400_000
#: 17:43:20 of a day
NOW = 1_700_070_200_000
MIDNIGHT = NOW // DAY * DAY
#: settled: 30 s ago, on a whole minute
SEAM = (NOW - 30_000) // MINUTE * MINUTE

TEXT = """
group: g
title: G
metrics:
  failures: {{title: t, description: d, unit: short, aggregate: count, over_time: sum, settle_s: 30,
    history: {{source: lake, parts: {parts}, sql: "SELECT {{step_ms:Int64}} AS time, {what} AS value"}},
    live: {{source: hot, read: events, stream: s, {live}}}}}
  p95: {{title: t, description: d, unit: short, aggregate: quantile, over_time: quantile, settle_s: 30,
    history: {{source: lake, parts: none, sql: "SELECT {{step_ms:Int64}} AS time, 1 AS value"}},
    live: {{source: hot, read: events, stream: s, field: f, aggregate: quantile}}}}
  orders: {{title: t, description: d, unit: short, aggregate: sum, over_time: rate, settle_s: 30,
    history: {{source: lake, parts: sum, sql: "SELECT {{step_ms:Int64}} AS time, 1 AS value"}},
    live: {{source: hot, read: events, stream: s, value: count, aggregate: count}}}}
"""
KINDS = {"lake": "clickhouse", "hot": "redis"}


def text(parts: str = "sum", what: str = "1", live: str = "value: count, aggregate: count") -> str:
    return TEXT.format(parts=parts, what=what, live=live)


class Stores:
    """Events at instants, counted as two stores would: the history has all that has settled, the live store what came lately."""

    def __init__(self, *events_ms: int, live_begins_ms: int = 0, lake_is_up: bool = True) -> None:
        self.events_ms, self.live_begins_ms, self.lake_is_up = events_ms, live_begins_ms, lake_is_up
        self.asked: list[tuple[str, int, int]] = []

    async def lake(self, statement: Statement) -> Frame:
        if not self.lake_is_up:
            raise SourceUnavailable("lake", "refused")
        return self._counted("lake", statement, 0)

    async def hot(self, statement: Statement) -> Frame:
        return self._counted("hot", statement, self.live_begins_ms)

    def _counted(self, name: str, statement: Statement, begins_ms: int) -> Frame:
        span = statement.range
        self.asked.append((name, span.from_ms, span.to_ms))
        buckets: dict[int, float | None] = {}
        for at_ms in self.events_ms:
            if max(span.from_ms, begins_ms) <= at_ms < span.to_ms:
                bucket_ms = span.bucket_ms(at_ms)
                buckets[bucket_ms] = (buckets.get(bucket_ms) or 0) + 1
        return frame({"": buckets}, asked_ms=NOW, covers_from_ms=begins_ms if begins_ms > span.from_ms else None)

    async def ask(self, metric: str = "failures", **more: Any) -> Result:
        bridge = Bridge(load({"g.yaml": text()}, KINDS), {"lake": self.lake, "hot": self.hot}, Telemetry(), lambda: NOW)
        query = Query(metric, **{"from_ms": MIDNIGHT, "to_ms": NOW, "step_ms": DAY, **more})
        [result] = await bridge.run([query], budget_s=1)
        return result


def texts(result: Result) -> list[str]:
    return [notice.text for notice in result.frame.notices]


async def test_the_day_that_is_not_over_is_counted_by_both_stores_each_for_its_own_part() -> None:
    stores = Stores(MIDNIGHT, SEAM - 1, SEAM, NOW - 1, live_begins_ms=NOW - 600_000)
    result = await stores.ask()
    assert (shown(result.frame), result.status) == ({"": {MIDNIGHT: 4.0}}, "fresh")
    assert stores.asked == [("lake", MIDNIGHT, SEAM), ("hot", SEAM, MIDNIGHT + DAY)]


@pytest.mark.parametrize("step_ms", [MINUTE, 7 * MINUTE, 60 * MINUTE, 241 * MINUTE, DAY])
async def test_a_total_is_the_same_at_every_step(step_ms: int) -> None:
    events = [MIDNIGHT + place * 61_713 for place in range(1000) if MIDNIGHT + place * 61_713 < NOW]
    found = await Stores(*events, live_begins_ms=NOW - 600_000).ask(
        from_ms=MIDNIGHT // (241 * MINUTE) * 241 * MINUTE, step_ms=step_ms
    )
    assert (sum(value or 0 for value in shown(found.frame)[""].values()), found.status) == (len(events), "fresh")


async def test_step_range_is_one_bucket_of_exactly_the_asked_window() -> None:
    stores = Stores(MIDNIGHT + 4, MIDNIGHT + 5, SEAM, NOW - 1, NOW)
    result = await stores.ask(from_ms=MIDNIGHT + 5, step_ms=None, exact=True)
    assert (shown(result.frame), result.range.from_ms, result.status) == ({"": {MIDNIGHT + 5: 3.0}}, MIDNIGHT + 5, "fresh")


async def test_an_alert_gets_the_day_so_far_where_there_is_no_other_bucket_and_never_an_open_one_beside_closed_ones() -> None:
    stores = Stores(MIDNIGHT - 1, MIDNIGHT, NOW - 1)
    assert shown((await stores.ask(strict=True)).frame) == {"": {MIDNIGHT: 2.0}}
    assert shown((await stores.ask(strict=True, from_ms=MIDNIGHT - DAY)).frame) == {"": {MIDNIGHT - DAY: 1.0}}


async def test_a_live_store_that_begins_after_the_seam_moves_it() -> None:
    stores = Stores(MIDNIGHT, SEAM + 500, NOW - 10, live_begins_ms=NOW - 35_000)
    result = await stores.ask()
    assert (shown(result.frame), result.status) == ({"": {MIDNIGHT: 3.0}}, "fresh")
    assert stores.asked[2:] == [("lake", MIDNIGHT, NOW - 35_000), ("hot", NOW - 35_000, MIDNIGHT + DAY)]


@pytest.mark.parametrize("strict", [False, True])
async def test_what_neither_store_is_sure_of_is_said_and_no_alert_gets_it(strict: bool) -> None:
    result = await Stores(MIDNIGHT, live_begins_ms=NOW - 5_000).ask(strict=strict)
    sure = f"the history is sure up to {instant_text(NOW - 30_000)} only, so what lies between may be incomplete"
    if strict:
        assert result.error is not None
        assert sure in result.error.message
    else:
        assert (result.status, sure in texts(result)[0]) == ("partial", True)


async def test_without_the_history_the_live_store_tells_all_that_it_still_has() -> None:
    stores = Stores(NOW - 3_000_000, NOW - 599_000, NOW - 500_000, NOW - 1, live_begins_ms=NOW - 600_000, lake_is_up=False)
    result = await stores.ask(from_ms=NOW - 3_600_000, step_ms=MINUTE)
    assert shown(result.frame) == {"": {(NOW - 500_000) // MINUTE * MINUTE: 1.0, (NOW - 1) // MINUTE * MINUTE: 1.0}}
    begins = f"failures: hot has everything from {instant_text(NOW - 600_000)} on; nothing before is shown"
    assert (result.status, begins in texts(result)) == ("partial", True)


async def test_a_quantile_of_a_bucket_that_the_live_store_has_not_seen_whole_is_the_historys_until_it_says() -> None:
    stores = Stores(MIDNIGHT, SEAM - 1, NOW - 1, live_begins_ms=NOW - 600_000)
    result = await stores.ask("p95")
    said = f"p95: the bucket of {instant_text(MIDNIGHT)} is answered by lake, until {instant_text(SEAM)}"
    assert (shown(result.frame), texts(result), result.status) == ({"": {MIDNIGHT: 2.0}}, [said], "fresh")


async def test_a_quantile_of_a_bucket_that_the_live_store_has_seen_whole_is_its_own() -> None:
    result = await Stores(MIDNIGHT, SEAM - 1, NOW - 1).ask("p95")
    assert (shown(result.frame), texts(result)) == ({"": {MIDNIGHT: 3.0}}, [])


async def test_amounts_of_a_rate_are_divided_by_the_time_that_the_bucket_has_lasted() -> None:
    stores = Stores(*range(MIDNIGHT, MIDNIGHT + 240_000, 1000), *range(NOW - 60_000, NOW, 1000))
    result = await stores.ask("orders", from_ms=MIDNIGHT, step_ms=4 * MINUTE)
    found = shown(result.frame)[""]
    open_ms = NOW // (4 * MINUTE) * 4 * MINUTE
    lasted_s = (NOW - open_ms) / 1000
    inside = [at for at in range(NOW - 60_000, NOW, 1000) if at >= open_ms]
    assert found[MIDNIGHT] == 1.0
    assert found[open_ms] == pytest.approx(len(inside) / lasted_s)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"parts": "null"}, "history.parts: is missing (how two parts of one bucket become one); `over_time: sum` needs sum"),
        ({"parts": "max"}, "history.parts: 'max' does not go with `over_time: sum`; allowed: sum"),
        ({"parts": "mean"}, "history.parts: mean needs a column `weight` (a count, a denominator)"),
        ({"what": "1 AS weight, 1"}, "history.parts: the template yields a column `weight`: write `parts: mean`"),
        ({"live": "field: f, aggregate: max"}, "live: gives 'max' for a part of a bucket, the history 'sum'"),
        ({"live": "field: f, aggregate: quantile"}, "live: gives 'none' for a part of a bucket, the history 'sum'"),
    ],
)
def test_a_metric_whose_sides_cannot_be_put_together_is_refused(wrong: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"g.yaml": text(**wrong)}, KINDS)
    assert f"g.yaml: metrics.failures.{problem}" in str(caught.value)
