"""The key of a request whose finished response may be kept: all that the response depends on.

The server's protocol makes the key from the bytes of a whole request; for any other request the contract makes it with the same
functions. A function returns None where it cannot tell at one look: then the contract answers or refuses, and nothing is kept.

Two requests with one key must be accepted or refused together. So the key of a panel is its body, byte for byte. Only the window
and the request's own number and start are cut out, and only where they are plain scalars.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from starlette.types import Scope

from app.contracts.request import pairs_of
from app.contracts.values import instant_ms, window_ms
from app.errors import RequestError
from app.responses.cache import RequestKey

#: where the protocol leaves an `Inspection` in the ASGI scope
INSPECTION = "bridge.inspection"

#: `params` refuses a request with a few hundred names; this is below that
_MOST_PARAMETERS = 100
#: a text without escapes or a whole number, up to its end
_SCALAR = rb'(?:"[ !#-\[\]-~]*"|-?(?:0|[1-9][0-9]{0,17}))(?=\s*[,}])'
# Three expressions, each with a literal beginning, are found three times as fast as one with alternatives.
_NUMBER, _START = (re.compile(rb'"%b"\s*:\s*%b' % (name, _SCALAR)) for name in (b"requestId", b"startTime"))
_RANGE = re.compile(rb'"range"\s*:\s*\{\s*"from"\s*:\s*(%b)\s*,\s*"to"\s*:\s*(%b)' % (_SCALAR, _SCALAR))
#: `"2026-11-29T02:40:00.000+00:00"` and a little more
_LONGEST_INSTANT = 40
_CUT_NAME = re.compile(rb'"(requestId|startTime|range)"\s*:')


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the protocol found out about a request before the HTTP parser."""

    #: the name of its API key; None if it is not admitted
    key_name: str | None
    key: RequestKey | None = None


def request_key(scope: Scope, make: Callable[[], RequestKey | None]) -> RequestKey | None:
    """The key that the protocol made of this request; where the protocol did not see the whole request, the one made now."""
    inspection: Inspection | None = scope.get(INSPECTION)
    return inspection.key if inspection is not None else make()


def panel_key(body: bytes, now_ms: int) -> RequestKey | None:
    """The key of a body of `/json/query`. A response is kept under it only if `cuts_members` is true of that body."""
    window = _search(_RANGE, b'"range"', body)
    if window is None or _search(_RANGE, b'"range"', body, window.end()) is not None:
        return None
    since, until = window.groups()
    from_ms, to_ms = _plain_instant_ms(since), _plain_instant_ms(until)
    if from_ms is None or to_ms is None:
        try:
            from_ms, to_ms = window_ms(_instant(since), _instant(until), now_ms, "range.")
        except RequestError:
            return None
    number, start = _search(_NUMBER, b'"requestId"', body), _search(_START, b'"startTime"', body)
    cuts = [(*found.span(), name) for name, found in enumerate((window, number, start)) if found]
    cuts.sort()
    shape: list[bytes | int | str] = ["panel"]
    at = 0
    for begin, end, name in cuts:
        shape += (body[at:begin], name)
        at = end
    shape.append(body[at:])
    return RequestKey(tuple(shape), from_ms, to_ms)


def _search(pattern: re.Pattern[bytes], beginning: bytes, body: bytes, at: int = 0) -> re.Match[bytes] | None:
    """The first match of a pattern that begins with that text, which `find` finds many times as fast as the pattern does."""
    at = body.find(beginning, at)
    return pattern.search(body, at) if at >= 0 else None


def _plain_instant_ms(text: bytes) -> int | None:
    """An absolute time in the form that Grafana sends, which does not depend on now; None for any other text."""
    return _iso_instant_ms(text) if len(text) <= _LONGEST_INSTANT and text[5:6] == b"-" else None


@lru_cache(maxsize=1024)
def _iso_instant_ms(text: bytes) -> int | None:
    try:
        return instant_ms(text[1:-1].decode(), "range", 0, 0)
    except RequestError:
        return None


def _instant(text: bytes) -> str | int:
    return text[1:-1].decode() if text.startswith(b'"') else int(text)


def cuts_members(text: bytes, body: Mapping[str, object]) -> bool:
    """Whether what `panel_key` cuts out are members of the body itself, not of an object in it that a contract reads."""
    names = [name.decode() for name in _CUT_NAME.findall(text)]
    # A name may be spelt with escapes, too.
    return b"\\u" not in text and len(names) == len(set(names)) and all(name in body for name in names)


def rows_key(query: bytes, accept: bytes, now_ms: int) -> RequestKey | None:
    """The key of a query string of `/v1/rows`. No contract reads a parameter whose name begins with `_`."""
    window: dict[str, str] = {}
    rest = []
    try:
        pairs = pairs_of(query)
        for name, value in pairs:
            if name in ("from", "to"):
                window[name] = value
            elif not name.startswith("_"):
                rest.append((name, value))
        from_ms, to_ms = window_ms(window.get("from"), window.get("to"), now_ms)
    except RequestError:
        return None
    return RequestKey(("rows", accept, *rest), from_ms, to_ms) if len(pairs) <= _MOST_PARAMETERS else None
