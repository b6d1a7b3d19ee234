"""What a catalogue file may say, and the catalogue that the files make together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from app.errors import UnknownName
from app.sources.base import Name, Read, Strict

#: How values of several label sets become one (`quantile` and `ratio` are computed over the union, never from parts).
Aggregate = Literal["sum", "avg", "min", "max", "count", "quantile", "ratio"]

#: What one bucket's value is: `last` for a sampled quantity, else a figure of everything that happened in the bucket.
OverTime = Literal["last", "sum", "avg", "max", "rate", "quantile", "ratio"]


#: What no label can be called: a label's name is a parameter of `/v1/rows` and a column of its answer, beside these.
_PARAMETERS = ("metric", "from", "to", "step", "by", "where", "instant", "maxDataPoints", "refId", "timeout", "label", "name")
_FORMS = ("shape", "format", "limit", "cursor", "marks")
RESERVED = frozenset((*_PARAMETERS, *_FORMS, "time", "value", "status", "age_s"))


class Label(Strict):
    """A dimension that metrics share. Its values are those that a metric shows now, or a fixed list."""

    title: str
    metric: Name | None = Field(None, description="the metric whose series show this label's values")
    values: tuple[str, ...] = ()


class Export(Strict):
    """The gauge under which `GET /metrics` shows the metric's present value to Prometheus."""

    name: str = Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
    by: tuple[Name, ...] = ()
    scale: float = 1.0


class MetricEntry(Strict):
    """One metric as the file has it; its reads are still plain mappings, their model depends on the kind of their source."""

    title: str
    description: str
    unit: str = Field(description="a Grafana unit id: short, percent, s, ms, bytes, currencyUSD, cps, ...")
    aggregate: Aggregate
    over_time: OverTime
    labels: tuple[Name, ...] = ()
    history: dict[str, Any] | None = None
    live: dict[str, Any] | None = None
    fallback: tuple[dict[str, Any], ...] = ()
    aliases: tuple[Name, ...] = ()
    resolution_s: int = Field(1, ge=1, le=3600, description="steps are multiples of this: how often the data comes")
    settle_s: int = Field(5, ge=0, le=3600, description="how long after a bucket's end its rows may still arrive in the history")
    export: Export | None = None


class EventEntry(Strict):
    """One kind of event (annotations): a read that yields time, title, text and more."""

    title: str
    description: str
    labels: tuple[Name, ...] = ()
    read: dict[str, Any]


class CatalogueFile(Strict):
    """One file: a group of metrics, the labels it introduces, its events."""

    group: Name
    title: str
    labels: dict[Name, Label] = Field(default_factory=dict)
    metrics: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    events: dict[Name, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, its reads checked."""

    name: str
    group: str
    entry: MetricEntry
    history: Read | None = None
    live: Read | None = None
    fallback: tuple[Read, ...] = ()

    @property
    def sampled(self) -> bool:
        """True where a bucket's value is a sample, so that a finer step shows more of the same quantity."""
        return self.entry.over_time == "last"

    @property
    def accumulates(self) -> bool:
        """True where the open bucket's value is bound to grow until it closes."""
        return self.entry.over_time == "sum"

    def known(self, labels: Iterable[str], field_name: str) -> None:
        """Raise UnknownName, with the nearest names, for a label that this metric does not have."""
        for label in labels:
            if label not in self.entry.labels:
                raise unknown(f"{field_name}: metric {self.name}: label", label, self.entry.labels)


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of event, its read checked."""

    name: str
    group: str
    entry: EventEntry
    read: Read


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that can be asked for."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    events: Mapping[str, Event] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def metric(self, name: str, field_name: str = "metric") -> Metric:
        """The metric of that name or alias. Raises UnknownName with the nearest names."""
        found = self.metrics.get(self.aliases.get(name, name))
        if found is None:
            raise unknown(f"{field_name}: metric", name, (*self.metrics, *self.aliases))
        return found

    def event(self, name: str, field_name: str = "event") -> Event:
        """The kind of event of that name. Raises UnknownName with the nearest names."""
        if name not in self.events:
            raise unknown(f"{field_name}: event", name, self.events)
        return self.events[name]

    def label(self, name: str, field_name: str = "label") -> Label:
        """The label of that name. Raises UnknownName with the nearest names."""
        if name not in self.labels:
            raise unknown(f"{field_name}: label", name, self.labels)
        return self.labels[name]


def unknown(what: str, name: str, allowed: Iterable[str]) -> UnknownName:
    """The error for a name that nobody declared: says which names are near, or which there are."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return UnknownName(f"{what} {name[:60]!r} is not known; nearest: {', '.join(near)}")
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return UnknownName(f"{what} {name[:60]!r} is not known; allowed: {listed or 'none'}")
