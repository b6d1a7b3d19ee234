"""A bucket without a row is 0 where the stores have seen the whole of it, and nothing where nobody knows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog import load
from app.errors import ConfigError, SourceUnavailable
from app.model import Frame, Matcher, Query, Ranking, Result, Statement
from app.query.bridge import Bridge
from app.telemetry import Telemetry
from tests.frames import frame, shown

MINUTE = 60_000
NOW = 1_700_070_200_000
#: settled: 30 s ago, on a whole minute
SEAM = (NOW - 30_000) // MINUTE * MINUTE
OPEN = NOW // MINUTE * MINUTE
FROM = OPEN - 20 * MINUTE

TEXT = """
group: g
title: G
labels: {account: {title: A, metric: failures}}
metrics:
  failures: {title: t, description: d, unit: short, aggregate: count, over_time: sum, settle_s: 30, zeros: true,
    labels: [account],
    history: {source: lake, parts: sum, BEGINS sql: "SELECT {step_ms:Int64} AS time, {by}, 1 AS value FROM t WHERE true {where}"},
    live: {source: hot, read: events, stream: s, value: count, aggregate: count}}
  past: {title: t, description: d, unit: short, aggregate: count, over_time: sum, settle_s: 30, zeros: true,
    history: {source: lake, parts: sum, BEGINS sql: "SELECT {step_ms:Int64} AS time, 1 AS value FROM t"}}
