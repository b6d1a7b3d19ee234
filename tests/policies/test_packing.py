from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.model import Frame, Matcher, Notice, Statement, TimeRange
from app.policies.cache.answers import AnswerCache
from app.policies.cache.packing import pack, unpack
from app.policies.checked import misfit
from tests.frames import frame, shown

STATEMENT = Statement(
    source="rts",
    metric="equity",
    text="SELECT 1",
    params=(("w0", ("a", "b")), ("from_ms", 5), ("x", 1.5), ("n", None)),
    range=TimeRange(0, 5000, 1000),
    labels=("account",),
    where=(Matcher("account", "=|", ("A", "B")),),
    now_ms=77,
)


def test_a_question_and_its_answer_come_back_as_they_went() -> None:
    answer = frame(
        {"account=A": {0: 1, 1000: None}, "account=Ä": {0: -2.5}},
        notices=(Notice("warning", "half of it"),),
        covers_to_ms=900,
        behind_ms=3000,
        written_ms={(("account", "A"),): 77},
        asked_ms=123,
    )
    statement, found = unpack(pack(STATEMENT, answer))
    assert (statement.key, statement.shape) == (STATEMENT.key, STATEMENT.shape)
    assert shown(found) == shown(answer)
    assert (found.notices, found.covers_to_ms, found.behind_ms, found.provenance.asked_ms) == (answer.notices, 900, 3000, 123)
    assert found.written_ms == answer.written_ms


def test_events_keep_their_texts() -> None:
    events = replace(frame({"": {0: None, 5: None}}), text={"title": ("a", None)})
    assert unpack(pack(STATEMENT, events))[1].text == {"title": ("a", None)}


def test_an_empty_answer_is_one_too() -> None:
    assert len(unpack(pack(STATEMENT, Frame()))[1]) == 0


@given(cut=st.integers(0, 10_000), change=st.integers(0, 10_000), to=st.integers(0, 255))
def test_anything_else_is_a_value_error_or_an_answer_never_a_crash(cut: int, change: int, to: int) -> None:
    packed = bytearray(pack(STATEMENT, frame({"account=A": {0: 1, 1000: 2}})))
    packed[change % len(packed)] = to
    for damaged in (bytes(packed), bytes(packed[: cut % len(packed)])):
        try:
            unpack(damaged)
        except ValueError:
            continue


#: What JSON can hold where something else belongs.
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)


def exchanged(value: Any, path: list[int], odd: Any) -> Any:
    """The same JSON with one thing in it, found by following the path, in exchange for another."""
    if not path or not isinstance(value, dict | list) or not value:
        return odd
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[path[0] % len(keys)]
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = exchanged(value[key], path[1:], odd)
    return changed


@settings(max_examples=500)
@given(path=st.lists(st.integers(0, 8), max_size=5), odd=ODD)
def test_a_wrong_type_anywhere_is_a_value_error_or_an_answer_that_can_be_kept_and_checked(path: list[int], odd: Any) -> None:
    answer = frame({"account=A": {0: 1, 1000: None}}, notices=(Notice("warning", "half of it"),), covers_to_ms=9)
    packed = pack(STATEMENT, answer)
    length = int.from_bytes(packed[1:5], "little")
    head = orjson.dumps(exchanged(orjson.loads(packed[5 : 5 + length]), path, odd))
    try:
        statement, found = unpack(packed[:1] + len(head).to_bytes(4, "little") + head + packed[5 + length :])
    except ValueError:
        return
    answers = AnswerCache(1 << 20, 10)
    answers.put(statement, found, 0)
    assert (answers.get(statement.key) is not None, isinstance(misfit(statement, found), str | None)) == (True, True)


@pytest.mark.parametrize("rows", [2**61, -1, 2.0, "2", None])
def test_a_count_of_rows_that_is_none_is_a_value_error(rows: object) -> None:
    packed = pack(STATEMENT, frame({"account=A": {0: 1, 1000: 2}}))
    length = int.from_bytes(packed[1:5], "little")
    head = orjson.dumps(orjson.loads(packed[5 : 5 + length]) | {"rows": rows})
    with pytest.raises(ValueError, match="damaged"):
        unpack(packed[:1] + len(head).to_bytes(4, "little") + head + packed[5 + length :])


def test_what_another_version_wrote_is_not_read() -> None:
    with pytest.raises(ValueError, match="another version"):
        unpack(b"\x63" + pack(STATEMENT, Frame())[1:])
