"""Each of 300 odd values goes through every store as a label, comes back by values, and filters as itself and nobody else."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.config import settings_from
from app.contracts.filters import as_filter_value
from app.main import build_service
from tests.corpus import CORPUS, EMPTY
from tests.e2e.conftest import client_of
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.prometheus import prometheus_with
from tests.servers.redis import RedisServer
from tests.servers.snapshots import SnapshotPublisher

#: on a minute, a while ago
BASE = int(time.time()) // 60 * 60 - 3600
NOW_MS = (BASE + 90) * 1000
NUMBERS = {value: float(place + 1) for place, value in enumerate(CORPUS)}
STORES = ("in_redis", "in_duckdb", "in_clickhouse", "in_prometheus")
WINDOW = {"from": str((BASE - 120) * 1000), "to": str(NOW_MS), "step": "60s"}

CATALOGUE = """
group: corpus
title: Corpus
labels:
  symbol: {title: Symbol, metric: in_redis}
metrics:
"""
METRIC = """
  %s:
    title: Corpus
    description: A number for each value
    unit: short
    aggregate: sum
    over_time: last
    labels: [symbol]
    %s
"""
READS = {
    "in_redis": """live:
      {source: rts, read: hashes, index: things, hash: "thing:{id}", field: amount, aggregate: sum, labels: {symbol: called}}""",
    "in_duckdb": """history:
      source: duckdb
      labels: {symbol: account}
      sql: |
        SELECT epoch_ms(time_bucket(to_milliseconds($step_ms), ts)) AS time, {by}, sum(amount) AS value FROM samples
        WHERE ts >= make_timestamp_ms($from_ms) AND ts < make_timestamp_ms($to_ms) {where} GROUP BY ALL""",
    "in_clickhouse": """history:
      source: clickhouse
      labels: {symbol: called}
      sql: |
        SELECT intDiv(ts, {step_ms:Int64}) * {step_ms:Int64} AS time, {by}, sum(amount) AS value FROM corpus.things
        WHERE ts >= {from_ms:Int64} AND ts < {to_ms:Int64} {where} GROUP BY ALL""",
    "in_prometheus": """history:
      {source: prometheus, labels: {symbol: called}, query: "sum by ({by}) (corpus{where})"}""",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the stores are that hold the corpus."""

    redis: int
    clickhouse: ClickHouseServer
    snapshots: Path
    prometheus: int
    catalogue: Path


def openmetrics() -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    lines = [f'corpus{{called="{escaped(value)}"}} {number} {BASE}' for value, number in NUMBERS.items()]
    return "\n".join(["# TYPE corpus gauge", *lines, "# EOF", ""])


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("redis", "clickhouse", "duckdb", "catalogue"):
        (folder / name).mkdir()
    (folder / "catalogue" / "corpus.yaml").write_text(
        CATALOGUE + "".join(METRIC % one for one in READS.items()), encoding="utf-8"
    )
    clickhouse = ClickHouseServer(folder / "clickhouse", "corpus").start()
    try:
        with (
            RedisServer(folder / "redis") as redis,
            SnapshotPublisher(folder / "duckdb") as duckdb,
            prometheus_with(folder / "prometheus", openmetrics()) as prometheus,
        ):
            for place, (value, number) in enumerate(NUMBERS.items()):
                redis.client.sadd("things", str(place))
                redis.client.hset(f"thing:{place}", mapping={"called": value, "amount": number})
            clickhouse.execute("CREATE DATABASE corpus")
            clickhouse.execute(
                "CREATE TABLE corpus.things (ts Int64, called String, amount Float64) ENGINE = MergeTree ORDER BY ts"
            )
            rows = [{"ts": BASE * 1000, "called": value, "amount": number} for value, number in NUMBERS.items()]
            clickhouse.insert("corpus.things", rows)
            for value, number in NUMBERS.items():
                duckdb.run(f"INSERT INTO samples VALUES (make_timestamp_ms({BASE * 1000}), {literal(value)}, '', {number})")
            duckdb.publish(NOW_MS)
            yield Ports(redis.port, clickhouse, folder / "duckdb" / "snapshots", prometheus, folder / "catalogue")
    finally:
        clickhouse.stop()
        clickhouse.close()


