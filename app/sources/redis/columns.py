"""The fields of the rows of a read as columns. Rows come in pieces; each piece becomes numbers at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from app.model import NO_REMARKS, Flags, Indices, Remarks, Values, gap_remark
from app.sources.redis.parse import Cell, instants, numbers, text
from app.sources.redis.reads import Grouped, unparsed_remark
from app.sources.redis.values import ValueSpec


def join_pieces(pieces: Sequence[Values]) -> Values:
    """The pieces of a column as one."""
    return np.concatenate(pieces) if pieces else np.empty(0)


def pick_rows(cells: Mapping[str, Sequence[Cell]], rows: Indices) -> Mapping[str, Sequence[Cell]]:
    """The columns with these ascending rows only."""
    if all(len(column) == len(rows) for column in cells.values()):
        return cells
    wanted = rows.tolist()
    return {field: [column[row] for row in wanted] for field, column in cells.items()}


class ValueColumns:
    """The fields that a value is computed from, and the one that must be the same behind a figure (`same`)."""

    def __init__(self, spec: ValueSpec) -> None:
        self._spec = spec
        self._numbers: dict[str, list[Values]] = {field: [] for field in spec.fields}
        self._bad, self._missing = Counter[str](), Counter[str]()
        #: the index of each word of `same`, and of each cell; 0 is the empty one
        self._words: dict[str, int] = {"": 0}
        self._cells: dict[Cell, int] = {}
        self._same: list[Indices] = []

    def add_piece(self, cells: Mapping[str, Sequence[Cell]]) -> None:
        """One piece: a column of cells for each field."""
        for field, pieces in self._numbers.items():
            column, bad = (instants if field == self._spec.age_of else numbers)(cells[field])
            pieces.append(column)
            self._bad[field] += bad
            self._missing[field] += cells[field].count(None)
        if self._spec.same is not None:
            self._same.append(self._word_indices(cells[self._spec.same]))

    def keep_rows(self, rows: Flags) -> None:
        """Keep only these of the rows so far."""
        self._numbers = {field: [join_pieces(pieces)[rows]] for field, pieces in self._numbers.items()}
        if self._same:
            self._same = [np.concatenate(self._same)[rows]]

    def known_values(self) -> dict[str, Values]:
        """Each field's values, instants as epoch ms; NaN for null."""
        return {field: join_pieces(pieces) for field, pieces in self._numbers.items()}

    def odd_remarks(self, pattern: str) -> Remarks:
        """A remark for each field that does not parse everywhere, and for each that is missing somewhere."""
        found = NO_REMARKS
        for field in self._numbers:
            found += unparsed_remark(pattern, field, self._bad[field])
            if missing := self._missing[field]:
                found += gap_remark(f"{pattern}: {field} is missing {missing} times; shown as null")
        return found

    def find_unlike(self, where: Grouped, pattern: str) -> tuple[Flags, Remarks]:
        """Which rows have several values of `same` in their label set, with a remark. An empty one is like any."""
        count = len(where.place)
        if len(self._words) <= 2:
            return np.zeros(count, dtype=np.bool_), NO_REMARKS
        word = np.concatenate(self._same)
        said = np.flatnonzero(word)
        least, most = np.full(len(where.label_sets), len(self._words)), np.zeros(len(where.label_sets), dtype=np.intp)
        np.minimum.at(least, where.place[said], word[said])
        np.maximum.at(most, where.place[said], word[said])
        unlike: Flags = (least < most)[where.place]
        if not unlike.any():
            return unlike, NO_REMARKS
        words, differing = list(self._words), np.unique(word[unlike & (word > 0)]).tolist()
        shown = ", ".join(sorted(words[index] for index in differing)[:5])
        advice = "such figures are not added up; keep the labels that tell them apart"
        return unlike, gap_remark(f"{pattern}: {self._spec.same} differs ({shown}): {advice}")

    def _word_indices(self, cells: Sequence[Cell]) -> Indices:
        for cell in set(cells) - self._cells.keys():
            word = text(cell).strip().upper()
            self._cells[cell] = self._words.setdefault(word, len(self._words))
        return np.fromiter(map(self._cells.__getitem__, cells), np.intp, len(cells))
