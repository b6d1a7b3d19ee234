"""The catalogue's SQL templates: `{by}` and `{where}` filled in from declared labels, every value bound.

    SELECT <bucket> AS time, {by}, avg(x) AS value FROM t WHERE ts >= <from> AND ts < <to> {where} GROUP BY ALL ORDER BY time

`{by}` becomes `column AS label, ...` (with no label kept it disappears together with the comma after it), `{where}` becomes
`AND ...` for each filter, `{table}` the table of the read (see `rollups`). The rest of the text stays as it is. Placeholders in
comments and strings are no placeholders (`dialect.code_only`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from app.filters import number_of, regex_predicate
from app.model import Matcher
from app.sources.sql.dialect import Dialect, Quoting, code_only, find_unclosed

_BY = re.compile(r"\{by\}\s*,?")
_WHERE = re.compile(r"\{where\}")
_TABLE_HOLDER = re.compile(r"\{table\}")
_FILLED = re.compile(f"{_BY.pattern}|{_WHERE.pattern}|{_TABLE_HOLDER.pattern}")
_SORTED = re.compile(r"\bORDER\s+BY\s+time\s*$", re.IGNORECASE)
_VALUE = re.compile(r"\bAS\s+value\b", re.IGNORECASE)
_WEIGHT = re.compile(r"\bAS\s+weight\b", re.IGNORECASE)
#: Words that make a row depend on rows of other buckets, or on the time of the query.
_ACROSS = re.compile(
    r"\b(over|window|limit|offset|qualify|fill|asof|union|intersect|except|with|top|sample|rollup|cube|totals|neighbor|now\w*"
    r"|today|yesterday|current_\w+|random\w*|rand\w*|unnest|generate_series|running\w+|array\w*|\w*array|\w*cum\w*|list\w*)\b"
    r"|\b(min|max|any\w*|first|last|arg_?m\w+)\s*\([^()]*\)\s+AS\s+time\b",
    re.IGNORECASE,
)
_FROM = re.compile(r">=\s*(?:\w+\s*\(\s*)?(?:\{from_ms:\w+\}|\$from_ms\b)(?!\s*[-+*/%])")
_TO = re.compile(r"<\s*(?:\w+\s*\(\s*)?(?:\{to_ms:\w+\}|\$to_ms\b)(?!\s*[-+*/%])")
_BUCKET = re.compile(r"\*\s*(?:\{step_ms:\w+\}|\$step_ms\b)\s+AS\s+time\b|toStartOfInterval\(", re.IGNORECASE)


def trim_statement(text: str, quoting: Quoting) -> str:
    """The statement without a byte order mark, without comments around it, and without semicolons at its end."""
    text = text.lstrip("\ufeff")
    code = code_only(text, quoting)
    ends = len(code.rstrip("; \t\r\n\f\v"))
    return text[len(code) - len(code.lstrip()) : ends]


def drop_final_order(text: str) -> str:
    """The SELECT without an order by time at its end. A frame sorts itself, and sorting is a third of ClickHouse's time."""
    return _SORTED.sub("", text)


def yields_points(text: str, quoting: Quoting) -> bool:
    """Whether a SELECT has a column `value`: points, not events."""
    return _VALUE.search(code_only(text, quoting)) is not None


def yields_weight(text: str, quoting: Quoting) -> bool:
    """Whether a SELECT has a column `weight` beside its value."""
    return _WEIGHT.search(code_only(text, quoting)) is not None


def has_table(text: str, quoting: Quoting) -> bool:
    """Whether a template has `{table}` in place of the name of its table."""
    return _TABLE_HOLDER.search(code_only(text, quoting)) is not None


