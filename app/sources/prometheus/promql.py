"""Filters, names and windows as PromQL and its API write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

from app.filters import regex_predicate
from app.model import Matcher, TimeRange

#: A name that PromQL takes as it is; any other (Prometheus 3 has names with dots) is quoted.
_PLAIN_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
#: Prometheus refuses more points a series than this.
MOST_POINTS = 11_000
_REPLACEMENT, _ESCAPED_REPLACEMENT = "\ufffd", r"\ufffd"
_SPECIAL = re.compile(r"([.+*?()|\[\]{}^$\\])")


def label_matcher(matcher: Matcher, name: str) -> str:
    """A filter as PromQL writes it. Every value is quoted; the values of a list are escaped, so that each means itself."""
    match matcher.operator:
        case "=|" | "!=|":
            operator = "=~" if matcher.operator == "=|" else "!~"
            operand = "|".join(_SPECIAL.sub(r"\\\1", value) for value in matcher.values)
        case "=~" | "!~":
            regex_predicate(matcher.values[0])
            # Newer servers let a dot match a newline; older ones and the other stores do not.
            operator, operand = matcher.operator, f"(?-s:{matcher.values[0]})"
        case operator:
            operand = matcher.values[0]
    # Go's lexer cannot tell a replacement character from a byte that it could not read.
    quoted = json.dumps(operand, ensure_ascii=False).replace(_REPLACEMENT, _ESCAPED_REPLACEMENT)
    return f"{label_name(name)}{operator}{quoted}"


def label_name(word: str) -> str:
    """A label's name as PromQL writes it."""
    return word if _PLAIN_NAME.fullmatch(word) else json.dumps(word, ensure_ascii=False)


def path_name(word: str) -> str:
    """A label's name as a part of a URL's path. Each odd character of a name that is not plain is `_<hex>_`."""
    if _PLAIN_NAME.fullmatch(word):
        return word
    escaped = "".join(
        sign + sign if sign == "_" else sign if re.fullmatch("[a-zA-Z0-9:]", sign) else f"_{ord(sign):x}_" for sign in word
    )
    return quote(f"U__{escaped}", safe="")


def rate_window(span: TimeRange, least_s: int) -> str:
    """The time that a rate looks back over: the step, and no less than `least_s`."""
    width_ms = max(span.step_ms, least_s * 1000)
    return f"{width_ms}ms" if width_ms % 1000 else f"{width_ms // 1000}s"


def split_range(span: TimeRange) -> Iterator[TimeRange]:
    """The range in pieces of at most `MOST_POINTS`."""
    width_ms = MOST_POINTS * span.step_ms
    for from_ms in range(span.from_ms, span.to_ms, width_ms):
        yield TimeRange(from_ms, min(from_ms + width_ms, span.to_ms), span.step_ms)


def epoch_seconds(at_ms: int) -> int | float:
    """The instant as the API takes it."""
    return at_ms / 1000 if at_ms % 1000 else at_ms // 1000
