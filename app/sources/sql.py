"""The catalogue's SQL templates: `{by}` and `{where}` filled from declared labels, every value bound.

    SELECT <bucket> AS time, {by}, avg(x) AS value FROM t WHERE ts >= <from> AND ts < <to> {where} GROUP BY ALL ORDER BY time

`{by}` becomes `column AS label, ...` (with no label kept it disappears together with the comma after it), `{where}` becomes
`AND ...` for each filter. Everything else in the text is the catalogue author's own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from app.model import Frame, Matcher, Times, Values, frame_of_parts
from app.sources.base import number, pattern

_BY = re.compile(r"\{by\}\s*,?")
_WHERE = re.compile(r"\{where\}")
_SORTED = re.compile(r"\bORDER\s+BY\s+time\s*$", re.IGNORECASE)
_VALUE = re.compile(r"\bAS\s+value\b", re.IGNORECASE)
#: What makes a row depend on rows of other buckets, or on when it is asked.
_ACROSS = re.compile(
    r"\b(over|window|limit|offset|qualify|fill|asof|union|intersect|except|with|top|sample|rollup|cube|totals|neighbor|now\w*"
    r"|today|yesterday|current_\w+|random\w*|rand\w*|unnest|generate_series|running\w+|array\w*|\w*array|\w*cum\w*|list\w*)\b"
    r"|\b(min|max|any\w*|first|last|arg_?m\w+)\s*\([^()]*\)\s+AS\s+time\b",
    re.IGNORECASE,
)
_FROM = re.compile(r">=\s*(?:\w+\s*\(\s*)?(?:\{from_ms:\w+\}|\$from_ms\b)(?!\s*[-+*/%])")
_TO = re.compile(r"<\s*(?:\w+\s*\(\s*)?(?:\{to_ms:\w+\}|\$to_ms\b)(?!\s*[-+*/%])")
_BUCKET = re.compile(r"\*\s*(?:\{step_ms:\w+\}|\$step_ms\b)\s+AS\s+time\b|toStartOfInterval\(", re.IGNORECASE)
_ORDERS = ("<", "<=", ">", ">=")


def unsorted(text: str) -> str:
    """The SELECT without an order by time at its end: a frame sorts itself, and ClickHouse takes a third of its time for it."""
    return _SORTED.sub("", text)


def yields_points(text: str) -> bool:
    """Whether a SELECT has a column `value`: points, not events."""
    return _VALUE.search(text) is not None


def points(
    cells: Mapping[str, Any], labels: Sequence[str], times: Sequence[Times], values: Sequence[Values], **rest: Any
) -> Frame:
    """A row a series as a frame: the labels' cells (NULL is the empty text), its times and its values."""
    names = sorted(labels)
    rows = zip(*(cells[name] for name in names), strict=True) if names else [()] * len(times)
    named = [tuple(zip(names, map(_text, row), strict=True)) for row in rows]
    found = frame_of_parts(zip(named, times, values, strict=True), **rest)
    # An infinity is the quotient of a division by zero: known to have no value.
    found.value[np.isinf(found.value)] = np.nan
    return found


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine writes a bound value and the tests that a filter needs; `{column}` and `{operand}` are filled in."""

    #: (parameter name, its type: "text", "texts" or "number") -> the placeholder
    placeholder: Callable[[str, str], str]
    one_of: str
    matches: str
    as_number: str


def fill(
    template: str, by: Sequence[str], where: Sequence[Matcher], column: Callable[[str], str], dialect: Dialect
) -> tuple[str, dict[str, Any]]:
    """The statement's text and the parameters that the filters bind (`w0`, `w1`, ...)."""
    conditions, params = [], dict[str, Any]()
    for place, matcher in enumerate(where):
        name = f"w{place}"
        condition, params[name] = _condition(matcher, column(matcher.label), name, dialect)
        conditions.append(f"AND {condition}")
    kept = ", ".join(f"{column(label)} AS {label}" for label in by)
    text = _BY.sub(lambda _: f"{kept}, " if kept else "", template)
    return _WHERE.sub(lambda _: " ".join(conditions), text), params


def _condition(matcher: Matcher, column: str, name: str, dialect: Dialect) -> tuple[str, Any]:
    operator, operand = matcher.operator, matcher.values[0] if matcher.values else ""
    if operator in ("=", "!="):
        return f"{column} {operator} {dialect.placeholder(name, 'text')}", operand
    if operator in ("=|", "!=|"):
        test = dialect.one_of.format(column=column, operand=dialect.placeholder(name, "texts"))
        return test if operator == "=|" else f"NOT {test}", list(matcher.values)
    if operator in ("=~", "!~"):
        pattern(operand)
        test = dialect.matches.format(column=column, operand=dialect.placeholder(name, "text"))
        return test if operator == "=~" else f"NOT {test}", f"^(?:{operand})$"
    bound = number(operand)
    if math.isnan(bound):
        return f"{column} {operator} {dialect.placeholder(name, 'text')}", operand
    return f"{dialect.as_number.format(column=column)} {operator} {dialect.placeholder(name, 'number')}", bound


@lru_cache(maxsize=1000)
def sliceable(template: str) -> bool:
    """Whether each bucket's rows are certain to be the same whatever other buckets are asked for.

    They are where the range only says which rows are read (`ts >= from AND ts < to`, once), the rows are put into buckets by the
    step, and nothing in the statement looks from one bucket to another. What is not understood is not sliceable.
    """
    return (
        template.count("from_ms") == len(_FROM.findall(template)) == 1
        and template.count("to_ms") == len(_TO.findall(template)) == 1
        and "now_ms" not in template
        and len(_BUCKET.findall(template)) == 1
        and _ACROSS.search(template) is None
    )


def template_problems(sql: str, declared: Mapping[str, str], known: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a template: a placeholder that nobody fills, a label column that is no column."""
    # Events have texts in place of a value, and no label columns.
    if not _BY.search(sql) and declared and _VALUE.search(sql):
        yield "sql", "has labels but no {by}; write `{by},` in the SELECT list"
    if not _WHERE.search(sql) and declared:
        yield "sql", "has labels but no {where}; write `{where}` after the WHERE conditions"
    for found in re.findall(r"\{(\w+)(?::[^{}]*)?\}", sql):
        if found not in known:
            yield "sql", f"unknown placeholder {{{found}}}; allowed: {', '.join('{' + name + '}' for name in known)}"
    for label, column in declared.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", column):
            yield f"labels.{label}", f"{column!r} is not a column name"
