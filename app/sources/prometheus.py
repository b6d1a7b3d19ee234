"""Prometheus: range, instant and label queries through its HTTP API (aiohttp: a fifth of httpx' time for each request).

A bucket [b, b + step) is the expression evaluated at b + step and stamped b, so that a point stands for the time it covers, as
in the SQL stores. The open bucket is the expression evaluated at now, by an instant query of its own at the same time.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import aiohttp
import msgspec
import numpy as np
import orjson
from pydantic import Field, HttpUrl, SecretStr

from app.errors import (
    SourceDenied,
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.model import Frame, Labels, Matcher, Notice, Statement, TimeRange, Times, Values, frame_of_parts
from app.sources import base, prometheus_matrix
from app.sources.base import Ask, ErrorTable, Read, SourceConfig, accepts, pattern, translate
from app.turns import gently

#: Prometheus refuses more points a series than this.
MOST_POINTS = 11_000
_MOST_BYTES = 256 << 20
_ORDERS = ("<", "<=", ">", ">=")
_PLACEHOLDER = re.compile(r"\{(by|where|and_where|window)\}")
_UNKNOWN = re.compile(r"\{([a-z_]+)\}")
_ELSEWHEN = re.compile(r"@|\boffset\s*-", re.IGNORECASE)
#: how Prometheus and its kin begin the body of an answer
_SUCCESS = b'{"status":"success"'
_SPECIAL = re.compile(r"([.+*?()|\[\]{}^$\\])")

_ERRORS: ErrorTable = {
    TimeoutError: SourceTimeout,
    # refused, reset, closed without an answer
    aiohttp.ClientConnectionError: SourceUnavailable,
    # no HTTP, or a body that ends too soon
    aiohttp.ClientResponseError: SourceGarbled,
    aiohttp.ClientPayloadError: SourceGarbled,
    orjson.JSONDecodeError: SourceGarbled,
    msgspec.MsgspecError: SourceGarbled,
    KeyError: SourceGarbled,
    TypeError: SourceGarbled,
    ValueError: SourceGarbled,
}
_BY_TYPE: Mapping[str, type[SourceError]] = {
    "timeout": SourceTimeout,
    "canceled": SourceTimeout,
    "bad_data": SourceRejected,
    "execution": SourceRejected,
    "unavailable": SourceUnavailable,
    "internal": SourceUnavailable,
    "too_many_requests": SourceOverloaded,
}

_T = TypeVar("_T")

Series = tuple[Labels, Times, Values]


class PrometheusConfig(SourceConfig):
    """A Prometheus, or whatever speaks its API (Thanos, Mimir, VictoriaMetrics)."""

    kind: Literal["prometheus"] = "prometheus"
    url: HttpUrl
    bearer_token: SecretStr | None = None
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    max_execution_time_s: float = Field(4.0, gt=0, le=60, description="sent along as `timeout`; below the attempt limit")
    min_window_s: int = Field(60, ge=1, le=86_400, description="the shortest {window}: four scrape intervals")

    def build(self, name: str) -> PrometheusSource:
        """The source of that name."""
        return PrometheusSource(name, self)


class PrometheusRead(Read):
    """A PromQL template.

    `{by}` becomes the kept labels (`sum by ({by}) (...)`), `{where}` the selector of the filters with its braces, or nothing
    (`up{where}`), `{and_where}` the same inside braces that hold a matcher already (`up{job="x"{and_where}}`), `{window}` the
    range of a rate: the step, or the source's `min_window_s` where that is longer. `labels` maps each label to Prometheus' name.
    """

    spared_by_coarser: ClassVar[bool] = True

    query: str

    def statement(self, ask: Ask) -> Statement:
        """The template as it stands: the source fills it in, because an order filter needs the labels' values first. What the
        labels are called here is part of the question, too."""
        words = (("labels", tuple(sorted(self.labels.items()))),)
        return Statement(self.source, ask.metric, self.query, words, ask.range, ask.by, ask.where, self, ask.now_ms)

    @property
    def sliceable(self) -> bool:
        """Each bucket is evaluated at its own end, unless the query says otherwise (`@`, an offset into the future)."""
        return _ELSEWHEN.search(self.query) is None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Placeholders that nobody fills, or that are missing for declared labels."""
        for name in _UNKNOWN.findall(self.query):
            if name not in ("by", "where", "and_where", "window"):
                yield "query", f"unknown placeholder {{{name}}}; allowed: {{by}}, {{where}}, {{and_where}}, {{window}}"
        if self.labels and "{by}" not in self.query:
            yield "query", "has labels but no {by}; write `sum by ({by}) (...)`"
        if self.labels and not re.search(r"\{(and_)?where\}", self.query):
            yield "query", "has labels but no {where}; write `metric{where}`"


