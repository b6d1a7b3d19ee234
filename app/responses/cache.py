"""Finished responses: the bytes of an answer, sent again while every part of it is fresh.

The bridge decides what is fresh; nothing new is decided here. A response is kept only when it is complete and fresh, only until
its first part stops being fresh or a bucket closes, and only for the same request and window. So a kept response differs from a
newly made one in its ages alone, and those are written anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from starlette.responses import Response

from app.model import Clock, Frame, Result
from app.responses.gzip_stream import GzipPrefix, compress_prefix
from app.responses.headers import header_lines, result_headers, result_pattern
from app.telemetry import Telemetry

#: what an entry costs beside its bytes
_ENTRY_BYTES = 2000
#: the share of the cache that one response may take
_LARGEST_SHARE = 0.25
#: Smaller bodies fit one packet uncompressed.
_WORTH_COMPRESSING = 1400

#: The end of a body, which holds ages or the window: made for each request from (from_ms, to_ms, results).
BodySuffix = Callable[[int, int, Sequence[Result]], bytes]


@dataclass(slots=True)
class RequestKey:
    """All that a response depends on: the window (epoch ms), and everything else (`shape`)."""

    shape: Hashable
    from_ms: int
    to_ms: int


@dataclass(slots=True)
class CachedResponse:
    """One finished response. `results` are its facts without rows; their ages are those at `as_of_ms`."""

    window: tuple[int, ...]
    results: tuple[Result, ...]
    as_of_ms: int
    valid_until_ms: int
    #: the status line and the headers that do not change, as HTTP/1.1 has them
    head_prefix: bytes
    #: `Bridge-Result` with gaps for the ages, and the instants (s) from which these count
    result_pattern: bytes
    born_s: tuple[float, ...]
    body_prefix: bytes
    body_suffix: BodySuffix | None
    #: how often it was sent since that was last added to the metrics
    sent: int = 0
    #: `body_prefix` compressed, once a caller has asked for gzip
    gzip_prefix: GzipPrefix | None = None
    compressing: bool = False

    def render_body(self, key: RequestKey, now_ms: int, gzip_prefix: GzipPrefix | None = None) -> tuple[bytes, bytes]:
        """The body, gzip if the compressed beginning is given: the beginning, which all share who get it, and the end."""
        suffix = b"" if self.body_suffix is None else self.body_suffix(key.from_ms, key.to_ms, self._aged_results(now_ms))
        if gzip_prefix is not None:
            return gzip_prefix.compressed, gzip_prefix.render_end(suffix)
        return self.body_prefix, suffix

    def answer(self, key: RequestKey, now_ms: int) -> Response:
        """The response to a request that did not get it before the HTTP parser."""
        body, end = self.render_body(key, now_ms)
        response = Response(body + end if end else body)
        lines = self.render_head(now_ms, len(response.body)).split(b"\r\n")[1:]
        pairs = (line.partition(b": ") for line in lines if line)
        response.raw_headers = [(name, value) for name, _, value in pairs]
        self.sent += 1
        return response

    def render_head(self, now_ms: int, length: int, is_gzip: bool = False) -> bytes:
        """The status line and the headers, without the empty line that ends them."""
        encoding = b"content-encoding: gzip\r\n" if is_gzip else b""
        now_s = now_ms / 1000
        result = self.result_pattern % tuple([max(now_s - born_s, 0.0) for born_s in self.born_s])
        return b"%b%bcontent-length: %d\r\nbridge-result: %b\r\n" % (self.head_prefix, encoding, length, result)

    def _aged_results(self, now_ms: int) -> list[Result]:
        """The facts as of now: no source was asked, and everything is older by the time since."""
        more_s = max(now_ms - self.as_of_ms, 0) / 1000
        return [
            replace(
                result,
                age_s=result.age_s + more_s,
                asked=tuple(replace(report, seconds=0.0, age_s=report.age_s + more_s) for report in result.asked),
            )
            for result in self.results
        ]


@dataclass(slots=True)
class _Entry:
    """The newest response of one shape and length, and the grids on which two windows count as the same."""

    grids: tuple[tuple[int, int], ...]
    response: CachedResponse
    size_bytes: int


class ResponseCache:
    """The least recently used responses go first when there are more than `max_bytes`."""

    def __init__(self, max_bytes: int, telemetry: Telemetry, clock: Clock, gzip: bool = True) -> None:
        self._max_bytes = max_bytes
        self._gzip = gzip
        self._telemetry = telemetry
        self.clock = clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.size_bytes = 0
        #: the heavy responses that are being made; each is done when its request is answered
        self._being_made: dict[Hashable, asyncio.Future[None]] = {}
        telemetry.before_scrape.append(self._count_all_sent)

    @asynccontextmanager
    async def make_once(self, key: RequestKey) -> AsyncIterator[None]:
        """Make a response in the block. If another request is making the same one, wait for that first: `find` may have it."""
        same = self._same_response(key)
        under_way = self._being_made.get(same)
        if under_way is not None:
            await asyncio.wait((under_way,))
            yield
            return
        done = self._being_made[same] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._being_made[same]
            done.set_result(None)

    def is_being_made(self, key: RequestKey) -> bool:
        """Whether another request is making this response."""
        return self._same_response(key) in self._being_made

    def _same_response(self, key: RequestKey) -> Hashable:
        """Equal for requests that get the same response. On which grids their windows count as one is known from the last."""
        known = self._entries.get(entry_key(key))
        return (entry_key(key), (key.from_ms, key.to_ms) if known is None else _aligned_window(known.grids, key))

    def find(self, key: RequestKey, now_ms: int) -> CachedResponse | None:
        """The response, if there is one that is still valid."""
        kept_key = entry_key(key)
        entry = self._entries.get(kept_key)
        if entry is None:
            return None
        response = entry.response
        if not response.as_of_ms <= now_ms < response.valid_until_ms or _aligned_window(entry.grids, key) != response.window:
            return None
        self._entries.move_to_end(kept_key)
        return response

    def gzip_prefix(self, key: RequestKey, response: CachedResponse) -> GzipPrefix | None:
        """The compressed beginning of the body. A worker thread makes it once, when it is first asked for; None until it is
        there, and for bodies that are not worth it."""
        if response.gzip_prefix is None and not response.compressing and self._gzip:
            if len(response.body_prefix) < _WORTH_COMPRESSING:
                return None
            response.compressing = True
            made = asyncio.get_running_loop().run_in_executor(None, compress_prefix, response.body_prefix)
            made.add_done_callback(lambda done: self._add_gzip(key, response, done))
        return response.gzip_prefix

    def _add_gzip(self, key: RequestKey, response: CachedResponse, made: asyncio.Future[GzipPrefix]) -> None:
        if made.cancelled():
            return
        response.gzip_prefix = made.result()
        entry = self._entries.get(entry_key(key))
        if entry is not None and entry.response is response:
            entry.size_bytes += len(response.gzip_prefix.compressed)
            self.size_bytes += len(response.gzip_prefix.compressed)
            self._drop_oldest()

    def keep(
        self,
        shape: Hashable,
        results: Sequence[Result],
        content_type: str,
        body_prefix: bytes,
        body_suffix: BodySuffix | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a response to a request of that shape, if it is complete and fresh and will be for a while.

        Its window is the one that was answered: a relative time may have moved since the key was made.
        """
        size_bytes = len(body_prefix) + len(repr(shape)) + _ENTRY_BYTES
        ends_ms = [result.valid_until_ms for result in results if result.status == "fresh" and result.valid_until_ms is not None]
        now_ms = self.clock()
        if not results or len(ends_ms) < len(results) or min(ends_ms) <= now_ms or size_bytes > self._max_bytes * _LARGEST_SHARE:
            return
        key = RequestKey(shape, results[0].query.from_ms, results[0].query.to_ms)
        grids = tuple(dict.fromkeys((result.grid_ms, result.range.step_ms) for result in results))
        response = CachedResponse(
            window=_aligned_window(grids, key),
            results=tuple(replace(result, frame=Frame(notices=result.frame.notices)) for result in results),
            as_of_ms=now_ms,
            valid_until_ms=min(ends_ms),
            head_prefix=_head_prefix(results, content_type, more_headers or {}),
            result_pattern=result_pattern(results),
            born_s=tuple(now_ms / 1000 - result.age_s for result in results),
            body_prefix=body_prefix,
            body_suffix=body_suffix,
        )
        self._store_entry(entry_key(key), _Entry(grids, response, size_bytes))

    def _store_entry(self, kept_key: Hashable, entry: _Entry) -> None:
        older = self._entries.pop(kept_key, None)
        if older is not None:
            self._discard(older)
        self.size_bytes += entry.size_bytes
        self._entries[kept_key] = entry
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self.size_bytes > self._max_bytes:
            self._discard(self._entries.popitem(last=False)[1])

    def _discard(self, entry: _Entry) -> None:
        self.size_bytes -= entry.size_bytes
        self._count_sent(entry.response)

    def _count_all_sent(self) -> None:
        for entry in self._entries.values():
            self._count_sent(entry.response)

    def _count_sent(self, response: CachedResponse) -> None:
        sent, response.sent = response.sent, 0
        if not sent:
            return
        self._telemetry.queries.labels("fresh").inc(sent * len(response.results))
        for result in response.results:
            for report in result.asked:
                self._telemetry.cache_hits.labels(report.source, "ready").inc(sent)


def entry_key(key: RequestKey) -> Hashable:
    """Equal for all requests whose windows differ in their position only: the refreshes of a panel."""
    return (key.shape, key.to_ms - key.from_ms)


def _aligned_window(grids: tuple[tuple[int, int], ...], key: RequestKey) -> tuple[int, ...]:
    """Equal for windows that give the same buckets (`plan_query` aligns them in the same way)."""
    return tuple([part for grid_ms, step_ms in grids for part in (key.from_ms // grid_ms, -(-key.to_ms // step_ms))])


def _head_prefix(results: Sequence[Result], content_type: str, more_headers: Mapping[str, str]) -> bytes:
    unasked = [replace(result, asked=tuple(replace(report, seconds=0.0) for report in result.asked)) for result in results]
    headers = {**result_headers(unasked), **more_headers}
    headers["Content-Type"], headers["Cache-Control"] = content_type, "no-store"
    fixed = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items() if name != "Bridge-Result"]
    return b"HTTP/1.1 200 OK\r\n" + header_lines(fixed)
