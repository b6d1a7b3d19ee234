"""Reads of sizes: members of sets and lists, entries of a stream, the backlog of a consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from app.documents.schema import Name
from app.model import NO_REMARKS, Frame, Remarks, gap_remark
from app.sources.redis.aggregation import Aggregation, Rows, aggregate_rows
from app.sources.redis.connections import Reply
from app.sources.redis.parse import pairs
from app.sources.redis.reads import KeyRead, ReadContext, Text, expect_reply, group_rows

_COMMANDS: Mapping[str, str] = {"set": "SCARD", "zset": "ZCARD", "stream": "XLEN", "list": "LLEN"}


def _frame_of_sizes(
    sizes: Sequence[float], labels: Sequence[Mapping[Name, str]], context: ReadContext, remarks: Remarks = NO_REMARKS
) -> Frame:
    """The sizes at the open bucket, summed over the labels that are not kept."""
    columns = {label: [known.get(label, "") for known in labels] for label in context.used_labels}
    where = group_rows(columns, len(sizes), context.statement.labels, context.statement.where)
    value = np.array(sizes, dtype=np.float64)[where.keep]
    rows = Rows(np.full(len(value), context.open_ms), where.place, value, np.ones(len(value)))
    return aggregate_rows(rows, where.label_sets, Aggregation("sum", 0.5, context.bucket_seconds), remarks)


class SizeRead(KeyRead):
    """How many members some keys have, now; a missing key has none. Summed over the labels that are not kept.

    live: {source: ris, read: size, type: set,
           sizes: {"instance:state:running": {state: running}, "instance:state:crashed": {state: crashed}}}
    """

    ranged: ClassVar[bool] = False

    read: Literal["size"] = "size"
    type: Literal["set", "zset", "stream", "list"] = "set"
    sizes: dict[str, dict[Name, Text]] = Field(min_length=1)

    async def answer(self, context: ReadContext) -> Frame:
        """One point per label set at the open bucket."""
        if not context.statement.now_ms:
            return Frame()
        sizes = await context.connections.ask([(_COMMANDS[self.type], context.key(key)) for key in self.sizes])
        return _frame_of_sizes(sizes, list(self.sizes.values()), context)


class StreamRead(KeyRead):
    """A stream's length, or the position of a consumer group in it, now. `backlog` = lag (not read) + pending (read, not done).

    live: {source: rtss, read: stream, stream: trade_signals, group: executors, stat: backlog, constants: {group: executors}}

    A missing stream or group gives null and a partial answer, and so does a lag that Redis does not know (after entries in the
    middle were deleted).
    """

    ranged: ClassVar[bool] = False

    read: Literal["stream"] = "stream"
    stream: str
    group: str = ""
    stat: Literal["length", "lag", "pending", "backlog"] = "length"
    constants: dict[Name, Text] = Field(default_factory=dict)

    async def answer(self, context: ReadContext) -> Frame:
        """One point at the open bucket."""
        if not context.statement.now_ms:
            return Frame()
        key = context.key(self.stream)
        if self.stat == "length":
            return _frame_of_sizes(await context.connections.ask([("XLEN", key)]), [self.constants], context)
        groups, stream = await context.connections.ask(
            [("XINFO", "GROUPS", key), ("XINFO", "STREAM", key)], missing=("no such key",)
        )
        with expect_reply(context.statement.source, "XINFO"):
            size, trouble = self._group_stat(groups, stream)
        return _frame_of_sizes([size], [self.constants], context, gap_remark(trouble) if trouble else NO_REMARKS)

    def _group_stat(self, groups: Reply, stream: Reply) -> tuple[float, str]:
        if groups is None or stream is None:
            return np.nan, f"{self.stream}: there is no such stream"
        found = [group for group in map(pairs, groups) if group[b"name"] == self.group.encode()]
        if not found:
            return np.nan, f"{self.stream}: there is no consumer group {self.group}"
        pending, lag = float(found[0][b"pending"]), _group_lag(found[0], pairs(stream))
        size = {"pending": pending, "lag": lag, "backlog": lag + pending}[self.stat]
        return size, f"{self.stream}: Redis does not know the lag of group {self.group}" if np.isnan(size) else ""

    def problems(self) -> Iterator[tuple[str, str]]:
        """The figures of a group need the group's name."""
        if self.stat != "length" and not self.group:
            yield "group", f"is needed for {self.stat}"


def _group_lag(group: Mapping[bytes, Reply], stream: Mapping[bytes, Reply]) -> float:
    """Entries that the group has not read. Without Redis' own lag it is known at both ends of the stream only, else NaN."""
    lag = group.get(b"lag")
    if lag is not None:
        return float(lag)
    delivered = _entry_order(group[b"last-delivered-id"])
    if delivered >= _entry_order(stream[b"last-generated-id"]):
        return 0.0
    first = stream[b"first-entry"]
    return float(stream[b"length"]) if not first or delivered < _entry_order(first[0]) else np.nan


def _entry_order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)
