"""Each statement of the catalogue, explained by its store: does it parse, do its tables exist."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from app.catalog import CatalogueSurvey
from app.clock import wall_ms
from app.config import Settings
from app.errors import Problem, SourceError
from app.main import build_sources
from app.model import Matcher, Statement, TimeRange
from app.operations import routes as ops
from app.sources.base import Ask, Explains, Read, Source

_STEP_MS = 60_000
_HOUR_MS = 3_600_000
#: Time limits: for one statement, and for all statements of a source.
_EACH_S = 10.0
_ALL_S = 60.0


@dataclass(slots=True)
class SourcesReport:
    """What the enabled sources answered."""

    #: The present health of each source.
    health: dict[str, dict[str, Any]] = field(default_factory=dict)
    explained: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _CatalogueRead:
    """A read, and its place in the catalogue."""

    file: str
    key: str
    labels: tuple[str, ...]
    read: Read


async def ask_sources(settings: Settings, survey: CatalogueSurvey) -> SourcesReport:
    """Ask every enabled source for its health. Those that are up explain the statements that the catalogue has for them."""
    asked = SourcesReport()
    async with AsyncExitStack() as stack:
        sources = build_sources(settings)
        for source in sources.values():
            await source.open()
            stack.push_async_callback(source.close)
        found = await asyncio.gather(*(ops.health(*item) for item in sources.items()))
        asked.health = dict(zip(sources, found, strict=True))
        up = {name: source for name, source in sources.items() if asked.health[name]["up"]}
        await asyncio.gather(*(_explain_reads(source, settings, survey, asked) for source in up.values()))
    return asked


async def _explain_reads(source: Source, settings: Settings, survey: CatalogueSurvey, asked: SourcesReport) -> None:
    if not isinstance(source, Explains):
        return
    slots = asyncio.Semaphore(settings.sources[source.name].connect.pool_size)
    ends_s = time.monotonic() + _ALL_S

    async def explain_read(placed: _CatalogueRead, explains: Explains) -> list[Problem]:
        async with slots:
            asked.explained[source.name] = asked.explained.get(source.name, 0) + 1
            for statement in _statements_of(placed):
                error = await _explain_error(explains, statement, ends_s)
                if error is not None:
                    return [Problem(placed.file, placed.key, error)]
        return []

    wrong = [(problem.file, problem.key) for problem in survey.problems]
    own = [placed for placed in _catalogue_reads(survey) if placed.read.source == source.name]
    # Reads with known problems are not reported twice.
    reads = [one for one in own if not any(file == one.file and key.startswith(one.key) for file, key in wrong)]
    for problems in await asyncio.gather(*(explain_read(placed, source) for placed in reads)):
        asked.problems += problems


async def _explain_error(source: Explains, statement: Statement, ends_s: float) -> str | None:
    try:
        async with asyncio.timeout(min(_EACH_S, max(ends_s - time.monotonic(), 0))):
            await source.explain(statement)
    except TimeoutError:
        return f"{statement.source}: does not explain this statement in time"
    except SourceError as failure:
        return failure.message
    return None


def _statements_of(placed: _CatalogueRead) -> Iterator[Statement]:
    """The statement of a read, once with every label kept and filtered on, once with none; on its roll-ups; and what it
    asks of its beginning."""
    to_ms = wall_ms() // _STEP_MS * _STEP_MS
    span = TimeRange(to_ms - _HOUR_MS, to_ms, _STEP_MS)
    where = tuple(Matcher(label, "=", ("x",)) for label in placed.labels)
    yield placed.read.statement(Ask("check", span, placed.labels, where, to_ms - 1000))
    if placed.labels:
        yield placed.read.statement(Ask("check", span))
    yield from placed.read.more_statements("check", to_ms)
    begins = placed.read.begins_statement("check")
    if begins is not None:
        yield begins


def _catalogue_reads(survey: CatalogueSurvey) -> Iterator[_CatalogueRead]:
    places: Mapping[str, tuple[str, str]] = survey.places
    for metric in survey.catalogue.metrics.values():
        file, key = places[metric.name]
        reads = [("history", metric.history), ("live", metric.live)]
        reads += [(f"fallback.{place}", read) for place, read in enumerate(metric.fallback)]
        for name, read in reads:
            if read is not None:
                yield _CatalogueRead(file, f"{key}.{name}", metric.entry.labels, read)
    for event in survey.catalogue.events.values():
        file, key = places[event.name]
        yield _CatalogueRead(file, f"{key}.read", (), event.read)