def literal(value: str) -> str:
    """A text in DuckDB's SQL on one line."""
    codes = ", ".join(f"chr({ord(char)})" for char in value)
    return f"concat({codes})" if value else "''"


@pytest_asyncio.fixture
async def asker(ports: Ports) -> AsyncIterator[httpx.AsyncClient]:
    policy = {"fresh_s": 0, "stale_s": 0, "failures": 100, "attempt_timeout_s": 20, "total_timeout_s": 25, "patience_s": 20}
    clickhouse = ports.clickhouse
    connects = {
        "rts": {"kind": "redis", "port": ports.redis},
        "duckdb": {"kind": "duckdb", "snapshots": str(ports.snapshots), "poll_s": 0},
        "clickhouse": {"kind": "clickhouse", "database": "corpus", "port": clickhouse.port, "password": clickhouse.password},
        "prometheus": {"kind": "prometheus", "url": f"http://127.0.0.1:{ports.prometheus}"},
    }
    sources = {name: {"connect": connect, "policy": policy} for name, connect in connects.items()}
    values = {"sources": sources, "catalog": str(ports.catalogue), "agent": {"port": None}, "request": {"budget_s": 30}}
    async with client_of(build_service(settings_from(values, "test"), lambda: NOW_MS).app) as client:
        yield client


Form = Callable[[str, str], tuple[str, str, Any]]


def body(metric: str, payload: Mapping[str, Any], **more: Any) -> tuple[str, str, Any]:
    target = {"refId": "A", "target": metric, "payload": {"by": ["symbol"], "instant": True, "format": "table", **payload}}
    return "POST", "/json/query", {"range": {"from": (BASE - 120) * 1000, "to": NOW_MS}, "targets": [target], **more}


def rows(metric: str, route: str = "/v1/rows", **more: Any) -> tuple[str, str, Any]:
    return "POST", route, {"metric": metric, "by": "symbol", "instant": True, **WINDOW, **more}


def ad_hoc(value: str, operator: str = "=", **more: Any) -> dict[str, Any]:
    return {"key": "symbol", "operator": operator, "value": value, **more}


def escaped(value: str) -> str:
    return "".join(char if char.isalnum() or not char.isascii() else f"\\x{ord(char):02x}" for char in value)


def url(metric: str, route: str, **more: str) -> tuple[str, str, Any]:
    asked = {"metric": metric, "by": "symbol", "instant": "true", **WINDOW, **more}
    return "GET", f"{route}?{httpx.QueryParams(asked)}", None


EXACT: dict[str, Form] = {
    "label parameter": lambda metric, value: url(metric, "/v1/rows", symbol=json.dumps([value])),
    "label parameter, characters as they are": lambda metric, value: url(
        metric, "/v1/rows", symbol=json.dumps([value], ensure_ascii=False)
    ),
    "where": lambda metric, value: url(metric, "/v1/rows", where=f"symbol={json.dumps([value])}"),
    "where, one of": lambda metric, value: url(metric, "/v1/frames", where=f"symbol=|{json.dumps([value])}"),
    "JSON body": lambda metric, value: rows(metric, where=[ad_hoc(as_filter_value(value))]),
    "alert": lambda metric, value: url(metric, "/alert/v1/rows", symbol=json.dumps([value])),
    "alert, JSON body": lambda metric, value: rows(metric, "/alert/v1/rows", where=ad_hoc(as_filter_value(value))),
    "payload": lambda metric, value: body(metric, {"symbol": json.dumps([value])}),
    "payload, where": lambda metric, value: body(metric, {"where": {"symbol": json.dumps([value])}}),
    "variable": lambda metric, value: body(metric, {"symbol": "$v"}, scopedVars={"v": {"value": [value]}}),
    "ad hoc": lambda metric, value: body(metric, {}, filters=[ad_hoc(as_filter_value(value))]),
    "ad hoc, old": lambda metric, value: body(metric, {}, adhocFilters=[ad_hoc(as_filter_value(value))]),
    "ad hoc, one of": lambda metric, value: body(metric, {}, filters=[ad_hoc("", "=|", values=[as_filter_value(value)])]),
}
EXPRESSION: Form = lambda metric, value: body(metric, {}, filters=[ad_hoc(escaped(value), "=~")])  # noqa: E731  beside the others


