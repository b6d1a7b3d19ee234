"""Reads of hashes: a set of them by an index, or a single one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from app.model import Flags, Frame, Notice, Times, Values
from app.sources.redis_asof import AsOf
from app.sources.redis_fold import COUNTING, Rows, fold
from app.sources.redis_history import OverTime, lookback_ms, sampled
from app.sources.redis_members import Found, Hashes, Members, Run, Zeros, members_of, with_zeros
from app.sources.redis_parse import text
from app.sources.redis_reads import ID, Asking, Form, Placed, placed, told, unparsed
from app.sources.redis_wire import Command, Reply


class _Tabled(Form):
    """A form whose rows are hashes."""

    def fields_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The hash fields for the value and these labels."""
        words = (self.word(label) for label in labels)
        return tuple(dict.fromkeys((*self.fields, *(word for word in words if word != ID))))

    def places(self, found: Found, asking: Asking) -> Placed:
        """The hashes' label sets, filtered."""
        labels = {label: [text(cell) for cell in found.cells[self.word(label)]] for label in asking.used_labels}
        return placed(labels, len(found.rows), asking.statement.labels, asking.statement.where)

    def folded(self, known: dict[str, Values], where: Placed, times: Times, asking: Asking) -> list[Run]:
        """One row for each hash that passed the filters, folded."""
        kept = {field: column[where.keep] for field, column in known.items()}
        above, below = self.divided(kept, len(where.keep), asking.statement.now_ms)
        return fold(Rows(times, where.place, above, below), where.label_sets, self.rule(asking))

    def judged(self, notices: Sequence[Notice], found: Found, known: dict[str, Values], where: Placed) -> tuple[Notice, ...]:
        """What does not parse spoils a figure that others are behind, too. Where it is alone its null says all."""
        if not notices:
            return ()
        cells = {field: np.array([bool(cell) for cell in found.cells[field]]) for field in self.fields}
        bad = np.any([np.isnan(known[field]) & cells[field] for field in self.fields], axis=0)[where.keep]
        spoilt = (bad & ~where.alone(bad)).any()
        return tuple(notices) if spoilt else tuple(replace(notice, severity="info") for notice in notices)

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every form; a rate needs events."""
        yield from super().problems()
        if self.aggregate == "rate":
            yield "aggregate", "rate is for `read: events`; a counter's rate is `over_time: rate` with `history`"


class HashRead(_Tabled):
    """One hash, now.

    live: {source: rtrs, read: hash, key: "sync:rtrs:duckdb", age_of: last_ok_ms, labels: {sink: sink}}
    """

    ranged: ClassVar[bool] = False

    read: Literal["hash"] = "hash"
    key: str

    async def answer(self, asking: Asking) -> Frame:
        """One point at the open bucket; nothing where only closed buckets are asked for or the hash does not exist."""
        if not asking.statement.now_ms:
            return Frame()
        hashes = Hashes(self.key, [b""], self.fields_for(asking.used_labels))
        found = hashes.found(await asking.wire.ask(hashes.commands(asking)))
        known, notices = self.parsed(found.cells, self.key)
        where = self.places(found, asking)
        times = np.full(len(where.keep), asking.open_ms)
        return told(self.folded(known, where, times, asking), self.judged(notices, found, known, where))


class HashesRead(_Tabled):
    """Hashes whose ids stand in an index (a set or a zset): one value per label set, now or over a range.

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
    Where the index is trimmed, `keeps_s` says to what age: buckets that began before are left out, with a remark.
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
    def ranged(self) -> bool:  # type: ignore[override]  # here it depends on the options, in other reads on the class
        """True where past buckets can be read."""
        return bool(self.scored or self.history)

    async def answer(self, asking: Asking) -> Frame:
        """Two pipelines: the indexes, then all hashes and samples."""
        if not self.ranged and not asking.statement.now_ms:
            return Frame()
        members, zero_ids = await self._members(asking)
        hashes = Hashes(self.hash, members.ids, self.fields_for(asking.used_labels))
        zeros = self.zeros.hashes(asking, zero_ids) if self.zeros else None
        parts = [hashes.commands(asking), zeros.commands(asking) if zeros else [], self._sample_commands(members, asking)]
        replies = await asking.wire.ask([command for part in parts for command in part])
        of_hashes, of_zeros, of_samples = _split(replies, [len(part) for part in parts])
        runs, notices = self._runs(members, hashes.found(of_hashes), of_samples, asking)
        if self.zeros:
            since_ms = members.since_ms if self.ranged else asking.open_ms
            buckets = np.arange(since_ms, asking.statement.range.to_ms, asking.statement.range.step_ms)
            runs = with_zeros(runs, self.zeros.label_sets(asking, zero_ids, zeros, of_zeros), buckets)
        return told(runs, (*members.notices, *notices))

    async def _members(self, asking: Asking) -> tuple[Members, list[bytes]]:
        commands = [self._index_command(asking)]
        commands += [("ZUNION", 1, asking.key(self.zeros.index))] if self.zeros else []
        commands += [("TIME",)] if self.keeps_s else []
        replies = iter(await asking.wire.ask(commands))
        members = members_of(self.index, next(replies), bool(self.scored), asking)
        zero_ids = next(replies) if self.zeros else []
        if self.keeps_s:
            now_ms = int(next(replies)[0]) * 1000  # the server's clock dates the members and trims them
            members = members.trimmed(self.index, self.keeps_s, now_ms, asking.statement.range.step_ms)
        return self._matching(members, asking), zero_ids

    def _index_command(self, asking: Asking) -> Command:
        key, whole = asking.key(self.index), asking.statement.range
        if not self.scored:
            return ("ZUNION", 1, key)  # a union of one: reads sets and zsets alike
        limit = asking.max_members + 1
        return ("ZREVRANGEBYSCORE", key, f"({whole.to_ms}", whole.from_ms, "WITHSCORES", "LIMIT", 0, limit)

    def _matching(self, members: Members, asking: Asking) -> Members:
        """Those members that the filters on the id itself accept."""
        filters = [matcher for matcher in asking.statement.where if self.word(matcher.label) == ID]
        if not filters:
            return members
        ids = [text(ident) for ident in members.ids]
        names: set[str] = {matcher.label for matcher in filters}
        return members.where(placed(dict.fromkeys(names, ids), len(ids), (), filters).keep.tolist())

    def _sample_commands(self, members: Members, asking: Asking) -> list[Command]:
        if not self.history:
            return []
        whole = asking.statement.range
        since = whole.from_ms - (lookback_ms(whole) if self.over_time in ("rate", "increase") else 0)
        templates = [self.history.replace("{field}", field) for field in self.fields]
        return [
            ("ZRANGEBYSCORE", asking.key(template, ident), since, f"({whole.to_ms}")
            for template in templates
            for ident in members.ids
        ]

    def _runs(
        self, members: Members, found: Found, samples: Sequence[Reply], asking: Asking
    ) -> tuple[list[Run], tuple[Notice, ...]]:
        known, notices = self.parsed(found.cells, self.hash)
        where = self.places(found, asking)
        outdated, told_old = self._outdated(found, where, asking)
        notices = (*self.judged(notices, found, known, where), *told_old)
        if self.history:
            present = {field: np.where(outdated, np.nan, column[where.keep]) for field, column in known.items()}
            ids = [found.rows[row] for row in where.keep]
            runs, remarks = self._sampled(_by_field(samples, self.fields, len(members.ids), ids), present, where, asking)
            return runs, (*notices, *remarks)
        where = replace(where, keep=where.keep[~outdated], place=where.place[~outdated])
        times = np.full(len(where.keep), asking.open_ms)
        if self.scored:
            step_ms = asking.statement.range.step_ms
            times = members.scores[np.array(found.rows, dtype=np.intp)[where.keep]] // step_ms * step_ms
        return self.folded(known, where, times, asking), notices

    def _outdated(self, found: Found, where: Placed, asking: Asking) -> tuple[Flags, tuple[Notice, ...]]:
        now_ms = asking.statement.now_ms
        if self.as_of is None or not now_ms:
            return np.zeros(len(where.keep), dtype=np.bool_), ()
        return self.as_of.outdated(self.hash, found.cells[self.as_of.field], where, now_ms)

    def _sampled(
        self, members: dict[str, list[Reply]], present: dict[str, Values], where: Placed, asking: Asking
    ) -> tuple[list[Run], list[Notice]]:
        table = sampled(members, present, asking.statement, self.over_time)
        above, below = self.divided(table.known, len(table.row), 0)
        rows = Rows(table.time, where.place[table.row], above, below)
        notices = [remark for field, bad in table.bad.items() for remark in unparsed(self.history or "", field, bad)]
        return fold(rows, where.label_sets, self.rule(asking)), notices

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every form, and options that do not go together."""
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


def _split(replies: Sequence[Reply], lengths: Sequence[int]) -> list[Sequence[Reply]]:
    """The replies, cut into parts of these lengths."""
    ends = list(accumulate(lengths))
    return [replies[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _by_field(samples: Sequence[Reply], fields: Sequence[str], count: int, rows: Sequence[int]) -> dict[str, list[Reply]]:
    """Sample replies, `count` for each field, as lists of the rows that are wanted."""
    return {field: [samples[place * count + row] for row in rows] for place, field in enumerate(fields)}
