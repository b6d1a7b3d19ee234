"""Reads of the RedisTimeSeries module: the server itself computes one value per bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from app.documents.schema import Name
from app.model import NO_REMARKS, Frame, Indices
from app.sources.redis.aggregation import Aggregate, Aggregation, Rows, aggregate_rows
from app.sources.redis.connections import Reply
from app.sources.redis.parse import numbers, text
from app.sources.redis.reads import (
    ID,
    KeyRead,
    ReadContext,
    Text,
    ask_indexes,
    expect_reply,
    frame_from_runs,
    group_rows,
    truncated_remark,
    union_command,
    unparsed_remark,
)


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
        """Two pipelines: the index, then all ranges."""
        ids = [b""] if self.index is None else (await ask_indexes(context, [union_command(context.key(self.index))]))[0]
        cut_short = len(ids) > context.max_members
        remarks = truncated_remark(self.index or "", context.max_members, "max_members") if cut_short else NO_REMARKS
        ids = ids[-context.max_members :]
        where = group_rows(self._label_columns(ids, context), len(ids), context.statement.labels, context.statement.where)
        whole = context.statement.range
        bounds = (whole.from_ms, whole.to_ms - 1, "ALIGN", whole.origin_ms, "AGGREGATION", self.over_time, whole.step_ms)
        commands = [("TS.RANGE", context.key(self.key, ids[row]), *bounds) for row in where.keep]
        replies = await context.connections.ask(commands, missing=("key does not exist",))
        with expect_reply(context.statement.source, "TS.RANGE"):
            rows, bad = self._rows_of(replies, where.place)
        runs = aggregate_rows(rows, where.label_sets, Aggregation(self.aggregate, self.quantile, context.bucket_seconds))
        return frame_from_runs(runs, remarks + unparsed_remark(self.key, "value", bad))

    def _label_columns(self, ids: Sequence[bytes], context: ReadContext) -> Mapping[str, Sequence[str]]:
        names = [text(ident) for ident in ids]
        return {
            label: names if self.word(label) == ID else [self.constants.get(label, "")] * len(names)
            for label in context.used_labels
        }

    def _rows_of(self, replies: Sequence[Reply], place: Indices) -> tuple[Rows, int]:
        points = [reply or [] for reply in replies]
        times = np.array([at for reply in points for at, _ in reply], dtype=np.int64)
        values, bad = numbers([value for reply in points for _, value in reply])
        places = np.repeat(place, [len(reply) for reply in points])
        return Rows(times, places, values * self.scale, np.ones(len(values))), bad

    def problems(self) -> Iterator[tuple[str, str]]:
        """The template and the index belong together; labels come from the id or from constants."""
        if ("{id}" in self.key) != (self.index is not None):
            yield "key", "{id} and `index` belong together; give both or neither"
        if self.aggregate in ("ratio", "rate"):
            yield "aggregate", "allowed: sum, avg, min, max, count, quantile"
        for label, word in self.labels.items():
            if word != ID:
                yield f"labels.{label}", f"{word!r}: a time series has no fields; allowed: {ID}, or `constants`"
