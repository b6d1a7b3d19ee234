"""Prometheus: range, instant and label queries through its HTTP API (aiohttp: a fifth of httpx' time for each request).

The value of a bucket is the expression evaluated at the bucket's end; its time is the bucket's start, as in the SQL stores. The
open bucket is the expression evaluated at now, by an instant query that runs at the same time.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Literal, NamedTuple

import aiohttp
import numpy as np
from pydantic import Field
from yarl import URL

from app import clock
from app.cooperative import run_in_slices
from app.errors import (
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
    TooManyRows,
)
from app.filters import accepts
from app.model import NO_REMARKS, Frame, Labels, Matcher, Notice, Remarks, Statement, TimeRange, Times, frame_of_parts
from app.sources.base import Ask, ErrorTable, Read, expect_read, translate
from app.sources.prometheus import answers, matrix
from app.sources.prometheus.address import PrometheusAddress
from app.sources.prometheus.answers import ApiReply
from app.sources.prometheus.newest import REPEATING_STEP_MS, SeriesPoints, newest_span, repeated_s, repeats_text
from app.sources.prometheus.promql import epoch_seconds, label_matcher, label_name, path_name, rate_window, split_range

_MOST_BYTES = 256 << 20
_ORDERS = ("<", "<=", ">", ">=")
_PLACEHOLDER = re.compile(r"\{(by|where|and_where|window)\}")
_UNKNOWN = re.compile(r"\{([a-z_]+)\}")
_ELSEWHEN = re.compile(r"@|\boffset\s*-", re.IGNORECASE)

#: Failures of the connection. Mistakes in a statement or in a reply are raised where it is made or read.
_ERRORS: ErrorTable = {
    TimeoutError: SourceTimeout,
    # refused, reset, closed without an answer
    aiohttp.ClientConnectionError: SourceUnavailable,
}


class QueryAnswer(NamedTuple):
    """What one request brought."""

    series: list[SeriesPoints]
    remarks: Remarks


class PrometheusConfig(PrometheusAddress):
    """A Prometheus as the configuration file has it."""

    kind: Literal["prometheus"] = Field("prometheus", description="what the store is")

    def build(self, name: str) -> PrometheusSource:
        """The source under its configured name."""
        return PrometheusSource(name, self)


class PrometheusRead(Read):
    """A PromQL template.

    `{by}` becomes the kept labels (`sum by ({by}) (...)`), `{where}` the selector of the filters with its braces, or nothing
    (`up{where}`), `{and_where}` the same inside braces that hold a matcher already (`up{job="x"{and_where}}`), `{window}` the
    range of a rate: the step, or the source's `min_window_s` where that is longer. `labels` maps each label to Prometheus' name.
    """

    spared_by_coarser: ClassVar[bool] = True
    is_template: ClassVar[bool] = True

    query: str

    def statement(self, ask: Ask) -> Statement:
        """The template as it stands. The source fills it in, because an order filter needs the values of its label first. The
        labels' names in this store are parameters, so that they are part of the statement's key."""
        words = (("labels", tuple(sorted(self.labels.items()))),)
        return Statement(self.source, ask.metric, self.query, words, ask.range, ask.by, ask.where, self, ask.now_ms)

    @property
    def sliceable(self) -> bool:
        """Each bucket is evaluated at its own end, unless the query says otherwise (`@`, an offset into the future)."""
        return _ELSEWHEN.search(self.query) is None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Unknown placeholders, and those that are missing for declared labels."""
        for name in _UNKNOWN.findall(self.query):
            if name not in ("by", "where", "and_where", "window"):
                yield "query", f"unknown placeholder {{{name}}}; allowed: {{by}}, {{where}}, {{and_where}}, {{window}}"
        if self.labels and "{by}" not in self.query:
            yield "query", "has labels but no {by}; write `sum by ({by}) (...)`"
        if self.labels and not re.search(r"\{(and_)?where\}", self.query):
            yield "query", "has labels but no {where}; write `metric{where}`"