async def answer(asker: httpx.AsyncClient, question: tuple[str, str, Any]) -> dict[str, float | None]:
    """The answer's values by their label."""
    method, path, sent = question
    reply = await asker.request(method, path, json=sent) if sent is not None else await asker.request(method, path)
    assert reply.status_code == 200, (question, reply.text)
    found = reply.json()
    if isinstance(found, dict):
        return {row["symbol"]: row["value"] for row in found["rows"]}
    if "schema" in found[0]:
        fields = [(one["schema"]["fields"][1].get("labels", {}), one["data"]["values"][1]) for one in found]
        return {labels.get("symbol", ""): values[-1] for labels, values in fields if values}
    return {row[-2]: row[-1] for row in found[0]["rows"]}


def test_the_corpus_has_three_hundred_values() -> None:
    assert (len(CORPUS) >= 300, len(set(CORPUS))) == (True, len(CORPUS))


@pytest.mark.parametrize("metric", STORES)
async def test_every_value_comes_back_from_every_store_with_its_own_number(asker: httpx.AsyncClient, metric: str) -> None:
    assert await answer(asker, rows(metric)) == NUMBERS


async def test_every_value_but_the_empty_one_is_offered_in_a_form_that_can_be_sent_back(asker: httpx.AsyncClient) -> None:
    options = (await asker.get("/v1/values", params={"label": "symbol", **{key: WINDOW[key] for key in ("from", "to")}})).json()
    tags = (await asker.post("/json/tag-values", json={"key": "symbol"})).json()
    assert [one["__text"] for one in options] == [one["text"] for one in tags] == sorted(set(CORPUS) - {EMPTY})
    assert {one["text"]: one.get("value", one["text"]) for one in tags} == {one["__text"]: one["__value"] for one in options}


@pytest.mark.parametrize("form", [*EXACT, "expression"])
async def test_in_redis_every_value_filters_as_itself_and_nobody_else(asker: httpx.AsyncClient, form: str) -> None:
    wrong = {}
    for value, number in NUMBERS.items():
        if form == "expression" and len(escaped(value)) > 1000:
            continue
        question = (EXPRESSION if form == "expression" else EXACT[form])("in_redis", value)
        if (found := await answer(asker, question)) != {value: number}:
            wrong[value] = found
    assert wrong == {}


@pytest.mark.parametrize("metric", STORES[1:])
async def test_in_the_other_stores_too(asker: httpx.AsyncClient, metric: str) -> None:
    wrong, forms = {}, list(EXACT.items())
    for place, (value, number) in enumerate(NUMBERS.items()):
        name, form = forms[place % len(forms)]
        if (found := await answer(asker, form(metric, value))) != {value: number}:
            wrong[value, name] = found
        if len(escaped(value)) <= 1000 and (found := await answer(asker, EXPRESSION(metric, value))) != {value: number}:
            wrong[value, "expression"] = found
    assert wrong == {}


@pytest.mark.parametrize("metric", STORES)
@pytest.mark.parametrize("operator", ["!=", "!=|", "<", "<=", ">", ">=", "!~"])
async def test_every_operator_means_the_same_in_every_store(asker: httpx.AsyncClient, metric: str, operator: str) -> None:
    chosen = random.Random(operator).sample([value for value in CORPUS if len(escaped(value)) < 1000], 12)
    for value in chosen:
        sent = escaped(value) if operator == "!~" else as_filter_value(value)
        found = [await answer(asker, body(one, {}, filters=[ad_hoc(sent, operator)])) for one in ("in_redis", metric)]
        assert found[0] == found[1], (operator, value)
        if operator.startswith("!"):
            assert found[0] == {name: number for name, number in NUMBERS.items() if name != value}


async def test_a_list_is_all_of_its_values_and_no_other(asker: httpx.AsyncClient) -> None:
    chance = random.Random(5)
    for metric in STORES:
        several = chance.sample([value for value in CORPUS if len(value) < 50], 20)
        expected = {value: NUMBERS[value] for value in several}
        for question in (
            url(metric, "/alert/v1/rows", symbol=json.dumps(several)),
            body(metric, {"symbol": json.dumps(several)}),
            body(metric, {"symbol": ",".join(several)}, scopedVars={"v": {"value": several}}),
            body(metric, {}, filters=[ad_hoc("", "=|", values=[as_filter_value(value) for value in several])]),
        ):
            assert await answer(asker, question) == expected


