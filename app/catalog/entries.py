"""The models of a catalogue file, and the catalogue that the files make together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator

from app.catalog.units import is_unit, nearest_units
from app.documents.nearest import name_hint
from app.documents.schema import Name, Strict
from app.errors import UnknownName
from app.model import MERGEABLE, CacheTimes, Parts, Statement
from app.sources.base import Read
from app.sources.off import OffRead

#: How values of several label sets become one. `quantile` and `ratio` are computed over all of them, never from parts.
Aggregate = Literal["sum", "avg", "min", "max", "count", "quantile", "ratio"]

#: The value of a bucket: `last` for a sampled quantity, else a figure over everything that happened in the bucket.
OverTime = Literal["last", "sum", "avg", "max", "rate", "quantile", "ratio"]


#: the units of an age, and what one second is in each
AGE_UNITS: Mapping[str, float] = {
    **dict.fromkeys(("s", "dtdurations", "dthms", "clocks"), 1.0),
    **dict.fromkeys(("ms", "dtdurationms", "clockms"), 1000.0),
    "m": 1 / 60,
    "h": 1 / 3600,
    "d": 1 / 86_400,
}


class Label(Strict):
    """A dimension that metrics share. Its values are those that a metric has now, or a fixed list."""

    title: str
    metric: Name | None = Field(None, description="the metric whose series show this label's values")
    values: tuple[str, ...] = ()


class Export(Strict):
    """The gauge in `GET /metrics` that shows the present value of the metric to Prometheus."""

    name: str = Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
    by: tuple[Name, ...] = ()
    scale: float = 1.0


class CacheEntry(Strict):
    """Cache times of one metric, in place of those in the `policy:` of its sources."""

    fresh_s: float | None = Field(None, ge=0, le=3600, description="how long an answer is served again; 0 asks every time")
    stale_s: float | None = Field(None, ge=0, le=86_400, description="how old an answer may be that stands in, marked; 0 never")
    volatile_s: float | None = Field(None, ge=0, le=86_400, description="how long after its end a bucket may still change")

    def times(self) -> CacheTimes:
        """As a statement carries them."""
        return CacheTimes(self.fresh_s, self.stale_s, self.volatile_s)


class MetricEntry(Strict):
    """One metric as the file has it. Its reads are plain mappings yet: their model depends on the kind of the source."""

    title: str
    short: str = Field("", description="the title of a narrow column; left out: the title without its remark in brackets")
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
    age: bool | None = Field(
        None,
        description="true: it tells how old something is and grows while an answer is kept; left out: where a read has `age_of`",
    )
    zeros: bool = Field(
        False,
        description="true: a bucket in which nothing happened is 0, where a store has seen all of it; for counts and totals",
    )
    least: int = Field(1, ge=1, description="an average or ratio of fewer answers than that in a bucket is null")
    cache: CacheEntry | None = None
    export: Export | None = None

    @property
    def short_title(self) -> str:
        """The title of a narrow column."""
        return self.short or self.title.split(" (")[0]

    @field_validator("unit")
    @classmethod
    def _is_grafanas(cls, unit: str) -> str:
        if not is_unit(unit):
            raise ValueError(f"{unit[:60]!r} is no unit of Grafana's; {nearest_units(unit)}")
        return unit


class EventEntry(Strict):
    """One kind of event (annotations): a read that yields time, title, text and more.

    If the read yields `time_end` (epoch ms), it must also return events that began before the range and ended in it or later.
    """

    title: str
    description: str
    labels: tuple[Name, ...] = ()
    read: dict[str, Any]


class CatalogueFile(Strict):
    """One file: a group of metrics, with its labels and events."""

    group: Name
    title: str
    labels: dict[Name, Label] = Field(default_factory=dict)
    metrics: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    events: dict[Name, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with checked reads."""

    name: str
    group: str
    entry: MetricEntry
    history: Read | None = None
    live: Read | None = None
    fallback: tuple[Read, ...] = ()

    @property
    def sampled(self) -> bool:
        """Whether the value of a bucket is a sample, so that a finer step shows more of the same quantity."""
        return self.entry.over_time == "last"

    @property
    def accumulates(self) -> bool:
        """Whether the value of the open bucket can grow until the bucket closes."""
        return self.entry.over_time == "sum"

    @property
    def live_is_ranged(self) -> bool:
        """Whether the live read can answer for a range of buckets."""
        return self.live is not None and self.live.ranged

    @property
    def part_merge(self) -> Parts:
        """How the history part and the live part of one bucket become one value."""
        if self.sampled:
            return "last"
        return (self.history.given_parts if self.history is not None else None) or "none"

    @property
    def is_age(self) -> bool:
        """Whether the value is an age, which grows while an answer is kept."""
        if self.entry.age is not None:
            return self.entry.age
        return any(read.gives_age for read in (self.history, self.live, *self.fallback) if read is not None)

    @property
    def age_scale(self) -> float:
        """What an age of one second is in the metric's unit; 0 where the unit is none of time."""
        return AGE_UNITS.get(self.entry.unit, 0.0)

    @property
    def counts_answers(self) -> bool:
        """Whether it is an average or a ratio, and each of its reads says how many answers are behind a value. A read of a source
        that is switched off gives no value at all."""
        reads = [read for read in (self.history, self.live, *self.fallback) if read is not None]
        return not self.sampled and all(read.given_parts == "mean" for read in reads if not isinstance(read, OffRead))

    @property
    def joins_inside(self) -> bool:
        """Whether history and live edge may share a bucket."""
        return self.live_is_ranged and self.part_merge in MERGEABLE and self.history is not None and self.history.cuts_buckets

    def begins_statement(self) -> Statement | None:
        """The question from when on the history has data at all; None where zeros are not wanted or the read cannot tell."""
        return self.history.begins_statement(self.name) if self.entry.zeros and self.history is not None else None

    def export_text(self) -> str:
        """How the gauge in `GET /metrics` relates to the values of the API; empty if there is no gauge."""
        export = self.entry.export
        if export is None:
            return ""
        scaled = f", times {export.scale:g}" if export.scale != 1 else ""
        return f"the bridge's {self.name}, unit {self.entry.unit}{scaled}"

    def require_labels(self, labels: Iterable[str], field_name: str) -> None:
        """Raise UnknownName, with the nearest names, for the first label that this metric does not have."""
        for label in labels:
            if label not in self.entry.labels:
                raise unknown_name_error(f"{field_name}: metric {self.name}: label", label, self.entry.labels)


