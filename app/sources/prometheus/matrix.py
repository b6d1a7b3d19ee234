"""The series of a range query as columns, without a Python object for each point.

Prometheus writes a series as `[[1700000000,"1.5"],[1700000060,"2"]]`. The quotes separate times from values. The values are JSON
numbers, except NaN and the infinities. Most series have a point at every step; their times are those of the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
import orjson

from app.model import TimeRange, Times, Values

#: the bytes of finite numbers
_DIGITS = b"0123456789+-.eE,"
#: the values that become null; any other text that is no number is refused
_NO_NUMBER = frozenset((b"NaN", b"+Inf", b"-Inf", b"Inf"))
_SHOWN = 60


class OddPoints(ValueError):
    """The points of a series are not what they should be; the text says what came."""


def series_columns(values: msgspec.Raw, asked: TimeRange) -> tuple[Times, Values]:
    """Times (epoch ms) and values (NaN is null) of a series. `asked` holds the evaluated instants.

    Raises OddPoints for anything but numbers at asked instants, one after the other.
    """
    pieces = bytes(values).split(b'"')
    return _parse_times(pieces[::2], asked), parse_numbers(pieces[1::2])


def parse_numbers(texts: Sequence[bytes]) -> Values:
    """Prometheus' numbers; NaN, +Inf and -Inf are null. Raises OddPoints."""
    joined = b",".join(texts)
    if joined.translate(None, _DIGITS):
        texts = [b"" if text in _NO_NUMBER else text for text in texts]
        joined = b",".join(text or b"null" for text in texts)
        if b"".join(texts).translate(None, _DIGITS):
            raise OddPoints(f"a value that is no number among {show_bytes(joined)}")
    try:
        # orjson refuses a number that no float can hold; it must not become an infinity.
        found = np.array(orjson.loads(b"[%b]" % joined), dtype=np.float64)
    except ValueError:
        raise OddPoints(f"a value that is no number, or beyond any, among {show_bytes(joined)}") from None
    if len(found) != len(texts):
        raise OddPoints(f"a value that is no number among {show_bytes(joined)}")
    return found


def show_bytes(text: bytes) -> str:
    """The first bytes of a text, for a message."""
    begin = text[:_SHOWN].decode("utf-8", "backslashreplace")
    return repr(begin + ("..." if len(text) > _SHOWN else ""))


@lru_cache(maxsize=64)
def _full_times_text(asked: TimeRange) -> bytes:
    """The text before the values of a series that has a point at each instant of the query."""
    seconds = range(asked.from_ms // 1000, asked.to_ms // 1000, asked.step_ms // 1000)
    return b"[" + b"],".join(b"[%d," % second for second in seconds)


def _parse_times(pieces: list[bytes], asked: TimeRange) -> Times:
    """The times, from the text before each value. The last piece closes the list."""
    before = b"".join(pieces[:-1])
    if len(pieces) - 1 == len(asked) and before == _full_times_text(asked):
        return np.arange(asked.from_ms, asked.to_ms, asked.step_ms, dtype=np.int64)
    text = before.translate(None, b" \t\r\n").replace(b"],[", b"")
    try:
        seconds = np.array(orjson.loads(text[1:-1] + b"]"), dtype=np.float64)
    except (ValueError, TypeError):
        raise OddPoints(f"{show_bytes(before)} before the values") from None
    times: Times = np.round(seconds * 1000).astype(np.int64)
    if len(times) != len(pieces) - 1:
        raise OddPoints(f"{show_bytes(before)} before the values")
    _expect_asked(times, asked)
    return times


def _expect_asked(times: Times, asked: TimeRange) -> None:
    if (times[1:] <= times[:-1]).any():
        raise OddPoints("points that do not ascend in time")
    off = (times < asked.from_ms) | (times >= asked.to_ms) | ((times - asked.from_ms) % asked.step_ms != 0)
    if off.any():
        raise OddPoints(f"a point at {times[off][0] / 1000:.15g} s, an instant that was not asked for")