"""
KINDS = {"lake": "clickhouse", "hot": "redis"}
ASKED = Query("failures", FROM, NOW, step_ms=MINUTE)


class Stores:
    """Failures of accounts at instants, as two stores count them. The history has data from `begins_ms` to `covers_ms`."""

    def __init__(
        self,
        *failures: tuple[str, int],
        begins_ms: int | None = 0,
        covers_ms: int | None = None,
        live_begins_ms: int = 0,
        down: tuple[str, ...] = (),
        stale_ms: int | None = None,
    ) -> None:
        self.failures, self.begins_ms, self.covers_ms, self.live_begins_ms = failures, begins_ms, covers_ms, live_begins_ms
        self.down, self.stale_ms = down, stale_ms

    async def lake(self, statement: Statement) -> Frame:
        if "lake" in self.down:
            raise SourceUnavailable("lake", "refused")
        if "begins" in statement.text:
            return frame({"": {0: self.begins_ms}}, asked_ms=NOW)
        counted = self._count(statement, 0, self.covers_ms or NOW)
        if self.stale_ms is not None:
            counted = counted.with_provenance(asked_ms=self.stale_ms, stale="refused")
        return replace(counted, covers_to_ms=self.covers_ms)

    async def hot(self, statement: Statement) -> Frame:
        if "hot" in self.down:
            raise SourceUnavailable("hot", "refused")
        begins_ms = self.live_begins_ms
        covers_from_ms = begins_ms if begins_ms > statement.range.from_ms else None
        return replace(self._count(statement, begins_ms, NOW), covers_from_ms=covers_from_ms)

    def _count(self, statement: Statement, from_ms: int, to_ms: int) -> Frame:
        span, found = statement.range, dict[str, dict[int, float | None]]()
        for account, at_ms in self.failures:
            if max(span.from_ms, from_ms) <= at_ms < min(span.to_ms, to_ms):
                course = found.setdefault(f"account={account}" if statement.labels else "", {})
                course[span.bucket_ms(at_ms)] = (course.get(span.bucket_ms(at_ms)) or 0) + 1
        return frame(found, asked_ms=NOW)

    def ask(self, query: Query = ASKED, begins: str = "begins: SELECT begins,") -> Result:
        text = TEXT.replace("BEGINS", begins)
        bridge = Bridge(load({"g.yaml": text}, KINDS), {"lake": self.lake, "hot": self.hot}, Telemetry(), lambda: NOW)
        [result] = asyncio.run(bridge.run([query], budget_s=20))
        return result


def minutes(result: Result, labels: str = "") -> dict[int, float | None]:
    """The value of each bucket, by its number from `FROM` on."""
    return {(at - FROM) // MINUTE: value for at, value in shown(result.frame).get(labels, {}).items()}


def test_a_quiet_window_is_zero_up_to_now_and_the_answer_is_fresh() -> None:
    found = Stores().ask()
    assert (minutes(found), found.status) == (dict.fromkeys(range(21), 0.0), "fresh")


def test_a_failure_stands_among_zeros() -> None:
    found = Stores(("A1", FROM + 3 * MINUTE + 5), ("A1", NOW - 1)).ask()
    assert minutes(found) == dict.fromkeys(range(21), 0.0) | {3: 1.0, 20: 1.0}


def test_the_series_are_those_that_have_a_row_in_the_window() -> None:
    found = Stores(("A1", FROM + 5), ("A2", FROM + MINUTE)).ask(replace(ASKED, by=("account",)))
    assert list(shown(found.frame)) == ["account=A1", "account=A2"]
    assert minutes(found, "account=A2") == dict.fromkeys(range(21), 0.0) | {1: 1.0}
    assert not len(Stores().ask(replace(ASKED, by=("account",))).frame)


def test_nothing_is_zero_before_the_history_has_data() -> None:
    found = Stores(begins_ms=FROM + 4 * MINUTE + 1).ask()
    # The fifth bucket began before the first row.
    assert minutes(found) == dict.fromkeys(range(5, 21), 0.0)


def test_an_empty_history_knows_nothing_and_the_live_store_its_own_part() -> None:
    assert minutes(Stores(begins_ms=None).ask()) == dict.fromkeys(range((SEAM - FROM) // MINUTE, 21), 0.0)


def test_without_that_knowledge_zeros_begin_with_the_first_row_of_the_window() -> None:
    found = Stores(("A1", FROM + 7 * MINUTE)).ask(begins="")
    assert minutes(found) == {7: 1.0} | dict.fromkeys(range(8, 21), 0.0)


def test_nothing_is_zero_after_the_end_of_a_history_that_lags_behind() -> None:
    found = Stores(covers_ms=FROM + 10 * MINUTE + 1).ask()
    live = range((SEAM - FROM) // MINUTE, 21)
    assert (minutes(found), found.status) == (dict.fromkeys((*range(10), *live), 0.0), "partial")


def test_nothing_is_zero_where_a_store_has_failed() -> None:
    assert minutes(Stores(down=("hot",)).ask()) == dict.fromkeys(range((SEAM - FROM) // MINUTE), 0.0)
    # The live store alone has everything since its beginning.
    found = Stores(down=("lake",), live_begins_ms=FROM + 10 * MINUTE).ask()
    assert (minutes(found), found.status) == (dict.fromkeys(range(10, 21), 0.0), "partial")


def test_nothing_is_zero_after_an_older_answer_was_asked_for() -> None:
    found = Stores(stale_ms=FROM + 6 * MINUTE + 100).ask()
    assert set(range(6, (SEAM - FROM) // MINUTE)).isdisjoint(minutes(found))
    assert minutes(found)[5] == 0.0


def test_rows_that_may_still_be_on_their_way_to_a_history_alone_are_waited_for() -> None:
    found = minutes(Stores().ask(replace(ASKED, metric="past")))
    assert max(found) == (NOW - 30_000 - FROM) // MINUTE - 1


def test_nothing_is_zero_in_the_future() -> None:
    found = Stores().ask(replace(ASKED, to_ms=NOW + 10 * MINUTE))
    assert max(minutes(found)) == 20


@pytest.mark.parametrize("how", [{"exact": True, "step_ms": None}, {"instant": True}])
def test_one_figure_of_a_quiet_window_is_zero(how: dict[str, Any]) -> None:
    found = Stores(("A1", FROM - 1)).ask(replace(ASKED, **how))
    assert [*shown(found.frame)[""].values()] == [0.0]


def test_an_alert_rule_gets_no_zeros() -> None:
    assert not len(Stores().ask(replace(ASKED, strict=True)).frame)


def test_a_filter_that_matches_nothing_is_still_named_beside_the_zeros() -> None:
    found = Stores().ask(replace(ASKED, where=(Matcher("account", "=", ("A9",)),)))
    assert minutes(found) == dict.fromkeys(range(21), 0.0)
    assert [notice.text for notice in found.frame.notices] == ["failures: no series with account=A9 in this range"]


def test_very_many_series_stay_without_zeros_and_a_remark_says_so_but_a_top_has_them() -> None:
    stores = Stores(*((f"A{number:05}", FROM + MINUTE * (number % 3)) for number in range(20_000)))
    query = replace(ASKED, by=("account",))
    found = stores.ask(query)
    assert len(found.frame) == 20_000
    assert "buckets in which nothing happened are left out, not shown as 0" in found.frame.notices[0].text
    top = stores.ask(replace(query, ranking=Ranking(top=3, top_by="sum")))
    assert [len(course) for course in shown(top.frame).values()] == [21, 21, 21]


_failures = st.lists(st.tuples(st.sampled_from(["A1", "A2", "A3"]), st.integers(FROM, NOW - 1)), max_size=20)


@settings(deadline=None, max_examples=60)
@given(_failures, st.sampled_from([MINUTE, 3 * MINUTE, 7 * MINUTE, 60 * MINUTE]), st.booleans(), st.integers(FROM, NOW))
def test_zeros_change_no_total_and_no_figure(
    failures: list[tuple[str, int]], step_ms: int, by_account: bool, begins_ms: int
) -> None:
    query = replace(ASKED, step_ms=step_ms, by=("account",) if by_account else ())
    stores = Stores(*failures, begins_ms=begins_ms)
    filled = shown(stores.ask(query).frame)
    known = shown(stores.ask(replace(query, strict=True, to_ms=NOW + step_ms)).frame)
    values = [value for course in filled.values() for value in course.values()]
    assert sum(value or 0 for value in values) == len(failures)
    assert all(value is not None and value >= 0 for value in values)
    for labels, course in known.items():
        assert course.items() <= filled[labels].items()


def test_zeros_of_what_does_not_add_up_are_refused() -> None:
    text = TEXT.replace("BEGINS", "").replace("aggregate: count, over_time: sum", "aggregate: avg, over_time: avg", 1)
    with pytest.raises(ConfigError, match="zeros"):
        load({"g.yaml": text}, KINDS)
