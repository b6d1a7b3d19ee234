"""Roll-ups: tables with fewer rows than the raw one, and which table answers for which part of a range.

A roll-up has the raw table's columns. One of its rows stands for all raw rows of a bucket (and label set) and is dated inside
that bucket. So a template reads either table, and `{table}` becomes a UNION where the range needs both:

    |-- raw --|-- minutes --|------ hours ------|-- minutes --|-- raw --|
   from                                                                 to

Only whole buckets of a roll-up are used, so the edges of a range are those of the raw table, wherever they lie. Hours that a
roll-up has wrong (`gaps`) are read from the raw table, too. What is older than a table keeps its rows (`keeps`) comes from the
next coarser one, whose rows are samples with their own times, so that any step may be asked for.

The choice is made when the statement is sent, by the tables that are there. The statement's own text is the one on the raw table:
it says what is asked, and the answers of both are kept as one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from app.clock import wall_ms
from app.documents.schema import Name, Strict
from app.model import Matcher, Statement, TimeRange
from app.sources.base import Ask
from app.sources.sql.dialect import SeriesDialect, code_only
from app.sources.sql.read import SqlRead, sampled_statement
from app.sources.sql.template import fill_template, has_table, template_problems, trim_statement, yields_weight

_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_HOUR_MS = _UNITS_MS["h"]
_TABLES = re.compile(r"\b(?:from|join)\s+([A-Za-z_][\w.]*)", re.IGNORECASE)
_LOOK_AGAIN_S = 60.0
_COLUMN = r"^[A-Za-z_]\w*$"
#: a name, or a SELECT in brackets
_TABLE = r"^([A-Za-z_][\w.]*|\((?s:.)*\)\s*)$"

Width = Annotated[str, Field(pattern=r"^[1-9]\d{0,5}[smhd]$")]


def width_ms(text: str) -> int:
    """A width as the catalogue writes it (60s, 1m, 1h, 1d), in ms."""
    return int(text[:-1]) * _UNITS_MS[text[-1]]


class Rollup(Strict):
    """One roll-up of a read's table.

    With `from_step` it serves steps that are multiples of that width: a row is its bucket's figure (the newest sample, a sum).
    With `from_thinned` it serves the samples of series that the store thins in stretches of multiples of that width: its rows are
    some of the samples, the extremes of each bucket among them. `table` may be a SELECT in brackets.
    """

    from_step: Width | None = None
    from_thinned: Width | None = None
    table: str = Field(pattern=_TABLE)
    #: the labels that it has; None: all of the read
    labels: tuple[Name, ...] | None = None
    #: how long it keeps its rows; None: as long as it is asked for
    keeps: Width | None = None

    @property
    def bucket_ms(self) -> int:
        """The width of its buckets."""
        return width_ms(self.from_step or self.from_thinned or "1s")

    @property
    def tables(self) -> frozenset[str]:
        """The tables that it needs."""
        return frozenset(_TABLES.findall(self.table) if self.table.startswith("(") else (self.table,))

    def has_labels(self, statement: Statement) -> bool:
        """Whether it has all labels that the statement keeps or filters."""
        used = {*statement.labels, *(matcher.label for matcher in statement.where)}
        return self.labels is None or used <= set(self.labels)

    def fits(self, statement: Statement, takes_samples: bool) -> bool:
        """Whether whole buckets of it answer a part of this statement as the raw rows do."""
        if takes_samples != (self.from_thinned is not None) or not self.has_labels(statement):
            return False
        if takes_samples:
            return _whole_stretches(statement, self.bucket_ms)
        return statement.range.exact or statement.range.step_ms % self.bucket_ms == 0


def _whole_stretches(statement: Statement, bucket_ms: int) -> bool:
    """Whether no bucket lies in two stretches of the thinning."""
    thin_ms, span = statement.thin_ms, statement.range
    return thin_ms % bucket_ms == 0 or span.from_ms // thin_ms == (span.to_ms - 1) // thin_ms


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the range, and the roll-up that answers for it (None: the raw table)."""

    rollup: Rollup | None
    from_ms: int
    to_ms: int


