"""A read's template as the statement that ClickHouse is sent, and the server's error codes as ours: no server needed."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from app.errors import (
    SourceDenied,
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.filters import NUMBER
from app.model import Matcher, TimeRange
from app.sources.base import Ask, translate
from app.sources.clickhouse.link import ERRORS
from app.sources.clickhouse.source import ClickHouseRead

SPAN = TimeRange(60_000, 120_000, 10_000)


def read(sql: str, **labels: str) -> ClickHouseRead:
    return ClickHouseRead(source="history", sql=sql, labels=labels)


def test_labels_and_filters_are_filled_in_and_only_what_the_text_names_is_bound() -> None:
    sql = "SELECT ts AS time, {by}, 1 AS value FROM t WHERE ts > {from_ms:Int64} {where} GROUP BY ALL;"
    ask = Ask("m", SPAN, ("broker",), (Matcher("broker", "=|", ("b1", "b2")), Matcher("size", ">", ("3",))))
    found = read(sql, broker="broker_id").statement(ask)
    escaped = NUMBER.replace("\\", "\\\\")
    assert found.text == (
        "SELECT ts AS time, ifNull(toString(broker_id), '') AS broker,  1 AS value FROM t WHERE ts > {from_ms:Int64} "
        "AND ifNull(toString(broker_id), '') IN {w0:Array(String)} "
        f"AND if(match(ifNull(toString(size), ''), '^(?:{escaped})$'), toFloat64OrNull(ifNull(toString(size), '')), NULL) > "
        "{w1:Float64} GROUP BY ALL"
    )
    assert found.params == (("from_ms", 60_000), ("w0", ("b1", "b2")), ("w1", 3.0))
    assert (found.source, found.metric, found.range, found.labels) == ("history", "m", SPAN, ("broker",))


def test_a_statement_can_be_a_key_and_the_instant_of_asking_is_no_part_of_it() -> None:
    asked = read("SELECT {now_ms:Int64} AS time, 1 AS value")
    first, second = (asked.statement(Ask("m", SPAN, now_ms=now)) for now in (61_000, 62_000))
    assert first.params == (("now_ms", 61_000),)
    assert {first.key} == {second.key}


def test_a_good_template_has_no_problems() -> None:
    sql = "SELECT {step_ms:Int64} AS time, {by}, 1 AS value FROM t WHERE {from_ms:Int64} < {to_ms:Int64} + {now_ms:Int64} {where}"
    assert list(read(sql, broker="broker_id").problems()) == []


def test_every_mistake_of_a_template_is_found() -> None:
    found = list(read("SELECT {step:Int64} AS bucket, 1 AS value", broker="broker id").problems())
    assert [key for key, _ in found] == ["sql", "sql", "sql", "labels.broker", "sql"]
    said = " ".join(message for _, message in found)
    assert all(word in said for word in ("{by}", "{where}", "{step}", "{step_ms}", "'broker id'", "AS time"))


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (159, SourceTimeout),
        *((code, SourceOverloaded) for code in (158, 160, 202, 241, 307, 396)),
        *((code, SourceDenied) for code in (194, 497, 516)),
        *((code, SourceRejected) for code in (42, 43, 46, 47, 60, 62, 81, 164)),
        *((code, SourceUnavailable) for code in (209, 210, 394)),
    ],
)
@pytest.mark.parametrize("raised", [DatabaseError, OperationalError])
def test_the_servers_code_says_what_failed(raised: type[DatabaseError], code: int, failure: type[SourceError]) -> None:
    with pytest.raises(SourceError) as found, translate("history", ERRORS):
        raise raised(f"Code: {code}. DB::Exception", code=code)
    assert type(found.value) is failure


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("HTTP driver received HTTP status 502, server response: Bad Gateway", SourceUnavailable),
        ("HTTP driver received HTTP status 404, server response: Not Found", SourceGarbled),
    ],
)
def test_an_error_without_a_code_came_from_something_in_between(text: str, failure: type[SourceError]) -> None:
    with pytest.raises(SourceError) as found, translate("history", ERRORS):
        raise DatabaseError(text)
    assert type(found.value) is failure


def test_a_transport_error_that_was_a_timeout_is_one() -> None:
    with pytest.raises(SourceTimeout), translate("history", ERRORS):
        raise OperationalError("Network Error") from TimeoutError()
