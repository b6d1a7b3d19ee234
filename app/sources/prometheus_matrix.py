"""A range query's answer as columns, without a Python object for each point's text and time.

Prometheus writes a series as `[[1700000000,"1.5"],[1700000060,"2"]]`: the quotes tell times and values apart, and the values,
one after the other, are JSON numbers but for NaN and the infinities. A series that has a point at every step, as most have, has
the times that it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import orjson

from app.model import TimeRange, Times, Values

#: what is left of a finite number's text when these are taken out: nothing
_DIGITS = b"0123456789+-.eE,"


class Series(msgspec.Struct):
    """One series; its points are not looked at yet."""

    metric: dict[str, str]
    values: msgspec.Raw = msgspec.Raw(b"")


class Data(msgspec.Struct):
    """What was asked for."""

    resultType: str
    result: list[Series]


class Answer(msgspec.Struct):
    """The whole body."""

    status: str
    data: Data
    warnings: list[str] | None = None


decode = msgspec.json.Decoder(Answer).decode


def columns(values: msgspec.Raw, asked: TimeRange) -> tuple[Times, Values]:
    """Times (epoch ms) and values (NaN is null) of a series. `asked` holds the evaluated instants. Raises ValueError."""
    pieces = bytes(values).split(b'"')
    return _times(pieces[::2], asked), numbers(pieces[1::2])


def numbers(texts: Sequence[bytes]) -> Values:
    """Prometheus' numbers; NaN, +Inf and -Inf are null. Raises ValueError."""
    joined = b",".join(texts)
    plain = not joined.translate(None, _DIGITS)
    found = np.array(orjson.loads(b"[%b]" % joined) if plain else [float(text) for text in texts], dtype=np.float64)
    if len(found) != len(texts):
        raise ValueError("a value that is no number")
    found[~np.isfinite(found)] = np.nan
    return found


def _times(pieces: list[bytes], asked: TimeRange) -> Times:
    """From what stands before each value; the last piece closes the list."""
    before = pieces[:-1]
    first_s, last_s = asked.from_ms // 1000, (asked.to_ms - asked.step_ms) // 1000
    edges = [b"[[%d," % first_s, b"],[%d," % last_s][: len(asked)]
    if len(before) == len(asked) and before[:1] + before[1:][-1:] == edges:
        return np.arange(asked.from_ms, asked.to_ms, asked.step_ms, dtype=np.int64)
    texts = b"".join(before).translate(None, b" \t\r\n").replace(b"],[", b"")
    return np.round(np.array(orjson.loads(texts[1:-1] + b"]"), dtype=np.float64) * 1000).astype(np.int64)
