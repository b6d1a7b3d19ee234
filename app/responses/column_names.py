"""The names of columns in `shape=wide`: one for each metric and label values, always the same, no two alike.

A name is the metric and the values of its labels (in the order of the labels' names), joined by `_`: `equity_ACC1001`. It
consists of letters, digits and `_` alone, as Infinity needs it, and it depends on nothing but the series itself. In a value every
other character, `_` among them, is written as the two hexadecimal digits of each of its UTF-8 bytes, `__` before each: `XAUUSD+`
is `XAUUSD__2B`. No value is `__none`.

Why no two are alike: a value never holds one or three `_` in a row and never ends in `_`; what joins makes a run of one (before a
letter or digit) or of three (before an escape). So the last such runs are the joints, and what is between them can be read back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9]")
#: In a metric's own name a `_` stays, but where it would make a run of several, or touch a joint.
_NO_JOINT = re.compile(r"_(?=_|$)")
_NONE = "__none"
#: the name of the column that every table has
_TIME = "time"


def column_name(metric: str, values: Sequence[str]) -> str:
    """The column of one series. Equal for equal metrics and values alone (of series with equally many labels)."""
    name = "_".join([_NO_JOINT.sub(_escape_match, metric), *map(_escape_value, values)])
    return _escape(name[0]) + name[1:] if name == _TIME else name


def _escape_value(value: str) -> str:
    return _NOT_PLAIN.sub(_escape_match, value) or _NONE


def _escape_match(found: re.Match[str]) -> str:
    return _escape(found[0])


def _escape(char: str) -> str:
    # A lone surrogate is no character, but a source may bring one.
    return "".join(f"__{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
