"""Every kind: the answer is the rows that were written."""

from __future__ import annotations

from app.model import TimeRange
from app.sources.base import Source
from tests.sources.conformance.fetching import fetch, series_of, where
from tests.sources.conformance.kind import BEGIN, END, STEP, Kind

FIRST, SECOND, THIRD = BEGIN, BEGIN + STEP, BEGIN + 2 * STEP
A1, B2 = {FIRST: 1.5, SECOND: None, THIRD: 3.0}, {FIRST: 2.0, THIRD: 4.25}


async def test_the_answer_is_the_rows_with_nulls_as_nulls_and_nothing_for_a_missing_row(kind: Kind, source: Source) -> None:
    found = await fetch(source, kind.read("figures"), ("account", "broker"))
    assert series_of(found) == {(("account", "A1"), ("broker", "X")): A1, (("account", "B2"), ("broker", "Y")): B2}


async def test_series_are_in_order_and_each_time_stands_there_once_and_ascends(kind: Kind, source: Source) -> None:
    found = await fetch(source, kind.read("figures"), ("account",))
    assert list(found.series) == sorted(set(found.series))
    assert all((times[1:] > times[:-1]).all() for _, times, _ in found.runs())


async def test_the_labels_are_those_that_were_asked_for_and_no_others(kind: Kind, source: Source) -> None:
    read = kind.read("figures")
    whole = {FIRST: 3.5, SECOND: None, THIRD: 7.25}
    assert series_of(await fetch(source, read)) == {(): whole}
    assert series_of(await fetch(source, read, ("broker",))) == {(("broker", "X"),): A1, (("broker", "Y"),): B2}
    assert series_of(await fetch(source, read, ("account",))) == {(("account", "A1"),): A1, (("account", "B2"),): B2}


async def test_the_order_in_which_labels_are_asked_for_does_not_matter(kind: Kind, source: Source) -> None:
    read = kind.read("figures")
    one, other = await fetch(source, read, ("account", "broker")), await fetch(source, read, ("broker", "account"))
    assert series_of(one) == series_of(other)


async def test_a_label_may_have_another_name_in_the_store(kind: Kind, source: Source) -> None:
    read = kind.read("figures").model_copy(update={"labels": {"firm": "broker"}})
    found = await fetch(source, read, ("firm",), where("firm", "=", "Y"))
    assert series_of(found) == {(("firm", "Y"),): B2}


async def test_a_row_at_the_very_end_of_the_range_is_not_in_it(kind: Kind, source: Source) -> None:
    found = series_of(await fetch(source, kind.read("edges")))[()]
    gap = kind.gaps.get("half_open")
    if gap is None:
        assert found == {BEGIN: 10.0}
    else:
        assert gap.reason == "a bucket is evaluated at its end, so it holds the sample of that very instant"
        assert found[gap.instead] == 99.0


async def test_a_range_of_some_buckets_has_these_and_no_others(kind: Kind, source: Source) -> None:
    found = await fetch(source, kind.read("figures"), ("account",), span=TimeRange(SECOND, END, STEP))
    assert series_of(found) == {(("account", "A1"),): {SECOND: None, THIRD: 3.0}, (("account", "B2"),): {THIRD: 4.25}}


async def test_a_wider_step_has_the_sum_of_its_rows(kind: Kind, source: Source) -> None:
    width, begin = 4 * STEP, BEGIN // (4 * STEP) * 4 * STEP
    span = TimeRange(begin, begin + 2 * width, width)
    found = series_of(await fetch(source, kind.read("figures"), where=where("account", "=", "B2"), span=span))
    assert sum(value or 0 for value in found[()].values()) == 6.25
    assert all(at % width == 0 for at in found[()])


async def test_the_one_bucket_of_an_exact_range_stands_at_the_ranges_begin(kind: Kind, source: Source) -> None:
    begin, end = BEGIN + 1000, END - 1000
    span = TimeRange(begin, end, end - begin, begin)
    found = await fetch(source, kind.read("figures"), where=where("account", "=", "B2"), span=span)
    assert series_of(found) == {(): {begin: 6.25}}


async def test_no_rows_are_an_empty_frame(kind: Kind, source: Source) -> None:
    for found in (
        await fetch(source, kind.read("figures"), ("account",), where("account", "=", "nobody")),
        await fetch(source, kind.read("figures"), ("account",), span=TimeRange(END + 10 * STEP, END + 12 * STEP, STEP)),
    ):
        assert (len(found), found.series, found.offsets) == (0, (), (0,))


async def test_a_whole_answer_says_how_far_its_data_goes_where_the_store_tells_and_has_no_other_mark(
    kind: Kind, source: Source
) -> None:
    found = await fetch(source, kind.read("figures"), ("account",))
    assert (found.covers_to_ms, found.covers_from_ms) == (kind.covers_to_ms, None)
    assert (found.partial, found.older_copy, found.notices) == (False, None, ())


async def test_an_answer_of_which_a_part_is_missing_is_marked_and_says_what(kind: Kind, source: Source) -> None:
    found = await fetch(source, kind.partial_read())
    gap = kind.gaps.get("partial")
    if gap is None:
        assert (found.partial, [notice.severity for notice in found.notices]) == (True, ["warning"])
    else:
        assert gap.reason.startswith(("its rows are all there, or there is an error", "one server has all of its data"))
        assert (found.partial, found.notices) == (False, ())