class PrometheusSource:
    """One Prometheus as a source (see `sources.base.Source`). A cancelled fetch closes its connection, which ends the query."""

    def __init__(self, name: str, config: PrometheusConfig) -> None:
        self.name = name
        self._config = config
        self._url = str(config.url).rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self.skew_s: float | None = None
        self.warning: str | None = None
        #: for how long before now ranges repeat an older value; None until a ping has looked
        self._repeats_s: int | None = None

    async def open(self) -> None:
        """Nothing: connections are made when first needed."""

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def reconnect(self) -> None:
        """Close every connection; the next fetch makes new ones."""
        session, self._session = self._session, None
        self._repeats_s = None
        if session is not None:
            await session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """The connections. The first fetch makes them, because they belong to its event loop."""
        if self._session is None:
            config = self._config
            verified = ssl.create_default_context(cafile=config.ca_file) if config.ca_file else True
            secret = config.password.get_secret_value() if config.password else ""
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=config.pool_size, ssl=verified),
                timeout=aiohttp.ClientTimeout(sock_connect=config.connect_timeout_s, sock_read=config.max_execution_time_s + 1),
                headers={"Accept-Encoding": "identity"} | config.sent_headers,
                auth=aiohttp.BasicAuth(config.username, secret) if config.username else None,
                trust_env=False,
            )
        return self._session

    async def fetch(self, statement: Statement) -> Frame:
        """Query the closed buckets and the open one at the same time. Raises SourceError."""
        with translate(self.name, _ERRORS):
            where, possible, remarks = await self._resolve_filters(statement)
            if not possible:
                return frame_of_parts((), notices=remarks.notices, partial=remarks.partial)
            query = self._fill_query(statement, where)
            span = statement.range
            last_ms = span.bucket_ms(span.to_ms - 1)
            # The open bucket is evaluated at now. A bucket that the range cuts off is evaluated at the range's end.
            at_ms = statement.now_ms or (span.to_ms if span.exact else 0)
            closed = TimeRange(span.from_ms, last_ms if at_ms else span.to_ms, span.step_ms)
            tasks = [self._query_range(query, piece) for piece in split_range(closed)]
            if at_ms:
                tasks.append(self._query_instant(query, at_ms, last_ms))
            frame = self._frame_of(await _gather_all(tasks), remarks, statement)
            if self._repeats_s and span.step_ms < REPEATING_STEP_MS and closed.to_ms > clock.wall_ms() - self._repeats_s * 1000:
                return replace(frame.remark(Notice("warning", f"{self.name}: {repeats_text(self._repeats_s)}")), partial=True)
            return frame

    async def explain(self, statement: Statement) -> None:
        """Let the server parse the expression and evaluate it at the epoch, where it has no samples. Raises SourceError."""
        with translate(self.name, _ERRORS):
            params = {"query": self._fill_query(statement, statement.where), "time": 0} | self._config.sent_params
            answers.read_vector(self.name, *await self._send_request("POST", "/api/v1/query", params))

    async def ping(self) -> str:
        """The server's version. Raises SourceError."""
        with translate(self.name, _ERRORS):
            reply = await self._send_request("GET", "/api/v1/status/buildinfo", {})
            build = answers.read_reply(self.name, *reply, answers.decode_build).data
            if self._repeats_s is None:
                await self._look_at_newest()
            return f"{build.application or 'Prometheus'} {build.version or '(its API; it names no version)'}"

    async def _look_at_newest(self) -> None:
        """Learn, once for each session, whether ranges end in repeated values."""
        span = newest_span(clock.wall_ms())
        with suppress(SourceError):
            answer = await self._query_range("time()", span)
            self._repeats_s = repeated_s(answer.series, span)
            self.warning = repeats_text(self._repeats_s) if self._repeats_s else None

    def _fill_query(self, statement: Statement, where: Sequence[Matcher]) -> str:
        read = expect_read(statement, PrometheusRead)
        matchers = ",".join(label_matcher(matcher, read.word(matcher.label)) for matcher in where)
        filled = {
            "by": ", ".join(label_name(read.word(label)) for label in statement.labels),
            "where": f"{{{matchers}}}" if matchers else "",
            "and_where": f",{matchers}" if matchers else "",
            "window": rate_window(statement.range, self._config.min_window_s),
        }
        return _PLACEHOLDER.sub(lambda found: filled[found[1]], statement.text)

    async def _resolve_filters(self, statement: Statement) -> tuple[list[Matcher], bool, Remarks]:
        """The filters as PromQL has them, whether anything can pass them, and the server's remarks on the label queries.

        PromQL has no order on labels: such a filter becomes the list of those of the label's values that pass it. It has no empty
        list either: one of none is nothing, none of none is everything.
        """
        where, possible, remarks = list[Matcher](), True, NO_REMARKS
        for matcher in statement.where:
            if matcher.operator in _ORDERS:
                test = accepts(matcher)
                answer = await self._label_values(matcher.label, statement)
                remarks += answers.read_remarks(self.name, answer)
                # A series without the label counts as one with the empty value, and is not among the label's values.
                matcher = Matcher(matcher.label, "=|", tuple(value for value in (*answer.data, "") if test(value)))
            if matcher.values:
                where.append(matcher)
            possible = possible and (bool(matcher.values) or matcher.operator == "!=|")
        return where, possible, remarks

    async def _label_values(self, label: str, statement: Statement) -> ApiReply[list[str]]:
        span, name = statement.range, expect_read(statement, PrometheusRead).word(label)
        params = {"start": span.from_ms / 1000, "end": span.to_ms / 1000} | self._config.sent_params
        reply = await self._send_request("GET", f"/api/v1/label/{path_name(name)}/values", params)
        return answers.read_reply(self.name, *reply, answers.decode_values)

    async def _query_range(self, query: str, span: TimeRange) -> QueryAnswer:
        step_s = span.step_ms // 1000
        params = {"query": query, "start": span.from_ms // 1000 + step_s, "end": span.to_ms // 1000, "step": step_s}
        reply = await self._send_request("POST", "/api/v1/query_range", params | self._further_params)
        answer = answers.read_matrix(self.name, *reply)
        # A bucket is named by its start and evaluated at its end.
        ends = TimeRange(span.from_ms + span.step_ms, span.to_ms + span.step_ms, span.step_ms)
        with self._reading_points("""points as [seconds, "number"]"""):
            series = await run_in_slices(
                (_labels_of(one.metric), *matrix.series_columns(one.values, ends)) for one in answer.data.result
            )
        shifted = [(labels, times - span.step_ms, values) for labels, times, values in series]
        return QueryAnswer(shifted, answers.read_remarks(self.name, answer))

    async def _query_instant(self, query: str, at_ms: int, bucket_ms: int) -> QueryAnswer:
        params = {"query": query, "time": epoch_seconds(at_ms)} | self._further_params
        answer = answers.read_vector(self.name, *await self._send_request("POST", "/api/v1/query", params))
        time = np.array([bucket_ms], dtype=np.int64)
        with self._reading_points("""a value as [seconds, "number"]"""):
            series = [
                (_labels_of(one.metric), time, matrix.parse_numbers([answers.sample_text(one, at_ms)])) for one in answer.data
            ]
        return QueryAnswer(series, answers.read_remarks(self.name, answer))

    @contextmanager
    def _reading_points(self, expected: str) -> Iterator[None]:
        try:
            yield
        except matrix.OddPoints as odd:
            raise SourceGarbled(self.name, f"expected {expected}, found {odd}") from None

    @property
    def _further_params(self) -> dict[str, Any]:
        return {"timeout": f"{round(self._config.max_execution_time_s * 1000)}ms"} | self._config.sent_params

    async def _send_request(self, method: str, path: str, params: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body of the reply. Raises SourceError where it is no HTTP."""
        posted = method == "POST"
        try:
            async with self._open_session().request(
                method,
                # A label's name in the path is quoted already.
                URL(self._url + path, encoded=True),
                data=params if posted else None,
                params=None if posted else params,
                allow_redirects=False,
            ) as reply:
                body = await self._read_body(reply)
                self._compare_clocks(reply.headers.get("date"))
        except aiohttp.ClientResponseError:
            raise SourceGarbled(self.name, "expected an HTTP answer, found something else") from None
        except aiohttp.ClientPayloadError:
            raise SourceGarbled(self.name, "answered with a body that ends too soon, or is not packed as it says") from None
        return reply.status, body

    async def _read_body(self, reply: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in reply.content.iter_any():
            size += len(chunk)
            if size > _MOST_BYTES:
                raise SourceOverloaded(self.name, f"an answer of more than {_MOST_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)

    def _compare_clocks(self, date: str | None) -> None:
        """Note the skew. A Date header has whole seconds, so half a second is added for the part that it leaves out."""
        if date is None:
            return
        with suppress(ValueError, TypeError):
            self.skew_s = clock.skew_s(parsedate_to_datetime(date).timestamp() * 1000 + 500, clock.wall_ms())

    def _frame_of(self, answers: Iterable[QueryAnswer], remarks: Remarks, statement: Statement) -> Frame:
        parts = list[SeriesPoints]()
        read = expect_read(statement, PrometheusRead)
        words = [(label, read.word(label)) for label in sorted(statement.labels)]
        for series, more in answers:
            remarks += more
            placed = []
            for labels, times, values in series:
                given = dict(labels)
                placed.append((tuple((label, given.get(word, "")) for label, word in words), times, values))
            self._expect_distinct(placed)
            parts += placed
        frame = frame_of_parts(parts, notices=remarks.notices, partial=remarks.partial)
        if len(frame) > self._config.max_rows:
            raise TooManyRows(self.name, f"{len(frame)} points; at most {self._config.max_rows} are allowed (max_rows)")
        return frame

    def _expect_distinct(self, series: Sequence[SeriesPoints]) -> None:
        """Raise SourceRejected for two values of one label set at one instant: neither is truer than the other."""
        if len({labels for labels, _, _ in series}) == len(series):
            return
        by_labels = dict[Labels, list[Times]]()
        for labels, times, _ in series:
            by_labels.setdefault(labels, []).append(times)
        for labels, found in by_labels.items():
            together = np.concatenate(found)
            if len(np.unique(together)) < len(together):
                whose = ", ".join(f"{name}={value}" for name, value in labels)[:100] or "no labels"
                text = f"several series at once for {whose}; join them in the expression, as sum by ({{by}}) (...) does"
                raise SourceRejected(self.name, text)


async def _gather_all(tasks: Sequence[Any]) -> list[QueryAnswer]:
    """Run all at the same time. The first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task) for task in tasks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in running]


def _labels_of(metric: dict[str, str]) -> Labels:
    return tuple(sorted(metric.items()))
