"""Reads of hashes: many by an index, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from app.model import NO_REMARKS, Flags, Frame, Labels, Parts, Remarks, Times, Values, gap_remark
from app.sources.redis.aggregation import COUNTING, PARTS, Rows, ValueSpec, aggregate_rows
from app.sources.redis.as_of import AsOf
from app.sources.redis.connections import Command, Reply
from app.sources.redis.history import OverTime, lookback_ms, sample_buckets
from app.sources.redis.parse import text
from app.sources.redis.reads import (
    ID,
    FoundHashes,
    Grouped,
    Hashes,
    Members,
    ReadContext,
    Run,
    Zeros,
    ask_indexes,
    frame_from_runs,
    group_rows,
    members_of,
    union_command,
    unparsed_remark,
    with_zeros,
)


@dataclass(frozen=True, slots=True)
class HashValues:
    """The hashes that passed the filters: each field's values, which rows must not be joined with others, and the remarks on the
    values and on the joining."""

    known: dict[str, Values]
    unlike: Flags
    odd: Remarks
    differ: Remarks

    def where(self, rows: Flags) -> HashValues:
        """Only these rows."""
        return replace(self, known={field: column[rows] for field, column in self.known.items()}, unlike=self.unlike[rows])


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

    def group_hashes(self, found: FoundHashes, context: ReadContext) -> Grouped:
        """The hashes' label sets, filtered."""
        labels = {label: [text(cell) for cell in found.cells[self.word(label)]] for label in context.used_labels}
        return group_rows(labels, len(found.rows), context.statement.labels, context.statement.where)

    def aggregate_hashes(self, kept: HashValues, where: Grouped, times: Times, context: ReadContext) -> list[Run]:
        """The hashes that passed the filters, aggregated by label set."""
        above, below = self.value_sides(kept.known, len(where.keep), context.statement.now_ms)
        above = np.where(kept.unlike, np.nan, above)
        return aggregate_rows(Rows(times, where.place, above, below), where.label_sets, self.aggregation_rule(context))

    def hash_values(self, found: FoundHashes, where: Grouped, pattern: str) -> HashValues:
        """The fields of the hashes that passed the filters. Remarks are about these hashes only."""
        fields = (*self.fields, *([self.same] if self.same else []))
        cells = {field: [found.cells[field][row] for row in where.keep.tolist()] for field in fields}
        known, odd = self.parse_fields(cells, pattern)
        unlike, differ = self.find_unlike(cells, where, pattern)
        return HashValues(known, unlike, odd, differ)

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
        hashes = Hashes(self.key, [b""], self.fields_for(context.used_labels))
        found = hashes.found_hashes(await context.connections.ask(hashes.commands(context)), context)
        where = self.group_hashes(found, context)
        kept = self.hash_values(found, where, self.key)
        times = np.full(len(where.keep), context.open_ms)
        return frame_from_runs(self.aggregate_hashes(kept, where, times, context), kept.odd + kept.differ)


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
        """Two pipelines: the indexes, then all hashes and samples."""
        if not self.ranged and not context.statement.now_ms:
            return Frame()
        members, zero_ids = await self._read_members(context)
        hashes = Hashes(self.hash, members.ids, self.fields_for(context.used_labels))
        zeros = self.zeros.label_hashes(context, zero_ids) if self.zeros else None
        parts = [hashes.commands(context), zeros.commands(context) if zeros else [], self._sample_commands(members, context)]
        replies = await context.connections.ask([command for part in parts for command in part])
        of_hashes, of_zeros, of_samples = _split_replies(replies, [len(part) for part in parts])
        found = hashes.found_hashes(of_hashes, context)
        runs, remarks = self._runs_of(members, found, of_samples, context)
        if self.zeros:
            whole = context.statement.range
            since_ms = whole.bucket_ms(members.since_ms) if self.ranged else context.open_ms
            buckets = np.arange(since_ms, whole.to_ms, whole.step_ms)
            runs = with_zeros(runs, self.zeros.label_sets(context, zero_ids, zeros, of_zeros), buckets)
        covers_from_ms = members.since_ms if members.since_ms > context.statement.range.from_ms else None
        return frame_from_runs(runs, members.remarks + remarks, covers_from_ms, self._oldest_writes(found, context))

    def _oldest_writes(self, found: FoundHashes, context: ReadContext) -> dict[Labels, int]:
        if self.as_of is None or not context.statement.now_ms:
            return {}
        return self.as_of.oldest_writes(found.cells[self.as_of.field], self.group_hashes(found, context))

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
        return self._filter_ids(members, context), zero_ids

    def _index_command(self, context: ReadContext) -> Command:
        key, whole = context.key(self.index), context.statement.range
        if not self.scored:
            return union_command(key)
        limit = context.max_members + 1
        return ("ZREVRANGEBYSCORE", key, f"({whole.to_ms}", whole.from_ms, "WITHSCORES", "LIMIT", 0, limit)

    def _filter_ids(self, members: Members, context: ReadContext) -> Members:
        """The members that the filters on the id accept."""
        filters = [matcher for matcher in context.statement.where if self.word(matcher.label) == ID]
        if not filters:
            return members
        ids = [text(ident) for ident in members.ids]
        names: set[str] = {matcher.label for matcher in filters}
        return members.where(group_rows(dict.fromkeys(names, ids), len(ids), (), filters).keep.tolist())

    def _sample_commands(self, members: Members, context: ReadContext) -> list[Command]:
        if not self.history:
            return []
        whole = context.statement.range
        since = whole.from_ms - (lookback_ms(whole) if self.over_time in ("rate", "increase") else 0)
        templates = [self.history.replace("{field}", field) for field in self.fields]
        return [
            ("ZRANGEBYSCORE", context.key(template, ident), since, f"({whole.to_ms}")
            for template in templates
            for ident in members.ids
        ]

    def _runs_of(
        self, members: Members, found: FoundHashes, samples: Sequence[Reply], context: ReadContext
    ) -> tuple[list[Run], Remarks]:
        where = self.group_hashes(found, context)
        outdated, old = self._outdated_rows(found, where, context)
        kept = self.hash_values(found, where, self.hash)
        # Closed buckets do not depend on what the hashes say now.
        odd = kept.odd if context.statement.now_ms or not self.history else NO_REMARKS
        remarks = odd + kept.differ + old + self._missing_hashes(members, found)
        if self.history:
            ids = [found.rows[row] for row in where.keep]
            of_fields = _by_field(samples, self.fields, len(members.ids), ids)
            runs, of_samples = self._sampled_runs(of_fields, kept, outdated, where, context)
            return runs, remarks + of_samples
        where = replace(where, keep=where.keep[~outdated], place=where.place[~outdated])
        times = np.full(len(where.keep), context.open_ms)
        if self.scored:
            scores = members.scores[np.array(found.rows, dtype=np.intp)[where.keep]]
            times = context.statement.range.bucket(scores)
        return self.aggregate_hashes(kept.where(~outdated), where, times, context), remarks

    def _outdated_rows(self, found: FoundHashes, where: Grouped, context: ReadContext) -> tuple[Flags, Remarks]:
        now_ms = context.statement.now_ms
        if self.as_of is None or not now_ms:
            return np.zeros(len(where.keep), dtype=np.bool_), NO_REMARKS
        return self.as_of.find_outdated(self.hash, found.cells[self.as_of.field], where, now_ms)

    def _missing_hashes(self, members: Members, found: FoundHashes) -> Remarks:
        """With `as_of` each id has a hash: one that is gone is missing from the figures."""
        lost = len(members.ids) - len(found.rows)
        if not self.as_of or not lost:
            return NO_REMARKS
        return gap_remark(f"{self.index}: {lost} of its ids have no {self.hash}; their figures are missing")

    def _sampled_runs(
        self, members: dict[str, list[Reply]], kept: HashValues, outdated: Flags, where: Grouped, context: ReadContext
    ) -> tuple[list[Run], Remarks]:
        present = {field: np.where(outdated, np.nan, column) for field, column in kept.known.items()}
        table = sample_buckets(members, present, context.statement, self.over_time)
        above, below = self.value_sides(table.known, len(table.row), 0)
        above = np.where(kept.unlike[table.row], np.nan, above)
        rows = Rows(table.time, where.place[table.row], above, below)
        odd = (unparsed_remark(self.history or "", field, bad) for field, bad in table.bad.items())
        return aggregate_rows(rows, where.label_sets, self.aggregation_rule(context)), sum(odd, NO_REMARKS)

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


def _split_replies(replies: Sequence[Reply], lengths: Sequence[int]) -> list[Sequence[Reply]]:
    """The replies, split into parts of these lengths."""
    ends = list(accumulate(lengths))
    return [replies[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _by_field(samples: Sequence[Reply], fields: Sequence[str], count: int, rows: Sequence[int]) -> dict[str, list[Reply]]:
    """Sample replies, `count` for each field, as lists for the given rows."""
    return {field: [samples[place * count + row] for row in rows] for place, field in enumerate(fields)}
