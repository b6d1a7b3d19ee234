"""Columns of wide answers: readable names, each series' own."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.responses.column_names import column_name

Series = tuple[str, tuple[str, ...]]

METRICS = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)
#: few characters, so that names that might be mistaken for one another are drawn often
VALUES = st.text(st.sampled_from("aB2_+-.% \x00\n\u00e9\ud800"), max_size=4) | st.sampled_from(
    ["none", "2B", "_2B", "__none", "5F"]
)


@pytest.mark.parametrize(
    ("metric", "values", "name"),
    [
        ("equity", ("ACC1001",), "equity_ACC1001"),
        ("margin_level", (), "margin_level"),
        ("slippage", ("alpha", "EURUSD"), "slippage_alpha_EURUSD"),
        ("slippage", ("XAUUSD+",), "slippage_XAUUSD__2B"),
        ("slippage", ("XAUUSD-",), "slippage_XAUUSD__2D"),
        ("slippage", ("-5",), "slippage___2D5"),
        ("slippage", ("",), "slippage___none"),
        ("slippage", ("none",), "slippage_none"),
        ("cpu", ("inst_001",), "cpu_inst__5F001"),
        ("pnl", ("K\u00f6ln",), "pnl_K__C3__B6ln"),
        ("time", (), "__74ime"),
    ],
)
def test_ordinary_values_stay_readable(metric: str, values: tuple[str, ...], name: str) -> None:
    assert column_name(metric, values) == name


@example((("a", ("b_c",)), ("a_b", ("c",))))
@example((("a_x_", ("2B",)), ("a", ("x+",))))
@example((("a", ("", "b")), ("a_", ("", "b"))))
@example((("a", ("_", "b")), ("a", ("", "_b"))))
@given(
    st.integers(0, 3).flatmap(lambda labels: st.tuples(*[st.tuples(METRICS, st.tuples(*[VALUES] * labels)) for _ in range(2)]))
)
def test_no_two_series_share_a_name(two: tuple[Series, Series]) -> None:
    first, second = two
    assert (column_name(*first) == column_name(*second)) == (first == second)


@given(METRICS, st.lists(VALUES, max_size=3))
def test_a_name_is_letters_digits_and_underscores_and_never_that_of_the_time(metric: str, values: list[str]) -> None:
    name = column_name(metric, values)
    assert (re.fullmatch(r"[A-Za-z0-9_]+", name) is not None, name == "time") == (True, False)
