"""The connections: credentials, servers that die or hang, limits, and what reaches whom when callers leave."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from app.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.model import Frame
from app.sources.redis.source import RedisConfig, RedisSource
from demo.stores import free_port
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.sources.redis.asking import OPEN, STEP, Asker, opened, statement
from tests.sources.redis.listeners import black_hole, listener, saying

PASSWORD = "correct horse"
ONE = {"read": "hash", "key": "h", "field": "v"}
ANSWER = {"": {OPEN: 1.0}}


async def connections(server: RedisServer, at_most: int) -> int:
    """The source's connections, as the server sees them, once it has heard of those that were closed."""
    found = at_most + 1
    for _ in range(40):
        found = len([client for client in server.client.client_list() if client["cmd"] != "client|list"])
        if found <= at_most:
            break
        await asyncio.sleep(0.05)
    return found


async def test_ping_tells_the_servers_version(server: RedisServer, source: RedisSource) -> None:
    assert await source.ping() == f"Redis {server.client.info('server')['redis_version']}"


async def test_a_replica_that_has_lost_its_master_does_not_pass_for_the_present(own_server: RedisServer) -> None:
    own_server.client.replicaof("127.0.0.1", free_port())
    async with opened(port=own_server.port) as source:
        with pytest.raises(SourceUnavailable, match="is a replica that has lost its master: what it has is old"):
            await source.ping()
        own_server.client.replicaof("NO", "ONE")
        await source.ping()


async def test_the_right_password_opens_and_wrong_ones_are_denied_unseen(tmp_path: Path) -> None:
    with RedisServer(tmp_path, PASSWORD) as server:
        server.client.hset("h", "v", 1)
        async with opened(port=server.port, password=PASSWORD) as source:
            assert shown(await source.fetch(statement(ONE))) == ANSWER
        async with opened(port=server.port, username="default", password=PASSWORD) as source:
            assert shown(await source.fetch(statement(ONE))) == ANSWER
        for wrong in ({"password": "wrong staple"}, {}):
            async with opened(port=server.port, **wrong) as source:
                with pytest.raises(SourceDenied) as denied:
                    await source.fetch(statement(ONE))
                assert "wrong staple" not in str(denied.value)


async def test_a_user_who_may_not_read_the_key_is_denied(server: RedisServer) -> None:
    server.client.execute_command("ACL", "SETUSER", "bridge", "on", ">pw", "~tds:*", "+@read", "+@connection")
    async with opened(port=server.port, username="bridge", password="pw") as source:
        with pytest.raises(SourceDenied, match="permissions"):
            await source.fetch(statement(ONE))
        assert await source.ping() == "Redis (version not told)"
    server.client.execute_command("ACL", "DELUSER", "bridge")


async def test_nothing_shows_the_password() -> None:
    config = RedisConfig(password=PASSWORD)
    source = config.build("rts")
    assert PASSWORD not in repr(config) + str(config) + repr(source) + repr(vars(source)) + str(config.model_dump())
    await source.close()


async def test_another_database_is_chosen(server: RedisServer) -> None:
    server.client.hset("h", "v", 1)
    server.client.move("h", 3)
    async with opened(port=server.port) as source:
        assert shown(await source.fetch(statement(ONE))) == {}
    async with opened(port=server.port, db=3) as source:
        assert shown(await source.fetch(statement(ONE))) == ANSWER


