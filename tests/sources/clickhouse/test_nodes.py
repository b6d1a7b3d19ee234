"""Several nodes in order of preference: which one answers, what becomes of the others, and what a replica that lags may say."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from app.errors import SourceDenied, SourceRejected, SourceTimeout, SourceUnavailable
from app.sources.clickhouse import nodes
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseSource
from demo.stores import free_port
from tests.servers.clickhouse import ClickHouseServer
from tests.sources.clickhouse.conftest import SLOW, series, slow_ids, statement, until
from tests.sources.clickhouse.relays import listener

WHO = statement("SELECT toInt64(0) AS time, any(number) AS value FROM me")
FIRST, SECOND = ({(): [(0, value)]} for value in (1.0, 2.0))


class Pair(NamedTuple):
    """Two servers of which each knows its number."""

    first: ClickHouseServer
    second: ClickHouseServer


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(*(ClickHouseServer(tmp_path_factory.mktemp("node"), "open sesame").start() for _ in range(2)))
    for number, server in enumerate(pair, 1):
        server.execute("CREATE TABLE me (number UInt8) ENGINE = MergeTree ORDER BY number")
        server.execute(f"INSERT INTO me VALUES ({number})")
    yield pair
    for server in pair:
        server.stop()
        server.close()


@pytest.fixture
def pair(servers: Pair) -> Iterator[Pair]:
    """Both at work and without faults, whatever the test does to them."""
    yield servers
    for server in servers:
        server.resume()
        server.faults()


#: as patient as a busy machine needs
LOOK_S = 2.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_LOOK_S", LOOK_S)


@asynccontextmanager
async def source_on(*ports: int, **more: Any) -> AsyncIterator[ClickHouseSource]:
    hosts = tuple(f"127.0.0.1:{port}" for port in ports)
    config = {"hosts": hosts, "database": "default", "password": "open sesame", "connect_timeout_s": 5.0} | more
    source = ClickHouseConfig.model_validate(config).build("history")
    try:
        yield source
    finally:
        await source.close()


def asked(server: ClickHouseServer) -> int:
    return int(server.state()["asked"])


async def test_the_preferred_node_answers_and_the_ping_names_it(pair: Pair) -> None:
    async with source_on(pair.first.port, pair.second.port) as source:
        assert series(await source.fetch(WHO)) == FIRST
        assert re.fullmatch(rf"ClickHouse \S+ at 127.0.0.1:{pair.first.port}; 2 of 2 nodes answer", await source.ping())
        assert source.warning is None
        assert source.skew_s is not None
        assert abs(source.skew_s) < 2


async def test_where_a_node_refuses_the_next_one_answers_and_it_is_said_which_is_down(pair: Pair) -> None:
    gone = free_port()
    async with source_on(gone, pair.second.port) as source:
        assert series(await source.fetch(WHO)) == SECOND
        found = await source.ping()
        assert found.startswith("ClickHouse ")
        assert f" at 127.0.0.1:{pair.second.port}; 127.0.0.1:{gone} is down: " in found
        assert source.warning is not None
        assert source.warning.startswith(f"127.0.0.1:{gone} is down: ")
        assert "open sesame" not in found


async def test_a_node_that_comes_back_is_preferred_again(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(nodes, "_REST_S", 0.3)
    late = ClickHouseServer(tmp_path / "engine", "open sesame")
    late.port = free_port()
    async with source_on(late.port, pair.second.port) as source:
        assert series(await source.fetch(WHO)) == SECOND
        await asyncio.to_thread(late.start)
        late.execute("CREATE TABLE me ENGINE = MergeTree ORDER BY number AS SELECT 9 AS number")
        await asyncio.sleep(0.4)
        assert series(await source.fetch(WHO)) == {(): [(0, 9.0)]}
        late.kill()
        assert series(await source.fetch(WHO)) == SECOND
    late.close()
    told = [record.message.partition(late.host)[2] for record in caplog.records if record.name == "app.sources.clickhouse.nodes"]
    assert [re.sub(r"^:\d+|: .*", "", text) for text in told] == [
        " is asked last from now on",
        " answers again",
        " is asked last from now on",
    ]


async def test_a_node_killed_in_the_middle_of_a_query_leaves_it_to_the_next(pair: Pair, tmp_path: Path) -> None:
    brief = ClickHouseServer(tmp_path / "engine", "open sesame").start()
    brief.execute("CREATE TABLE me ENGINE = MergeTree ORDER BY number AS SELECT 9 AS number FROM numbers(3)")
    question = statement("SELECT toInt64(0) AS time, max(number) + sum(sleepEachRow(0.9)) AS value FROM me")
    async with source_on(brief.port, pair.second.port) as source:
        asking = asyncio.create_task(source.fetch(question))
        await until(lambda: len(slow_ids(brief)) == 1)
        brief.kill()
        assert series(await asking) == SECOND
    brief.close()


async def test_what_is_asked_of_a_node_that_hangs_goes_on_at_the_next(pair: Pair) -> None:
    async with source_on(pair.first.port, pair.second.port) as source:
        await source.ping()
        pair.first.pause()
        asking = asyncio.create_task(source.fetch(WHO))
        await asyncio.sleep(0.05)
        assert f"127.0.0.1:{pair.first.port} is down: no answer within {LOOK_S:g}s" in await source.ping()
        assert series(await asking) == SECOND
        assert series(await source.fetch(WHO)) == SECOND


async def test_the_only_node_left_is_waited_for_though_it_is_slow_to_answer_a_ping(pair: Pair) -> None:
    async with source_on(free_port(), pair.second.port) as source:
        await source.ping()
        pair.second.faults(delay_s=LOOK_S + 0.5)
        asking = asyncio.create_task(source.fetch(WHO))
        await asyncio.sleep(0.05)
        with pytest.raises((SourceTimeout, SourceUnavailable), match=f"no answer within {LOOK_S:g}s"):
            await source.ping()
        assert series(await asking) == SECOND


async def test_a_wrong_password_at_one_node_is_told_and_the_next_one_answers(pair: Pair) -> None:
    pair.first.faults(password="another")
    async with source_on(pair.first.port, pair.second.port) as source:
        assert series(await source.fetch(WHO)) == SECOND
        assert "is down: " in await source.ping()
        pair.second.faults(password="another")
        await source.reconnect()
        with pytest.raises(
            SourceDenied, match=rf"^history: 127.0.0.1:{pair.second.port}: .*; 127.0.0.1:{pair.first.port}: "
        ) as denied:
            await source.fetch(WHO)
        assert "open sesame" not in str(denied.value)


async def test_where_no_node_answers_the_failure_names_each_of_them() -> None:
    first, second = free_port(), free_port()
    async with source_on(first, second) as source:
        for ask in (source.ping, lambda: source.fetch(WHO)):
            with pytest.raises(SourceUnavailable, match=rf"^history: 127.0.0.1:{first}: .*; 127.0.0.1:{second}: "):
                await ask()


async def test_a_wrong_statement_is_asked_of_one_node_only(pair: Pair) -> None:
    async with source_on(pair.first.port, pair.second.port) as source:
        await source.ping()
        before = asked(pair.second)
        with pytest.raises(SourceRejected):
            await source.fetch(statement("SELECT toInt64(0) AS time, nosuch AS value"))
        assert asked(pair.second) == before
        assert "2 of 2 nodes answer" in await source.ping()


async def test_a_query_that_an_administrator_kills_does_not_begin_again_elsewhere(pair: Pair) -> None:
    async with source_on(pair.first.port, pair.second.port) as source:
        asking = asyncio.create_task(source.fetch(statement(SLOW)))
        await until(lambda: len(slow_ids(pair.first)) == 1)
        pair.first.execute(f"KILL QUERY WHERE query_id = '{slow_ids(pair.first)[0]}' ASYNC")
        with pytest.raises(SourceUnavailable):
            await asking
        assert slow_ids(pair.second) == []


async def test_a_cancelled_query_is_killed_at_the_node_that_runs_it(pair: Pair) -> None:
    pair.second.faults(ignores_leaving=True)
    kills = pair.second.kills(), pair.first.kills()
    async with source_on(free_port(), pair.second.port, pair.first.port) as source:
        asking = asyncio.create_task(source.fetch(statement(SLOW)))
        await until(lambda: len(slow_ids(pair.second)) == 1)
        asking.cancel()
        await until(lambda: slow_ids(pair.second) == [])
    assert (pair.second.kills(), pair.first.kills()) == (kills[0] + 1, kills[1])


@pytest.mark.parametrize(
    ("replicas", "says"),
    [
        ({"delay_s": 31, "cut_off": 0}, r"lags 31s behind the other replicas \(max_delay_s: 30\): newer rows may be missing"),
        ({"delay_s": 0, "cut_off": 1}, "is cut off from its keeper and gets no new rows: newer ones may be missing"),
    ],
)
async def test_a_replica_that_lags_is_asked_last_and_its_answers_are_partial(
    pair: Pair, replicas: dict[str, int], says: str
) -> None:
    pair.first.faults(replicas=replicas)
    async with source_on(pair.first.port, pair.second.port) as source:
        # Nobody has looked before: the first question must find out by itself.
        whole = await source.fetch(WHO)
        assert (series(whole), whole.partial, whole.notices) == (SECOND, False, ())
        assert re.search(f" at 127.0.0.1:{pair.second.port}; 127.0.0.1:{pair.first.port}: {says}", await source.ping())
        pair.second.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await source.fetch(WHO)
        await source.ping()
        lagging = await source.fetch(WHO)
        assert (series(lagging), lagging.partial) == (FIRST, True)
        assert [(one.severity, bool(re.search(says, one.text))) for one in lagging.notices] == [("warning", True)]
        pair.second.resume()
        pair.first.faults(replicas={"delay_s": 30, "cut_off": 0})
        await source.ping()
        caught_up = await source.fetch(WHO)
        assert (series(caught_up), caught_up.partial, caught_up.notices) == (FIRST, False, ())


async def test_a_node_whose_profile_leaves_out_shards_answers_partially_unless_the_bridge_may_forbid_it(pair: Pair) -> None:
    async with source_on(pair.first.port) as source:
        pair.first.faults(profile={"skip_unavailable_shards": 1})
        assert not (await source.fetch(WHO)).partial
        await source.reconnect()
        pair.first.faults(profile={"skip_unavailable_shards": 1}, readonly=True)
        assert "skips shards that do not answer" in await source.ping()
        assert (await source.fetch(WHO)).partial


async def test_a_user_who_may_not_see_the_replicas_is_answered_and_the_operator_told(pair: Pair) -> None:
    pair.first.faults(replicas="denied")
    async with source_on(pair.first.port, pair.second.port) as source:
        assert series(await source.fetch(WHO)) == FIRST
        assert f"127.0.0.1:{pair.first.port}: nobody sees whether it lags" in await source.ping()


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1, and its key in the same file."""
    file = folder / "node.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    named = ["-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{folder}/node.crt"]
    subprocess.run([*new, *named], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (folder / "node.crt").read_bytes())
    return file


