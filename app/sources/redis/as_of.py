"""When hashes were last written. A terminal that hangs leaves its last figures behind, and no other field shows that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from app.clock import age_text
from app.documents.schema import Strict
from app.model import Flags, Labels, Notice, Remarks, Values, gap_remark
from app.sources.redis.columns import join_pieces
from app.sources.redis.parse import Cell, instants
from app.sources.redis.reads import Grouped, unparsed_remark


class Written:
    """When the hashes of the rows were last written, epoch ms, NaN where it is not known. Rows come in pieces."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._pieces: list[Values] = []
        #: how many do not say it, and how many say what is no time
        self.unsaid = 0
        self.bad = 0

    def add_piece(self, cells: Mapping[str, Sequence[Cell]]) -> None:
        """One piece: a column of cells for each field."""
        column = cells[self._field]
        at_ms, bad = instants(column)
        self._pieces.append(at_ms)
        self.unsaid += column.count(None) + column.count(b"")
        self.bad += bad

    def at_ms(self) -> Values:
        """All pieces as one column."""
        return join_pieces(self._pieces)


class AsOf(Strict):
    """The field that says when a hash was last written, and for how long it counts as the present after that."""

    field: str
    current_s: int = Field(60, ge=1)

    def find_outdated(self, what: str, written: Written, where: Grouped, now_ms: int) -> tuple[Flags, Remarks]:
        """Which of the rows show nothing of now, with remarks on all that are old.

        A figure made of old hashes alone has no value of now, and nothing is missing from it. A figure made of old and current
        hashes keeps the last values of the old ones and is partial. A hash that does not say when it was written is taken for
        current, and the figure is partial: the hash may be as old as any.
        """
        at_ms = written.at_ms()
        remarks = unparsed_remark(what, self.field, written.bad)
        if unsaid := written.unsaid:
            remarks += gap_remark(f"{what}: {unsaid} do not say when they were written ({self.field}); taken for now")
        old = now_ms - at_ms > self.current_s * 1000
        alone = where.only_in_group(old)
        if alone.any():
            text = self._age_text(what, at_ms[alone], now_ms)
            remarks += Remarks((Notice("info", f"{text}; there is no value of now"),))
        if (beside := old & ~alone).any():
            remarks += gap_remark(f"{self._age_text(what, at_ms[beside], now_ms)}; figures of now hold their last values")
        return alone, remarks

    def oldest_writes(self, written: Written, where: Grouped) -> dict[Labels, int]:
        """When the oldest hash of each label set was written, epoch ms; without label sets of which no hash says it."""
        oldest = np.full(len(where.label_sets), np.inf)
        np.fmin.at(oldest, where.place, written.at_ms())
        return {where.label_sets[place]: int(oldest[place]) for place in np.flatnonzero(np.isfinite(oldest)).tolist()}

    def _age_text(self, what: str, written_ms: Values, now_ms: int) -> str:
        longest = age_text(now_ms - round(written_ms.min()))
        return f"{what}: {len(written_ms)} not written for {self.current_s}s, the longest for {longest}"
