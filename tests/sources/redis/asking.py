"""ReadContext a source as a catalogue entry would: a read as YAML has it, and the times that the tests count in."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pydantic import TypeAdapter

from app.model import Frame, Matcher, Statement, TimeRange
from app.sources.base import Ask
from app.sources.redis.reads import KeyRead
from app.sources.redis.source import RedisConfig, RedisRead, RedisSource
from tests.frames import shown

STEP = 60_000
#: The start of a bucket.
T0 = 1_700_000_040_000
#: The open bucket, and the present half way into it.
OPEN = T0 + 3 * STEP
NOW = OPEN + 30_000

_READS: TypeAdapter[KeyRead] = TypeAdapter(RedisRead)


@contextlib.asynccontextmanager
async def opened(**connect: Any) -> AsyncIterator[RedisSource]:
    """A source with these settings, closed at the end."""
    source = RedisConfig(**connect).build("rts")
    try:
        yield source
    finally:
        await source.close()


def read_of(**entry: Any) -> KeyRead:
    """The read that a catalogue entry means."""
    return _READS.validate_python({"source": "rts", **entry})


def problems_of(**entry: Any) -> dict[str, str]:
    """What `bridge check` would say of it, by key."""
    return dict(read_of(**entry).problems())


def where(label: str, operator: Any, *values: str) -> Matcher:
    """One filter."""
    return Matcher(label, operator, values)


def statement(
    entry: dict[str, Any], by: str = "", filters: tuple[Matcher, ...] = (), now_ms: int = NOW, **span: int
) -> Statement:
    """The entry's statement over four buckets, the last one open; `from_ms` and `to_ms` may say otherwise."""
    whole = TimeRange(span.get("from_ms", T0), span.get("to_ms", OPEN + STEP), span.get("step_ms", STEP))
    return read_of(**entry).statement(Ask("metric", whole, tuple(by.split()), filters, now_ms))


class Asker:
    """Answers in the shape {labels: {time: value}}; `frame` keeps the last one whole."""

    def __init__(self, source: RedisSource) -> None:
        self.source = source
        self.frame = Frame()

    async def __call__(
        self, entry: dict[str, Any], by: str = "", filters: tuple[Matcher, ...] = (), now_ms: int = NOW, **span: int
    ) -> dict[str, dict[int, float | None]]:
        self.frame = await self.source.fetch(statement(entry, by, filters, now_ms, **span))
        return shown(self.frame)

    @property
    def remarks(self) -> list[str]:
        """The notices' texts."""
        return [notice.text for notice in self.frame.notices]
