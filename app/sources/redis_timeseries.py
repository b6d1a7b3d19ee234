"""Reads of RedisTimeSeries, where the server has it: the server itself makes one value per bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from app.model import Frame, Places
from app.sources.base import Name
from app.sources.redis_fold import Aggregate, Rows, Rule, fold
from app.sources.redis_parse import numbers, text
from app.sources.redis_reads import ID, Asking, KeyRead, Text, cut, placed, told, unparsed
from app.sources.redis_wire import Reply


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

    async def answer(self, asking: Asking) -> Frame:
        """Two pipelines: the index, then all ranges."""
        ids = [b""] if self.index is None else (await asking.wire.ask([("ZUNION", 1, asking.key(self.index))]))[0]
        notices = [cut(self.index or "", asking.max_members, "max_members")] if len(ids) > asking.max_members else []
        ids = ids[-asking.max_members :]
        where = placed(self._labels(ids, asking), len(ids), asking.statement.labels, asking.statement.where)
        whole = asking.statement.range
        bounds = (whole.from_ms, whole.to_ms - 1, "ALIGN", 0, "AGGREGATION", self.over_time, whole.step_ms)
        commands = [("TS.RANGE", asking.key(self.key, ids[row]), *bounds) for row in where.keep]
        replies = await asking.wire.ask(commands, missing=("key does not exist",))
        rows, bad = self._rows(replies, where.place)
        runs = fold(rows, where.label_sets, Rule(self.aggregate, self.quantile, asking.seconds))
        return told(runs, (*notices, *unparsed(self.key, "value", bad)))

    def _labels(self, ids: Sequence[bytes], asking: Asking) -> Mapping[str, Sequence[str]]:
        names = [text(ident) for ident in ids]
        return {
            label: names if self.word(label) == ID else [self.constants.get(label, "")] * len(names)
            for label in asking.used_labels
        }

    def _rows(self, replies: Sequence[Reply], place: Places) -> tuple[Rows, int]:
        points = [reply or [] for reply in replies]
        times = np.array([at for reply in points for at, _ in reply], dtype=np.int64)
        values, bad = numbers([value for reply in points for _, value in reply])
        places = np.repeat(place, [len(reply) for reply in points])
        return Rows(times, places, values * self.scale, np.ones(len(values))), bad

    def problems(self) -> Iterator[tuple[str, str]]:
        """The template and the index belong together; labels come from the id."""
        if ("{id}" in self.key) != (self.index is not None):
            yield "key", "{id} and `index` belong together; give both or neither"
        if self.aggregate in ("ratio", "rate"):
            yield "aggregate", "allowed: sum, avg, min, max, count, quantile"
        for label, word in self.labels.items():
            if word != ID:
                yield f"labels.{label}", f"{word!r}: a time series has no fields; allowed: {ID}, or `constants`"
