"""Texts to numbers and instants."""

from __future__ import annotations

import math

import pytest

from app.sources.redis_parse import instants, numbers, samples, text


def test_numbers_with_nulls_and_what_does_not_parse() -> None:
    found, bad = numbers([b"1.5", b"", None, b"-2e3", b"x", b"inf", b"nan"])
    assert [None if math.isnan(value) else value for value in found] == [1.5, None, None, -2000, None, None, None]
    assert bad == 2


def test_a_column_that_parses_is_as_one_that_does_not() -> None:
    assert numbers([b"1", b"inf", None])[1] == numbers([b"1", b"inf", b"x"])[1] - 1 == 1
    assert numbers([])[0].tolist() == []


@pytest.mark.parametrize(
    ("written", "at_ms"),
    [
        (b"1700000040", 1_700_000_040_000),
        (b"1700000040.25", 1_700_000_040_250),
        (b"1700000040000", 1_700_000_040_000),
        (b"2023-11-14T22:14:00.500Z", 1_700_000_040_500),
        (b"2023-11-14T23:14:00+01:00", 1_700_000_040_000),
        (b"2023-11-14 22:14:00", 1_700_000_040_000),
        (b"1969-12-31T23:59:59Z", -1000),
    ],
)
def test_every_way_to_write_a_time(written: bytes, at_ms: int) -> None:
    found, bad = instants([written])
    assert (found.tolist(), bad) == ([at_ms], 0)


def test_what_is_no_time_is_null_and_counted() -> None:
    found, bad = instants([b"soon", b"", None, b"2023-13-01T00:00:00Z", b"\xff"])
    assert all(math.isnan(value) for value in found)
    assert bad == 3


def test_samples_with_a_broken_one_among_them() -> None:
    times, values, bad = samples([b"1000:1", b"2000:2.5"])
    assert (times.tolist(), values.tolist(), bad) == ([1000, 2000], [1, 2.5], 0)
    times, values, bad = samples([b"1000:1", b"2000:", b"broken", b"a:b:c", b"3000:3"])
    assert (times.tolist(), bad) == ([1000, 2000, 3000], 2)
    assert values[[0, 2]].tolist() == [1, 3]
    assert math.isnan(values[1])
    assert [len(column) for column in samples([])[:2]] == [0, 0]
    times, values, bad = samples([b"1000:1", b"5"])
    assert (times.tolist(), values.tolist(), bad) == ([1000], [1], 1)


def test_bytes_that_are_no_text_are_still_a_label() -> None:
    assert [text(cell) for cell in (b"A1", None, b"", b"\xff")] == ["A1", "", "", "\ufffd"]
