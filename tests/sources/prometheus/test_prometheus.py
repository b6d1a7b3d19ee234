"""The prometheus source on a real Prometheus whose samples are known, and on servers that misbehave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.errors import (
    SourceError,
    SourceOverloaded,
    SourceRejected,
    SourceUnavailable,
)
from app.model import Frame, Matcher, TimeRange
from app.sources.base import Ask
from app.sources.prometheus.promql import MOST_POINTS, label_matcher, path_name
from app.sources.prometheus.source import PrometheusConfig, PrometheusRead, PrometheusSource
from tests.frames import shown
from tests.servers.patience import quickest
from tests.servers.prometheus import prometheus_with
from tests.sources.prometheus.answering import answering

#: An hour ago, on a minute.
BASE = int(time.time()) // 60 * 60 - 3600
MINUTES = TimeRange(BASE * 1000, (BASE + 300) * 1000, 60_000)
HOSTS = ("a1", "A.1", 'quo"te', "back\\slash", "10", "9")


def samples() -> str:
    """gauge: i per minute for each host; counter: 60 a minute, restarted after 5 minutes; odd: NaN and infinities."""

    def label(host: str) -> str:
        escaped = host.replace("\\", "\\\\").replace('"', '\\"')
        return f'{{host="{escaped}"}}'

    lines = ["# TYPE gauge gauge"]
    lines += [f"gauge{label(host)} {minute} {BASE + 60 * minute}" for host in HOSTS for minute in range(11)]
    lines += ["# TYPE ticks counter"]
    lines += [f"ticks_total {(60 * minute) % 300} {BASE + 60 * minute}" for minute in range(11)]
    lines += ["# TYPE odd gauge"]
    lines += [f"odd {value} {BASE + 60 * place}" for place, value in enumerate(("1", "NaN", "+Inf", "-Inf", "5", "6"))]
    lines += ["# TYPE fine gauge"]
    lines += [f"fine {second} {BASE + second}" for second in range(0, 600, 30)]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with prometheus_with(tmp_path_factory.mktemp("prometheus"), samples()) as running:
        yield running


def source_of(port: int, **more: Any) -> PrometheusSource:
    return PrometheusConfig.model_validate({"url": f"http://127.0.0.1:{port}", **more}).build("prom")


@pytest_asyncio.fixture
async def prom(port: int) -> AsyncIterator[PrometheusSource]:
    source = source_of(port)
    yield source
    await source.close()


async def ask(
    source: PrometheusSource,
    query: str,
    by: tuple[str, ...] = (),
    where: tuple[Matcher, ...] = (),
    span: TimeRange = MINUTES,
    now_ms: int = 0,
    **labels: str,
) -> Frame:
    return await source.fetch(
        PrometheusRead(source="prom", query=query, labels=labels).statement(Ask("m", span, by, where, now_ms))
    )


async def test_a_bucket_is_the_value_at_its_end_stamped_with_its_start(prom: PrometheusSource) -> None:
    found = await ask(prom, "max by ({by}) (gauge{where})")
    assert shown(found) == {"": {(BASE + 60 * minute) * 1000: minute + 1.0 for minute in range(5)}}


async def test_the_open_bucket_is_the_value_now(prom: PrometheusSource) -> None:
    now_ms = (BASE + 270) * 1000
    found = await ask(prom, "max by ({by}) (fine{where})", now_ms=now_ms)
    assert shown(found)[""] == {(BASE + 60 * minute) * 1000: 60.0 * (minute + 1) for minute in range(4)} | {
        (BASE + 240) * 1000: 270.0
    }


async def test_a_range_of_the_open_bucket_alone_is_one_instant_query(prom: PrometheusSource) -> None:
    span = TimeRange((BASE + 240) * 1000, (BASE + 300) * 1000, 60_000)
    assert shown(await ask(prom, "fine", span=span, now_ms=(BASE + 270) * 1000)) == {"": {(BASE + 240) * 1000: 270.0}}


async def test_a_rate_survives_a_restart_of_the_counter(port: int) -> None:
    span = TimeRange((BASE + 120) * 1000, (BASE + 540) * 1000, 60_000)
    source = source_of(port, min_window_s=120)
    found = shown(await ask(source, "rate(ticks_total{where}[{window}])", span=span))[""]
    await source.close()
    # 60 a minute all along; only in the minute of the restart, where the counter falls to 0, nothing is known to have come.
    assert [value for at, value in found.items() if at // 1000 - BASE not in (240, 300)] == [1.0] * 5
    assert min(value for value in found.values() if value is not None) >= 0


async def test_nan_and_infinity_are_null(prom: PrometheusSource) -> None:
    span = TimeRange((BASE - 60) * 1000, (BASE + 300) * 1000, 60_000)
    assert list(shown(await ask(prom, "odd", span=span))[""].values()) == [1.0, None, None, None, 5.0, 6.0]


async def test_nothing_found_is_an_empty_frame(prom: PrometheusSource) -> None:
    assert shown(await ask(prom, "nonsense")) == {}


async def test_a_label_may_be_called_otherwise_in_the_store(prom: PrometheusSource) -> None:
    where = (Matcher("machine", "=", ("a1",)),)
    found = await ask(prom, "sum by ({by}) (gauge{where})", ("machine",), where, machine="host")
    assert found.series == ((("machine", "a1"),),)


async def test_filters_join_a_selector_that_has_matchers_already(prom: PrometheusSource) -> None:
    where = (Matcher("host", "=|", ("a1", "10")),)
    found = await ask(prom, 'sum by ({by}) (gauge{host!="10"{and_where}})', ("host",), where)
    assert found.series == ((("host", "a1"),),)


async def test_more_points_than_prometheus_gives_at_once_are_asked_in_pieces(prom: PrometheusSource) -> None:
    span = TimeRange((BASE - 12_000) * 1000, (BASE + 600) * 1000, 1000)
    found = shown(await ask(prom, "vector(1)", span=span))[""]
    assert len(span) > MOST_POINTS
    assert list(found) == list(range(span.from_ms, span.to_ms, 1000))


@pytest.mark.parametrize(
    ("query", "error"),
    [("sum(", SourceRejected), ("nonsense(gauge)", SourceRejected), ("gauge * on() gauge", SourceRejected)],
)
async def test_a_wrong_query_is_ours_to_mend(prom: PrometheusSource, query: str, error: type[SourceError]) -> None:
    with pytest.raises(error):
        await ask(prom, query)


async def test_an_answer_with_too_many_points_is_refused(port: int) -> None:
    source = source_of(port, max_rows=3)
    with pytest.raises(SourceOverloaded, match="at most 3 are allowed"):
        await ask(source, "max(gauge)")
    await source.close()


async def test_ping_names_the_server(prom: PrometheusSource) -> None:
    assert (await prom.ping()).startswith("Prometheus 2.")


async def test_a_cancelled_query_is_gone_within_a_quarter_of_a_second(prom: PrometheusSource, port: int) -> None:
    # Seconds of work in small steps: Prometheus looks for a cancellation between them.
    heavy = " + ".join(["sum(gauge * 2)"] * 400)

    async def running() -> float:
        async with httpx.AsyncClient(trust_env=False) as client:
            page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        [line] = [line for line in page.splitlines() if line.startswith("prometheus_engine_queries ")]
        return float(line.split()[1])

    async def cancelled_s() -> float:
        task = asyncio.create_task(ask(prom, heavy, span=TimeRange((BASE - 8000) * 1000, (BASE + 3000) * 1000, 1000)))
        async with asyncio.timeout(5):
            while await running() < 1:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        begun = time.perf_counter()
        async with asyncio.timeout(5):
            while await running() > 0:
                await asyncio.sleep(0.01)
        return time.perf_counter() - begun

    assert await quickest(cancelled_s, 0.25) < 0.25
    assert len(await ask(prom, "max(gauge)")) == 5


async def test_a_dead_server_is_unavailable_at_once_and_nothing_is_said_of_tls() -> None:
    source = source_of(1)
    with pytest.raises(SourceUnavailable, match=r"Cannot connect to host 127\.0\.0\.1:1 \["):
        await ask(source, "up")
    await source.close()


async def test_a_server_that_never_answers_ends_at_the_callers_limit_and_leaves_the_pool_usable() -> None:
    async with answering(b"", hang=True) as port:
        source = source_of(port, pool_size=2)
        begun = time.perf_counter()
        for _ in range(4):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ask(source, "up")
        assert time.perf_counter() - begun < 3
        await source.close()


def test_the_same_query_with_labels_of_other_names_is_another_question() -> None:
    ask = Ask("m", MINUTES, ("host",), (), 0)
    one, other = (PrometheusRead(source="prom", query="sum by ({by}) (up{where})", labels={"host": word}) for word in ("a", "b"))
    assert one.statement(ask).key != other.statement(ask).key
    assert one.statement(ask).shape != other.statement(ask).shape


async def test_proxies_of_the_environment_are_not_used(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    source = source_of(port)
    assert len(await ask(source, "max(gauge)")) == 5
    await source.close()


@pytest.mark.parametrize("secrets", [{"bearer_token": "s3cret"}, {"username": "u", "password": "s3cret"}])
def test_secrets_are_not_shown(secrets: dict[str, str]) -> None:
    config = PrometheusConfig.model_validate({"url": "http://x", **secrets})
    assert "s3cret" not in repr(config) + str(config) + config.model_dump_json()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x", "nonsense"])
def test_only_http_addresses_are_accepted(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        PrometheusConfig.model_validate({"url": url})


def test_a_wrong_template_is_found_before_it_is_asked() -> None:
    read = PrometheusRead(source="prom", query="sum(x{were})", labels={"a": "b"})
    assert [text.split(";")[0] for _, text in read.problems()] == [
        "unknown placeholder {were}",
        "has labels but no {by}",
        "has labels but no {where}",
    ]


@pytest.mark.parametrize(
    ("word", "selected", "path"),
    [
        ("host", 'host="a"', "host"),
        ("host.name", '"host.name"="a"', "U__host_2e_name"),
        ("a/b_c?", '"a/b_c?"="a"', "U__a_2f_b__c_3f_"),
    ],
)
def test_a_label_of_any_name_is_quoted_where_it_stands(word: str, selected: str, path: str) -> None:
    assert (label_matcher(Matcher("host", "=", ("a",)), word), path_name(word)) == (selected, path)


async def test_one_of_no_values_is_nothing_and_none_of_no_values_is_everything(prom: PrometheusSource) -> None:
    found = [
        await ask(prom, "sum by ({by}) (gauge{where})", ("host",), (Matcher("host", operator, ()),)) for operator in ("=|", "!=|")
    ]
    assert [len(frame.series) for frame in found] == [0, len(HOSTS)]
