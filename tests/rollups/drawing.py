"""Statements of the catalogue's reads as nobody wrote them down: window, step, labels, filters, thinning are drawn by seed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.catalog import Catalogue, load_folder
from app.config import settings_from
from app.model import Frame, Labels, Matcher, Statement, TimeRange
from app.series import clip, thin
from app.sources.base import Ask, Read
from app.sources.sql.rollups import RolledUpRead

#: how many statements of each engine are asked twice, in parts of a hundred; ROLLUP_CASES=2000 asks more
CASES = 100
SEEDS = range(max(int(os.environ.get("ROLLUP_CASES", CASES)) // CASES, 1))
HOUR_MS = 3_600_000
_STEPS_MS = tuple(1000 * seconds for seconds in (10, 30, 60, 90, 120, 300, 900, 1800, 3600, 7200, 21_600, 86_400))
_KINDS = dict.fromkeys(("rts", "ris", "rtss", "rtrs"), "redis") | {name: name for name in ("clickhouse", "duckdb", "prometheus")}


def catalogue() -> Catalogue:
    """The catalogue that comes with the bridge."""
    return load_folder(settings_from({}, "test").catalog_folder, _KINDS)


def rolled_reads(kind: str) -> dict[str, RolledUpRead]:
    """The reads of this source that name roll-ups, by metric."""
    reads: dict[str, Read | None] = {}
    for name, metric in catalogue().metrics.items():
        reads |= {name: metric.history, **{f"{name} (fallback)": read for read in metric.fallback}}
    return {
        name: read.with_labels(read.labels)
        for name, read in reads.items()
        if isinstance(read, RolledUpRead) and read.source == kind and read.rollups
    }


@dataclass(frozen=True)
class Drawn:
    """The data's span and the values of its labels."""

    from_ms: int
    to_ms: int
    values: Mapping[str, Sequence[str]]


def drawn_statements(kind: str, data: Drawn, seed: int) -> Iterator[Statement]:
    """As many statements as cases, of each read in turn."""
    chance = random.Random(seed)
    reads = list(rolled_reads(kind).items())
    for case in range(CASES):
        metric, read = reads[case % len(reads)]
        labels = sorted(read.labels)
        by = tuple(chance.sample(labels, chance.randint(0, len(labels))))
        where = tuple(_filter(chance, label, data.values[label]) for label in labels if chance.random() < 0.3)
        # Every second one has all labels, and is thinned by whole hours, as on a dashboard.
        is_fine = read.thins_from_ms > 0 and case // len(reads) % 2 == 0
        span = _span(chance, data, is_exact=not is_fine and chance.random() < 0.2)
        statement = read.statement(Ask(metric, span, tuple(labels) if is_fine else by, where))
        is_sampled = read.parts is None and read.rolled_sql is None and not span.exact
        yield _thinned(chance, statement) if is_fine or (is_sampled and chance.random() < 0.7) else statement


def _filter(chance: random.Random, label: str, values: Sequence[str]) -> Matcher:
    operator = chance.choice(("=", "!=", "=|", "!=|", "=~"))
    some = tuple(chance.sample(values, chance.randint(1, len(values))))
    if operator in ("=|", "!=|"):
        return Matcher(label, operator, some)  # type: ignore[arg-type]
    return Matcher(label, operator, ("|".join(some) if operator == "=~" else some[0],))  # type: ignore[arg-type]


def _span(chance: random.Random, data: Drawn, *, is_exact: bool) -> TimeRange:
    """A window of whole buckets, one that ends at a seam, or one bucket of exactly the window."""
    length_ms = chance.choice((HOUR_MS // 6, HOUR_MS, 6 * HOUR_MS, 30 * HOUR_MS, data.to_ms - data.from_ms + 4 * HOUR_MS))
    from_ms = chance.randint(data.from_ms - HOUR_MS, data.to_ms)
    to_ms = from_ms + length_ms
    if is_exact:
        return TimeRange(from_ms, to_ms, length_ms, from_ms)
    step_ms = chance.choice(_STEPS_MS)
    from_ms = from_ms // step_ms * step_ms
    whole_ms = -(-to_ms // step_ms) * step_ms
    seam_ms = max(to_ms // 60_000 * 60_000, from_ms + 60_000)
    return TimeRange(from_ms, chance.choice((whole_ms, min(seam_ms, whole_ms))), step_ms)


def _thinned(chance: random.Random, statement: Statement) -> Statement:
    """The statement, thinned at the store, as a plan would have it."""
    span = statement.range
    hours_ms = [-(-hours * HOUR_MS // span.step_ms) * span.step_ms for hours in (1, 2, 5)]
    thin_ms = chance.choice((span.step_ms * chance.randint(2, 50), *hours_ms))
    begun = replace(span, from_ms=span.from_ms // thin_ms * thin_ms)
    params = tuple((name, begun.from_ms if name == "from_ms" else value) for name, value in statement.params)
    to_ms = chance.choice((span.to_ms, span.bucket_ms(chance.randint(begun.from_ms, span.to_ms))))
    return replace(statement, range=begun, params=params, thin_ms=thin_ms, thin_to_ms=to_ms)


Shown = dict[Labels, tuple[list[int], list[str], list[str]]]


def answer_of(frame: Frame, statement: Statement) -> Shown:
    """What is shown of a frame, to the last digit: of each series times, values and weights."""
    parts = [frame]
    if statement.thin_ms:
        before, after = clip(frame, 0, statement.thin_to_ms), clip(frame, statement.thin_to_ms, 2**62)
        parts = [thin(before, statement.thin_ms), after]
    found: Shown = {}
    for part in parts:
        for index, labels in enumerate(part.series):
            rows = slice(part.offsets[index], part.offsets[index + 1])
            times, values, weights = found.setdefault(labels, ([], [], []))
            times += part.time[rows].tolist()
            values += map(float.hex, part.value[rows].tolist())
            weights += map(float.hex, part.weight[rows].tolist()) if len(part.weight) else []
    return found


def told(statement: Statement) -> str:
    """The statement in a line, for the message of a failure."""
    thinned = f" thinned {statement.thin_ms} until {statement.thin_to_ms}" if statement.thin_ms else ""
    return f"{statement.metric} by {statement.labels} where {statement.where} over {statement.range}{thinned}"
