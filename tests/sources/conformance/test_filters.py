"""Every kind: each filter means what `app.filters` says, whatever is in its values."""

from __future__ import annotations

import pytest

from app.filters import accepts
from app.model import OPERATORS, Matcher, Operator
from app.sources.base import Source
from tests.sources.conformance.fetching import accounts_of, fetch, where
from tests.sources.conformance.kind import WORDS, Kind

ODD = (("'; DROP TABLE words; --",), ('"} or vector(1) #',), ("line\nbreak",))
OPERANDS: dict[Operator, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("=", "!="), (("",), ("a",), ("b'c",), ("10",), *ODD)),
    **dict.fromkeys(("=|", "!=|"), (("a", "b'c"), ("", "\\"), ("a,b", "[a]", "line\nbreak"))),
    **dict.fromkeys(("=~", "!~"), (("a|10",), ("(?i)a",), (".*",), ("b.c",), ("line.break",), ("tab\there",), ("",))),
    **dict.fromkeys(("<", "<=", ">", ">="), (("10",), ("-1.5",), ("1e2",), ("a",), ("b'c",), ("",), *ODD)),
}


@pytest.mark.parametrize("operator", OPERATORS)
async def test_every_operator_means_what_the_shared_rule_says(kind: Kind, source: Source, operator: Operator) -> None:
    for operand in OPERANDS[operator]:
        matcher = Matcher("account", operator, operand)
        found = await fetch(source, kind.read("words"), ("account",), (matcher,))
        assert accounts_of(found) == sorted(word for word in WORDS if accepts(matcher)(word)), operand


@pytest.mark.parametrize("operator", ["=", "=|", "=~"])
async def test_a_value_stays_a_value_whatever_it_says(kind: Kind, source: Source, operator: Operator) -> None:
    for word in WORDS:
        value = "".join(f"\\x{{{ord(sign):x}}}" for sign in word) if operator == "=~" else word
        values = (value, "no such word") if operator == "=|" else (value,)
        assert accounts_of(await fetch(source, kind.read("words"), ("account",), where("account", operator, *values))) == [word]


async def test_a_thousand_values_are_bound(kind: Kind, source: Source) -> None:
    odd = [f"{number}'\"\\\n$é" for number in range(1000)]
    found = await fetch(source, kind.read("words"), ("account",), where("account", "=|", *odd, "a"))
    assert accounts_of(found) == ["a"]
    found = await fetch(source, kind.read("words"), ("account",), where("account", "!=|", *odd, "a"))
    assert accounts_of(found) == sorted(set(WORDS) - {"a"})


async def test_one_of_nothing_is_nothing_and_none_of_nothing_is_everything(kind: Kind, source: Source) -> None:
    for operator, expected in (("=|", []), ("!=|", ["A1", "B2"])):
        found = await fetch(source, kind.read("figures"), ("account",), (Matcher("account", operator, ()),))  # type: ignore[arg-type]  # an operator
        assert accounts_of(found) == expected


async def test_all_filters_hold_at_once_and_a_label_that_is_not_kept_can_be_filtered(kind: Kind, source: Source) -> None:
    both = (*where("account", "=~", ".*"), *where("broker", "=", "Y"))
    assert accounts_of(await fetch(source, kind.read("figures"), ("account",), both)) == ["B2"]
    none = (*where("account", "=", "A1"), *where("broker", "=", "Y"))
    assert accounts_of(await fetch(source, kind.read("figures"), ("account",), none)) == []
