"""What a filter's text stands for: exactly what was meant, or an error that says what to write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.contracts.filters import Reading, Variables, as_filter_value, equality_filter, filters
from app.errors import BadQuery, LimitExceeded, RequestError
from app.model import Matcher
from app.query.limits import Limits
from tests.contracts.app_under_test import EVENTS, Bench

PANEL = Reading("where", Limits())
ALERT = Reading("where", Limits(), strict=True)


def values(given: object, reading: Reading = PANEL) -> tuple[str, ...] | None:
    """The values that `account=given` stands for; None where it restricts nothing."""
    found = equality_filter("account", given if isinstance(given, list) else [given], reading)
    return None if found is None else found.values


def refusal(value: object, reading: Reading = PANEL) -> str:
    with pytest.raises(RequestError) as caught:
        filters(value, reading)
    return caught.value.message


@pytest.mark.parametrize(
    "variable", ["$account", "${account}", "${account:csv}", "[[account]]", "[[account:pipe]]", "A-$account", "${__user.login}"]
)
@pytest.mark.parametrize(
    "written",
    [
        lambda name: {"account": name},
        lambda name: {"account": [name]},
        lambda name: {"account": ["A1", name]},
        lambda name: f"account={name}",
        lambda name: [f"account!={name}"],
        lambda name: f"account=|A1,{name}",
        lambda name: f"account=~{name}",
        lambda name: f"account>{name}",
        lambda name: {"key": "account", "operator": "=", "value": name},
        lambda name: [{"key": "account", "operator": "=|", "values": ["A1", name]}],
        lambda name: name,
    ],
)
@pytest.mark.parametrize("reading", [PANEL, ALERT])
def test_a_variable_that_nobody_filled_in_is_an_error_that_names_it(written: Any, variable: str, reading: Reading) -> None:
    assert variable[variable.find("$") if "$" in variable else 0 :] in refusal(written(variable), reading)


@pytest.mark.parametrize(
    "everything",
    ["$__all", "__all", ["__all"], ["$__all", "A1"], '["$__all"]'],
)
@pytest.mark.parametrize("reading", [PANEL, ALERT])
def test_only_the_word_for_everything_is_no_restriction(everything: object, reading: Reading) -> None:
    assert values(everything, reading) is None


@pytest.mark.parametrize("operator", ["!=", "!=|", "!~", "<", ">="])
def test_everything_is_refused_where_it_would_leave_nothing(operator: str) -> None:
    assert "allowed with __all: = =| =~" in refusal(f"account{operator}$__all")
    assert "allowed with __all: = =| =~" in refusal({"key": "account", "operator": operator, "value": "$__all"})


@pytest.mark.parametrize("operator", ["=", "=|", "=~"])
def test_everything_restricts_nothing_whatever_the_operator(operator: str) -> None:
    assert filters([f"account{operator}__all", {"key": "account", "operator": operator, "value": "$__all"}], ALERT) == ()


@pytest.mark.parametrize("empty", ["", [], None, [""], [None]])
def test_an_empty_variable_restricts_no_panel_and_is_an_error_of_an_alert(empty: object) -> None:
    assert values(empty) is None
    with pytest.raises(BadQuery, match="account: is empty; allowed: a value, __all for no restriction"):
        values(empty, ALERT)


@pytest.mark.parametrize("text", [",", "{}", "()", "|", "{,}", " ", "[null]", "[[]]"])
def test_what_only_looks_empty_never_means_everything(text: str) -> None:
    try:
        found = values(text)
    except BadQuery:
        return
    assert found == (text,)


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("US30,cash", ("US30", "cash", "US30,cash")),
        ("EURUSD|ecn", ("EURUSD", "ecn", "EURUSD|ecn")),
        ("{x}", ("x", "{x}")),
        ("(a|b)", ("a", "b", "(a|b)")),
        ("(a\\.b|c)", ("a.b", "c", "(a\\.b|c)")),
        ("a\\.b", ("a.b", "a\\.b")),
    ],
)
def test_a_plain_text_is_the_value_of_that_name_or_the_list_that_it_may_be(text: str, listed: tuple[str, ...]) -> None:
    assert values(text) == listed
    assert f"{text!r} can be read in two ways" in refusal({"account": text}, ALERT)


@pytest.mark.parametrize("text", [".*", ".+", "*", "All"])
def test_a_word_that_people_use_for_everything_is_a_value_to_a_panel_and_refused_to_an_alert(text: str) -> None:
    assert values(text) == (text,)
    message = refusal({"account": text}, ALERT)
    assert ("=~ for an expression" in message, "__all for no restriction" in message) == (True, True)


@pytest.mark.parametrize(
    "text", ["XAUUSD ", " XAUUSD", "two words", "a  b", "\tq", "007", "1e5", "true", "null", "NaN", "a=b", "%2B"]
)
def test_a_value_is_never_stripped_nor_read_as_anything_else(text: str) -> None:
    assert values(text) == (text,)


@pytest.mark.parametrize("text", ["XAUUSD ,EURUSD", "{A1, A2}", "A1| A2"])
def test_a_blank_beside_a_separator_may_be_a_lost_plus_and_is_refused(text: str) -> None:
    assert "allowed: %2B for +" in refusal({"account": text})


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (12345678901234567890, "12345678901234567890"), (True, "true"), (False, "false"), (-1, "-1")]
)
def test_a_whole_number_and_a_flag_are_their_exact_text(value: object, text: str) -> None:
    assert values(value) == (text,)
    assert filters({"key": "account", "operator": "=", "value": value}, PANEL)[0].values == (text,)


@pytest.mark.parametrize("value", [1.0, 1e22, [["A1"]], [{"a": 1}], [None, "A1", {}], {"A": 1}])
def test_what_has_no_exact_text_is_refused(value: object) -> None:
    message = refusal({"account": value})
    assert message.endswith("is not a value; allowed: a text (in quotes), a whole number, true, false")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["US30,cash"]', ("US30,cash",)),
        ('["a","b"]', ("a", "b")),
        ('[""]', ("",)),
        ('["$x"]', ("$x",)),
        ('["__all"]', ("__all",)),
        ("[12345678901234567890123, 1.10, 1e5, true]", ("12345678901234567890123", "1.10", "1e5", "true")),
        ("[DAX]", ("[DAX]",)),
        ("[", ("[",)),
    ],
)
@pytest.mark.parametrize("reading", [PANEL, ALERT])
def test_a_json_list_is_exactly_its_items(text: str, found: tuple[str, ...], reading: Reading) -> None:
    assert values(text, reading) == found
    assert filters(f"account={text}", reading)[0].values == found


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
def test_any_list_of_values_can_be_said_exactly(several: list[str]) -> None:
    for reading in (PANEL, ALERT):
        if several != ["$__all"]:
            assert values(json.dumps(several), reading) == tuple(several)


@given(st.text(min_size=1, max_size=12) | st.sampled_from(["$x", "__all", "$__all", '["$x"]', "[[x]]", "a$b,c"]))
def test_what_is_offered_comes_back_as_itself_in_an_ad_hoc_filter(value: str) -> None:
    [found] = filters([{"key": "account", "operator": "=", "value": as_filter_value(value)}], PANEL)
    assert found.values == (value,)


@given(st.text(min_size=1, max_size=12) | st.sampled_from(["$x", "__all", "$__all", '["$x"]', "US30,cash"]))
def test_what_is_offered_is_among_what_it_means_as_a_variables_value(value: str) -> None:
    try:
        found = values(as_filter_value(value))
    except BadQuery:
        assume(False)
    assert found is not None
    assert value in found or value.startswith("[")


def test_a_variables_own_values_tell_a_separator_from_a_character() -> None:
    scoped = {"symbol": {"value": ["US30,cash", "EURUSD|ecn"]}, "x": {"value": "a,b"}}
    reading = Reading("payload.symbol", Limits(), filling=Variables(scoped))
    for text in ("US30,cash,EURUSD|ecn", "{US30,cash,EURUSD|ecn}", "US30,cash|EURUSD|ecn", "(US30,cash|EURUSD\\|ecn)", "$symbol"):
        assert values(text, reading) == ("US30,cash", "EURUSD|ecn")
    assert values("a,b", reading) == ("a", "b", "a,b")


def test_filters_and_values_are_counted_before_they_are_looked_at() -> None:
    few = Reading("where", Limits(max_filters=2, max_filter_values=3))
    with pytest.raises(LimitExceeded, match="where: 3 filters; at most 2"):
        filters([object()] * 3, few)
    with pytest.raises(LimitExceeded, match="where: 3 filters; at most 2"):
        filters(dict.fromkeys("abc", object()), few)
    for many in ("a,b,c,d", ["a"] * 4, ["a,b", "c|d"]):
        with pytest.raises(LimitExceeded, match=r"account: 4 values; at most 3 are allowed \(request.max_filter_values\)"):
            values(many, few)
    with pytest.raises(LimitExceeded, match="account: 4 values; at most 3"):
        filters({"key": "account", "operator": "=|", "values": [object()] * 4}, few)


def test_twenty_thousand_values_are_a_list_like_any_other() -> None:
    many = [f"ACC{place}" for place in range(20_000)]
    assert values(json.dumps(many)) == values(many) == tuple(many)


@pytest.mark.parametrize("label", ["", "x" * 65, 5, None])
def test_a_labels_name_is_a_short_text(label: object) -> None:
    assert "is no label's name" in refusal({"key": label, "operator": "=", "value": "x"})


DEPLOYS = {"annotation": {"query": "deploys"}}


async def test_annotations_of_old_plugins_are_filtered_and_a_filter_that_does_not_apply_is_told(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    broker, account = ({"key": key, "operator": "=", "value": "x"} for key in ("broker", "account"))
    reply = await at.client.post("/json/annotations", json=DEPLOYS | {"filters": [broker], "adhocFilters": [account]})
    assert at.sources["clickhouse"].asked[-1].where == (Matcher("broker", "=", ("x",)),)
    assert [row["text"] for row in reply.json()] == ["the filter on account does not apply to deploys", "v42", None]


@pytest.mark.parametrize("ref_id", ["A", "Anno"])
async def test_events_of_a_panel_and_native_annotations_are_filtered_and_told(at: Bench, ref_id: str) -> None:
    at.say(clickhouse=EVENTS)
    broker, account = ({"key": key, "operator": "=", "value": "x"} for key in ("broker", "account"))
    body = {"targets": [{"refId": ref_id, "target": "deploys", "payload": {}}], "filters": [broker, account]}
    [found] = (await at.client.post("/json/query", json=body)).json()
    assert at.sources["clickhouse"].asked[-1].where == (Matcher("broker", "=", ("x",)),)
    assert [notice["text"] for notice in found["meta"]["notices"]] == ["the filter on account does not apply to deploys"]