def _split_range(from_ms: int, to_ms: int, rollups: Sequence[Rollup]) -> Iterator[_Piece]:
    """The range in the order of time: whole buckets of the first roll-up, what is beside them by the next ones, the rest raw."""
    if from_ms >= to_ms:
        return
    if not rollups:
        yield _Piece(None, from_ms, to_ms)
        return
    first, *others = rollups
    begins_ms, ends_ms = -(-from_ms // first.bucket_ms) * first.bucket_ms, to_ms // first.bucket_ms * first.bucket_ms
    if begins_ms >= ends_ms:
        yield from _split_range(from_ms, to_ms, others)
        return
    yield from _split_range(from_ms, begins_ms, others)
    yield _Piece(first, begins_ms, ends_ms)
    yield from _split_range(ends_ms, to_ms, others)


def _kept_parts(piece: _Piece, ladder: Sequence[tuple[Rollup | None, str | None]], now_ms: int) -> Iterator[_Piece]:
    """A piece in the order of time: what is older than its table keeps is read from the next coarser one of the ladder."""
    place = next((place for place, (rollup, _) in enumerate(ladder) if rollup == piece.rollup), len(ladder))
    keeps = ladder[place][1] if place + 1 < len(ladder) else None
    if keeps is None:
        yield piece
        return
    begins_ms = -(-(now_ms - width_ms(keeps)) // _HOUR_MS) * _HOUR_MS
    if piece.from_ms < begins_ms:
        older = _Piece(ladder[place + 1][0], piece.from_ms, min(begins_ms, piece.to_ms))
        yield from _kept_parts(older, ladder, now_ms)
    if piece.to_ms > begins_ms:
        yield replace(piece, from_ms=max(piece.from_ms, begins_ms))


class RolledUpRead(SqlRead):
    """A template that may be read from roll-ups of its table.

    `columns` are the columns that the template reads of `{table}`; the first is the time. `gaps` is a SELECT of the hours that
    are read from the raw table. `keeps` is how long the raw table keeps its rows. `rolled_sql` stands in for `sql` where a
    roll-up is read, for figures that a roll-up has in another form (states of quantiles).
    """

    dialect: ClassVar[SeriesDialect]

    columns: tuple[Annotated[str, Field(pattern=_COLUMN)], ...] = ()
    rollups: tuple[Rollup, ...] = ()
    gaps: str | None = None
    rolled_sql: str | None = None
    keeps: Width | None = None

    @property
    def thins_from_ms(self) -> int:
        """See Read."""
        return min((one.bucket_ms for one in self.rollups if one.from_thinned is not None), default=0)

    @property
    def rolled_steps_ms(self) -> tuple[int, ...]:
        """See Read."""
        return tuple(one.bucket_ms for one in self.rollups if one.from_step is not None)

    def fitting_rollups(self, statement: Statement) -> list[Rollup]:
        """The roll-ups that answer for a part of the statement."""
        takes_samples = self.takes_samples(statement)
        return [one for one in self.rollups if one.fits(statement, takes_samples)]

    def rolled_statement(self, statement: Statement, tables: Collection[str]) -> Statement:
        """The statement on the roll-ups that fit it and whose tables are there; the one on the raw table where none does."""
        complete = self.table is not None and self.columns
        usable = [one for one in self.fitting_rollups(statement) if complete and one.tables <= set(tables)]
        pieces = self._pieces(statement, usable)
        if self.keeps is not None and complete:
            there = [one for one in self.rollups if one.from_step is not None and one.tables <= set(tables)]
            ladder = ((None, self.keeps), *((one, one.keeps) for one in there if one.has_labels(statement)))
            pieces = _joined_pieces(part for piece in pieces for part in _kept_parts(piece, ladder, wall_ms()))
        raw = self.sampled_statement(statement)
        if all(piece.rollup is None for piece in pieces):
            return raw
        dialect, sql = self.dialect, self.rolled_sql or self.sql
        if self.samples is not None and self.takes_samples(statement):
            sql = self.samples.sql
        sql = trim_statement(sql, dialect.quoting)
        text, _ = fill_template(sql, raw.labels, raw.where, self.label_column, dialect, self._union(pieces))
        named = set(dialect.parameter.findall(code_only(text, dialect.quoting)))
        bound = dict(statement.params) | dict(raw.params)
        return replace(raw, text=text, params=tuple(pair for pair in bound.items() if pair[0] in named))

    def more_statements(self, metric: str, to_ms: int) -> Iterator[Statement]:
        """See Read: a statement for each roll-up."""
        for one in self.rollups:
            bucket_ms = one.bucket_ms
            end_ms = to_ms // bucket_ms * bucket_ms
            labels = tuple(label for label in self.labels if one.labels is None or label in one.labels)
            where = tuple(Matcher(label, "=", ("x",)) for label in labels)
            asked = self.statement(Ask(metric, TimeRange(end_ms - 3 * bucket_ms, end_ms, bucket_ms), labels, where))
            yield asked if one.from_step is not None else replace(asked, thin_ms=bucket_ms, thin_to_ms=end_ms)

    def _pieces(self, statement: Statement, usable: Sequence[Rollup]) -> list[_Piece]:
        """The range in pieces. What is not thinned at the store (the live edge may replace it) is no piece of thinned rows."""
        span = statement.range
        coarsest = sorted(usable, key=lambda one: -one.bucket_ms)
        if not self.takes_samples(statement):
            return list(_split_range(span.from_ms, span.to_ms, coarsest))
        until_ms = max(min(statement.thin_to_ms, span.to_ms), span.from_ms)
        return _joined_pieces((*_split_range(span.from_ms, until_ms, coarsest), *_split_range(until_ms, span.to_ms, ())))

    def _union(self, pieces: Sequence[_Piece]) -> str:
        """The pieces as one table expression."""
        lacking = {self.word(label) for one in pieces if one.rollup is not None for label in self._lacking_labels(one.rollup)}
        columns = ", ".join(name for name in self.columns if name not in lacking)
        at, dialect = self.columns[0], self.dialect
        hour = dialect.hour.format(column=at)

        def select(piece: _Piece, condition: str = "") -> str:
            table = self.table if piece.rollup is None else piece.rollup.table
            begins, ends = (dialect.instant.format(ms=ms) for ms in (piece.from_ms, piece.to_ms))
            return f"SELECT {columns} FROM {table} WHERE {at} >= {begins} AND {at} < {ends}{condition}"  # noqa: S608  the catalogue's own text

        if self.gaps is None:
            selects = [select(piece) for piece in pieces]
        else:
            rolled = _joined_pieces(replace(piece, rollup=None) for piece in pieces if piece.rollup is not None)
            gaps = trim_statement(self.gaps, dialect.quoting)
            selects = [select(piece, f" AND {hour} NOT IN ({gaps})" if piece.rollup else "") for piece in pieces]
            selects += [select(piece, f" AND {hour} IN ({gaps})") for piece in rolled]
        return f"({' UNION ALL '.join(selects)})"

    def _lacking_labels(self, rollup: Rollup) -> set[str]:
        return set(self.labels) - set(rollup.labels) if rollup.labels is not None else set()

    def problems(self) -> Iterator[tuple[str, str]]:
        """As for every template; roll-ups that cannot answer for the raw table."""
        yield from super().problems()
        if not self.rollups:
            return
        if self.rolled_sql is not None:
            problems = template_problems(self.rolled_sql, self.labels, self.placeholders, self.dialect.quoting)
            yield from (("rolled_sql" if key == "sql" else key, text) for key, text in problems)
        yield from self._missing_parts()
        for place, rollup in enumerate(self.rollups):
            yield from ((f"rollups.{place}{key}", text) for key, text in self._rollup_problems(rollup))
        widths = [one.bucket_ms for one in self.rollups if one.from_step is not None]
        if any(later <= former or later % former for former, later in pairwise(widths)):
            yield "rollups", "`from_step` must ascend, each a multiple of the one before it"

    def _missing_parts(self) -> Iterator[tuple[str, str]]:
        quoting = self.dialect.quoting
        stepped, thinned = ([one for one in self.rollups if getattr(one, key)] for key in ("from_step", "from_thinned"))
        key, text = ("sql", self.sql) if self.rolled_sql is None else ("rolled_sql", self.rolled_sql)
        if stepped and not has_table(text, quoting):
            yield key, "has `rollups` but no {table}; write `FROM {table}`"
        if thinned and (self.samples is None or not has_table(self.samples.sql, quoting)):
            yield "samples.sql", "is missing or has no {table}; a roll-up with `from_thinned` stands for samples"
        if self.table is None:
            yield "table", "is missing: the raw table that the roll-ups stand for"
        if self.keeps is not None and (self.parts is not None or self.rolled_sql is not None):
            yield "keeps", "is for samples; the rows of a roll-up are none here (`parts`, `rolled_sql`)"
        if self.rolled_sql is not None and yields_weight(self.rolled_sql, quoting) != yields_weight(self.sql, quoting):
            yield "rolled_sql", "and `sql` must both have a column `weight`, or neither"
        needed = {self.word(label).rpartition(".")[2] for label in self.labels}
        if not self.columns:
            yield "columns", "is missing: the columns that the template reads of {table}, the time first"
        elif missing := needed - set(self.columns):
            yield "columns", f"lacks {', '.join(sorted(missing))}, a label's column"

    def _rollup_problems(self, rollup: Rollup) -> Iterator[tuple[str, str]]:
        if (rollup.from_step is None) == (rollup.from_thinned is None):
            yield "", "has both `from_step` and `from_thinned`, or neither; one of them is needed"
        if self.gaps is not None and rollup.bucket_ms > _HOUR_MS:
            yield "", "is wider than an hour, and `gaps` are hours"
        for name in sorted(set(rollup.labels or ()) - set(self.labels)):
            yield ".labels", f"{name!r} is no label of the read; allowed: {', '.join(sorted(self.labels))}"


def _joined_pieces(pieces: Collection[_Piece] | Iterator[_Piece]) -> list[_Piece]:
    """Neighbouring pieces of one table as one."""
    joined: list[_Piece] = []
    for piece in pieces:
        if joined and joined[-1].rollup == piece.rollup and joined[-1].to_ms == piece.from_ms:
            joined[-1] = replace(joined[-1], to_ms=piece.to_ms)
        else:
            joined.append(piece)
    return joined


def wanted_tables(statement: Statement) -> frozenset[str]:
    """The tables of all roll-ups that fit the statement."""
    read = statement.read
    if not isinstance(read, RolledUpRead):
        return frozenset()
    return frozenset(table for one in read.fitting_rollups(statement) for table in one.tables)


def send_statement(statement: Statement, tables: Collection[str] = ()) -> Statement:
    """The statement as it is sent: on samples where these are thinned, and on its roll-ups, of which these tables are there."""
    read = statement.read
    return read.rolled_statement(statement, tables) if isinstance(read, RolledUpRead) else sampled_statement(statement)


class FoundTables:
    """Which tables a store has, as far as it was asked. A table that was missing is looked for again after `_LOOK_AGAIN_S`."""

    def __init__(self) -> None:
        self._there: set[str] = set()
        self._missing_until_s: dict[str, float] = {}

    def unknown(self, tables: Collection[str]) -> list[str]:
        """The tables that must be asked for."""
        now_s = time.monotonic()
        return sorted(one for one in tables if one not in self._there and self._missing_until_s.get(one, 0) <= now_s)

    def note(self, table: str, *, there: bool) -> None:
        """The store has said whether a table is there."""
        if there:
            self._there.add(table)
        else:
            self._missing_until_s[table] = time.monotonic() + _LOOK_AGAIN_S

    def forget(self) -> None:
        """Ask for each again: a statement failed, so a table may be gone."""
        self._there.clear()

    def among(self, tables: Collection[str]) -> frozenset[str]:
        """Those of these tables that are there."""
        return frozenset(self._there.intersection(tables))
