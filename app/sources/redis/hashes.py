"""Reads of hashes: many by an index, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from app.cooperative import run_apart
from app.model import NO_REMARKS, Flags, Frame, Labels, Parts, Remarks, Times, Values, gap_remark
from app.sources.redis.aggregation import COUNTING, PARTS, Rows, ZeroFill, aggregate_rows
from app.sources.redis.as_of import AsOf, Written
from app.sources.redis.columns import ValueColumns
from app.sources.redis.connections import Command
from app.sources.redis.history import OverTime, SampleBuckets, lookback_ms
from app.sources.redis.reads import ID, Grouped, Grouping, Members, ReadContext, ask_indexes, members_of, union_command
from app.sources.redis.rounds import ask_parts, fits_one_round
from app.sources.redis.tables import Hashes, HashTable, SampleTable, Zeros, accepted_ids
from app.sources.redis.values import ValueSpec


@dataclass(frozen=True, slots=True)
class FoundHashes:
    """Hashes that are asked for, and the columns that are filled with those that pass the filters."""

    table: HashTable
    columns: ValueColumns
    written: Written | None = None


class HashSpec(ValueSpec):
    """A value form whose rows are hashes."""

    @property
    def gives_age(self) -> bool:
        """With `age_of` a hash is as old as it was when the read was asked."""
        return self.age_of is not None

    def fields_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The hash fields for the value, these labels, and `same`."""
        words = (self.word(label) for label in labels)
        same = [self.same] if self.same else []
        return tuple(dict.fromkeys((*self.fields, *(word for word in words if word != ID), *same)))

    def hash_table(
        self, template: str, ids: Sequence[bytes], context: ReadContext, written: Written | None = None
    ) -> FoundHashes:
        """The table of hashes to ask for, and the columns that it fills."""
        words = {label: self.word(label) for label in context.used_labels}
        hashes = Hashes(template, ids, self.fields_for(context.used_labels), context)
        columns = ValueColumns(self)
        grouping = Grouping(context.statement.labels, context.statement.where)
        return FoundHashes(HashTable(hashes, words, grouping, columns, written), columns, written)

    def rows_of(self, known: Mapping[str, Values], unlike: Flags, where: Grouped, times: Times, context: ReadContext) -> Rows:
        """A row for each of these hashes, at these times."""
        above, below = self.value_sides(known, len(where.place), context.statement.now_ms)
        return Rows(times, where.place, np.where(unlike, np.nan, above), below)

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every value form; a rate needs events."""
        yield from super().problems()
        if self.aggregate == "rate":
            yield "aggregate", "rate is for `read: events`; a counter's rate is `over_time: rate` with `history`"


class HashRead(HashSpec):
    """One hash, now.

    live: {source: rtrs, read: hash, key: "sync:rtrs:duckdb", age_of: last_ok_ms, labels: {sink: sink}}
    """

    ranged: ClassVar[bool] = False

    read: Literal["hash"] = "hash"
    key: str

    async def answer(self, context: ReadContext) -> Frame:
        """One point at the open bucket; nothing where only closed buckets are asked for or the hash does not exist."""
        if not context.statement.now_ms:
            return Frame()
        found = self.hash_table(self.key, [b""], context)
        await ask_parts(context.connections, found.table)
        where = found.table.grouped_rows()
        unlike, differ = found.columns.find_unlike(where, self.key)
        rows = self.rows_of(found.columns.known_values(), unlike, where, np.full(len(where.place), context.open_ms), context)
        remarks = found.columns.odd_remarks(self.key) + differ
        return aggregate_rows(rows, where.label_sets, self.aggregation_rule(context), remarks)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was asked for one read of many hashes."""

    members: Members
    found: FoundHashes
    zeros: HashTable | None
    samples: SampleTable | None


