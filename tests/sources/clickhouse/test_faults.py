"""What can go wrong between the source and its server: what it is called, how long it takes, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import SourceDenied, SourceError, SourceGarbled, SourceRejected, SourceTimeout, SourceUnavailable
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseSource
from tests.servers.clickhouse import ClickHouse, ClickHouseServer
from tests.sources.clickhouse.conftest import DATABASE, SLOW, config_of, series, slow_ids, statement, until
from tests.sources.clickhouse.relays import listener, relay_dripping, relay_once

ONE = statement("SELECT toInt64(0) AS time, 1 AS value")


@asynccontextmanager
async def sources(server: ClickHouse, **more: Any) -> AsyncIterator[ClickHouseSource]:
    """A source on this server, closed at the end."""
    source = config_of(server, **more).build("history")
    try:
        yield source
    finally:
        await source.close()


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """A server of the test's own, not started, to be killed at will."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ClickHouseServer(tmp_path / "engine", "open sesame")
    server.port = port
    yield server
    server.close()
    server.stop()


async def test_a_server_that_starts_late_is_reached_by_the_next_fetch(spare: ClickHouseServer) -> None:
    async with sources(spare, database="default") as source:
        await source.open()
        with pytest.raises(SourceUnavailable, match=r"^history: .*[Cc]onnect"):
            await source.fetch(ONE)
        await asyncio.to_thread(spare.start)
        assert series(await source.fetch(ONE)) == {(): [(0, 1.0)]}


async def test_a_server_killed_in_the_middle_is_unavailable_and_comes_back(spare: ClickHouseServer) -> None:
    await asyncio.to_thread(spare.start)
    async with sources(spare, database="default") as source:
        asking = asyncio.create_task(source.fetch(statement(SLOW)))
        await until(lambda: len(slow_ids(spare)) == 1)
        spare.kill()
        with pytest.raises(SourceUnavailable):
            await asking
        with pytest.raises(SourceUnavailable):
            await source.fetch(ONE)
        await asyncio.to_thread(spare.start)
        assert series(await source.fetch(ONE)) == {(): [(0, 1.0)]}


async def test_a_wrong_password_is_denied_and_never_shown(server: ClickHouse) -> None:
    async with sources(server, password="hunter2") as source:
        with pytest.raises(SourceDenied) as denial:
            await source.fetch(ONE)
        assert "hunter2" not in f"{denial.value!r} {denial.value}"


def test_the_configuration_does_not_show_its_password() -> None:
    config = ClickHouseConfig.model_validate({"password": "hunter2"})
    assert "hunter2" not in f"{config!r} {config} {config.model_dump_json()}"
    assert config.password.get_secret_value() == "hunter2"


def test_the_embedded_engine_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="path: is needed with `interface: chdb`"):
        ClickHouseConfig.model_validate({"interface": "chdb"})


async def test_a_cancelled_query_is_killed_though_the_server_does_not_see_the_client_go(own_server: ClickHouseServer) -> None:
    own_server.faults(ignores_leaving=True)
    kills = own_server.kills()
    async with sources(own_server) as source:
        asking = asyncio.create_task(source.fetch(statement(SLOW)))
        await until(lambda: len(slow_ids(own_server)) == 1)
        asking.cancel()
        await until(lambda: slow_ids(own_server) == [])
        assert own_server.kills() == kills + 1


async def test_a_kill_does_not_wait_for_a_place_in_a_full_pool(own_server: ClickHouseServer) -> None:
    own_server.faults(ignores_leaving=True)
    async with sources(own_server, pool_size=2) as source:
        asking = [asyncio.create_task(source.fetch(statement(SLOW))) for _ in range(6)]
        await until(lambda: len(slow_ids(own_server)) == 2)
        before = set(slow_ids(own_server))
        asking[0].cancel()
        await until(lambda: len(before & set(slow_ids(own_server))) == 1)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        await until(lambda: slow_ids(own_server) == [])


async def test_no_more_queries_than_the_pool_has_places_are_at_the_server_at_once(own_server: ClickHouseServer) -> None:
    brief = statement("SELECT toInt64(0) AS time, sleep(0.05) AS value")
    async with sources(own_server, pool_size=3) as source:
        await source.fetch(ONE)
        own_server.faults()
        await asyncio.gather(*(source.fetch(brief) for _ in range(12)))
        assert own_server.state()["peak"] == 3


async def test_cancellations_at_any_moment_leave_nothing_behind(own_server: ClickHouseServer) -> None:
    async with sources(own_server) as source:
        await source.fetch(ONE)
        for place in range(30):
            batch = [asyncio.create_task(source.fetch(statement("SELECT toInt64(0) AS time, 1 AS value"))) for _ in range(10)]
            await asyncio.sleep(place % 10 * 0.001)
            for task in batch:
                task.cancel()
            await asyncio.wait(batch)
        answers = await asyncio.gather(*(source.fetch(statement(f"SELECT toInt64(0) AS time, {n} AS value")) for n in range(10)))
        assert [series(frame) for frame in answers] == [{(): [(0, float(n))]} for n in range(10)]
        await until(lambda: slow_ids(own_server) == [])


