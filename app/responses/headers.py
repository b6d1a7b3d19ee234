"""Headers that tell people and scripts how a response was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from app.model import Notice, Result

#: notices that fit into a header, and characters of each
_MOST_NOTICES = 8
_LONGEST_NOTICE = 300
#: longer links are left out: proxies take 8 KB of headers or fewer
_LONGEST_LINK = 3000
#: a longer X-Request-Id is cut
_LONGEST_ID = 128
_CONTROL = bytes((*range(32), 127))


def result_headers(results: Sequence[Result]) -> dict[str, str]:
    """How each result was made.

    `Bridge-Result` is a list (RFC 9651) of refIds with parameters: `"A";status=fresh;age_s=0.4`,
    `"B";status=stale;age_s=31.0;stale="rts"` or `"C";status=error;code=source_timeout`. Where several answers have one refId,
    each names its metric: `"A";metric="equity";status=fresh;age_s=0.4`.
    `Server-Timing` has one entry per source: `rts;dur=1.3;desc="A live"` (ms).
    """
    timings = [
        f'{asked.source};dur={asked.seconds * 1000:.1f};desc="{_header_text(result.query.ref_id)} {asked.part}"'
        for result in results
        for asked in result.asked
    ]
    items = _result_items(results, [f"{result.age_s:.1f}" for result in results])
    headers = {"Vary": "Accept-Encoding", "Bridge-Result": items}
    if timings:
        headers["Server-Timing"] = ", ".join(timings[:50])
    return headers


def result_pattern(results: Sequence[Result]) -> bytes:
    """`Bridge-Result` with `%.1f` in the place of each age."""
    return _result_items(results, ["\0"] * len(results)).replace("%", "%%").replace("\0", "%.1f").encode()


def request_id_headers(headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """`X-Request-Id` as the response repeats it: short, without what a header may not hold. Empty if the request has none."""
    given = headers.get(b"x-request-id", b"")[:_LONGEST_ID].translate(None, _CONTROL).strip()
    return [(b"x-request-id", given)] if given else []


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as HTTP/1.1 has them on the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def notice_headers(notices: Iterable[Notice]) -> dict[str, str]:
    """`Bridge-Notice`, for formats that have no place for notices: a list (RFC 9651) of texts with their severity,
    `"rts: STALE, 31s old";severity=warning`; the gravest first, then how many more there are."""
    gravest = sorted(dict.fromkeys(notices), key=lambda notice: ("error", "warning", "info").index(notice.severity))
    items = [f'"{_header_text(notice.text, _LONGEST_NOTICE)}";severity={notice.severity}' for notice in gravest[:_MOST_NOTICES]]
    if len(gravest) > _MOST_NOTICES:
        items.append(f'"and {len(gravest) - _MOST_NOTICES} more, in format=json";severity=info')
    return {"Bridge-Notice": ", ".join(items)} if items else {}


def page_headers(query: str, total_rows: int | None, next_cursor: str) -> dict[str, str]:
    """How many rows there are; the start of the next page, as a cursor and as a link (with the query string of a GET)."""
    headers = {} if total_rows is None else {"Bridge-Total-Rows": str(total_rows)}
    if next_cursor:
        headers["Bridge-Next-Cursor"] = next_cursor
        given = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "cursor"]
        link = f'<?{urlencode([*given, ("cursor", next_cursor)])}>; rel="next"'
        if given and len(link) <= _LONGEST_LINK:
            headers["Link"] = link
    return headers


def _result_items(results: Sequence[Result], ages: Sequence[str]) -> str:
    named = len({result.query.ref_id for result in results}) < len(results)
    return ", ".join(_result_item(result, age, named) for result, age in zip(results, ages, strict=True))


def _result_item(result: Result, age: str, named: bool) -> str:
    metric = f';metric="{_header_text(result.query.metric)}"' if named else ""
    item = f'"{_header_text(result.query.ref_id)}"{metric};status={result.status}'
    if result.error is not None:
        return f"{item};code={result.error.code}"
    missing = sorted({asked.source for asked in result.asked if asked.error is not None})
    stale = sorted({asked.source for asked in result.asked if asked.stale is not None})
    lists = "".join(f';{name}="{" ".join(found)}"' for name, found in (("missing", missing), ("stale", stale)) if found)
    return f"{item};age_s={age}{lists}"


def _header_text(text: str, longest: int = 40) -> str:
    """A text as a header may hold it: printable ASCII without quotes, short."""
    return "".join(char for char in text[:longest] if " " <= char <= "~" and char not in '"\\')