PATTERNS = [
    *("a.b", "(?s)a.b", "a\\nb", "[^x]", "[^a]*", ".", "..", "a$", "(?m)a$\\nb", "a|", "()", "(|a)*", "^*a", "\\Aa.*\\z"),
    *("(?i)k", "(?i)ss?", "(?i)stra\u00dfe", "(?i:A)B?", "(?U)a+", "\\w+", "\\W+", "\\d+", "\\s*", "\\S", "\\x61.*", "\\141"),
    *("\\pN+", "\\p{Lu}+", "\\p{Cyrillic}+", "\\P{L}+", "[[:alpha:]]+", "[[:^alpha:]]+", "\\x{e9}", "{a", "[]a]+"),
    *(".*\\bx\\b.*", ".*\\Bx.*", "x{900}", "(x{30}){30}", "\\.\\*", "\\$.*", ".*\\\\.*", '.*".*'),
]


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_an_expression_that_is_accepted_means_the_same_in_every_store(asker: httpx.AsyncClient, pattern: str) -> None:
    found = [await answer(asker, body(metric, {}, filters=[ad_hoc(pattern, "=~")])) for metric in STORES]
    assert [found[0] == one for one in found] == [True] * 4, [found[0].keys() ^ one.keys() for one in found]


async def test_no_alert_ever_gets_an_answer_for_other_label_sets_than_asked(asker: httpx.AsyncClient) -> None:
    chance = random.Random(11)
    for value in CORPUS:
        for sent in ({"symbol": value}, {"where": f"symbol={value}"}, {"where": {"symbol": [value]}}, {"where": [ad_hoc(value)]}):
            reply = await asker.post("/alert/v1/rows", json=rows("in_redis")[2] | sent)
            found = {row["symbol"] for row in reply.json()["rows"]} if reply.status_code == 200 else set()
            everything = value in ("__all", "$__all") and "symbol" in json.dumps(sent)
            assert found <= {value} or (everything and found == set(CORPUS)) or meant(value, found), (sent, found)
    for _ in range(2000):
        sent, named = random_question(chance)
        reply = await asker.post("/alert/v1/rows", json=rows("in_redis")[2] | sent)
        assert reply.status_code in (200, 400), reply.text
        if reply.status_code == 200:
            assert {row["symbol"] for row in reply.json()["rows"]} <= named, sent


def meant(value: str, found: set[str]) -> bool:
    """Whether a text that is a JSON list was answered as that list."""
    try:
        return value.startswith("[") and found <= {str(item) for item in json.loads(value)}
    except ValueError:
        return False


def random_question(chance: random.Random) -> tuple[dict[str, Any], set[str]]:
    """Some filter, well written or not, and the names that it may bring at most."""
    several = chance.sample(CORPUS, chance.randint(1, 4))
    joined = chance.choice([",", "|", ", ", "\n", '","']).join(several)
    joined = chance.choice(["%s", "{%s}", "(%s)", "[%s]", '["%s"]', " %s", "%s ", "%s,"]) % joined
    whole = chance.choice(
        [several[0], joined, several, [several], [*several, None], {"a": several[0]}, several[:1] * 3, 7, 1.5, True]
    )
    sent: dict[str, Any] = chance.choice(
        [
            {"symbol": whole},
            {"var-symbol": whole},
            {"where": {"symbol": whole}},
            {"where": f"symbol={joined}"},
            {"where": [f"symbol{chance.choice(['=', '=|'])}{joined}"]},
            {"where": {"key": "symbol", "operator": "=", "value": whole}},
            {"where": {"key": "symbol", "operator": "=|", "values": whole}},
        ]
    )
    names = {*several, joined, str(whole), "true", *(part for one in several for part in meant_by(one)), *meant_by(joined)}
    return sent, set(CORPUS) if "__all" in json.dumps(sent) else names


def meant_by(text: str) -> list[str]:
    """The items of a text that is a JSON list."""
    try:
        items = json.loads(text) if text.startswith("[") else []
    except ValueError:
        return []
    return [item if isinstance(item, str) else json.dumps(item) for item in items]
