"""How an answer came about, as headers for people and scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.model import Result


def result_headers(results: Sequence[Result]) -> dict[str, str]:
    """How each answer came about, for people and scripts.

    `Bridge-Result` is a list (RFC 9651) of refIds with parameters: `"A";status=fresh;age_s=0.4`,
    `"B";status=stale;age_s=31.0;stale="rts"` or `"C";status=error;code=source_timeout`.
    `Server-Timing` has one entry per source: `rts;dur=1.3;desc="A live"` (ms).
    """
    timings = [
        f'{asked.source};dur={asked.seconds * 1000:.1f};desc="{_token(result.query.ref_id)} {asked.part}"'
        for result in results
        for asked in result.asked
    ]
    headers = {"Vary": "Accept-Encoding", "Bridge-Result": ", ".join(_item(result, f"{result.age_s:.1f}") for result in results)}
    if timings:
        headers["Server-Timing"] = ", ".join(timings[:50])
    return headers


def result_pattern(results: Sequence[Result]) -> bytes:
    """`Bridge-Result` with `%.1f` wherever an age stands."""
    items = ", ".join(_item(result, "\0") for result in results)
    return items.replace("%", "%%").replace("\0", "%.1f").encode()


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as HTTP/1.1 has them on the wire."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _item(result: Result, age: str) -> str:
    item = f'"{_token(result.query.ref_id)}";status={result.status}'
    if result.error is not None:
        return f"{item};code={result.error.code}"
    missing = sorted({asked.source for asked in result.asked if asked.error is not None})
    stale = sorted({asked.source for asked in result.asked if asked.stale is not None})
    lists = "".join(f';{name}="{" ".join(found)}"' for name, found in (("missing", missing), ("stale", stale)) if found)
    return f"{item};age_s={age}{lists}"


def _token(ref_id: str) -> str:
    """A refId as it may stand in a header: printable ASCII without quotes, short."""
    return "".join(char for char in ref_id[:40] if " " <= char <= "~" and char not in '"\\')
