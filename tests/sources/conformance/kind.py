"""What the conformance cases need of a kind of source: the same rows in its store, a read of them, and the store's own look."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.model import TimeRange
from app.sources.base import Read, Source

STEP = 60_000
#: The start of a bucket an hour ago: a Prometheus takes nothing that is much older.
BEGIN = int(time.time()) // 60 * 60_000 - 3_600_000
END = BEGIN + 3 * STEP
#: Three buckets.
SPAN = TimeRange(BEGIN, END, STEP)

#: Rows of figures, rows at the range's ends, and a row for each odd word.
Table = Literal["figures", "edges", "words"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a store: an instant, two labels and an amount."""

    at_ms: int
    account: str
    broker: str
    amount: float | None


def _in_bucket(number: int, account: str, broker: str, amount: float | None, offset_ms: int = 30_000) -> Row:
    return Row(BEGIN + number * STEP + offset_ms, account, broker, amount)


#: Two label sets over three buckets, in no order. A1 has a null in the middle, B2 has nothing there and two rows at the end.
FIGURES = (
    _in_bucket(2, "B2", "Y", 4.0),
    _in_bucket(0, "A1", "X", 1.5),
    _in_bucket(2, "A1", "X", 3.0),
    _in_bucket(1, "A1", "X", None),
    _in_bucket(0, "B2", "Y", 2.0),
    _in_bucket(2, "B2", "Y", 0.25, 40_000),
)
EDGES = (Row(BEGIN, "A1", "X", 10.0), Row(END, "A1", "X", 99.0))
#: Labels that try to leave their quotes, and labels that look like numbers.
WORDS = (
    *("", "a", "A", "ab", "b'c", 'b"c', "x' OR 1=1 --", "\\", "\\'", "tab\there", "line\nbreak", "{where}", "{w0:String}"),
    *("%s", "é", "\U0001f600", "NULL", "10", "9", "-1.5", "1e1", "100000000000000000000", "[a]", "a,b", "$w0", "`b`"),
)
ROWS: Mapping[Table, tuple[Row, ...]] = {
    "figures": FIGURES,
    "edges": EDGES,
    "words": tuple(_in_bucket(0, word, "words", 1.0, 30_000 + number) for number, word in enumerate(WORDS)),
}


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The rows by time, for stores that take them in no other order."""
    return sorted(rows, key=lambda row: row.at_ms)


@dataclass(frozen=True, slots=True)
class Gap:
    """A case that a kind answers otherwise than the others: why, and what it answers instead."""

    reason: str
    instead: Any = None


WHOLE_OR_ERROR = Gap("its rows are all there, or there is an error")
#: The cases that a kind may answer otherwise.
Case = Literal["half_open", "limit", "partial", "explain"]


class Kind(Protocol):
    """One kind of source and a running store with `ROWS` in it."""

    #: what it answers otherwise than the other kinds
    gaps: Mapping[Case, Gap]
    #: whether `running` can be asked while a fetch hangs
    tells_while_hanging: bool
    #: up to when the store's data is complete, where it says so
    covers_to_ms: int | None

    def build(self, **options: Any) -> Source:
        """A source on the store."""

    def unreachable(self) -> Source:
        """A source on a store that is not there."""

    def read(self, table: Table) -> Read:
        """A read that sums a table's amounts in each bucket."""

    def wrong_read(self) -> Read:
        """A read that the store refuses."""

    def partial_read(self) -> Read:
        """A read of which the store has a part only; one that has a gap here may give any read."""

    def hanging(self) -> AbstractAsyncContextManager[Read]:
        """A read that does not end by itself while the block lasts."""

    def running(self, source: Source) -> int:
        """How many fetches of the source the store is at work on, or how many connections it holds for them."""