def fill_template(
    template: str,
    by: Sequence[str],
    where: Sequence[Matcher],
    column: Callable[[str], str],
    dialect: Dialect,
    table: str = "",
) -> tuple[str, dict[str, Any]]:
    """The statement's text and the parameters that the filters bind (`w0`, `w1`, ...)."""
    conditions, params = [], dict[str, Any]()
    for place, matcher in enumerate(where):
        name = f"w{place}"
        condition, params[name] = _filter_condition(matcher, column(matcher.label), name, dialect)
        conditions.append(f"AND {condition}")
    kept = ", ".join(f"{column(label)} AS {label}" for label in by)
    code = code_only(template, dialect.quoting)

    def fill_placeholder(found: re.Match[str]) -> str:
        if code[found.start()] != "{":
            return found[0]
        if _TABLE_HOLDER.match(found[0]):
            return table
        return " ".join(conditions) if _WHERE.match(found[0]) else f"{kept}, " if kept else ""

    return _FILLED.sub(fill_placeholder, template), params


def _filter_condition(matcher: Matcher, column: str, name: str, dialect: Dialect) -> tuple[str, Any]:
    operator, operand = matcher.operator, matcher.values[0] if matcher.values else ""
    if operator in ("=", "!="):
        return f"{column} {operator} {dialect.placeholder(name, 'text')}", operand
    if operator in ("=|", "!=|"):
        test = dialect.one_of.format(column=column, operand=dialect.placeholder(name, "texts"))
        return test if operator == "=|" else f"NOT {test}", matcher.values
    if operator in ("=~", "!~"):
        regex_predicate(operand)
        test = dialect.matches.format(column=column, operand=dialect.placeholder(name, "text"))
        return test if operator == "=~" else f"NOT {test}", f"^(?:{operand})$"
    bound = number_of(operand)
    if math.isnan(bound):
        return f"{column} {operator} {dialect.placeholder(name, 'text')}", operand
    return f"{dialect.as_number.format(column=column)} {operator} {dialect.placeholder(name, 'number')}", bound


@lru_cache(maxsize=1000)
def is_sliceable(template: str) -> bool:
    """Whether the rows of a bucket are certain to be the same whatever other buckets the range has.

    They are where the range only selects the rows that are read (`ts >= from AND ts < to`, once), the step puts the rows into
    buckets, and no row depends on another bucket. A template that is not understood is not sliceable.
    """
    return (
        template.count("from_ms") == len(_FROM.findall(template)) == 1
        and template.count("to_ms") == len(_TO.findall(template)) == 1
        and "now_ms" not in template
        and len(_BUCKET.findall(template)) == 1
        and _ACROSS.search(template) is None
    )


def template_problems(sql: str, declared: Mapping[str, str], known: Sequence[str], quoting: Quoting) -> Iterator[tuple[str, str]]:
    """What is wrong with a template: an open comment or string, an unknown placeholder, a label column that is no column."""
    opened = find_unclosed(sql, quoting)
    if opened is not None:
        yield "sql", f"{opened} opens {'a comment' if opened == '/*' else 'a text or a name'} that nothing closes"
    code = code_only(sql, quoting)
    if declared:
        yield from _label_problems(code)
    for found in re.findall(r"\{(\w+)(?::[^{}]*)?\}", code):
        if found not in known:
            yield "sql", f"unknown placeholder {{{found}}}; allowed: {', '.join('{' + name + '}' for name in known)}"
    yield from _where_problems(code)
    for label, column in declared.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", column):
            yield f"labels.{label}", f"{column!r} is not a column name"


def _where_problems(code: str) -> Iterator[tuple[str, str]]:
    """Places of `{where}` from which it does not narrow all rows."""
    if _is_beside_or(code):
        yield "sql", "{where} stands beside an OR, which it does not narrow as a whole; write `(a OR b) {where}`"
    if _lacks_where(code):
        yield "sql", "{where} stands in one part of a UNION, and the other parts are not narrowed; write it in each of them"


def _label_problems(code: str) -> Iterator[tuple[str, str]]:
    """Placeholders that a template with labels lacks. Events have texts in place of a value, and no label columns."""
    if not _BY.search(code) and _VALUE.search(code):
        yield "sql", "has labels but no {by}; write `{by},` in the SELECT list"
    if not _WHERE.search(code):
        yield "sql", "has labels but no {where}; write `{where}` after the WHERE conditions"


