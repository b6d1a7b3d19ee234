"""A matrix's text as columns, against the same text read as JSON, a point at a time."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import TimeRange
from app.sources.prometheus.matrix import OddPoints, series_columns

STEP_S = 60
FIRST_S = 1_700_000_040
TEXTS = st.one_of(
    st.sampled_from(["NaN", "+Inf", "-Inf", "0", "-0", "1e+09", "1.5e-07", "9007199254740993"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**18), 10**18).map(str),
)
BUCKETS = 31
POINTS = st.dictionaries(st.integers(0, BUCKETS - 1), TEXTS, min_size=1).map(lambda found: sorted(found.items()))


def one_by_one(values: list[Any]) -> tuple[list[int], list[float | None]]:
    numbers = [float(text) for _, text in values]
    return [round(time * 1000) for time, _ in values], [number if math.isfinite(number) else None for number in numbers]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@given(points=POINTS)
def test_columns_are_what_the_points_say(points: list[tuple[int, str]], separators: tuple[str, str]) -> None:
    values = [[FIRST_S + place * STEP_S, text] for place, text in points]
    asked = TimeRange(FIRST_S * 1000, (FIRST_S + BUCKETS * STEP_S) * 1000, STEP_S * 1000)
    times, found = series_columns(msgspec.Raw(json.dumps(values, separators=separators).encode()), asked)
    assert (times.tolist(), [None if np.isnan(value) else value for value in found.tolist()]) == one_by_one(values)


@pytest.mark.parametrize(
    "text",
    [
        b'[[1700000040,"true"]]',
        b'[[1700000040,"null"]]',
        b'[[1700000040,"1,2"]]',
        b'[[1700000040,""]]',
        b"[[1700000040,1]]",
        b'[["1"]]',
        b"[]",
        b'[[1700000040,"1_0"]]',
        b'[[1700000040,"1e999"]]',
        b'[[1700000040,"Infinity"]]',
        b'[[1700000040,"NaN"],[1700000100,"0x10"]]',
    ],
)
def test_what_is_no_matrix_is_refused(text: bytes) -> None:
    with pytest.raises(OddPoints, match=r"\S"):
        series_columns(msgspec.Raw(text), TimeRange(0, 60_000, 60_000))
