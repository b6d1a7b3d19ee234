"""Data inside the bridge: a Frame of columns, what its source says of it, and where it comes from.

Times are integer UTC milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

#: The labels of one series, sorted by name.
Labels = tuple[tuple[str, str], ...]

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark for the person who looks at the panel."""

    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class Remarks:
    """What a source says of its answer: notices for people, and for the program whether something is missing.

    The severity of a notice decides nothing.
    """

    notices: tuple[Notice, ...] = ()
    partial: bool = False

    def __add__(self, other: Remarks) -> Remarks:
        """The remarks of both, each notice once."""
        notices = tuple(dict.fromkeys((*self.notices, *other.notices)))
        return Remarks(notices, self.partial or other.partial)


NO_REMARKS = Remarks()


def gap_remark(text: str) -> Remarks:
    """The remark that something is missing from the figures."""
    return Remarks((Notice("warning", text),), partial=True)


_NO_TIMES: Times = np.empty(0, dtype=np.int64)
_NO_VALUES: Values = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a frame comes from and how long it may be used again. The policies write it; a source knows nothing of it."""

    #: when the source was asked, epoch ms; 0 until a policy has noted it
    asked_ms: int = 0
    #: until when it may be served again as fresh, epoch ms; None where it may not
    fresh_until_ms: int | None = None
    #: why an older answer stands in for the one that was asked for; None for that one itself
    stale: str | None = None
    #: until when its settled buckets may be reused in a later answer, epoch ms; 0 never
    reusable_until_ms: int = 0
    #: some of its buckets were reused from an earlier answer
    incremental: bool = False

    def is_fresh(self, now_ms: int) -> bool:
        """Whether it may be served again. After the clock was set back nothing from the future is fresh."""
        return self.fresh_until_ms is not None and self.asked_ms <= now_ms < self.fresh_until_ms


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Columns of equal length, and what their source says of them. Rows of one series stand together, ascending and unique in
    time.

    `series[i]` holds the labels of rows `offsets[i]` to `offsets[i + 1]`; series are sorted by their labels. NaN is null ("known
    to have no value"), a missing row is "no data". `text` carries further columns (events).
    """

    time: Times = field(default_factory=lambda: _NO_TIMES)
    value: Values = field(default_factory=lambda: _NO_VALUES)
    series: tuple[Labels, ...] = ()
    offsets: tuple[int, ...] = (0,)
    text: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    #: the data is complete up to this instant, where the source knows one (a snapshot's time)
    covers_to_ms: int | None = None
    #: the data is complete from this instant on, where that lies inside the asked range (a stream that was trimmed)
    covers_from_ms: int | None = None
    #: the source knows that something is missing; no remark says that by itself
    partial: bool = False
    #: why the source answered from an older copy of its data, the one of `covers_to_ms`; None for its newest
    older_copy: str | None = None
    #: how far the store's clock was behind the bridge's; 0 where that is not much
    behind_ms: int = 0
    #: when the oldest state behind the present value of a series was written (epoch ms), where the source knows it
    written_ms: Mapping[Labels, int] = field(default_factory=dict)
    #: beside the values of a mean: how much is behind each (a count, a denominator); empty elsewhere
    weight: Values = field(default_factory=lambda: _NO_VALUES)
    provenance: Provenance = Provenance()

    def __len__(self) -> int:
        return len(self.time)

    @property
    def size_bytes(self) -> int:
        """The approximate memory of the frame."""
        text = sum(len(cell or "") + 50 for column in self.text.values() for cell in column)
        labels = sum(len(name) + len(value) + 100 for labels in (*self.series, *self.written_ms) for name, value in labels)
        return self.time.nbytes + self.value.nbytes + self.weight.nbytes + text + labels + 500

    def runs(self) -> Iterator[tuple[Labels, Times, Values]]:
        """Each series as (labels, times, values); the arrays are views."""
        for index, labels in enumerate(self.series):
            rows = slice(self.offsets[index], self.offsets[index + 1])
            yield labels, self.time[rows], self.value[rows]

    def select(self, keep: Flags) -> Frame:
        """The rows where `keep` is true, without series that have none."""
        return self.at(np.flatnonzero(keep))

    def at(self, rows: Indices) -> Frame:
        """The rows at these ascending indices, without series that have none."""
        kept_before = np.searchsorted(rows, self.offsets)
        filled = np.flatnonzero(kept_before[1:] != kept_before[:-1])
        return replace(
            self,
            time=self.time[rows],
            value=self.value[rows],
            weight=self.weight[rows] if len(self.weight) else self.weight,
            series=self.series if len(filled) == len(self.series) else tuple(self.series[index] for index in filled.tolist()),
            offsets=(0, *kept_before[filled + 1].tolist()),
            text={name: tuple(np.asarray(column, dtype=object)[rows]) for name, column in self.text.items()},
        )

    def with_provenance(self, **changes: Any) -> Frame:
        """The same frame with these fields of its provenance changed."""
        return replace(self, provenance=replace(self.provenance, **changes))

    def remark(self, *notices: Notice) -> Frame:
        """The same frame with further notices, each once."""
        if not notices:
            return self
        return replace(self, notices=tuple(dict.fromkeys((*self.notices, *notices))))


def frame_of_runs(runs: Sequence[tuple[Labels, Times, Values]], **rest: Any) -> Frame:
    """Series in any order as one frame, without empty ones. Values of two columns are values and their weights."""
    kept = sorted((run for run in runs if len(run[1])), key=lambda run: run[0])
    if not kept:
        return Frame(**rest)
    lengths = np.cumsum([0, *(len(times) for _, times, _ in kept)])
    value = np.concatenate([values for _, _, values in kept])
    weight = _NO_VALUES
    if value.ndim == 2:
        value, weight = np.ascontiguousarray(value[:, 0]), np.ascontiguousarray(value[:, 1])
    return Frame(
        time=np.concatenate([times for _, times, _ in kept]),
        value=value,
        weight=weight,
        series=tuple(labels for labels, _, _ in kept),
        offsets=tuple(int(length) for length in lengths),
        **rest,
    )


def frame_of_parts(parts: Iterable[tuple[Labels, Times, Values]], **rest: Any) -> Frame:
    """Series in pieces, in any order, as one frame. Where a label set has the same time twice, the last one wins."""
    kept: dict[Labels, list[tuple[Times, Values]]] = {}
    for labels, times, values in parts:
        kept.setdefault(labels, []).append((times, values))
    runs = [(labels, *_merge_pieces(pieces)) for labels, pieces in kept.items()]
    return frame_of_runs(runs, **rest)


def _merge_pieces(pieces: Sequence[tuple[Times, Values]]) -> tuple[Times, Values]:
    """The pieces sorted by time; of equal times the last one."""
    if len(pieces) == 1 and (pieces[0][0][1:] > pieces[0][0][:-1]).all():
        return pieces[0]
    times, values = np.concatenate([one for one, _ in pieces]), np.concatenate([one for _, one in pieces])
    if (times[1:] > times[:-1]).all():
        return times, values
    order = np.argsort(times, kind="stable")
    times = times[order]
    last = np.append(times[1:] != times[:-1], True)
    return times[last], values[order][last]