async def test_tls_is_spoken_to_a_server_whose_certificate_is_trusted_and_to_no_other(tmp_path: Path, certificate: str) -> None:
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", f"{certificate}.key"]
    with RedisServer(tmp_path, "", *tls, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no") as server:
        server.client.hset("h", "v", 1)
        async with opened(port=port, tls=True, tls_ca_file=certificate) as source:
            assert shown(await source.fetch(statement(ONE))) == ANSWER
        async with opened(port=port, tls=True) as source:
            with pytest.raises(SourceUnavailable, match="certificate"):
                await source.fetch(statement(ONE))


async def test_a_new_connection_costs_no_further_commands(server: RedisServer, source: RedisSource) -> None:
    server.client.config_resetstat()
    await source.ping()
    assert set(server.client.info("commandstats")) <= {
        *("cmdstat_ping", "cmdstat_time", "cmdstat_info", "cmdstat_config|resetstat"),
    }


async def test_a_refused_port_is_unavailable_at_once() -> None:
    started = time.monotonic()
    async with opened(port=free_port()) as source:
        with pytest.raises(SourceUnavailable):
            await source.fetch(statement(ONE))
    assert time.monotonic() - started < 1


async def test_a_server_killed_while_it_is_asked_is_unavailable_and_comes_back(own_server: RedisServer) -> None:
    own_server.client.hset("h", "v", 1)
    async with opened(port=own_server.port) as source:
        assert shown(await source.fetch(statement(ONE))) == ANSWER
        own_server.pause()
        asking = asyncio.create_task(source.fetch(statement(ONE)))
        await asyncio.sleep(0.1)
        own_server.kill()
        started = time.monotonic()
        with pytest.raises(SourceUnavailable):
            await asking
        assert time.monotonic() - started < 1
        own_server.start()
        own_server.client.hset("h", "v", 1)
        assert shown(await source.fetch(statement(ONE))) == ANSWER


async def test_a_restart_between_two_askings_is_not_noticed(own_server: RedisServer) -> None:
    async with opened(port=own_server.port) as source:
        await asyncio.gather(*(source.ping() for _ in range(5)))
        own_server.restart()
        own_server.client.hset("h", "v", 1)
        await asyncio.sleep(0.05)
        assert shown(await source.fetch(statement(ONE))) == ANSWER


async def test_a_black_hole_ends_at_the_callers_limit_and_leaves_the_connections_usable() -> None:
    async with listener(black_hole) as port, opened(port=port, pool_size=2) as source:
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asyncio.gather(*(source.fetch(statement(ONE)) for _ in range(2)))
            assert time.monotonic() - started < 2


async def test_a_black_hole_ends_at_our_own_limit() -> None:
    async with listener(black_hole) as port, opened(port=port, reply_timeout_s=0.1) as source:
        with pytest.raises(SourceTimeout, match=r"no answer within 0\.1s"):
            await source.fetch(statement(ONE))


async def test_a_black_hole_before_the_password_is_accepted_ends_at_the_connect_limit() -> None:
    async with listener(black_hole) as port, opened(port=port, connect_timeout_s=0.1, password=PASSWORD) as source:
        with pytest.raises(SourceTimeout, match=r"no connection within 0\.1s"):
            await source.fetch(statement(ONE))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", SourceGarbled),
        (b"-LOADING Redis is loading the dataset in memory\r\n", SourceUnavailable),
        (b"-MASTERDOWN Link with MASTER is down\r\n", SourceUnavailable),
        (b"-READONLY You can't write against a read only replica.\r\n", SourceUnavailable),
        (b"-CLUSTERDOWN The cluster is down\r\n", SourceUnavailable),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", SourceUnavailable),
        (b"-BUSY Redis is busy running a script.\r\n", SourceUnavailable),
        (b"-DENIED Redis is running in protected mode\r\n", SourceDenied),
        (b"-NOAUTH Authentication required.\r\n", SourceDenied),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", SourceOverloaded),
        (b"-ERR max number of clients reached\r\n", SourceUnavailable),
        (b"-ERR syntax error\r\n", SourceRejected),
    ],
)
async def test_each_refusal_is_the_failure_that_it_means(reply: bytes, expected: type[SourceError]) -> None:
    async with listener(saying(reply)) as port, opened(port=port) as source:
        with pytest.raises(SourceError) as failed:
            await source.fetch(statement(ONE))
    assert type(failed.value) is expected
    assert str(failed.value).startswith("rts: ")


async def test_a_connection_that_is_closed_without_an_answer_is_unavailable() -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    async with listener(leave) as port, opened(port=port) as source:
        with pytest.raises(SourceUnavailable):
            await source.fetch(statement(ONE))


async def test_more_callers_than_connections_wait_their_turn(server: RedisServer) -> None:
    server.client.hset("h", "v", 1)
    async with opened(port=server.port, pool_size=3) as source:

        async def fetched(turns: int) -> Frame:
            for _ in range(turns):  # else all would leave as one pipeline
                await asyncio.sleep(0)
            return await source.fetch(statement(ONE))

        frames = await asyncio.gather(*(fetched(turns) for turns in range(50)))
        assert [shown(frame) for frame in frames] == [ANSWER] * 50
        assert await connections(server, at_most=3) <= 3


async def test_no_connection_free_for_too_long_is_busy() -> None:
    async with listener(black_hole) as port, opened(port=port, pool_size=1, connect_timeout_s=0.1) as source:
        holding = asyncio.create_task(source.fetch(statement(ONE)))
        await asyncio.sleep(0.02)
        with pytest.raises(SourceBusy, match="pool_size"):
            await source.fetch(statement(ONE))
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding


async def test_an_unknown_command_is_told_without_the_values(ask: Asker) -> None:
    series = {"read": "timeseries", "key": "ts:secret"}
    with pytest.raises(SourceRejected) as rejected:
        await ask(series)
    assert str(rejected.value) == (
        "rts: unknown command 'TS.RANGE': this Redis has no such command (a module that is not loaded, or an older version)"
    )


async def test_an_answer_over_the_row_limit_is_refused_with_the_limits_name(server: RedisServer) -> None:
    for account in range(3):
        server.client.sadd("i", account)
        server.client.hset(f"h:{account}", "v", 1)
    async with opened(port=server.port, max_rows=2) as source:
        with pytest.raises(SourceOverloaded, match="max_rows"):
            await source.fetch(statement({"index": "i", "hash": "h:{id}", "field": "v", "labels": {"a": "$id"}}, by="a"))


