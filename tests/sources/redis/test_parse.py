"""Texts to numbers and instants."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sources.redis.parse import instants, numbers, samples, text


def test_numbers_with_nulls_and_what_does_not_parse() -> None:
    found, bad = numbers([b"1.5", b"", None, b"-2e3", b"x", b"inf", b"nan"])
    assert [None if math.isnan(value) else value for value in found] == [1.5, None, None, -2000, None, None, None]
    assert bad == 3


@pytest.mark.parametrize(
    "cell", [b"1,234.50", b"1 234.50", b"1_234.50", b"1.234,50", b"0x10", b"1e400", b"nan", b"-nan(ind)", b"inf", b"$5", b"\xff"]
)
def test_what_is_no_number_is_null_and_counted(cell: bytes) -> None:
    for column in ([cell], [cell, b"1", None]):
        found, bad = numbers(column)
        assert (math.isnan(found[0]), bad) == (True, 1)


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
    found, bad = instants([b"soon", b"", None, b"2023-13-01T00:00:00Z", b"\xff", b"nan", b"1_700_000_040"])
    assert all(math.isnan(value) for value in found)
    assert bad == 5


@pytest.mark.parametrize("written", [b"1700000040000000", b"1700000040000000000", b"1e300", b"inf"])
def test_a_time_that_would_never_grow_old_is_none(written: bytes) -> None:
    found, bad = instants([written])
    assert (math.isnan(found[0]), bad) == (True, 1)


def test_samples_with_a_broken_one_among_them() -> None:
    times, values, bad = samples([[b"1000:1"], [], [b"2000:2.5"]])
    assert (times.tolist(), values.tolist(), bad) == ([1000, 2000], [1, 2.5], 0)
    times, values, bad = samples([[b"1000:1", b"2000:"], [b"broken", b"a:b:c", b"3000:3"]])
    assert (times.tolist(), bad) == ([1000, 2000, 3000], 2)
    assert values[[0, 2]].tolist() == [1, 3]
    assert math.isnan(values[1])
    assert [len(column) for column in samples([])[:2]] == [0, 0]
    times, values, bad = samples([[b"1000:1", b"5"]])
    assert (times.tolist(), values.tolist(), bad) == ([1000], [1], 1)


CELLS = [
    b"A1",
    b"K\xc0",
    b"K\xc1",
    rb"K\xc0",
    rb"K\x5cxc0",
    b"K\\\xc0",
    b"\xed\xa0\x80",
    "K\ufffd".encode(),
    b"back\\slash",
    b"a\x00\n",
]


def test_two_keys_never_have_one_label_and_text_is_itself() -> None:
    labels = [text(cell) for cell in CELLS]
    assert labels == [
        "A1",
        r"K\xc0",
        r"K\xc1",
        r"K\x5cxc0",
        r"K\x5cx5cxc0",
        r"K\\xc0",
        r"\xed\xa0\x80",
        "K\ufffd",
        r"back\slash",
        "a\x00\n",
    ]
    assert len(set(labels)) == len(CELLS)
    assert text(None) == text(b"") == ""


def cell_of(label: str) -> bytes:
    """The inverse of `text`."""
    parts = re.split(r"\\x([0-9a-f]{2})", label)
    return b"".join(bytes.fromhex(part) if place % 2 else part.encode() for place, part in enumerate(parts))


@given(st.binary() | st.lists(st.sampled_from([b"\\", b"x", b"c0", b"5c", b"\xc0", b"\xc3\xa9", b"A"])).map(b"".join))
def test_any_bytes_come_back_from_their_label(cell: bytes) -> None:
    assert cell_of(text(cell)) == cell
