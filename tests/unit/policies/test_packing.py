from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model import Frame, Matcher, Notice, Statement, TimeRange
from app.policies.packing import pack, unpack
from tests.unit.frames import frame, shown

STATEMENT = Statement(
    source="rts",
    metric="equity",
    text="SELECT 1",
    params=(("w0", ("a", "b")), ("from_ms", 5), ("x", 1.5), ("n", None)),
    range=TimeRange(0, 5000, 1000),
    labels=("account",),
    where=(Matcher("account", "=|", ("A", "B")),),
    now_ms=77,
    scope="desk",
)


def test_a_question_and_its_answer_come_back_as_they_went() -> None:
    answer = frame(
        {"account=A": {0: 1, 1000: None}, "account=Ä": {0: -2.5}},
        notices=(Notice("warning", "half of it"),),
        covers_to_ms=900,
        asked_ms=123,
    )
    statement, found = unpack(pack(STATEMENT, answer))
    assert (statement.key, statement.shape) == (STATEMENT.key, STATEMENT.shape)
    assert shown(found) == shown(answer)
    assert (found.notices, found.covers_to_ms, found.asked_ms) == (answer.notices, 900, 123)


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


def test_what_another_version_wrote_is_not_read() -> None:
    with pytest.raises(ValueError, match="another version"):
        unpack(b"\x63" + pack(STATEMENT, Frame())[1:])
