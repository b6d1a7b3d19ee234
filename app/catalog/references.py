"""Checks of references between catalogue entries: labels and metrics must exist, names and gauges must be unique."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.catalog.entries import Event, Export, Label, Metric, MetricEntry
from app.catalog.parameters import RESERVED
from app.documents.nearest import name_hint
from app.errors import Problem

#: Prefixes of the bridge's own metrics, which no gauge may have.
_OWN_GAUGES = ("bridge_", "python_", "process_")


@dataclass(frozen=True, slots=True)
class EntryIndex:
    """All valid entries, and where each name is defined."""

    metrics: Mapping[str, Metric]
    events: Mapping[str, Event]
    labels: Mapping[str, Label]
    places: Mapping[str, tuple[str, str]]
    #: Names that may be defined in unreadable parts.
    unread: frozenset[str]


def label_problems(name: str, label: Label) -> Iterator[str]:
    """Problems of a label by itself."""
    if name in RESERVED or name.startswith("_"):
        what = "begins with _, as what callers add against caches" if name.startswith("_") else "is a parameter or column"
        yield f"{what} of /v1/rows; another name is needed"
    if label.metric is None and not label.values:
        yield "needs `metric` (whose series show its values) or `values` (a list)"
    if label.metric is not None and label.values:
        yield "has `metric` and `values`; allowed: one of them"
    for twice in _duplicates_of(label.values):
        yield f"has the value {twice[:60]!r} twice"


def metric_problems(entry: MetricEntry) -> Iterator[tuple[str, str]]:
    """(key, problem) of a metric by itself."""
    if not (entry.history or entry.live):
        yield "", "has neither `history` nor `live`; one of them is needed"
    for key, names in (("labels", entry.labels), ("aliases", entry.aliases)):
        for twice in _duplicates_of(names):
            yield key, f"{twice} is listed twice"
    if entry.zeros and (entry.over_time != "sum" or entry.aggregate not in ("sum", "count")):
        yield "zeros", "is for what adds up: `over_time: sum` with `aggregate: sum` or `count`"
    if entry.export is not None:
        yield from _export_problems(entry, entry.export)


def _export_problems(entry: MetricEntry, export: Export) -> Iterator[tuple[str, str]]:
    if entry.live is None:
        yield "export", "needs `live`: a gauge shows the present value"
    for label in (one for one in export.by if one not in entry.labels):
        yield "export.by", f"label {label!r} is not one of this metric's; {name_hint(label, entry.labels)}"
    for twice in _duplicates_of(export.by):
        yield "export.by", f"{twice} is listed twice"
    if export.name.startswith(_OWN_GAUGES):
        yield "export.name", f"begins as the bridge's own metrics do; allowed: any but {', '.join(_OWN_GAUGES)}"


def _duplicates_of(names: Iterable[str]) -> list[str]:
    given = list(names)
    return sorted({name for name in given if given.count(name) > 1})


def cross_problems(index: EntryIndex) -> Iterator[Problem]:
    """Problems that show only when all files are loaded."""
    yield from _undeclared_labels(index)
    yield from _label_values(index)
    yield from _duplicate_gauges(index)


def _undeclared_labels(index: EntryIndex) -> Iterator[Problem]:
    items: list[Metric | Event] = [*index.metrics.values(), *index.events.values()]
    for item in items:
        file, key = index.places[item.name]
        for label in set(item.entry.labels) - index.labels.keys() - index.unread:
            yield Problem(file, f"{key}.labels", f"label {label!r} is not declared; {name_hint(label, index.labels)}")


def _label_values(index: EntryIndex) -> Iterator[Problem]:
    for name, spec in index.labels.items():
        file, key = index.places[f"label {name}"]
        if spec.metric is None or spec.metric in index.unread:
            continue
        metric = index.metrics.get(spec.metric)
        if metric is None:
            yield Problem(
                file, f"{key}.metric", f"no metric {spec.metric!r} in the catalogue; {name_hint(spec.metric, index.metrics)}"
            )
        elif name not in metric.entry.labels:
            have = [one.name for one in index.metrics.values() if name in one.entry.labels]
            yield Problem(file, f"{key}.metric", f"{spec.metric} has no label {name}; {name_hint(spec.metric, have)}")


def _duplicate_gauges(index: EntryIndex) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for metric in index.metrics.values():
        if metric.entry.export is None:
            continue
        gauge = metric.entry.export.name
        other = first.setdefault(gauge, metric.name)
        if other != metric.name:
            file, key = index.places[metric.name]
            yield Problem(file, f"{key}.export.name", f"{gauge} is the gauge of {other} already; each needs its own")
