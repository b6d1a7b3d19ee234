"""Columns as JSON: the same text that slower, plainer code would write."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import frame_of_runs
from app.responses import series as rendering
from app.responses.series import json_pairs

START = 1_700_000_000_000


def plainly(times: list[int], values: list[float]) -> list[list[float | int | None]]:
    return [[None if not math.isfinite(value) else value, time] for value, time in zip(values, times, strict=True)]


NUMBERS = st.floats() | st.integers(-(2**54), 2**54).map(float)


@given(
    st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=8), st.booleans(), st.sampled_from([1, 7, 10_000])
)
def test_pairs_are_what_the_plain_way_writes(courses: list[list[float]], regular: bool, together: int) -> None:
    times = [[START + (place * 10_000 if regular else place * place * 1000) for place in range(len(one))] for one in courses]
    runs = [
        ((("a", f"{number:02}"),), np.array(at, np.int64), np.array(one))
        for number, (at, one) in enumerate(zip(times, courses, strict=True))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "_TOGETHER", together)
        found = [orjson.loads(text) for text in json_pairs(frame_of_runs(runs))]
    assert found == [plainly(at, one) for at, one in zip(times, courses, strict=True)]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.5, math.nan], [b"[[1.5,1700000000000],[null,1700000001000]]"]),
        ([1.0, -2.0], [b"[[1,1700000000000],[-2,1700000001000]]"]),
        ([2.0**53 - 1], [b"[[9007199254740991,1700000000000]]"]),
        ([1e300, 0.1], [b"[[1e+300,1700000000000],[0.1,1700000001000]]"]),
        ([], []),
    ],
)
def test_times_and_whole_numbers_are_integers(values: list[float], texts: list[bytes]) -> None:
    times = START + 1000 * np.arange(len(values), dtype=np.int64)
    assert list(json_pairs(frame_of_runs([((), times, np.array(values))]))) == texts
