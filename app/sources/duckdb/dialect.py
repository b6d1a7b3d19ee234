"""What DuckDB writes its own way: values, columns, tests, and how it collects and thins a series."""

from __future__ import annotations

import re

from app import filters
from app.sources.sql.dialect import DUCKDB, FLOAT, SeriesDialect

# The braces are doubled for `str.format`.
_NUMBER = filters.NUMBER.replace("{", "{{").replace("}", "}}")
_KNOWN = f"FILTER ({FLOAT} IS NOT NULL)"
# The lowest of pairs is found twice as fast as the pair that belongs to the lowest value.
_EXTREMES = (
    f'min(struct_pack(v := {FLOAT}, t := time)) {_KNOWN} AS "$low"',
    f'max(struct_pack(v := {FLOAT}, t := -time)) {_KNOWN} AS "$high"',
    f'max(time) {_KNOWN} AS "$known_time", arg_max({FLOAT}, time) {_KNOWN} AS "$known"',
    'min(time) AS "$first_time", max(time) AS "$last_time"',
)
_LOW, _HIGH, _NULL = """FILTER ("$low" IS NOT NULL)""", """FILTER (-"$high".t <> "$low".t)""", """FILTER ("$low" IS NULL)"""
_EARLY = """FILTER ("$last_time" < {thin_to_ms})"""
_KNOWN_TIME, _LAST_TIME = f"""max("$known_time") {_EARLY}""", f"""max("$last_time") {_EARLY}"""
_NEWEST, _NAN = f"""arg_max("$known", "$known_time") {_EARLY}""", "'nan'::DOUBLE"
_TIMES = (
    f"""list("$low".t) {_LOW}, list(-"$high".t) {_HIGH}, list("$first_time") {_NULL}""",
    f"CASE WHEN {_KNOWN_TIME} IS NULL THEN [] ELSE [{_KNOWN_TIME}] END",
    f"CASE WHEN {_LAST_TIME} IS NULL THEN [] ELSE [{_LAST_TIME}] END",
)
_VALUES = (
    f"""list("$low".v) {_LOW}, list("$high".v) {_HIGH}, list({_NAN}) {_NULL}""",
    f"CASE WHEN {_KNOWN_TIME} IS NULL THEN [] ELSE [{_NEWEST}] END",
    f"CASE WHEN {_LAST_TIME} IS NULL THEN [] WHEN {_LAST_TIME} = {_KNOWN_TIME} THEN [{_NEWEST}] ELSE [{_NAN}] END",
)
DIALECT = SeriesDialect(
    quoting=DUCKDB,
    placeholder=lambda name, _: f"${name}",
    parameter=re.compile(r"\$(\w+)"),
    as_text="coalesce(CAST({column} AS VARCHAR), '')",
    as_float="coalesce(CAST({column} AS DOUBLE), {otherwise})",
    nan="'nan'::DOUBLE",
    collect="list",
    one_of="list_contains({operand}, {column})",
    matches="regexp_full_match({column}, {operand})",
    as_number=f"CASE WHEN regexp_full_match({{column}}, '{_NUMBER}') THEN try_cast({{column}} AS DOUBLE) END",
    time_advice="write epoch_ms(...) AS time",
    alias_hides_column=False,
    thinned_value="CASE WHEN isfinite(value::DOUBLE) THEN value::DOUBLE END",
    extremes=", ".join(_EXTREMES),
    thinned_times=f"list_concat({', '.join(_TIMES)})",
    thinned_values=f"list_concat({', '.join(_VALUES)})",
    stretch="time // {width}",
    instant="make_timestamp_ms({ms})",
    hour="date_trunc('hour', {column})",
)
