"""Every kind that speaks SQL: what a template may look like, and what its columns become, is the same for all of them."""

from __future__ import annotations

import pytest

from app.errors import SourceForeign, SourceRejected
from app.sources.base import Explains, Read, Source
from app.sources.clickhouse.source import ClickHouseRead
from tests.sources.conformance.fetching import fetch, series_of, statement_of
from tests.sources.conformance.kind import BEGIN, Kind

AT = f"CAST({BEGIN} AS BIGINT) AS time"
ONE = f"SELECT {AT}, sum(amount) AS value FROM figures WHERE account = 'B2'"

pytestmark = pytest.mark.parametrize("kind", ["clickhouse-http", "clickhouse-embedded", "duckdb"], indirect=True)


def read_of(kind: Kind, sql: str, **options: str) -> Read:
    """A read of this kind with this template."""
    return kind.read("figures").model_copy(update={"sql": sql, **options})


@pytest.mark.parametrize(
    "sql",
    [
        f"{ONE} -- the last words",
        f"{ONE} --",
        f"{ONE}; -- done; really",
        f"{ONE};\n;\n",
        f"{ONE} /* AS weight; */",
        f"-- AS weight\n{ONE}",
        ONE.replace("WHERE", "-- in the middle; {by}\nWHERE"),
        ONE.replace("WHERE", "/* in the middle -- */ WHERE"),
        f"{ONE} AND account <> '-- no comment' AND broker <> ';'",
        f"{ONE} ORDER BY time -- the newest last",
    ],
)
async def test_comments_and_semicolons_are_right_at_the_check_and_at_the_store(kind: Kind, source: Source, sql: str) -> None:
    read = read_of(kind, sql)
    assert list(read.problems()) == []
    assert isinstance(source, Explains)
    await source.explain(statement_of(read))
    assert series_of(await fetch(source, read)) == {(): {BEGIN: 6.25}}
    assert series_of(await fetch(source, read, thin_ms=600_000)) == {(): {BEGIN: 6.25}}


async def test_events_may_end_in_a_comment_too(kind: Kind, source: Source) -> None:
    events = await fetch(source, read_of(kind, f"SELECT {AT}, account AS title FROM figures WHERE account = 'B2' -- all"))
    assert events.text == {"title": ("B2", "B2", "B2")}


async def test_a_list_in_an_event_is_its_elements_with_commas(kind: Kind, source: Source) -> None:
    events = await fetch(source, read_of(kind, f"SELECT {AT}, ['a', 'b'] AS tags, NULL AS title FROM figures LIMIT 1"))
    assert events.text == {"tags": ("a,b",), "title": (None,)}


async def test_a_null_in_an_event_is_none_whatever_the_columns_type(kind: Kind, source: Source) -> None:
    sql = f"SELECT {AT}, nullif(account, 'A1') AS title, amount AS text FROM figures WHERE account = 'A1'"
    events = await fetch(source, read_of(kind, sql))
    assert events.text["title"] == (None, None, None)
    assert [None if text is None else float(text) for text in events.text["text"]].count(None) == 1


async def test_nothing_is_behind_a_mean_whose_weight_is_null(kind: Kind, source: Source) -> None:
    for weight, expected in (("3", 3.0), ("NULL", 0.0)):
        found = await fetch(source, read_of(kind, f"SELECT {AT}, 2 AS value, {weight} AS weight", parts="mean"))
        assert (found.value.tolist(), found.weight.tolist()) == ([2.0], [expected])


async def test_a_quotient_of_zero_and_a_number_that_is_none_are_null(kind: Kind, source: Source) -> None:
    for value in ("1e0 / 0", "-1e0 / 0", "0e0 / 0", "NULL"):
        assert series_of(await fetch(source, read_of(kind, f"SELECT {AT}, {value} AS value"))) == {(): {BEGIN: None}}


async def test_a_point_without_a_time_is_no_answer(kind: Kind, source: Source) -> None:
    sql = f"SELECT nullif(CAST({BEGIN} AS BIGINT), {BEGIN}) AS time, 1 AS value UNION ALL SELECT {AT}, 2 AS value"
    with pytest.raises(SourceForeign, match="a point without a time"):
        await fetch(source, read_of(kind, sql))


