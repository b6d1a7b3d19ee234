"""The seam: no bucket twice, none lost, whatever the clocks and late rows do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import Frame, Notice, Parts, TimeRange
from app.series import clip, merge, newest, seam_ms, splice
from tests.frames import frame, shown


def test_history_answers_before_the_seam_and_the_live_read_from_it_on() -> None:
    history = frame({"a=1": {0: 1, 60: 2, 120: 99}})
    live = frame({"a=1": {60: 98, 120: 3}})
    assert shown(splice(history, live, 120)) == {"a=1": {0: 1.0, 60: 2.0, 120: 3.0}}


def test_a_label_set_that_only_one_side_knows_is_kept() -> None:
    joined = splice(frame({"a=1": {0: 1}}), frame({"a=2": {60: 2}}), 60)
    assert shown(joined) == {"a=1": {0: 1.0}, "a=2": {60: 2.0}}


def test_remarks_of_both_sides_are_kept_once() -> None:
    notice = Notice("info", "both")
    assert splice(frame({}, notices=(notice,)), frame({}, notices=(notice,)), 0).notices == (notice,)


def test_the_seam_is_where_the_history_is_complete_no_more() -> None:
    live_from, open_bucket = 600, 1200
    seams = [seam_ms(60, live_from, open_bucket, covers) for covers in (None, 0, 899, 900, 1300, 5000)]
    assert seams == [600, 600, 840, 900, 1200, 1200]


def test_cutting_keeps_the_first_instant_and_not_the_last() -> None:
    assert shown(clip(frame({"a=1": {0: 1, 60: 2, 120: 3}}), 0, 120)) == {"a=1": {0: 1.0, 60: 2.0}}


def test_the_newest_point_is_the_last_that_is_known() -> None:
    found = newest(frame({"a=1": {0: 1, 60: 2, 120: None}, "a=2": {0: None, 60: None}}))
    assert shown(found) == {"a=1": {60: 2.0}, "a=2": {60: None}}


@settings(max_examples=1000)
@given(
    now=st.integers(100_000, 200_000),
    step=st.sampled_from([10, 20, 30, 60, 90, 300, 3600]),
    back=st.integers(1, 50_000),
    skew=st.integers(-2, 2),
    late=st.integers(0, 4),
    settle=st.integers(6, 120),
    snapshot_age=st.none() | st.integers(0, 200),
)
def test_no_bucket_is_doubled_or_missing_at_the_seam(
    now: int, step: int, back: int, skew: int, late: int, settle: int, snapshot_age: int | None
) -> None:
    """A quantity sampled every 10 s, dated by a clock that is off by `skew`, in the history `late` seconds after that.

    The history is either complete but for what has not arrived yet, or a snapshot of some age; the live read has everything.
    """
    first = (now - back) // step * step
    open_bucket = now // step * step
    covers = None if snapshot_age is None else now - snapshot_age
    arrived = now - late if covers is None else covers
    truth = {tick + skew: float(tick) for tick in range(first // 10 * 10 - 20, now + 1, 10) if tick + skew <= now}
    settled = max((now - (settle if snapshot_age is None else 200)) // step * step, 0)

    def buckets(samples: dict[int, float]) -> dict[int, float | None]:
        return {at // step * step: value for at, value in sorted(samples.items())}

    in_history = {at: value for at, value in truth.items() if at - skew <= arrived and first <= at < open_bucket}
    in_live = {at: value for at, value in truth.items() if at >= max(settled, first)}
    seam = seam_ms(step, settled, open_bucket, covers)
    joined = splice(frame({"": buckets(in_history)}), frame({"": buckets(in_live)}), seam)

    wanted = {at: value for at, value in truth.items() if at >= first}
    assert shown(joined).get("", {}) == buckets(wanted)


def weighted(series: dict[str, dict[int, float | None]], weights: dict[str, dict[int, float]]) -> Frame:
    """A frame of means with what is behind them."""
    found = frame(series)
    return replace(found, weight=frame(weights).value)


DAY = TimeRange(0, 100, 50)
_EVENTS = st.lists(st.tuples(st.integers(0, 299), st.integers(-5, 5)), max_size=40)


@pytest.mark.parametrize(("parts", "merged"), [("sum", 9.0), ("min", 2.0), ("max", 7.0)])
def test_a_bucket_that_the_seam_lies_in_is_put_together_from_its_two_parts(parts: Parts, merged: float) -> None:
    history, live = frame({"a=1": {0: 1, 50: 2}, "a=2": {50: 4}}), frame({"a=1": {50: 7}, "a=3": {50: 5}})
    found = merge(history, live, 70, DAY, parts)
    assert shown(found) == {"a=1": {0: 1.0, 50: merged}, "a=2": {50: 4.0}, "a=3": {50: 5.0}}


def test_a_mean_weighs_each_part_by_what_is_behind_it() -> None:
    history = weighted({"": {50: 10}}, {"": {50: 3}})
    live = weighted({"": {50: 20}}, {"": {50: 1}})
    assert shown(merge(history, live, 70, DAY, "mean")) == {"": {50: 12.5}}


def test_a_part_of_a_mean_without_anything_behind_it_changes_nothing() -> None:
    history = weighted({"": {50: None}}, {"": {50: 0}})
    live = weighted({"": {50: 20}}, {"": {50: 2}})
    assert shown(merge(history, live, 70, DAY, "mean")) == {"": {50: 20.0}}
    assert shown(merge(history, history, 70, DAY, "mean")) == {"": {50: None}}


def test_what_is_not_known_cannot_be_added() -> None:
    assert shown(merge(frame({"": {50: None}}), frame({"": {50: 1}}), 70, DAY, "sum")) == {"": {50: None}}


@given(
    st.lists(st.tuples(st.integers(0, 299), st.integers(-5, 5)), max_size=40),
    st.integers(0, 300),
    st.sampled_from((50, 100, 300)),
)
def test_a_total_depends_neither_on_the_seam_nor_on_the_step(events: list[tuple[int, int]], seam: int, step: int) -> None:
    span = TimeRange(0, 300, step)

    def told(since: int, until: int) -> Frame:
        buckets: dict[int, float | None] = {}
        for at, amount in events:
            if since <= at < until:
                buckets[at // step * step] = (buckets.get(at // step * step) or 0) + amount
        return frame({"": buckets})

    found = shown(merge(told(0, seam), told(seam, 300), seam, span, "sum"))
    assert found == shown(told(0, 300))


def test_what_follows_keeps_the_weights_of_both() -> None:
    first, then = (
        weighted({"a=1": {0: 1}}, {"a=1": {0: 5}}),
        weighted({"a=1": {50: 2}, "a=2": {50: 3}}, {"a=1": {50: 6}, "a=2": {50: 7}}),
    )
    joined = splice(first, then, 50)
    assert (shown(joined), joined.weight.tolist()) == ({"a=1": {0: 1.0, 50: 2.0}, "a=2": {50: 3.0}}, [5.0, 6.0, 7.0])
