"""Reads of how much there is: members of sets and lists, entries of a stream, what a consumer group has still to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from app.model import Frame, Notice, frame_of_runs
from app.sources.base import Name
from app.sources.redis_fold import Rows, Rule, fold
from app.sources.redis_parse import pairs
from app.sources.redis_reads import Asking, KeyRead, Text, placed
from app.sources.redis_wire import Reply

_COMMANDS: Mapping[str, str] = {"set": "SCARD", "zset": "ZCARD", "stream": "XLEN", "list": "LLEN"}


def _frame(sizes: Sequence[float], labels: Sequence[Mapping[Name, str]], asking: Asking, *notices: Notice) -> Frame:
    """The sizes at the open bucket, summed over the labels that are not kept."""
    columns = {label: [known.get(label, "") for known in labels] for label in asking.used_labels}
    where = placed(columns, len(sizes), asking.statement.labels, asking.statement.where)
    value = np.array(sizes, dtype=np.float64)[where.keep]
    rows = Rows(np.full(len(value), asking.open_ms), where.place, value, np.ones(len(value)))
    return frame_of_runs(fold(rows, where.label_sets, Rule("sum", 0.5, asking.seconds)), notices=notices)


class SizeRead(KeyRead):
    """How many members some keys hold, now; a key that does not exist holds none. Summed over the labels that are not kept.

    live: {source: ris, read: size, type: set,
           sizes: {"instance:state:running": {state: running}, "instance:state:crashed": {state: crashed}}}
    """

    ranged: ClassVar[bool] = False

    read: Literal["size"] = "size"
    type: Literal["set", "zset", "stream", "list"] = "set"
    sizes: dict[str, dict[Name, Text]] = Field(min_length=1)

    async def answer(self, asking: Asking) -> Frame:
        """One point per label set at the open bucket."""
        if not asking.statement.now_ms:
            return Frame()
        sizes = await asking.wire.ask([(_COMMANDS[self.type], asking.key(key)) for key in self.sizes])
        return _frame(sizes, list(self.sizes.values()), asking)


class StreamRead(KeyRead):
    """A stream's length, or where a consumer group stands in it, now. `backlog` = lag (not yet read) + pending (read, not done).

    live: {source: rtss, read: stream, stream: trade_signals, group: executors, stat: backlog, constants: {group: executors}}

    A stream or group that does not exist is null with a warning, and so is a lag that Redis itself does not know (after entries
    in the middle were deleted).
    """

    ranged: ClassVar[bool] = False

    read: Literal["stream"] = "stream"
    stream: str
    group: str = ""
    stat: Literal["length", "lag", "pending", "backlog"] = "length"
    constants: dict[Name, Text] = Field(default_factory=dict)

    async def answer(self, asking: Asking) -> Frame:
        """One point at the open bucket."""
        if not asking.statement.now_ms:
            return Frame()
        key = asking.key(self.stream)
        if self.stat == "length":
            return _frame(await asking.wire.ask([("XLEN", key)]), [self.constants], asking)
        groups, stream = await asking.wire.ask([("XINFO", "GROUPS", key), ("XINFO", "STREAM", key)], missing=("no such key",))
        size, trouble = self._stat(groups, stream)
        return _frame([size], [self.constants], asking, *([Notice("warning", trouble)] if trouble else []))

    def _stat(self, groups: Reply, stream: Reply) -> tuple[float, str]:
        if groups is None or stream is None:
            return np.nan, f"{self.stream}: there is no such stream"
        found = [group for group in map(pairs, groups) if group[b"name"] == self.group.encode()]
        if not found:
            return np.nan, f"{self.stream}: there is no consumer group {self.group}"
        pending, lag = float(found[0][b"pending"]), _lag(found[0], pairs(stream))
        size = {"pending": pending, "lag": lag, "backlog": lag + pending}[self.stat]
        return size, f"{self.stream}: Redis does not know the lag of group {self.group}" if np.isnan(size) else ""

    def problems(self) -> Iterator[tuple[str, str]]:
        """A group's figure needs the group."""
        if self.stat != "length" and not self.group:
            yield "group", f"is needed for {self.stat}"


def _lag(group: Mapping[bytes, Reply], stream: Mapping[bytes, Reply]) -> float:
    """Entries that the group has not read. Where Redis gives none, the two ends of the stream are still certain."""
    lag = group.get(b"lag")
    if lag is not None:
        return float(lag)
    delivered = _order(group[b"last-delivered-id"])
    if delivered >= _order(stream[b"last-generated-id"]):
        return 0.0
    first = stream[b"first-entry"]
    return float(stream[b"length"]) if not first or delivered < _order(first[0]) else np.nan


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)