async def test_where_tls_fails_the_next_node_answers(pair: Pair, tmp_path: Path) -> None:
    file = await asyncio.to_thread(certificate, tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", pair.second.port)
        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    secured = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    async with secured:
        port = secured.sockets[0].getsockname()[1]
        async with source_on(pair.first.port, port, tls=True, ca_file=file) as source:
            assert series(await source.fetch(WHO)) == SECOND
            assert f"127.0.0.1:{pair.first.port} is down: " in await source.ping()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def test_a_node_that_swallows_connections_costs_the_time_of_connecting_and_no_more(pair: Pair) -> None:
    async def black_hole(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listener(black_hole) as port, source_on(port, pair.second.port, connect_timeout_s=0.5) as source:
        begun_s = time.monotonic()
        assert series(await source.fetch(WHO)) == SECOND
        assert time.monotonic() - begun_s > 1.4
        assert f"127.0.0.1:{port} is down: no " in await source.ping()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"hosts": ["ch1"], "host": "ch2"}, "hosts: stands in place of host; remove host"),
        ({"hosts": ["ch1"], "host": "ch2", "port": 1}, "hosts: stands in place of host and port; remove them"),
        ({"hosts": ["ch1", "ch1:8123"]}, "ch1:8123 is there twice; name each node once"),
        ({"hosts": ["ch1:0"]}, "'ch1:0' is no node; write HOST or HOST:PORT, an IPv6 address as [::1]:8123"),
        ({"hosts": ["http://ch1"]}, "'http://ch1' is no node"),
        ({"hosts": ["me:secret@ch1"]}, "one with @ is no node"),
        ({"hosts": ["ch1"], "interface": "chdb", "path": "x"}, "hosts: has no meaning with `interface: chdb`"),
    ],
)
def test_a_list_of_nodes_that_means_nothing_is_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)) as refused:
        ClickHouseConfig.model_validate(keys)
    assert "Value error, " in str(refused.value)


def test_nodes_are_names_and_addresses_with_or_without_a_port() -> None:
    config = ClickHouseConfig.model_validate({"hosts": ["ch1", "10.0.0.2:8124", "[::1]:1", "[fe80::1]"]})
    assert [str(node) for node in config.nodes] == ["ch1:8123", "10.0.0.2:8124", "[::1]:1", "[fe80::1]:8123"]
    assert [str(node) for node in ClickHouseConfig(host="ch9", port=1).nodes] == ["ch9:1"]
