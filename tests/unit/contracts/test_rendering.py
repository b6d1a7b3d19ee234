"""Columns as JSON: the same text that slower, plainer code would write."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.rendering import pairs

START = 1_700_000_000_000


def plainly(times: list[int], values: list[float]) -> list[list[float | int | None]]:
    return [[None if not math.isfinite(value) else value, time] for value, time in zip(values, times, strict=True)]


@given(st.lists(st.floats() | st.integers(-(2**54), 2**54).map(float), max_size=50), st.booleans())
def test_pairs_are_what_the_plain_way_writes(values: list[float], regular: bool) -> None:
    times = [START + (place * 10_000 if regular else place * place * 1000) for place in range(len(values))]
    found = orjson.loads(pairs(np.array(times, np.int64), np.array(values, np.float64)))
    assert found == plainly(times, values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.5, math.nan], b"[[1.5,1700000000000],[null,1700000001000]]"),
        ([1.0, -2.0], b"[[1,1700000000000],[-2,1700000001000]]"),
        ([], b"[]"),
    ],
)
def test_times_and_whole_numbers_are_integers(values: list[float], text: bytes) -> None:
    times = START + 1000 * np.arange(len(values), dtype=np.int64)
    assert pairs(times, np.array(values)) == text