@dataclass(frozen=True, slots=True)
class Event:
    """A kind of event with a checked read."""

    name: str
    group: str
    entry: EventEntry
    read: Read


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All metrics, events and labels."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    events: Mapping[str, Event] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def metric(self, name: str, field_name: str = "metric") -> Metric:
        """The metric of that name or alias. Raises UnknownName with the nearest names."""
        found = self.metrics.get(self.aliases.get(name, name))
        if found is None:
            described = {known: f"{one.entry.title} {one.entry.description}" for known, one in self.metrics.items()}
            raise unknown_name_error(f"{field_name}: metric", name, dict.fromkeys(self.aliases, "") | described)
        return found

    def labels_of(self, names: Iterable[str]) -> dict[str, None]:
        """The labels of the named metrics, each once. Unknown names are skipped."""
        found = (self.metrics.get(self.aliases.get(name, name)) for name in names)
        return dict.fromkeys(label for metric in found if metric for label in metric.entry.labels)

    def event(self, name: str, field_name: str = "event") -> Event:
        """The kind of event of that name. Raises UnknownName with the nearest names."""
        if name not in self.events:
            raise unknown_name_error(
                f"{field_name}: event", name, {known: event.entry.title for known, event in self.events.items()}
            )
        return self.events[name]

    def label(self, name: str, field_name: str = "label") -> Label:
        """The label of that name. Raises UnknownName with the nearest names."""
        if name not in self.labels:
            titles = {known: label.title for known, label in self.labels.items()}
            raise unknown_name_error(f"{field_name}: label", name, titles)
        return self.labels[name]


def unknown_name_error(what: str, name: str, allowed: Iterable[str] | Mapping[str, str]) -> UnknownName:
    """The error for an unknown name. It lists the nearest names, or all allowed ones.

    Names are compared by spelling. If `allowed` is a mapping, the description of each name is searched, too.
    """
    words = allowed if isinstance(allowed, Mapping) else None
    return UnknownName(f"{what} {name[:60]!r} is not known; {name_hint(name, allowed, words)}")