#: The columns that a template of points yields beside its labels.
_POINT_COLUMNS = ("time", "value", "weight")
#: Tests of a column for NULL, and functions that leave NULL out.
_OF_NULL = (
    r"(?<![\w.{{]){label}\s+is\s+(?:not\s+)?(?:null|distinct)\b"
    r"|\b(?:is(?:not)?null|ifnull|coalesce|count|uniq\w*)\s*\(\s*(?:distinct\s+)?{label}\s*[,)]"
)
_TABLE = re.compile(r"\b(?:from|join)\s+[\w.`\"]+(?:\s+as\s+\w+)?", re.IGNORECASE)


def label_name_problems(sql: str, labels: Mapping[str, str], dialect: Dialect) -> Iterator[tuple[str, str]]:
    """Labels whose name already means something else in the template: `{by}` makes a column of each label."""
    code = code_only(sql, dialect.quoting)
    if not _BY.search(code):
        return
    words = _TABLE.sub(" ", code)
    for label in labels:
        if label.lower() in _POINT_COLUMNS:
            yield f"labels.{label}", f"{label.lower()!r} is a column of points; another name is needed"
        elif dialect.alias_hides_column and (problem := _hidden_column(label, labels, words)):
            yield f"labels.{label}", problem


def _hidden_column(label: str, labels: Mapping[str, str], words: str) -> str | None:
    """What would get the text of this label in place of the column of the same name."""
    other = next((name for name, column in labels.items() if name != label and column == label), None)
    if labels[label].rpartition(".")[2] == label:
        # The text is that of the column itself. It is empty where the column is NULL.
        if not re.search(_OF_NULL.format(label=label), words, re.IGNORECASE):
            return None
        return f"the template tests {label!r} for NULL, and the label's text never is; write the column with its table: t.{label}"
    if other is not None:
        reader = f"the label {other!r} is made of"
    # A word before `(` is a function, one after `.` is the column of a table, one after `{` is a placeholder.
    elif re.search(rf"(?<![\w.{{]){label}(?!\w|\s*[.(])", words):
        reader = "the template reads"
    else:
        return None
    return (
        f"{reader} a column {label!r}, and would get the label's text in its place; "
        f"rename the label, or write the column with its table: t.{label}"
    )


_WORD = re.compile(
    r"[()]|\{where\}|\b(?:or|where|prewhere|having|group|order|limit|select|on|union|case|when|then|else|end)\b", re.IGNORECASE
)


#: quoted names, whose words are no part of the statement either
_NAMES = re.compile(r'"[^"]*"|`[^`]*`')


def _is_beside_or(code: str) -> bool:
    """Whether `{where}` is at the same level as an OR: it begins with AND, and `a OR b AND c` means `a OR (b AND c)`."""
    levels: list[set[str]] = [set()]
    for found in _WORD.findall(_NAMES.sub(" ", code)):
        word = found.lower()
        if word == "(":
            levels.append(set())
        elif word == ")" and len(levels) > 1:
            levels.pop()
        elif word in ("or", "{where}"):
            levels[-1].add(word)
        else:
            levels[-1].clear()
        if len(levels[-1]) == 2:
            return True
    return False


def _lacks_where(code: str) -> bool:
    """Whether one part of a UNION has `{where}`, itself or in a subquery, and another part has not."""
    levels: list[list[bool]] = [[False]]
    for found in re.findall(r"[()]|\{where\}|\bunion\b", _NAMES.sub(" ", code), re.IGNORECASE):
        if found == "(":
            levels.append([False])
        elif found == ")" and len(levels) > 1:
            inside = levels.pop()
            levels[-1][-1] |= any(inside)
            if any(inside) and not all(inside):
                return True
        elif found == "{where}":
            levels[-1][-1] = True
        elif found.lower() == "union":
            levels[-1].append(False)
    return any(levels[0]) and not all(levels[0])
