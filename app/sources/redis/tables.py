"""The hashes and samples of a read as tables: asked for in rounds, filtered and turned into columns as they come in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import Field

from app.documents.schema import Name, Strict
from app.errors import SourceOverloaded
from app.model import NO_REMARKS, Indices, Matcher, Remarks
from app.sources.redis.as_of import Written
from app.sources.redis.columns import ValueColumns, pick_rows
from app.sources.redis.connections import Command, Reply
from app.sources.redis.history import SampleBuckets, Sampled, place_side_by_side, read_samples
from app.sources.redis.parse import Cell, Texts, text
from app.sources.redis.reads import ID, Grouped, Grouping, ReadContext, expect_reply, unparsed_remark
from app.sources.redis.rounds import COMMAND_CELLS, SLICE_CELLS, Slices, slice_evenly

#: How often a field is sampled at most, as long as nothing is known of it.
_SAMPLE_MS = 5_000


class Hashes:
    """Hashes by their ids, and the fields to read. Without fields only their existence is asked for."""

    def __init__(self, template: str, ids: Sequence[bytes], fields: tuple[str, ...], context: ReadContext) -> None:
        self.ids = ids
        self._fields = fields
        self._template = context.full_template(template)
        self._source = context.statement.source

    @property
    def cells(self) -> int:
        """How many values the reply to a command has."""
        return max(len(self._fields), 1)

    def command_at(self, index: int) -> Command:
        """The command for one hash."""
        key = self._template.replace(b"{id}", self.ids[index])
        return ("HMGET", key, *self._fields) if self._fields else ("EXISTS", key)

    def found_hashes(self, first: int, replies: Sequence[Reply]) -> tuple[list[int], Mapping[str, Sequence[Cell]]]:
        """The hashes that exist, of those from `first` on: their indices, and a column of cells for each field and for the id.
        One without any of the fields counts as deleted."""
        with expect_reply(self._source, "HMGET"):
            if self._fields:
                most = len(self._fields) - 1
                here = [row for row, cells in enumerate(replies) if cells.count(None) <= most]
                columns = list(zip(*(replies[row] for row in here), strict=True)) if here else [()] * len(self._fields)
            else:
                here, columns = [row for row, exists in enumerate(replies) if exists], []
            cells: dict[str, Sequence[Cell]] = dict(zip(self._fields, columns, strict=True))
        rows = [first + row for row in here]
        return rows, {**cells, ID: [self.ids[row] for row in rows]}


class HashTable:
    """The hashes that exist and pass the filters: `Grouped.keep` has the indices of their ids. A `Part` of an asking.

    `words` says for each label where its value is. Without `columns` only the label sets are of interest.
    """

    def __init__(
        self,
        hashes: Hashes,
        words: Mapping[str, str],
        grouping: Grouping,
        columns: ValueColumns | None = None,
        written: Written | None = None,
    ) -> None:
        self._hashes = hashes
        self._words = words
        self._grouping = grouping
        self._columns = columns
        self._written = written
        self._texts = Texts()
        self._keep: list[Indices] = []
        self._place: list[Indices] = []
        #: how many of the hashes exist
        self.found = 0
        self.command_at = hashes.command_at
        self.cells = hashes.cells
        self.count = len(hashes.ids)

    @property
    def ids(self) -> Sequence[bytes]:
        """The ids of all hashes."""
        return self._hashes.ids

    def take_replies(self, first: int, replies: Sequence[Reply]) -> Slices:
        """Handle the replies for the ids from `first` on."""
        cells = self.cells + COMMAND_CELLS
        for part in slice_evenly(len(replies), cells):
            self._take_slice(first + part.start, replies[part])
            yield cells * (part.stop - part.start)

    async def take_unasked(self) -> None:
        """Take every id for that of a hash that exists. Nothing is left to ask."""
        for part in slice_evenly(self.count, COMMAND_CELLS):
            self._take_slice(part.start, [1] * (part.stop - part.start))
            await asyncio.sleep(0)
        self.count = 0

    def grouped_rows(self) -> Grouped:
        """The rows so far."""
        return Grouped(_join_indices(self._keep), _join_indices(self._place), self._grouping.label_sets())

    def _take_slice(self, first: int, replies: Sequence[Reply]) -> None:
        rows, cells = self._hashes.found_hashes(first, replies)
        self.found += len(rows)
        labels = {label: self._texts.read_column(cells[word]) for label, word in self._words.items()}
        keep, place = self._grouping.group_piece(labels, len(rows))
        self._keep.append(np.array(rows, dtype=np.intp)[keep])
        self._place.append(place)
        cells = pick_rows(cells, keep)
        if self._columns is not None:
            self._columns.add_piece(cells)
        if self._written is not None:
            self._written.add_piece(cells)


async def accepted_ids(ids: Sequence[bytes], filters: Sequence[Matcher]) -> list[int]:
    """The indices of the ids that the filters accept, whatever their labels are called."""
    grouping, names, kept = Grouping((), filters), {matcher.label for matcher in filters}, list[int]()
    for part in slice_evenly(len(ids), COMMAND_CELLS):
        words = [text(ident) for ident in ids[part]]
        rows, _ = grouping.group_piece(dict.fromkeys(names, words), len(words))
        kept += (rows + part.start).tolist()
        await asyncio.sleep(0)
    return kept


def _join_indices(pieces: Sequence[Indices]) -> Indices:
    return np.concatenate(pieces) if pieces else np.empty(0, np.intp)


class SampleTable:
    """The samples of some fields of hashes, by the rows of the table of these hashes. A `Part` of an asking.

    It is asked for after the hashes, or in the same round behind them. Hashes that did not pass the filters have no row.
    `begin` gives the buckets of each field when the table of hashes is complete.
    """

    def __init__(
        self,
        table: HashTable,
        idents: Sequence[int],
        templates: Mapping[str, str],
        bounds: tuple[int, int],
        begin: Callable[[], Mapping[str, SampleBuckets]],
        context: ReadContext,
    ) -> None:
        self._table = table
        self._idents = idents
        self._fields = list(templates)
        self._templates = [context.full_template(template) for template in templates.values()]
        self._since, self._to = bounds
        self._source, self._range = context.statement.source, context.statement.range
        self._begin = begin
        self._rows: dict[int, int] = {}
        self._buckets: Mapping[str, SampleBuckets] = {}
        self._each_is_shown = False
        self._max_rows = context.max_rows
        self._bad = Counter[str]()
        self._replies, self._members = 0, 0

    @property
    def count(self) -> int:
        """How many lists of samples are asked for."""
        return len(self._fields) * len(self._idents)

    @property
    def cells(self) -> int:
        """About how many samples a list has: as many as those that have come."""
        if self._replies:
            return self._members // self._replies + 1
        return (self._to - self._since) // _SAMPLE_MS + 1

    def command_at(self, index: int) -> Command:
        """The command for the samples of one field of one hash, field by field."""
        field, slot = divmod(index, len(self._idents))
        key = self._templates[field].replace(b"{id}", self._table.ids[self._idents[slot]])
        return ("ZRANGEBYSCORE", key, self._since, f"({self._to}")

    def take_replies(self, first: int, replies: Sequence[Reply]) -> Slices:
        """Handle the replies to the commands from `first` on."""
        if not self._buckets:
            self._buckets, where = self._begin(), self._table.grouped_rows()
            self._rows = {ident: row for row, ident in enumerate(where.keep.tolist())}
            self._each_is_shown = len(where.label_sets) == len(where.place)
        with expect_reply(self._source, "ZRANGEBYSCORE"):
            self._replies, self._members = self._replies + len(replies), self._members + sum(map(len, replies))
        begin = first
        while begin < first + len(replies):
            field = begin // len(self._idents)
            end = min((field + 1) * len(self._idents), first + len(replies))
            yield from self._take_field(self._fields[field], begin, replies[begin - first : end - first])
            begin = end

    def _take_field(self, field: str, first: int, replies: Sequence[Reply]) -> Slices:
        rows, lists, cells = list[int](), list[Sequence[bytes]](), 0
        for index, members in enumerate(replies, first % len(self._idents)):
            row = self._rows.get(self._idents[index], -1)
            for begin in range(0, len(members) if row >= 0 else 0, SLICE_CELLS):
                lists.append(members[begin : begin + SLICE_CELLS])
                rows.append(row)
                cells += len(lists[-1]) + 1
                if cells >= SLICE_CELLS:
                    yield self._parse(field, rows, lists)
                    rows, lists, cells = [], [], 0
        yield self._parse(field, rows, lists)

    def _parse(self, field: str, rows: Sequence[int], lists: Sequence[Sequence[bytes]]) -> int:
        with expect_reply(self._source, "ZRANGEBYSCORE"):
            series, bad = read_samples(rows, lists)
        self._buckets[field].add_piece(series)
        if self._each_is_shown and self._buckets[field].size > self._max_rows:
            # Where hashes are not added up there are as many rows as buckets: what cannot be answered is not read to its end.
            raise SourceOverloaded(self._source, f"more than {self._max_rows} rows (max_rows)")
        self._bad[field] += bad
        return len(series.time) + bad

    @property
    def size(self) -> int:
        """How many samples have come."""
        return self._members

    def bucketed_samples(self) -> Sampled:
        """Everything, in buckets."""
        buckets = self._buckets or self._begin()
        return place_side_by_side({field: found.finish_buckets() for field, found in buckets.items()}, self._range)

    def odd_remarks(self, pattern: str) -> Remarks:
        """A remark for each field of which some members are no samples."""
        return sum((unparsed_remark(pattern, field, self._bad[field]) for field in self._fields), NO_REMARKS)


class Zeros(Strict):
    """Where to find label sets that exist even if no hash has them now. Labels that are hash fields need `hash`."""

    index: str
    hash: str = ""
    labels: dict[Name, str] = Field(min_length=1)

    async def label_table(self, context: ReadContext, ids: Sequence[bytes]) -> HashTable:
        """The table of the hashes whose label sets these are. Filters on labels that are not known here are left out. Where the
        ids say everything no hash is asked for."""
        asked = context.statement
        words = {label: self.labels[label] for label in context.used_labels if label in self.labels}
        fields = tuple(dict.fromkeys(word for word in words.values() if word != ID))
        filters = tuple(matcher for matcher in asked.where if matcher.label in self.labels)
        known = set(asked.labels) <= set(self.labels)
        table = HashTable(Hashes(self.hash, ids if known else (), fields, context), words, Grouping(asked.labels, filters))
        if not fields:
            await table.take_unasked()
        return table