async def test_a_server_that_hangs_costs_the_limit_and_no_more_and_is_asked_again_after(own_server: ClickHouseServer) -> None:
    async with sources(own_server) as source:
        await source.fetch(ONE)
        own_server.pause()
        started = time.monotonic()
        try:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await source.fetch(ONE)
            assert time.monotonic() - started < 3
        finally:
            own_server.resume()
        assert series(await source.fetch(ONE)) == {(): [(0, 1.0)]}


async def test_a_server_that_hangs_from_the_start_is_a_timeout_of_its_own(server: ClickHouse) -> None:
    async def black_hole(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with (
        listener(black_hole) as port,
        sources(server, port=port, connect_timeout_s=0.1, max_execution_time_s=0.4) as source,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await source.fetch(ONE)
        started = time.monotonic()
        with pytest.raises(SourceTimeout, match=r"no connection within 0.5s"):
            await source.fetch(ONE)
        assert time.monotonic() - started < 3


async def test_an_answer_that_drips_ends_at_the_limit_and_leaves_the_client_usable(server: ClickHouse) -> None:
    drips = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay_dripping(server, reader, writer, drips)

    async with listener(relay) as port, sources(server, port=port, host="127.0.0.1") as source:
        await source.fetch(ONE)
        drips.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await source.fetch(ONE)
        drips.clear()
        assert series(await source.fetch(ONE)) == {(): [(0, 1.0)]}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
async def test_a_truncated_answer_is_an_error_and_never_a_shorter_frame(own_server: ClickHouseServer, share: float) -> None:
    many = statement("SELECT toInt64(number) AS time, number AS value FROM numbers(150000)")
    async with sources(own_server) as source:
        assert len(await source.fetch(many)) == 150_000
        own_server.faults(truncate=share)
        with pytest.raises((SourceGarbled, SourceUnavailable)):
            await source.fetch(many)
        own_server.faults()
        assert len(await source.fetch(many)) == 150_000


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\xff\xfe garbage that is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 11\r\n\r\nBad Gateway",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_clickhouse_is_garbled_or_unavailable(server: ClickHouse, answer: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        await writer.drain()

    async with listener(nonsense) as port, sources(server, port=port, host="127.0.0.1") as source:
        with pytest.raises((SourceGarbled, SourceUnavailable), match=r"^history: "):
            await source.fetch(ONE)


@pytest.mark.parametrize(
    "body", [b"hello", b"\x01\x01\x04time\x05Int65" + b"\0" * 8, b"\x02\x01\x04time\x05Int64\0\0", b"\xff" * 64, b"<html>", b""]
)
async def test_a_body_that_is_not_clickhouses_is_garbled_and_the_next_answer_is_right(server: ClickHouse, body: bytes) -> None:
    garbles = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if garbles.is_set():
            await reader.read(65536)
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        else:
            await relay_once(server, reader, writer)

    async with listener(relay) as port, sources(server, port=port, host="127.0.0.1") as source:
        await source.fetch(ONE)
        garbles.set()
        with pytest.raises((SourceGarbled, SourceUnavailable)):
            await source.fetch(ONE)
        garbles.clear()
        assert series(await source.fetch(ONE)) == {(): [(0, 1.0)]}


async def test_a_user_that_may_only_read_sends_no_settings_and_is_answered(own_server: ClickHouseServer) -> None:
    own_server.faults(readonly=True)
    async with sources(own_server) as source:
        assert series(await source.fetch(ONE)) == {(): [(0, 1.0)]}
        with pytest.raises(SourceRejected, match="readonly"):
            await source.fetch(statement(f"SELECT toInt64(0) AS time, 1 AS value FROM file('{DATABASE}', 'CSV', 'a String')"))


async def test_closing_ends_what_is_left_and_a_closed_source_can_be_dropped(server: ClickHouse) -> None:
    source = config_of(server).build("history")
    asking = asyncio.create_task(source.fetch(statement(SLOW)))
    await until(lambda: len(slow_ids(server)) == 1)
    asking.cancel()
    await asyncio.wait([asking])
    await source.close()
    await until(lambda: slow_ids(server) == [])
    await source.close()


async def test_a_failure_says_nothing_of_the_source_that_it_did_not_come_from(server: ClickHouse) -> None:
    async with sources(server) as source:
        with pytest.raises(SourceError) as failure:
            await source.fetch(statement("SELECT toInt64(0) AS time, nosuch AS value"))
    assert failure.value.source == "history"
    assert "\n" not in failure.value.message
    assert len(failure.value.message) < 320
