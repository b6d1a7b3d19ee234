"""Reads of the RedisTimeSeries module: the server itself computes one value per bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from app.cooperative import run_apart
from app.documents.schema import Name
from app.model import NO_REMARKS, Frame, Indices
from app.sources.redis.aggregation import Aggregate, Aggregation, Rows, aggregate_rows, join_rows
from app.sources.redis.connections import Command, Reply
from app.sources.redis.parse import numbers, text
from app.sources.redis.reads import (
    ID,
    KeyRead,
    ReadContext,
    Text,
    ask_indexes,
    expect_reply,
    group_rows,
    truncated_remark,
    union_command,
    unparsed_remark,
)
from app.sources.redis.rounds import Slices, ask_parts, slice_evenly


class TimeSeriesRead(KeyRead):
    """Time series by a key template over an index (or one key, without `{id}` and index), one TS.RANGE each in one pipeline.

    live: {source: rts, read: timeseries, index: "account_state:index", key: "ts:equity:{id}", over_time: last,
           aggregate: sum, labels: {account: $id}}

    `over_time` is the server's aggregation in buckets aligned to the epoch, `aggregate` that over several series. Labels are
    `$id` or `constants`. A key that does not exist is skipped. SourceRejected where the server does not have the module.
    """

    read: Literal["timeseries"] = "timeseries"
    key: str
    index: str | None = None
    over_time: Literal["last", "avg", "min", "max", "sum", "count"] = "last"
    aggregate: Aggregate = "sum"
    quantile: float = Field(0.95, ge=0, le=1)
    scale: float = 1.0
    constants: dict[Name, Text] = Field(default_factory=dict)

    async def answer(self, context: ReadContext) -> Frame:
        """The index, then all ranges: in one pipeline, or where they are many in rounds."""
        ids = [b""] if self.index is None else (await ask_indexes(context, [union_command(context.key(self.index))]))[0]
        cut_short = len(ids) > context.max_members
        remarks = truncated_remark(self.index or "", context.max_members, "max_members") if cut_short else NO_REMARKS
        ids = ids[-context.max_members :]
        where = group_rows(self._label_columns(ids, context), len(ids), context.statement.labels, context.statement.where)
        ranges = _Ranges(self, [ids[row] for row in where.keep], where.place, context)
        await ask_parts(context.connections, ranges, missing=("key does not exist",))
        rule = Aggregation(self.aggregate, self.quantile, context.bucket_seconds)
        remarks += unparsed_remark(self.key, "value", ranges.bad)
        return await run_apart(lambda: aggregate_rows(ranges.all_rows(), where.label_sets, rule, remarks), ranges.count)

    def _label_columns(self, ids: Sequence[bytes], context: ReadContext) -> Mapping[str, Sequence[str]]:
        names = [text(ident) for ident in ids]
        return {
            label: names if self.word(label) == ID else [self.constants.get(label, "")] * len(names)
            for label in context.used_labels
        }

    def problems(self) -> Iterator[tuple[str, str]]:
        """The template and the index belong together; labels come from the id or from constants."""
        if ("{id}" in self.key) != (self.index is not None):
            yield "key", "{id} and `index` belong together; give both or neither"
        if self.aggregate in ("ratio", "rate"):
            yield "aggregate", "allowed: sum, avg, min, max, count, quantile"
        for label, word in self.labels.items():
            if word != ID:
                yield f"labels.{label}", f"{word!r}: a time series has no fields; allowed: {ID}, or `constants`"


class _Ranges:
    """The values of all series, a row each. A `Part` of an asking."""

    def __init__(self, read: TimeSeriesRead, ids: Sequence[bytes], place: Indices, context: ReadContext) -> None:
        whole = context.statement.range
        self._bounds = (whole.from_ms, whole.to_ms - 1, "ALIGN", whole.origin_ms, "AGGREGATION", read.over_time, whole.step_ms)
        self._template = context.full_template(read.key)
        self._source = context.statement.source
        self._scale = read.scale
        self._ids = ids
        self._place = place
        self._pieces: list[Rows] = []
        self.count = len(ids)
        self.cells = 2 * len(whole)
        self.bad = 0

    def command_at(self, index: int) -> Command:
        """The command for one series."""
        return ("TS.RANGE", self._template.replace(b"{id}", self._ids[index]), *self._bounds)

    def take_replies(self, first: int, replies: Sequence[Reply]) -> Slices:
        """Handle the replies for the series from `first` on; None is a series that does not exist."""
        for part in slice_evenly(len(replies), self.cells):
            with expect_reply(self._source, "TS.RANGE"):
                yield self._take_slice(first + part.start, [reply or [] for reply in replies[part]])

    def _take_slice(self, first: int, points: Sequence[Sequence[Reply]]) -> int:
        times = np.array([at for reply in points for at, _ in reply], dtype=np.int64)
        values, bad = numbers([value for reply in points for _, value in reply])
        places = np.repeat(self._place[first : first + len(points)], [len(reply) for reply in points])
        self._pieces.append(Rows(times, places, values * self._scale, np.ones(len(values))))
        self.bad += bad
        return 2 * len(times) + len(points)

    def all_rows(self) -> Rows:
        """All pieces."""
        return join_rows(self._pieces)
