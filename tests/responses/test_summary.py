"""The state of many metrics in one line, over results as the bridge gives them."""

from __future__ import annotations

import pytest

from app.errors import SourceUnavailable
from app.model import Frame, Query, Result, SourceReport, Status
from app.responses.marks import Mark, result_mark
from app.responses.summary import summary_line
from tests.frames import frame

ROW = frame({"": {0: 1.0}})


def result(
    metric: str, status: Status = "fresh", age_s: float = 1.0, source: str = "rts", rows: Frame = ROW, sampled: bool = True
) -> Result:
    """A result whose one source is to blame for its status."""
    error = SourceUnavailable(source, "refused") if status in ("error", "partial") else None
    report = SourceReport(source, "live", 0.0, error, "refused" if status == "stale" else None, age_s)
    failed = error if status == "error" else None
    return Result(Query(metric, 0, 1), rows, failed, status, asked=(report,), age_s=age_s, sampled=sampled)


def line(*results: Result) -> str:
    marks: list[Mark] = [result_mark(one) for one in results]
    return summary_line(results, marks)


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([result(f"m{number}") for number in range(9)], "all 9 metrics are fresh"),
        ([result("a", age_s=10), result("b")], "all 2 metrics are fresh"),
        ([result("a", age_s=48.4), result("b")], "all 2 metrics are fresh, the oldest figure is 48 s old"),
        ([result("a", age_s=75)], "fresh, the oldest figure is 75 s old"),
        ([result("a", age_s=48), result("b", "error", 300)], "1 of 2 metrics without an answer: rts"),
        (
            [result(f"m{number}", "stale" if number < 3 else "fresh", 240) for number in range(9)],
            "3 of 9 metrics older than 10 s: rts, 4 min",
        ),
        ([result("a", "stale", 4), result("b")], "1 of 2 metrics stale: rts, 4 s"),
        (
            [result("a", "partial", source="lake"), result("b", "stale", 7300), result("c", "error", source="prom")],
            "1 of 3 metrics without an answer: prom; 1 of 3 metrics older than 10 s: rts, 2 h; 1 of 3 metrics incomplete: lake",
        ),
        (
            [result(f"m{number}", "error", source=f"s{number}") for number in range(7)],
            "7 of 7 metrics without an answer: s0, s1, s2, s3, s4 and 2 more",
        ),
        ([result("a", rows=Frame()), result("b")], "1 of 2 metrics without data: a"),
        ([result("a", rows=Frame(), sampled=False), result("b")], "all 2 metrics are fresh; nothing in this range: a"),
    ],
)
def test_the_worst_comes_first_with_its_sources_and_its_age(results: list[Result], says: str) -> None:
    assert line(*results) == says