class HashesRead(HashSpec):
    """Hashes whose ids are in an index (a set or a zset): one value per label set, now or over a range.

    live: {source: rts, index: "trade_state:open", hash: "trade_state:{id}", value: count,
           labels: {account: account_id, symbol: symbol},
           zeros: {index: "account_state:index", hash: "account_state:{id}", labels: {account: $id, broker: broker_id}}}
    live: {source: rts, index: "account_state:index", hash: "account_state:{id}", labels: {account: $id, broker: broker_id},
           ratio: {plus: [equity], over: margin, scale: 100}, aggregate: ratio, history: "hist:{field}:{id}"}
    live: {source: ris, index: "instance:index", hash: "instance:{id}", field: socket_failures_total, labels: {instance: $id},
           history: "hist:{field}:{id}", over_time: rate}
    live: {source: rts, index: "trade_state:failed", scored: since, hash: "trade_state:{id}", value: count,
           keeps_s: 3600}

    `scored: since`: the index's scores are the events' epoch ms; events inside the asked range are put into buckets by them.
    Where the index is trimmed, `keeps_s` says to what age: the frame says from when on it has everything (`covers_from_ms`).
    `history`: zsets of samples (score = epoch ms, member = `ms:value`) for each id and field. A bucket's value is its last sample
    (or by `over_time`: rate, increase, max, avg), the open bucket's newest sample is the hash itself. `rate` and `increase` take
    counters: a fall is a restart from 0, and the sample before the bucket is the base. Rate is per second between samples.
    Without either the read knows the present only: one point per label set at the open bucket.

    `as_of: {field: last_updated_at, current_s: 60}`: hashes that were not written for that long have no value of now (`AsOf`).

    An index with more than `max_members` is cut to its newest (zset) with a warning. A filter on a label that is `$id` saves
    reading the other hashes.
    """

    read: Literal["hashes"] = "hashes"
    index: str
    hash: str
    scored: Literal["since"] | None = None
    keeps_s: int | None = Field(None, ge=1)
    history: str | None = None
    over_time: OverTime = "last"
    zeros: Zeros | None = None
    as_of: AsOf | None = None

    def fields_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The hash fields for the value, these labels, and the time of writing."""
        return tuple(dict.fromkeys((*super().fields_for(labels), *([self.as_of.field] if self.as_of else []))))

    @property
    def given_parts(self) -> Parts | None:
        """Events dated by the index can be counted in parts; a sampled figure has no parts."""
        if self.scored:
            return PARTS.get(self.aggregate, "none")
        return "last" if self.over_time == "last" else "none"

    @property
    def ranged(self) -> bool:  # type: ignore[override]  # here it depends on the options, in other reads on the class
        """True where past buckets can be read."""
        return bool(self.scored or self.history)

    async def answer(self, context: ReadContext) -> Frame:
        """The indexes in one pipeline, then all hashes and samples: in one pipeline, or where they are many in rounds."""
        if not self.ranged and not context.statement.now_ms:
            return Frame()
        members, zero_ids = await self._read_members(context)
        found = self.hash_table(self.hash, members.ids, context, Written(self.as_of.field) if self.as_of else None)
        zeros = await self.zeros.label_table(context, zero_ids) if self.zeros else None
        samples = await self._ask_tables(found, zeros, context)
        work = partial(self._frame_of, _Answer(members, found, zeros, samples), context)
        return await run_apart(work, found.table.count + (samples.size if samples else 0))

    async def _ask_tables(self, found: FoundHashes, zeros: HashTable | None, context: ReadContext) -> SampleTable | None:
        table = found.table
        if not self.history:
            await ask_parts(context.connections, table, *([zeros] if zeros else []))
            return None
        samples = self._sample_table(found, range(table.count), context)
        if fits_one_round(table, samples):
            await ask_parts(context.connections, table, samples)
            return samples
        await ask_parts(context.connections, table)
        samples = self._sample_table(found, table.grouped_rows().keep.tolist(), context)
        await ask_parts(context.connections, samples)
        return samples

    def _sample_table(self, found: FoundHashes, idents: Sequence[int], context: ReadContext) -> SampleTable:
        """The samples of the hashes with the ids at these indices."""
        whole, history = context.statement.range, self.history or ""
        since_ms = whole.from_ms - (lookback_ms(whole) if self.over_time in ("rate", "increase") else 0)
        templates = {field: history.replace("{field}", field) for field in self.fields}
        begin = partial(self._sample_buckets, found, context)
        return SampleTable(found.table, idents, templates, (since_ms, whole.to_ms), begin, context)

    def _sample_buckets(self, found: FoundHashes, context: ReadContext) -> Mapping[str, SampleBuckets]:
        """The buckets of each field, with the present values of the hashes that are not outdated."""
        outdated, _ = self._outdated_rows(found, found.table.grouped_rows(), context)
        known = found.columns.known_values()
        return {
            field: SampleBuckets(context.statement, self.over_time, np.where(outdated, np.nan, column))
            for field, column in known.items()
        }

    async def _read_members(self, context: ReadContext) -> tuple[Members, list[bytes]]:
        commands = [self._index_command(context)]
        commands += [union_command(context.key(self.zeros.index))] if self.zeros else []
        commands += [("TIME",)] if self.keeps_s else []
        replies = iter(await ask_indexes(context, commands))
        members = members_of(self.index, next(replies), bool(self.scored), context)
        zero_ids = next(replies) if self.zeros else []
        if self.keeps_s:
            now_ms = int(next(replies)[0]) * 1000  # the server's clock dates the members and trims them
            members = members.trim_to(self.keeps_s, now_ms)
        filters = tuple(matcher for matcher in context.statement.where if self.word(matcher.label) == ID)
        return members.where(await accepted_ids(members.ids, filters)) if filters else members, zero_ids

    def _index_command(self, context: ReadContext) -> Command:
        key, whole = context.key(self.index), context.statement.range
        if not self.scored:
            return union_command(key)
        limit = context.max_members + 1
        return ("ZREVRANGEBYSCORE", key, f"({whole.to_ms}", whole.from_ms, "WITHSCORES", "LIMIT", 0, limit)

    def _frame_of(self, answer: _Answer, context: ReadContext) -> Frame:
        """All columns as the frame. Work on whole columns, apart from the event loop."""
        members, found, where = answer.members, answer.found, answer.found.table.grouped_rows()
        now_ms = context.statement.now_ms
        outdated, old = self._outdated_rows(found, where, context)
        unlike, differ = found.columns.find_unlike(where, self.hash)
        # Closed buckets do not depend on what the hashes say now.
        odd = found.columns.odd_remarks(self.hash) if now_ms or not self.history else NO_REMARKS
        remarks = members.remarks + odd + differ + old + self._missing_hashes(found.table)
        if answer.samples:
            rows = self._sampled_rows(answer.samples, unlike, where)
            remarks += answer.samples.odd_remarks(self.history or "")
        else:
            rows = self._present_rows(members, found, outdated, unlike, where, context)
        return aggregate_rows(
            rows,
            where.label_sets,
            self.aggregation_rule(context),
            remarks,
            self._zero_fill(answer, context),
            covers_from_ms=members.since_ms if members.since_ms > context.statement.range.from_ms else None,
            written_ms=self._oldest_writes(found, where, context),
        )

    def _present_rows(
        self, members: Members, found: FoundHashes, outdated: Flags, unlike: Flags, where: Grouped, context: ReadContext
    ) -> Rows:
        kept, known = ~outdated, found.columns.known_values()
        where = replace(where, keep=where.keep[kept], place=where.place[kept])
        times = np.full(len(where.place), context.open_ms)
        if self.scored:
            times = context.statement.range.bucket(members.scores[where.keep])
        return self.rows_of({field: column[kept] for field, column in known.items()}, unlike[kept], where, times, context)

    def _sampled_rows(self, samples: SampleTable, unlike: Flags, where: Grouped) -> Rows:
        table = samples.bucketed_samples()
        above, below = self.value_sides(table.known, len(table.row), 0)
        if unlike.any():
            above = np.where(unlike[table.row], np.nan, above)
        return Rows(table.time, where.place[table.row], above, below)

    def _outdated_rows(self, found: FoundHashes, where: Grouped, context: ReadContext) -> tuple[Flags, Remarks]:
        now_ms = context.statement.now_ms
        if self.as_of is None or found.written is None or not now_ms:
            return np.zeros(len(where.place), dtype=np.bool_), NO_REMARKS
        return self.as_of.find_outdated(self.hash, found.written, where, now_ms)

    def _oldest_writes(self, found: FoundHashes, where: Grouped, context: ReadContext) -> dict[Labels, int]:
        if self.as_of is None or found.written is None or not context.statement.now_ms:
            return {}
        return self.as_of.oldest_writes(found.written, where)

    def _zero_fill(self, answer: _Answer, context: ReadContext) -> ZeroFill | None:
        if answer.zeros is None:
            return None
        whole = context.statement.range
        since_ms = whole.bucket_ms(answer.members.since_ms) if self.ranged else context.open_ms
        return ZeroFill(answer.zeros.grouped_rows().label_sets, np.arange(since_ms, whole.to_ms, whole.step_ms))

    def _missing_hashes(self, table: HashTable) -> Remarks:
        """With `as_of` each id has a hash: one that is gone is missing from the figures."""
        lost = table.count - table.found
        if not self.as_of or not lost:
            return NO_REMARKS
        return gap_remark(f"{self.index}: {lost} of its ids have no {self.hash}; their figures are missing")

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every value form, and options that do not fit together."""
        yield from super().problems()
        if "{id}" not in self.hash:
            yield "hash", "needs {id} where the member of the index goes"
        if self.scored and self.age_of:
            yield "scored", "does not go with `age_of`, which is known for the present only"
        if self.keeps_s and not self.scored:
            yield "keeps_s", "needs `scored: since`"
        if self.as_of and (self.scored or self.zeros):
            yield "as_of", "does not go with `scored` or `zeros`"
        yield from self._history_problems()
        yield from self._zeros_problems()

    def _history_problems(self) -> Iterator[tuple[str, str]]:
        if not self.history:
            if self.over_time != "last":
                yield "over_time", f"{self.over_time} needs `history`"
            return
        if self.scored or self.zeros:
            yield "history", "does not go with `scored` or `zeros`"
        if not (self.field or self.ratio):
            yield "history", "needs `field` or `ratio`: only fields are sampled"
        if self.over_time != "last" and self.ratio:
            yield "over_time", "a `ratio` is of last samples; allowed: last"
        needed = ("{id}", "{field}") if len(self.fields) > 1 else ("{id}",)
        for part in needed:
            if part not in self.history:
                yield "history", f"needs {part}"

    def _zeros_problems(self) -> Iterator[tuple[str, str]]:
        if not self.zeros:
            return
        if self.aggregate not in COUNTING:
            yield "zeros", f"{self.aggregate} of nothing is not 0; allowed with: sum, count"
        if "{id}" not in self.zeros.hash and set(self.zeros.labels.values()) != {ID}:
            yield "zeros.hash", "is needed, with {id}, for labels that are hash fields"
