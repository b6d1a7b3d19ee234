"""The stores that speak Prometheus' API: VictoriaMetrics as it is, Mimir and Thanos by what they ask for and send."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import SourceDenied, SourceFailed, SourceRejected
from app.model import Frame, Matcher, TimeRange
from app.sources.base import Ask
from app.sources.prometheus.source import PrometheusConfig, PrometheusRead, PrometheusSource
from tests.frames import shown
from tests.servers.victoria import VictoriaMetrics, victoria_metrics
from tests.sources.prometheus.answering import Asked, deciding, failing, reply

#: Ten minutes ago, on a minute.
BASE = int(time.time()) // 60 * 60 - 600
MINUTES = TimeRange(BASE * 1000, (BASE + 300) * 1000, 60_000)


def source_on(url: str, **more: Any) -> PrometheusSource:
    return PrometheusConfig.model_validate({"url": url, **more}).build("prom")


def read_of(query: str) -> PrometheusRead:
    return PrometheusRead(source="prom", query=query, labels={"host": "host"})


async def ask(
    source: PrometheusSource, query: str, *where: Matcher, span: TimeRange = MINUTES, now_ms: int = 0, by: tuple[str, ...] = ()
) -> Frame:
    try:
        return await source.fetch(read_of(query).statement(Ask("m", span, by, where, now_ms)))
    finally:
        await source.close()


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    with victoria_metrics(tmp_path_factory.mktemp("victoria")) as server:
        samples = ((host, second) for host in ("a", "b") for second in range(0, 600, 10))
        server.add(f'gauge{{host="{host}"}} {second + (host == "b")} {(BASE + second) * 1000}' for host, second in samples)
        yield server


async def test_victoria_metrics_answers_a_ping_though_it_names_no_version(victoria: VictoriaMetrics) -> None:
    source = source_on(victoria.url)
    assert (await source.ping()).startswith("Prometheus ")
    await source.close()


async def test_victoria_metrics_gives_the_buckets_that_prometheus_gives(victoria: VictoriaMetrics) -> None:
    found = await ask(source_on(victoria.url), "max by ({by}) (gauge{where})", by=("host",))
    ends = [(BASE + 60 * minute) * 1000 for minute in range(5)]
    assert shown(found) == {
        f"host={host}": {at: (at // 1000 - BASE) + 60.0 + (host == "b") for at in ends} for host in ("a", "b")
    }
    assert (found.partial, found.notices) == (False, ())


async def test_victoria_metrics_gives_the_grid_that_was_asked_for_in_a_window_that_lies_on_none(
    victoria: VictoriaMetrics,
) -> None:
    span = TimeRange((BASE + 7) * 1000, (BASE + 7 + 550) * 1000, 10_000, (BASE + 7) * 1000)
    found = shown(await ask(source_on(victoria.url), "gauge{where}", Matcher("host", "=", ("a",)), span=span))
    assert list(found[""]) == list(range(span.from_ms, span.to_ms, 10_000))
    assert len(found[""]) > 50  # from 50 points on VictoriaMetrics moves a window that it may cache


async def test_victoria_metrics_takes_every_kind_of_filter(victoria: VictoriaMetrics) -> None:
    matchers = [("=", "a"), ("=|", "a", "c"), ("=~", "a|c"), ("!=", "b"), ("!=|", "b", "c"), ("!~", "b"), ("<", "b"), ("<=", "a")]
    for operator, *values in matchers:
        matcher = Matcher("host", operator, tuple(values))  # type: ignore[arg-type]  # operators as text
        found = await ask(source_on(victoria.url), "max by ({by}) (gauge{where})", matcher, by=("host",))
        assert found.series == ((("host", "a"),),), matcher


@pytest.fixture
def honest(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    """One that was told not to repeat values."""
    with victoria_metrics(tmp_path / "honest", "-search.latencyOffset=1s") as server:
        yield server


def seconds(server: VictoriaMetrics) -> int:
    """Add the series `live`: the present second in each of the last 120 s; now."""
    now = int(time.time())
    server.add(f"live {second} {second * 1000}" for second in range(now - 120, now + 1))
    return now


async def test_the_value_of_now_is_the_newest_and_no_older_one(victoria: VictoriaMetrics) -> None:
    now = seconds(victoria)
    span = TimeRange(now * 1000, (now + 10) * 1000, 10_000)
    for params, ages in (({}, {0}), ({"nocache": "0"}, {30})):
        found = shown(await ask(source_on(victoria.url, params=params), "live", span=span, now_ms=now * 1000))
        assert {round(now - (value or 0), -1) for value in found[""].values()} == ages


async def test_newest_buckets_that_repeat_an_older_value_are_marked_and_the_operator_is_told(victoria: VictoriaMetrics) -> None:
    now = seconds(victoria) // 10 * 10
    source = source_on(victoria.url)
    await source.ping()
    assert source.warning is not None
    assert re.fullmatch(
        r"repeats an older value in the newest (29|30|31)s; set -search.latencyOffset=1s at VictoriaMetrics", source.warning
    )
    fine = await source.fetch(read_of("live").statement(Ask("m", TimeRange((now - 60) * 1000, now * 1000, 10_000))))
    assert list(shown(fine)[""].values())[-2:] != [now - 10.0, now]
    assert (fine.partial, [one.severity for one in fine.notices]) == (True, ["warning"])
    coarse = TimeRange(now // 60 * 60_000 - 60_000, now // 60 * 60_000, 60_000)
    older = TimeRange((now - 110) * 1000, (now - 60) * 1000, 10_000)
    for span in (coarse, older):
        found = await source.fetch(read_of("live").statement(Ask("m", span)))
        assert list(shown(found)[""].values())[-1] == span.to_ms / 1000
        assert (found.partial, found.notices) == (False, ())
    await source.close()


async def test_a_victoria_metrics_that_was_told_not_to_repeat_is_believed(honest: VictoriaMetrics) -> None:
    now = seconds(honest) // 10 * 10
    source = source_on(honest.url)
    await source.ping()
    assert source.warning is None
    await asyncio.sleep(1.1)  # what is younger than a second is repeated still
    found = await source.fetch(read_of("live").statement(Ask("m", TimeRange((now - 60) * 1000, now * 1000, 10_000))))
    assert list(shown(found)[""].values()) == [now - 50.0, now - 40.0, now - 30.0, now - 20.0, now - 10.0, now]
    assert (found.partial, found.notices) == (False, ())
    await source.close()


async def test_a_wrong_expression_at_victoria_metrics_is_ours_to_mend(victoria: VictoriaMetrics) -> None:
    with pytest.raises(SourceRejected, match="unexpected token"):
        await ask(source_on(victoria.url), "sum(")


POINTS = f'[[{BASE + 60},"1"]]'
ANSWER = f'{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{}},"values":{POINTS}}}]}}%s}}'
ONE_MINUTE = TimeRange(BASE * 1000, (BASE + 60) * 1000, 60_000)


async def test_each_request_names_the_tenant_and_has_the_further_headers_and_parameters() -> None:
    asked = list[Asked]()

    def mimir(request: Asked) -> bytes:
        asked.append(request)
        if "x-scope-orgid" not in request.headers:
            return reply("401 Unauthorized", "no org id", "text/plain")
        if request.path.endswith("/buildinfo"):
            return reply("200 OK", '{"status":"success","data":{"application":"Grafana Mimir","version":"2.13.0"}}')
        if request.path.endswith("/values"):
            return reply("200 OK", '{"status":"success","data":["a"]}')
        return reply("200 OK", ANSWER % "")

    async with deciding(mimir) as port:
        url = f"http://127.0.0.1:{port}/prometheus"
        more = {
            "tenant": "desk|archive",
            "headers": {"X-Key": "hunter2"},
            "params": {"dedup": True, "max_source_resolution": "0s"},
        }
        source = source_on(url, **more)
        assert await source.ping() == "Grafana Mimir 2.13.0"
        found = await ask(source, "sum by ({by}) (up{where})", Matcher("host", "<", ("b",)), span=ONE_MINUTE)
        assert shown(found) == {"": {BASE * 1000: 1.0}}
        with pytest.raises(SourceDenied):
            await ask(source_on(url), "up", span=ONE_MINUTE)
    begun, api = asked[0].path, "/prometheus/api/v1"
    asked = [request for request in asked if request.params.get("query") != "time()"]
    assert begun == f"{api}/status/buildinfo"
    paths = [f"{api}/status/buildinfo", f"{api}/label/host/values", f"{api}/query_range"]
    sent = {"dedup": "true", "max_source_resolution": "0s", "nocache": "1", "latency_offset": "1ms"}
    assert [request.path for request in asked[:3]] == paths
    assert [{name: request.headers.get(name) for name in ("x-scope-orgid", "x-key")} for request in asked[:3]] == [
        {"x-scope-orgid": "desk|archive", "x-key": "hunter2"}
    ] * 3
    assert [{name: request.params.get(name) for name in sent} for request in asked[1:3]] == [sent] * 2


@pytest.mark.parametrize("wanted", ["true", "false"])
async def test_a_thanos_that_lacks_a_store_answers_partially_or_fails_as_it_is_asked_to(wanted: str) -> None:
    lacking = "receive series from Addr: 10.0.0.1:10901: rpc error: code = Unavailable"

    def thanos(request: Asked) -> bytes:
        if request.params["partial_response"] == "true":
            return reply("200 OK", ANSWER % f',"warnings":["{lacking}"]')
        return reply("422 Unprocessable Entity", failing("execution", f"expanding series: proxy Series(): {lacking}"))

    async with deciding(thanos) as port:
        source = source_on(f"http://127.0.0.1:{port}", params={"partial_response": wanted})
        if wanted == "false":
            with pytest.raises(SourceFailed, match="proxy Series"):
                await ask(source, "up", span=ONE_MINUTE)
            return
        found = await ask(source, "up", span=ONE_MINUTE)
        assert (shown(found), found.partial) == ({"": {BASE * 1000: 1.0}}, True)
        assert [(one.severity, one.text) for one in found.notices] == [("warning", f"prom: {lacking}")]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"headers": {"Content-Length": "1"}}, "headers: 'Content-Length' cannot be set"),
        ({"headers": {"X Key": "hunter2"}}, "headers: 'X Key' cannot be set"),
        ({"headers": {"X-Key": "hunter2\r\nX-Other: 1"}}, "headers: the value of X-Key is empty, or no single line of ASCII"),
        ({"headers": {"X-Key": ""}}, "headers: the value of X-Key is empty"),
        ({"headers": {"x-scope-orgid": "hunter2"}, "tenant": "a"}, "headers: x-scope-orgid is set by tenant, too; remove one"),
        ({"headers": {"authorization": "hunter2"}, "bearer_token": "x"}, "headers: authorization is set by bearer_token, too"),
        ({"headers": {"X-Key": "1", "x-key": "2"}}, "headers: x-key is set by headers.X-Key, too"),
        ({"bearer_token": "hunter2\n"}, "bearer_token: is empty, or no single line of ASCII"),
        ({"bearer_token": "hunter2", "username": "me"}, "bearer_token: stands in place of username and password"),
        ({"params": {"query": "up"}}, "params: 'query' cannot be set; the bridge itself sends end, query, start"),
        ({"tenant": "a\nb"}, "tenant"),
    ],
)
def test_what_cannot_be_sent_along_is_refused_without_showing_a_secret(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PrometheusConfig.model_validate({"url": "http://127.0.0.1:9090", **keys})
    assert says in str(refused.value)
    assert "hunter2" not in "".join(error["msg"] for error in refused.value.errors())


def test_the_configuration_shows_no_header() -> None:
    config = PrometheusConfig.model_validate({"url": "http://127.0.0.1:9090", "headers": {"X-Key": "hunter2"}})
    assert "hunter2" not in f"{config!r} {config} {config.model_dump_json()}"
