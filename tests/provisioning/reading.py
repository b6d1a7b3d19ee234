"""Every read that the catalogue has of some kind of source, as the statement that the bridge sends for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from app.catalog import Catalogue, load_folder
from app.config import settings_from
from app.model import Frame, Labels, Statement, TimeRange
from app.sources.base import Ask, Read

_KINDS = dict.fromkeys(("rts", "ris", "rtss", "rtrs"), "redis") | {name: name for name in ("clickhouse", "duckdb", "prometheus")}
CATALOGUE: Catalogue = load_folder(settings_from({}, "test").catalog_folder, _KINDS)

#: A frame as plain values: labels -> (time, value or text cells).
Series = dict[Labels, list[tuple[int, object]]]


def reads(kind: str) -> Iterator[tuple[str, Read, Sequence[str]]]:
    """Name, read and labels of everything that is read from this kind of source."""
    for name, metric in CATALOGUE.metrics.items():
        for read in filter(None, (metric.history, metric.live, *metric.fallback)):
            if _KINDS[read.source] == kind:
                yield f"{name} from {read.source}", read, metric.entry.labels
    for name, event in CATALOGUE.events.items():
        if _KINDS[event.read.source] == kind:
            yield f"{name} from {event.read.source}", event.read, ()


def statements(kind: str, span: TimeRange, now_ms: int) -> Mapping[str, Statement]:
    """The statement for each, split by every label."""
    return {name: read.statement(Ask(name, span, tuple(by), (), now_ms)) for name, read, by in reads(kind)}


def plain(frame: Frame) -> Series:
    """A frame as plain values, its text columns included; NaN is None."""
    if frame.text:
        cells = list(zip(*frame.text.values(), strict=True))
        return {(): list(zip(frame.time.tolist(), cells, strict=True))}
    runs = ((labels, zip(times.tolist(), values.tolist(), strict=True)) for labels, times, values in frame.runs())
    return {labels: [(at, None if value != value else value) for at, value in points] for labels, points in runs}