@pytest.mark.parametrize("time", ["'x'", "1.5", "CAST('2026-01-01' AS DATE)"])
async def test_a_time_that_is_no_integer_is_rejected_with_advice(kind: Kind, source: Source, time: str) -> None:
    for value in ("AS value", "AS title"):
        with pytest.raises(SourceRejected, match=r"the column `time` is no integer; write .* AS time"):
            await fetch(source, read_of(kind, f"SELECT {time} AS time, 1 {value}"))


def _by_label(kind: Kind, label: str, column: str = "amount") -> Read:
    """A read of the figures whose label has this name; `column` is how the template names what it adds up."""
    read = kind.read("figures")
    return read.model_copy(update={"labels": {label: "account"}, "sql": read.model_dump()["sql"].replace("amount", column)})


@pytest.mark.parametrize("label", ["weight", "Weight", "time", "VALUE"])
def test_a_label_named_as_a_column_of_points_is_refused(kind: Kind, label: str) -> None:
    [(key, problem)] = _by_label(kind, label).problems()
    assert (key, problem) == (f"labels.{label}", f"{label.lower()!r} is a column of points; another name is needed")


@pytest.mark.parametrize("label", ["v", "weights", "times", "series", "figures", "sum", "broker", "amount", "w0", "step_ms"])
@pytest.mark.parametrize("thin_ms", [0, 1])
async def test_a_label_of_any_other_name_has_its_own_figures_or_is_refused(
    kind: Kind, source: Source, label: str, thin_ms: int
) -> None:
    expected = series_of(await fetch(source, _by_label(kind, "account"), ("account",)))
    read = _by_label(kind, label)
    problems = dict(read.problems())
    assert problems.keys() == ({"labels.amount"} if label == "amount" and isinstance(read, ClickHouseRead) else set())
    if problems:
        assert problems["labels.amount"].startswith("the template reads a column 'amount'")
        read = _by_label(kind, label, "figures.amount")
        assert list(read.problems()) == []
    found = series_of(await fetch(source, read, (label,), thin_ms=thin_ms))
    assert found == {((label, account),): points for ((_, account),), points in expected.items()}


async def test_a_label_named_as_the_column_of_another_label_leaves_that_one_its_text_or_is_refused(
    kind: Kind, source: Source
) -> None:
    expected = series_of(await fetch(source, _by_label(kind, "account"), ("account",)))
    read = kind.read("figures").model_copy(update={"labels": {"firm": "account", "account": "broker"}})
    if isinstance(read, ClickHouseRead):
        [(key, problem)] = read.problems()
        assert (key, problem.startswith("the label 'firm' is made of a column 'account'")) == ("labels.account", True)
        read = read.model_copy(update={"labels": {"firm": "figures.account", "account": "broker"}})
    assert list(read.problems()) == []
    found = series_of(await fetch(source, read, ("account", "firm")))
    assert {dict(labels)["firm"]: points for labels, points in found.items()} == {
        account: points for ((_, account),), points in expected.items()
    }


@pytest.mark.parametrize("test", ["{} IS NOT NULL", "coalesce({}, 'none') <> 'none'"])
async def test_a_label_is_not_tested_for_null_in_place_of_its_column(kind: Kind, source: Source, test: str) -> None:
    """The text of a label is never NULL: with the label kept, rows would come that are left out of the total."""
    table = "(SELECT nullif(account, 'B2') AS account, amount FROM figures) AS t"
    for column in ("account", "t.account"):
        sql = f"SELECT {AT}, {{by}} sum(amount) AS value FROM {table} WHERE {test.format(column)} {{where}} GROUP BY ALL"
        read = read_of(kind, sql).model_copy(update={"labels": {"account": "account"}})
        if isinstance(read, ClickHouseRead) and column == "account":
            [(key, problem)] = read.problems()
            assert (key, problem.startswith("the template tests 'account' for NULL")) == ("labels.account", True)
            continue
        assert list(read.problems()) == []
        assert {dict(labels)["account"] for labels in series_of(await fetch(source, read, ("account",)))}.isdisjoint(("B2", ""))
