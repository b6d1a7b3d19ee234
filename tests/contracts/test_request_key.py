from __future__ import annotations

import orjson
import pytest

from app.contracts.request_key import cuts_members, panel_key, rows_key
from tests.contracts.app_under_test import NOW

PANEL = b'{"requestId":"Q1","range":{"from":1700000000000,"to":1700003600000},"targets":[{"target":"equity"}],"startTime":5}'


def is_like_the_panel(body: bytes) -> bool:
    first, other = panel_key(PANEL, NOW), panel_key(body, NOW)
    return first is not None and other is not None and first.shape == other.shape


@pytest.mark.parametrize(
    ("old", "new", "alike"),
    [
        (b'"Q1"', b'"Q2"', True),
        (b":5", b":6", True),
        (b"1700000000000", b'"now-1h"', True),
        (b'"Q1"', b'"Q\\u0031"', False),
        (b":5", b":05", False),
        (b":5", b":5e3", False),
        (b"equity", b"pnl", False),
        (b'"Q1",', b'"Q1","requestId":"Q2",', False),
    ],
)
def test_only_the_window_and_the_requests_own_number_and_start_make_no_other_key(old: bytes, new: bytes, alike: bool) -> None:
    assert is_like_the_panel(PANEL.replace(old, new, 1)) is alike


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (PANEL, True),
        (PANEL.replace(b'"target":', b'"payload":{"step":"range"},"target":'), True),
        (PANEL.replace(b'"target":', b'"requestId":"x","target":'), False),
        (PANEL.replace(b'"requestId":"Q1",', b'"scopedVars":{"startTime":1},'), False),
        (PANEL.replace(b'"range":', b'"r\\u0061nge":', 1), False),
        (b'{"scopedVars":{"range":{"from":1,"to":2}},"targets":[]}', False),
    ],
)
def test_nothing_is_kept_where_an_object_inside_has_a_name_that_is_cut_out(body: bytes, kept: bool) -> None:
    assert cuts_members(body, orjson.loads(body)) is kept


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"range":{"to":1,"from":2}}', b'{"range":{"from":"x","to":1}}'])
def test_a_body_without_a_plain_window_has_no_key(body: bytes) -> None:
    assert panel_key(body, NOW) is None


def test_a_query_string_with_very_many_parameters_has_no_key() -> None:
    few, many = (b"&".join(b"_%d=1" % number for number in range(count)) for count in (90, 110))
    assert (rows_key(few, b"", NOW) is None, rows_key(many, b"", NOW) is None) == (False, True)
