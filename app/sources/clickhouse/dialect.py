"""What ClickHouse writes its own way: values, columns, tests, and how it collects and thins a series."""

from __future__ import annotations

import re

from app import filters
from app.sources.sql.dialect import CLICKHOUSE, FLOAT, SeriesDialect

_TYPES = {"text": "String", "texts": "Array(String)", "number": "Float64"}
# The braces are doubled for `str.format`.
_NUMBER = filters.NUMBER.replace("\\", "\\\\").replace("{", "{{").replace("}", "}}")
_KNOWN = f"isNotNull({FLOAT}) AND isFinite({FLOAT})"
_EXTREMES = (
    f'countIf({_KNOWN}) AS "$count"',
    f'argMinIf(time, ({FLOAT}, time), {_KNOWN}) AS "$low_time", minIf({FLOAT}, {_KNOWN}) AS "$low"',
    f'argMaxIf(time, ({FLOAT}, -time), {_KNOWN}) AS "$high_time", maxIf({FLOAT}, {_KNOWN}) AS "$high"',
    f'maxIf(time, {_KNOWN}) AS "$known_time", argMaxIf({FLOAT}, time, {_KNOWN}) AS "$known"',
    'min(time) AS "$first_time", max(time) AS "$last_time"',
)
_LOW, _HIGH, _NULL = '"$count" > 0', '"$count" > 0 AND "$high_time" != "$low_time"', '"$count" = 0'
_EARLY = '"$last_time" < {thin_to_ms}'
_ANY, _ANY_KNOWN = f"countIf({_EARLY}) > 0", f"countIf({_EARLY} AND {_LOW}) > 0"
_KNOWN_TIME, _LAST_TIME = f'maxIf("$known_time", {_EARLY} AND {_LOW})', f'maxIf("$last_time", {_EARLY})'
_NEWEST = f'ifNull(argMaxIf("$known", "$known_time", {_EARLY} AND {_LOW}), nan)'
_TIMES = (
    f'groupArrayIf("$low_time", {_LOW}), groupArrayIf("$high_time", {_HIGH}), groupArrayIf("$first_time", {_NULL})',
    f"if({_ANY_KNOWN}, [{_KNOWN_TIME}], []), if({_ANY}, [{_LAST_TIME}], [])",
)
_VALUES = (
    f'groupArrayIf(ifNull("$low", nan), {_LOW}), groupArrayIf(ifNull("$high", nan), {_HIGH})',
    f'arrayMap(_ -> nan, groupArrayIf("$first_time", {_NULL})), if({_ANY_KNOWN}, [{_NEWEST}], [])',
    f"if({_ANY}, [if({_ANY_KNOWN} AND {_LAST_TIME} = {_KNOWN_TIME}, {_NEWEST}, nan)], [])",
)
DIALECT = SeriesDialect(
    quoting=CLICKHOUSE,
    placeholder=lambda name, kind: f"{{{name}:{_TYPES[kind]}}}",
    parameter=re.compile(r"\{(\w+):"),
    # Text whatever the column is: an Enum compared with a word that it does not know is an error. Indices still serve it.
    as_text="ifNull(toString({column}), '')",
    as_float="ifNull(toFloat64({column}), {otherwise})",
    nan="nan",
    collect="groupArray",
    one_of="{column} IN {operand}",
    # ClickHouse lets a dot match a newline, RE2 elsewhere does not.
    matches="match({column}, concat('(?-s)', {operand}))",
    as_number=f"if(match({{column}}, '^(?:{_NUMBER})$'), toFloat64OrNull({{column}}), NULL)",
    time_advice="write toUnixTimestamp64Milli(...) AS time",
    alias_hides_column=True,
    thinned_value="toFloat64(value)",
    extremes=", ".join(_EXTREMES),
    thinned_times=f"arrayConcat({', '.join(_TIMES)})",
    thinned_values=f"arrayConcat({', '.join(_VALUES)})",
    stretch="intDiv(time, {width})",
    instant="fromUnixTimestamp64Milli({ms})",
    hour="toStartOfHour({column})",
)