async def test_ten_thousand_cancelled_calls_hand_no_reply_to_the_wrong_caller(server: RedisServer) -> None:
    keys, wanted, chance = 8, 10_000, random.Random(7)
    for key in range(keys):
        # a long field besides the one that is read, so that a reply is often half way in when its caller leaves
        server.client.hset(f"own:{key}", mapping={"v": key, "filler": "x" * 20_000})
    cancelled, answered, wrong = 0, 0, []
    patience_s = 0.005
    before = server.client.info("stats")["total_connections_received"]

    async def caller(source: RedisSource, key: int) -> None:
        nonlocal cancelled, answered, patience_s
        own = statement({"read": "hash", "key": f"own:{key}", "field": "v", "labels": {"filler": "filler"}}, by="filler")
        while cancelled < wanted:
            task = asyncio.create_task(source.fetch(own))
            asyncio.get_running_loop().call_later(chance.random() * patience_s, task.cancel)
            try:
                frame = await task
            except asyncio.CancelledError:
                cancelled += 1
                patience_s *= 1.01  # settles, on any machine, where about one call in five is answered
            else:
                answered += 1
                patience_s *= 0.96
                if frame.value.tolist() != [key]:
                    wrong.append((key, frame.value.tolist()))

    async with opened(port=server.port, pool_size=5, connect_timeout_s=5) as source:
        async with asyncio.timeout(60), asyncio.TaskGroup() as callers:
            for key in range(keys):
                callers.create_task(caller(source, key))
        assert wrong == []
        assert cancelled >= wanted
        assert answered > 1000
        # Not only while they waited for a connection: many had one, and it was dropped.
        assert server.client.info("stats")["total_connections_received"] - before > wanted // 10
        assert await connections(server, at_most=5) <= 5
        names = [await source.ping() for _ in range(10)]
        assert len(set(names)) == 1
        server.client.hset("h", "v", 1)
        frames = await asyncio.gather(*(source.fetch(statement(ONE)) for _ in range(20)))
        assert [shown(frame) for frame in frames] == [ANSWER] * 20


async def test_a_call_cancelled_while_the_server_hangs_is_closed_there_at_once(own_server: RedisServer) -> None:
    own_server.client.hset("h", "v", 1)
    async with opened(port=own_server.port, pool_size=1) as source:
        await source.ping()
        own_server.pause()
        asking = asyncio.create_task(source.fetch(statement(ONE)))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert time.monotonic() - started < 1  # the server hangs
        own_server.resume()
        assert shown(await source.fetch(statement(ONE, from_ms=OPEN - STEP))) == ANSWER
        assert await connections(own_server, at_most=1) == 1


def calls(server: RedisServer, command: str) -> int:
    found: int = server.client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)
    return found


async def test_what_is_asked_at_the_same_time_leaves_as_one_pipeline_each_command_once(
    server: RedisServer, source: RedisSource
) -> None:
    server.client.hset("h", "v", 1)
    server.client.hset("i", "v", 2)
    server.client.config_resetstat()
    other = {"read": "hash", "key": "i", "field": "v"}
    found = await asyncio.gather(*(source.fetch(statement(read)) for read in (ONE, other) * 10))
    assert [shown(each) for each in found] == [ANSWER, {"": {OPEN: 2.0}}] * 10
    assert (calls(server, "hmget"), await connections(server, 1)) == (2, 1)


async def test_one_who_leaves_takes_nothing_from_those_in_the_same_pipeline(server: RedisServer, source: RedisSource) -> None:
    server.client.hset("h", "v", 1)
    waiting = [asyncio.create_task(source.fetch(statement(ONE))) for _ in range(5)]
    await asyncio.sleep(0)
    for leaving in waiting[::2]:
        leaving.cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [shown(each) if not isinstance(each, BaseException) else type(each) for each in found] == [
        asyncio.CancelledError,
        ANSWER,
    ] * 2 + [asyncio.CancelledError]


async def test_who_asks_in_the_moment_in_which_all_others_leave_is_answered(server: RedisServer, source: RedisSource) -> None:
    server.client.hset("h", "v", 1)

    async def leave() -> None:
        leaving = asyncio.create_task(source.fetch(statement(ONE)))
        asyncio.get_running_loop().call_soon(leaving.cancel)
        await asyncio.sleep(0)

    for _ in range(50):
        _, found = await asyncio.gather(leave(), source.fetch(statement(ONE)))
        assert shown(found) == ANSWER


async def test_more_replies_than_commands_are_nonsense() -> None:
    async with listener(saying(b"*1\r\n$1\r\n1\r\n*1\r\n$1\r\n2\r\n")) as port, opened(port=port) as source:
        with pytest.raises(SourceGarbled, match="more replies than commands"):
            await source.fetch(statement(ONE))
