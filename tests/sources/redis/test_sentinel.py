"""The master that Sentinels name: real Sentinels, a master and a replica, killed, demoted and cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.config import read_settings, settings_from
from app.errors import ConfigError, SourceDenied, SourceError, SourceUnavailable
from app.sources.redis.sentinel import MOST_S
from app.sources.redis.source import RedisConfig, RedisSource
from demo.stores import free_port
from tests.frames import shown
from tests.servers.patience import quickest
from tests.servers.redis import RedisServer
from tests.servers.redis_sentinels import FAILOVER_S, SERVICE, SentinelServer, SentinelSite
from tests.sources.redis.asking import OPEN, opened, statement
from tests.sources.redis.listeners import black_hole, listener, resp, saying

ONE = {"read": "hash", "key": "h", "field": "v"}
ANSWER = {"": {OPEN: 1.0}}
SECRETS = ("staple of the servers", "staple of the sentinels")


def fill(site: SentinelSite) -> None:
    """One hash, also at the replica."""
    site.first.client.hset("h", "v", 1)
    site.first.client.wait(1, 5000)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSite]:
    """A site that no test breaks."""
    with SentinelSite(tmp_path_factory.mktemp("site")) as running:
        fill(running)
        yield running


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[SentinelSite]:
    """A site that a test may break."""
    with SentinelSite(tmp_path) as running:
        fill(running)
        yield running


async def answer_within(source: RedisSource, seconds: float) -> set[str]:
    """Ask until there is an answer, which must be the right one: what was said instead meanwhile."""
    said, ends = set[str](), time.monotonic() + seconds
    while True:
        try:
            frame = await source.fetch(statement(ONE))
        except SourceError as failure:
            said.add(str(failure))
            assert time.monotonic() < ends, said
            await asyncio.sleep(0.02)
        else:
            assert shown(frame) == ANSWER
            return said


async def test_the_master_answers_and_the_ping_names_it(site: SentinelSite) -> None:
    async with opened(**site.connect()) as source:
        assert shown(await source.fetch(statement(ONE))) == ANSWER
        assert (await source.ping()).endswith(f", master 127.0.0.1:{site.first.port} of rts by Sentinel")
        assert source.memory is not None
        assert (source.memory.keys, source.memory.servers) == (1, (f"127.0.0.1:{site.first.port}",))
        assert (source.is_whole, source.warning, source.skew_s is not None) == (True, None, True)


async def test_a_failover_is_followed_without_a_restart_and_shows_in_the_memory(own_site: SentinelSite) -> None:
    async with opened(**own_site.connect()) as source:
        await source.ping()
        before = source.memory
        own_site.first.kill()
        said = await answer_within(source, FAILOVER_S)
        assert said != set()
        await source.ping()
        after = source.memory
        assert before is not None
        assert after is not None
        assert (after.run_id != before.run_id, after.servers) == (True, (f"127.0.0.1:{own_site.second.port}",))
        # Back again, and empty, it is not asked.
        own_site.await_failover()
        own_site.first.start()
        assert await answer_within(source, 1.0) == set()


async def test_a_master_that_hangs_is_left_when_the_sentinels_have_replaced_it(own_site: SentinelSite) -> None:
    async with opened(**own_site.connect(reply_timeout_s=0.3)) as source:
        assert await answer_within(source, 1.0) == set()
        own_site.first.pause()
        said = await answer_within(source, FAILOVER_S)
        assert any("no answer within 0.3s" in text for text in said)
        own_site.first.resume()
        assert await answer_within(source, 1.0) == set()


async def test_a_master_that_has_become_a_replica_is_found_out_by_its_next_answer(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with RedisServer(tmp_path / "server") as server, SentinelServer(tmp_path / "sentinel", server) as sentinel:
        server.client.hset("h", "v", 1)
        async with opened(sentinels=[f"127.0.0.1:{sentinel.port}"], service=SERVICE) as source:
            assert shown(await source.fetch(statement(ONE))) == ANSWER
            server.client.replicaof("127.0.0.1", free_port())  # the Sentinel goes on naming it for some seconds
            with pytest.raises(SourceUnavailable, match="is no master any more; the Sentinels are asked again"):
                await source.fetch(statement(ONE))
            with pytest.raises(SourceUnavailable):
                await source.ping()


async def test_of_sentinels_that_disagree_the_one_that_knows_the_newest_failover_is_believed(own_site: SentinelSite) -> None:
    cut_off, *others = own_site.sentinels
    raw = cut_off.client.connection_pool.get_connection()
    raw.send_command("SENTINEL", "MASTER", SERVICE)
    flat = [part.encode() for part in raw.read_response()]
    raw.disconnect()
    # What a Sentinel says that is cut off from all others: what it said before the failover.
    old = resp(flat) + resp([b"127.0.0.1", b"%d" % own_site.first.port])
    own_site.first.kill()
    cut_off.kill()
    own_site.await_failover()
    async with listener(saying(old)) as port:
        addresses = [f"127.0.0.1:{one}" for one in (port, *(sentinel.port for sentinel in others))]
        async with opened(sentinels=addresses, service=SERVICE) as source:
            assert await answer_within(source, 1.0) == set()
            assert f"master 127.0.0.1:{own_site.second.port}" in await source.ping()
        async with opened(sentinels=addresses[:1], service=SERVICE) as source:
            with pytest.raises(SourceUnavailable, match=f":{own_site.first.port}"):
                await source.fetch(statement(ONE))


async def test_answers_without_a_majority_of_the_sentinels_are_partial_and_say_so(own_site: SentinelSite) -> None:
    async with opened(**own_site.connect()) as source:
        assert not (await source.fetch(statement(ONE))).partial
        for down in (2, 3):
            for sentinel in own_site.sentinels[:down]:
                sentinel.kill()
            name = await source.ping()
            frame = await source.fetch(statement(ONE))
            said = (
                f"{3 - down} of 3 Sentinels answer: another server may have replaced the master "
                f"127.0.0.1:{own_site.first.port}, whose figures these are"
            )
            assert (shown(frame), frame.partial, [notice.text for notice in frame.notices]) == (ANSWER, True, [said])
            assert (source.warning, f"master 127.0.0.1:{own_site.first.port}" in name) == (said, True)
        for sentinel in own_site.sentinels:
            sentinel.start()
        await source.ping()
        assert (source.warning, (await source.fetch(statement(ONE))).partial) == (None, False)


async def test_the_sentinels_are_asked_again_before_a_finding_is_older_than_its_limit(own_site: SentinelSite) -> None:
    async with opened(**own_site.connect()) as source:
        await source.fetch(statement(ONE))
        for sentinel in own_site.sentinels:
            sentinel.kill()
        await asyncio.sleep(MOST_S)
        # The first read after that limit waits for what the Sentinels say; nobody has pinged.
        assert (await source.fetch(statement(ONE))).partial


async def test_a_sentinel_that_hangs_costs_no_read_its_time(site: SentinelSite) -> None:
    async with listener(black_hole) as port:
        hanging = [f"127.0.0.1:{port}", *site.addresses[:2]]

        async def read_first() -> float:
            async with opened(sentinels=hanging, service=SERVICE) as source:
                begun = time.monotonic()
                assert shown(await source.fetch(statement(ONE))) == ANSWER
                await source.ping()
                assert source.warning is None
                return time.monotonic() - begun

        assert await quickest(read_first, 0.4) < 0.4  # a Sentinel has 0.5 s


async def test_no_sentinel_at_all_or_an_unknown_service_is_said(site: SentinelSite) -> None:
    async with opened(sentinels=[f"127.0.0.1:{free_port()}"], service="rts") as source:
        with pytest.raises(SourceUnavailable, match=r"no Sentinel names a master of rts: .*connecting to"):
            await source.ping()
    async with opened(sentinels=site.addresses, service="ris") as source:
        with pytest.raises(SourceUnavailable, match=r"no Sentinel names a master of ris: .*No such master"):
            await source.fetch(statement(ONE))


async def test_servers_and_sentinels_have_passwords_of_their_own_which_nothing_shows(tmp_path: Path) -> None:
    password, sentinel_password = SECRETS
    with SentinelSite(tmp_path, password, sentinel_password) as site:
        fill(site)
        right = site.connect(password=password, sentinel_password=sentinel_password)
        async with opened(**right) as source:
            assert shown(await source.fetch(statement(ONE))) == ANSWER
            everything = repr(RedisConfig(**right)) + repr(source) + repr(vars(source)) + RedisConfig(**right).model_dump_json()
            assert [secret for secret in SECRETS if secret in everything] == []
        for wrong in ({"password": "wrong"}, {"sentinel_password": "wrong"}):
            async with opened(**{**right, **wrong}) as source:
                with pytest.raises(SourceDenied) as denied:
                    await source.fetch(statement(ONE))
                assert [secret for secret in SECRETS if secret in str(denied.value)] == []


async def test_tls_is_spoken_to_the_sentinels_and_to_the_master(tmp_path: Path, certificate: str) -> None:
    files = {"tls-cert-file": certificate, "tls-key-file": f"{certificate}.key", "tls-ca-cert-file": certificate}
    files |= {"tls-auth-clients": "no"}
    (tmp_path / "server").mkdir()
    port, sentinel_port = free_port(), free_port()
    options = [word for name, value in files.items() for word in (f"--{name}", value)]
    lines = [f"{name} {value}\n" for name, value in {**files, "tls-port": str(sentinel_port), "tls-replication": "yes"}.items()]
    with RedisServer(tmp_path / "server", "", "--tls-port", str(port), *options) as server:
        server.client.hset("h", "v", 1)
        with SentinelServer(tmp_path / "sentinel", server, more="".join(lines), master_port=port):
            address = {"sentinels": [f"127.0.0.1:{sentinel_port}"], "service": SERVICE}
            async with opened(**address, tls=True, tls_ca_file=certificate) as source:
                assert shown(await source.fetch(statement(ONE))) == ANSWER
                assert f"master 127.0.0.1:{port}" in await source.ping()
            async with opened(**address, tls=True) as source:
                with pytest.raises(SourceUnavailable, match="certificate"):
                    await source.fetch(statement(ONE))


@pytest.mark.parametrize(
    ("connect", "said"),
    [
        ({"sentinels": ["a:1"], "service": "s", "host": "b"}, "sentinels and host exclude each other; leave host out"),
        (
            {"sentinels": ["a:1"], "service": "s", "host": "b", "port": 1},
            "sentinels and host and port exclude each other; leave host and port out",
        ),
        ({"sentinels": ["a:1"]}, "service: is needed with sentinels: the master's name in `sentinel monitor NAME ...`"),
        ({"service": "s"}, "service: goes with sentinels only"),
        ({"sentinel_password": "hidden"}, "sentinel_password: goes with sentinels only"),
        ({"replica_reads": True}, "replica_reads: goes with sentinels only"),
        ({"sentinels": ["a:1"], "service": "s", "cluster": True}, "sentinels and cluster exclude each other"),
        ({"nodes": ["a:1"]}, "nodes: goes with `cluster: true` only"),
        ({"nodes": ["a:1"], "cluster": True, "port": 5}, "nodes and port exclude each other; leave port out"),
        ({"cluster": True, "db": 2}, "db: 2, but a cluster has database 0 only"),
        ({"sentinels": ["a"], "service": "s"}, "a is no host:port, such as 10.0.0.5:6379 or [fd00::5]:6379"),
        ({"sentinels": ["::1:5"], "service": "s"}, "::1:5 is no host:port"),
        ({"nodes": ["a:99999"], "cluster": True}, "a:99999 is no host:port"),
    ],
)
def test_addresses_that_do_not_go_together_are_refused(connect: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings_from({"sources": {"rts": {"connect": {"kind": "redis", **connect}}}}, "test")
    assert (said in str(refused.value), "hidden" in str(refused.value)) == (True, False), str(refused.value)


def test_variables_give_the_sentinels_and_their_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text("sources: {rts: {connect: {kind: redis}}}")
    monkeypatch.setenv("BRIDGE_SOURCES__RTS__CONNECT__SENTINELS", '["a:26379", "b:26379"]')
    monkeypatch.setenv("BRIDGE_SOURCES__RTS__CONNECT__SERVICE", "rts")
    monkeypatch.setenv("BRIDGE_SOURCES__RTS__CONNECT__SENTINEL_PASSWORD", "hidden")
    connect = read_settings(tmp_path / "bridge.yaml").sources["rts"].connect
    assert isinstance(connect, RedisConfig)
    assert (connect.server, "hidden" in repr(connect)) == ("rts@a:26379,b:26379", False)
    assert connect.sentinel_password is not None
    assert connect.sentinel_password.get_secret_value() == "hidden"


@pytest.mark.parametrize(
    ("connect", "server"),
    [
        ({}, "127.0.0.1:6379"),
        ({"host": "::1"}, "[::1]:6379"),
        ({"sentinels": ["b:2", "a:1"], "service": "rts"}, "rts@a:1,b:2"),
        ({"cluster": True, "nodes": ["b:2", "a:1"]}, "a:1,b:2"),
        ({"cluster": True, "host": "c"}, "c:6379"),
    ],
)
def test_sources_that_reach_the_same_have_the_same_server(connect: dict[str, Any], server: str) -> None:
    assert RedisConfig(**connect).server == server
