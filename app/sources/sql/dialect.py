"""What one SQL engine writes differently from another, as data; and which parts of a text are code to it.

Comments and strings may hold anything: placeholders in them are no placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

#: A column that the bridge adds to a template's own. No label has such a name.
FLOAT = '"$float"'

_COMMENT = r"(?P<comment>--[^\n]*|/\*.*?\*/%s)"
#: Names in quotes are code, but a quote in them opens no string.
_NAME = r"\"(?:[^\"]|\"\")*\"|`[^`]*`"
_DOLLARS = r"\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$"
_OPEN = r"(?P<open>/\*|['\"`])"


@dataclass(frozen=True, slots=True)
class Quoting:
    """How one engine writes comments and strings."""

    tokens: re.Pattern[str]


def _quoting_of(string: str, more_comments: str = "") -> Quoting:
    parts = (_COMMENT % more_comments, rf"(?P<string>{string}|{_DOLLARS})", _NAME, _OPEN)
    return Quoting(re.compile("|".join(parts), re.DOTALL))


#: ClickHouse: a backslash escapes, `# ` and `#!` begin a comment.
CLICKHOUSE = _quoting_of(r"'(?:[^'\\]|\\.|'')*'", r"|\#[ !][^\n]*")
#: DuckDB: a backslash escapes in e'...' only.
DUCKDB = _quoting_of(r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'")


@lru_cache(maxsize=2000)
def code_only(text: str, quoting: Quoting) -> str:
    """The text with blanks in place of comments and `_` in place of strings. It is as long as before, and only code is left."""

    def mask_token(found: re.Match[str]) -> str:
        if found["comment"] is not None:
            return " " * len(found[0])
        return "_" * len(found[0]) if found["string"] is not None else found[0]

    return quoting.tokens.sub(mask_token, text)


def find_unclosed(text: str, quoting: Quoting) -> str | None:
    """The sign that opens a comment, a string or a name without an end; None where there is none."""
    return next((found["open"] for found in quoting.tokens.finditer(text) if found["open"]), None)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine writes values, columns and tests; `{column}` and `{operand}` are filled in."""

    quoting: Quoting
    #: (parameter name, its type: "text", "texts" or "number") -> the placeholder
    placeholder: Callable[[str, str], str]
    #: finds the names that a text binds
    parameter: re.Pattern[str]
    #: any column as text, NULL as the empty text
    as_text: str
    one_of: str
    matches: str
    as_number: str
    #: what to write for a column `time` that is no integer
    time_advice: str
    #: whether `x` means the SELECT list's `... AS x` where the table has a column `x`, too
    alias_hides_column: bool

    def column_text(self, column: str) -> str:
        """A column as text: what a label is."""
        return self.as_text.format(column=column)


@dataclass(frozen=True, slots=True)
class SeriesDialect(Dialect):
    """How an engine that has lists collects a series in one row, and thins it.

    A stretch has the figures `extremes` (columns of the engine's own). From those of all its stretches a series gets its lists
    `thinned_times` and `thinned_values`. They may have a point twice, and are in no order. `FLOAT` is the value as a float.
    """

    #: any column as a float; `{otherwise}` stands for NULL
    as_float: str
    nan: str
    #: the function that collects a column into a list
    collect: str
    #: the value as `FLOAT`: a number that can be compared, or NULL
    thinned_value: str
    #: of a stretch: the first lowest and the first highest value, the newest known one, the newest and the first time
    extremes: str
    #: of a series: the extremes of each stretch, or the first null where all are null; before `{thin_to_ms}` the newest known
    #: value, and the newest one
    thinned_times: str
    thinned_values: str
    #: the number of the stretch; `{width}` is filled in
    stretch: str
    #: an instant (`{ms}`: epoch ms) as the type of a time column, and the hour of such a column
    instant: str
    hour: str
