"""What the catalogue's SQL reads say, and the statements that they become."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

from app.documents.schema import Name, Strict
from app.model import CacheTimes, Parts, Statement, TimeRange
from app.sources.base import Ask, Read
from app.sources.sql.dialect import Dialect, code_only
from app.sources.sql.template import (
    fill_template,
    has_table,
    label_name_problems,
    template_problems,
    trim_statement,
    yields_weight,
)

_PLACEHOLDER = re.compile(r"[{}]")
#: the one bucket of a question that has no window
_ONCE = TimeRange(0, 1000, 1000)
_KEPT_LONG = CacheTimes(fresh_s=600, stale_s=86_400)


class Samples(Strict):
    """The samples themselves, for a store that thins: a SELECT of `time` (epoch ms of the sample), the labels and `value`.

    It answers for series that are kept apart by all labels of `each`: then no two samples of a bucket belong to one point. The
    extremes of every sample survive, and the store is spared the buckets, which cost it many times the thinning.
    """

    each: tuple[Name, ...]
    sql: str


class SqlRead(Read):
    """What the reads of all engines say.

    `parts: sum` (amounts), `min`, `max`, or `mean`. The template of a mean yields a column `weight` beside `value`: the count
    behind an average, the denominator of a ratio. A figure without `parts` has none, as a quantile.

    `begins` is a SELECT of one number: the epoch ms of the table's oldest row, whatever that row tells of; NULL if there is none.
    From then on a bucket without rows is one in which nothing happened (`zeros` of the metric).

    `table` is the table that `{table}` stands for.
    """

    cuts_buckets: ClassVar[bool] = True
    thins: ClassVar[bool] = True
    is_template: ClassVar[bool] = True
    dialect: ClassVar[Dialect]
    #: what may stand in braces in a template
    placeholders: ClassVar[tuple[str, ...]] = ("by", "where", "table")

    sql: str
    table: str | None = None
    parts: Literal["sum", "min", "max", "mean", "none"] | None = None
    begins: str | None = None
    samples: Samples | None = None

    def statement(self, ask: Ask) -> Statement:
        """The SELECT with its placeholders filled in; every value is bound."""
        return self._filled_statement(self.sql, ask)

    def _filled_statement(self, sql: str, ask: Ask) -> Statement:
        dialect, table = self.dialect, self.table or ""
        text, bound = fill_template(trim_statement(sql, dialect.quoting), ask.by, ask.where, self.label_column, dialect, table)
        bound |= window_parameters(ask)
        # Only what the text names. DuckDB refuses other parameters. With parameters but no placeholder, ClickHouse's driver
        # takes each % of the text for its own.
        named = (name for name in dialect.parameter.findall(code_only(text, dialect.quoting)) if name in bound)
        params = {name: bound[name] for name in named}
        return Statement(self.source, ask.metric, text, tuple(params.items()), ask.range, ask.by, ask.where, self, ask.now_ms)

    @property
    def each(self) -> tuple[str, ...]:
        """See Read."""
        return self.samples.each if self.samples is not None else ()

    def takes_samples(self, statement: Statement) -> bool:
        """Whether the samples themselves are thinned."""
        return statement.thin_ms > 0 and self.samples is not None and set(self.samples.each) <= set(statement.labels)

    def sampled_statement(self, statement: Statement) -> Statement:
        """The statement on the samples themselves, where they can be thinned; the same one elsewhere."""
        if self.samples is None or not self.takes_samples(statement):
            return statement
        ask = Ask(statement.metric, statement.range, statement.labels, statement.where, statement.now_ms)
        found = self._filled_statement(self.samples.sql, ask)
        return replace(statement, text=found.text, params=found.params)

    def begins_statement(self, metric: str) -> Statement | None:
        """See Read. The oldest row changes with the table's time to live only, so that the answer is kept for long."""
        if self.begins is None:
            return None
        text = f"SELECT 0 AS time, (\n{trim_statement(self.begins, self.dialect.quoting)}\n) AS value"
        return Statement(self.source, metric, text, (), _ONCE, cache=_KEPT_LONG)

    def label_column(self, label: str) -> str:
        """A label as the engine computes it: text, whatever the column is."""
        return self.dialect.column_text(self.word(label))

    @property
    def given_parts(self) -> Parts | None:
        """See Read."""
        return self.parts

    def problems(self) -> Iterator[tuple[str, str]]:
        """Unknown placeholders, label columns that are none, a mean without its weight or a weight without a mean."""
        yield from template_problems(self.sql, self.labels, self.placeholders, self.dialect.quoting)
        yield from label_name_problems(self.sql, self.labels, self.dialect)
        if has_table(self.sql, self.dialect.quoting) and self.table is None:
            yield "table", "is missing: which table does {table} stand for?"
        if self.samples is not None:
            yield from self._samples_problems(self.samples)
        if self.begins is not None and _PLACEHOLDER.search(code_only(self.begins, self.dialect.quoting)):
            yield "begins", "has placeholders; it is a SELECT of one number, whatever is asked for"
        if (self.parts == "mean") == yields_weight(self.sql, self.dialect.quoting):
            return
        if self.parts == "mean":
            yield "parts", "mean needs a column `weight` (a count, a denominator): write `... AS weight` beside `... AS value`"
        else:
            yield "parts", "the template yields a column `weight`: write `parts: mean`"

    def _samples_problems(self, samples: Samples) -> Iterator[tuple[str, str]]:
        for key, text in template_problems(samples.sql, self.labels, self.placeholders, self.dialect.quoting):
            yield f"samples.{key}", text
        for label in samples.each:
            if label not in self.labels:
                yield "samples.each", f"{label!r} is no label of the read; allowed: {', '.join(sorted(self.labels))}"


def sampled_statement(statement: Statement) -> Statement:
    """See SqlRead."""
    return statement.read.sampled_statement(statement) if isinstance(statement.read, SqlRead) else statement


def window_parameters(ask: Ask) -> dict[str, int]:
    """What a template may ask for of the window. All instants of an exact window fall into one bucket, that of the epoch."""
    span = ask.range
    step_ms = span.origin_ms + span.step_ms if span.exact else span.step_ms
    return {"from_ms": span.from_ms, "to_ms": span.to_ms, "step_ms": step_ms, "now_ms": ask.now_ms}
