"""Figures in rows: without noise, and what a store holds untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.responses.figures import without_noise


def clean(*values: float) -> list[float]:
    found: list[float] = without_noise(np.array(values, dtype=np.float64)).tolist()
    return found


@pytest.mark.parametrize(
    ("noisy", "meant"),
    [(206910.88840000003, 206910.8884), (0.1 + 0.2, 0.3), (-4886917.494200001, -4886917.4942), (9.999999999999998, 10.0)],
)
def test_what_adding_up_left_behind_is_gone(noisy: float, meant: float) -> None:
    assert clean(noisy) == [meant]


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 20))
def test_a_decimal_of_fifteen_digits_stays_what_it_is(digits: int, places: int) -> None:
    stored = float(f"{digits}e-{places}")
    assert clean(stored) == [stored]


@given(st.integers(-(2**53), 2**53).map(float) | st.floats(min_value=1e15, allow_infinity=False))
def test_a_whole_number_stays_what_it_is(stored: float) -> None:
    assert clean(stored) == [stored]


@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_no_figure_moves_by_more_than_its_fifteenth_digit(stored: float) -> None:
    [found] = clean(stored)
    assert math.isclose(found, stored, rel_tol=1e-14)


def test_null_stays_null_beside_other_figures() -> None:
    first, second, third = clean(math.nan, 0.1 + 0.2, 0.0)
    assert (math.isnan(first), second, third) == (True, 0.3, 0.0)