class PrometheusSource:
    """One Prometheus as a source (see `sources.base.Source`). A cancelled fetch closes its connection: the query ends there."""

    def __init__(self, name: str, config: PrometheusConfig) -> None:
        self.name = name
        self._config = config
        self._url = str(config.url).rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self.skew_s: float | None = None
        self.warning: str | None = None

    async def open(self) -> None:
        """Nothing: connections are made when first needed."""

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def reconnect(self) -> None:
        """Let go of every connection; the next fetch makes new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _connected(self) -> aiohttp.ClientSession:
        """The connections; made by the first fetch, because they belong to its event loop."""
        if self._session is None:
            config = self._config
            verified = ssl.create_default_context(cafile=config.ca_file) if config.ca_file else True
            secret = config.password.get_secret_value() if config.password else ""
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=config.pool_size, ssl=verified),
                timeout=aiohttp.ClientTimeout(sock_connect=config.connect_timeout_s, sock_read=config.max_execution_time_s + 1),
                headers={"Accept-Encoding": "identity"} | _authorization(config),
                auth=aiohttp.BasicAuth(config.username, secret) if config.username else None,
                trust_env=False,
            )
        return self._session

    async def fetch(self, statement: Statement) -> Frame:
        """Ask for the closed buckets and the open one at the same time. Raises SourceError."""
        with translate(self.name, _ERRORS):
            where, possible = await self._resolved(statement)
            if not possible:
                return Frame()
            query = self._filled(statement, where)
            span = statement.range
            closed = TimeRange(span.from_ms, span.to_ms - (span.step_ms if statement.now_ms else 0), span.step_ms)
            tasks = [self._range(query, piece) for piece in _pieces(closed)]
            if statement.now_ms:
                tasks.append(self._instant(query, statement.now_ms, span.to_ms - span.step_ms))
            return self._frame(await _together(tasks), statement)

    async def ping(self) -> str:
        """The server's version. Raises SourceError."""
        with translate(self.name, _ERRORS):
            return f"Prometheus {(await self._data('GET', '/api/v1/status/buildinfo', {}))[0]['version']}"

    def _filled(self, statement: Statement, where: Sequence[Matcher]) -> str:
        read: PrometheusRead = statement.read
        matchers = ",".join(selector(matcher, read.word(matcher.label)) for matcher in where)
        filled = {
            "by": ", ".join(read.word(label) for label in statement.labels),
            "where": f"{{{matchers}}}" if matchers else "",
            "and_where": f",{matchers}" if matchers else "",
            "window": f"{max(statement.range.step_ms // 1000, self._config.min_window_s)}s",
        }
        return _PLACEHOLDER.sub(lambda found: filled[found[1]], statement.text)

    async def _resolved(self, statement: Statement) -> tuple[list[Matcher], bool]:
        """PromQL has no order on labels: such a filter becomes the list of those of the label's values that pass it."""
        where, possible = [], True
        for matcher in statement.where:
            if matcher.operator in _ORDERS:
                test = accepts(matcher)
                values = tuple(value for value in await self._values(matcher.label, statement) if test(value))
                possible = possible and bool(values)
                where.append(Matcher(matcher.label, "=|", values))
            else:
                where.append(matcher)
        return where, possible

    async def _values(self, label: str, statement: Statement) -> list[str]:
        span, name = statement.range, statement.read.word(label)
        params = {"start": span.from_ms / 1000, "end": span.to_ms / 1000}
        found, _ = await self._data("GET", f"/api/v1/label/{name}/values", params)
        return [str(value) for value in found]

    async def _range(self, query: str, span: TimeRange) -> tuple[list[Series], list[str]]:
        step_s = span.step_ms // 1000
        params = {"query": query, "start": span.from_ms // 1000 + step_s, "end": span.to_ms // 1000, "step": step_s}
        answer = await self._asked("POST", "/api/v1/query_range", params | self._limit, prometheus_matrix.decode)
        _expect(answer.data.resultType, "matrix")
        # A bucket is named by its start and evaluated at its end.
        ends = TimeRange(span.from_ms + span.step_ms, span.to_ms + span.step_ms, span.step_ms)
        found = await gently((_labels(one.metric), *prometheus_matrix.columns(one.values, ends)) for one in answer.data.result)
        return [(labels, times - span.step_ms, values) for labels, times, values in found], answer.warnings or []

    async def _instant(self, query: str, at_ms: int, bucket_ms: int) -> tuple[list[Series], list[str]]:
        data, warnings = await self._data("POST", "/api/v1/query", {"query": query, "time": at_ms // 1000} | self._limit)
        _expect(data["resultType"], "vector")
        time = np.array([bucket_ms], dtype=np.int64)
        texts = [(one["metric"], str(one["value"][1]).encode()) for one in data["result"]]
        return [(_labels(metric), time, prometheus_matrix.numbers([text])) for metric, text in texts], warnings

    @property
    def _limit(self) -> dict[str, Any]:
        return {"timeout": f"{round(self._config.max_execution_time_s * 1000)}ms"}

    async def _data(self, method: str, path: str, params: dict[str, Any]) -> tuple[Any, list[str]]:
        answer = await self._asked(method, path, params, orjson.loads)
        return answer["data"], answer.get("warnings") or []

    async def _asked(self, method: str, path: str, params: dict[str, Any], decode: Callable[[bytes], _T]) -> _T:
        """The body of an answer that is one. Raises SourceError for what Prometheus says is wrong."""
        posted = method == "POST"
        async with self._connected().request(
            method,
            self._url + path,
            data=params if posted else None,
            params=None if posted else params,
            allow_redirects=False,
        ) as reply:
            body = await _bounded(reply)
            self._compare_clocks(reply.headers.get("date"))
        if body.startswith(_SUCCESS) and reply.status // 100 == 2:
            return decode(body)
        if reply.status // 100 == 2 or reply.headers.get("content-type", "").startswith("application/json"):
            return self._told(body, decode)
        raise _failure(reply.status)(self.name, f"answered with status {reply.status}")

    def _told(self, body: bytes, decode: Callable[[bytes], _T]) -> _T:
        """The body after all, where its status does not stand first; else what it says went wrong."""
        answer = orjson.loads(body)
        if answer["status"] == "success":
            return decode(body)
        text = str(answer.get("error"))[:300]
        # The statement is right and too heavy; the type says no more than that its execution failed.
        failure = SourceOverloaded if "too many samples" in text else _BY_TYPE.get(answer.get("errorType"), SourceRejected)
        raise failure(self.name, text)

    def _compare_clocks(self, date: str | None) -> None:
        """A Date header has whole seconds: half of one is added, for the part that was cut off."""
        if date is None:
            return
        with suppress(ValueError, TypeError):
            self.skew_s = base.skew_s(parsedate_to_datetime(date).timestamp() * 1000 + 500, base.wall_ms())

    def _frame(self, answers: Iterable[tuple[list[Series], list[str]]], statement: Statement) -> Frame:
        parts, notices = list[Series](), []
        words = [(label, statement.read.word(label)) for label in sorted(statement.labels)]
        for series, warnings in answers:
            notices += [Notice("warning", f"{self.name}: {warning[:200]}") for warning in warnings]
            for labels, times, values in series:
                given = dict(labels)
                parts.append((tuple((label, given.get(word, "")) for label, word in words), times, values))
        # Prometheus, and what stands before it (Thanos, promxy), warns when a part of the series could not be had.
        frame = frame_of_parts(parts, notices=tuple(dict.fromkeys(notices)), partial=bool(notices))
        if len(frame) > self._config.max_rows:
            raise SourceOverloaded(self.name, f"{len(frame)} points; at most {self._config.max_rows} are allowed (max_rows)")
        return frame


async def _together(tasks: Sequence[Any]) -> list[tuple[list[Series], list[str]]]:
    """All at the same time; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task) for task in tasks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in running]


def _pieces(span: TimeRange) -> Iterator[TimeRange]:
    """The range in pieces that Prometheus takes."""
    width_ms = MOST_POINTS * span.step_ms
    for from_ms in range(span.from_ms, span.to_ms, width_ms):
        yield TimeRange(from_ms, min(from_ms + width_ms, span.to_ms), span.step_ms)


def selector(matcher: Matcher, name: str) -> str:
    """A filter as PromQL writes it; every value quoted, those of a list taken literally."""
    match matcher.operator:
        case "=|" | "!=|":
            operator = "=~" if matcher.operator == "=|" else "!~"
            operand = "|".join(_SPECIAL.sub(r"\\\1", value) for value in matcher.values)
        case "=~" | "!~":
            pattern(matcher.values[0])
            operator, operand = matcher.operator, matcher.values[0]
        case operator:
            operand = matcher.values[0]
    return f"{name}{operator}{json.dumps(operand, ensure_ascii=False)}"


def _authorization(config: PrometheusConfig) -> dict[str, str]:
    return {"Authorization": f"Bearer {config.bearer_token.get_secret_value()}"} if config.bearer_token else {}


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in reply.content.iter_any():
        size += len(chunk)
        if size > _MOST_BYTES:
            raise ValueError(f"an answer of more than {_MOST_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _failure(status: int) -> type[SourceError]:
    if status in (401, 403):
        return SourceDenied
    if status in (429, 503):
        return SourceOverloaded if status == 429 else SourceUnavailable
    return SourceUnavailable if status >= 500 else SourceGarbled


def _expect(found: str, kind: str) -> None:
    if found != kind:
        raise ValueError(f"the expression yields a {found}, not a {kind}")


def _labels(metric: Mapping[str, str]) -> Labels:
    return tuple(sorted(metric.items()))
