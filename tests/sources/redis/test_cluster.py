"""A real cluster of three masters: keys on all of them, nodes killed and hung, slots moved while they are read."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from app.errors import SourceDenied, SourceError, SourceTimeout, SourceUnavailable
from app.model import Frame
from app.sources.redis.source import RedisSource
from tests.frames import shown
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import START_S, ClusterSite
from tests.sources.redis.asking import OPEN, opened, statement

COUNT = 24
EACH = {"index": "i", "hash": "h:{id}", "field": "v", "labels": {"a": "$id"}}
SAMPLED = {**EACH, "history": "hist:{id}"}
ONE = {"read": "hash", "key": "h:1", "field": "v"}
SIZES = {"read": "size", "type": "set", "sizes": {"i": {"of": "i"}}}
WHOLE = {f"a={number}": {OPEN: float(number)} for number in range(COUNT)}


def fill(site: ClusterSite) -> None:
    """An index and hashes, which lie on all nodes."""
    with site.client() as client:
        for number in range(COUNT):
            client.sadd("i", number)
            client.hset(f"h:{number}", "v", number)
            client.zadd(f"hist:{number}", {f"{OPEN - 1}:{number}": OPEN - 1})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterSite]:
    """A cluster that every test leaves whole."""
    with ClusterSite(tmp_path_factory.mktemp("cluster")) as running:
        fill(running)
        yield running


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[ClusterSite]:
    """A cluster that a test may break."""
    with ClusterSite(tmp_path) as running:
        fill(running)
        yield running


async def all_of(source: RedisSource) -> Frame:
    return await source.fetch(statement(EACH, by="a"))


async def whole_within(source: RedisSource, seconds: float) -> None:
    """Ask until the answer is whole and right."""
    ends = time.monotonic() + seconds
    while True:
        with contextlib.suppress(SourceError):
            frame = await all_of(source)
            if not frame.partial:
                assert shown(frame) == WHOLE
                return
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


def others(site: ClusterSite, key: str = "i") -> list[RedisServer]:
    """The masters that do not have this key."""
    return [node for node in site.nodes[:3] if node is not site.node_of(key)]


def ids_on(site: ClusterSite, *nodes: RedisServer) -> set[str]:
    """The ids whose hashes these nodes have."""
    ports = {node.port for node in nodes}
    with site.client() as client:
        return {str(one) for one in range(COUNT) if client.get_node_from_key(f"h:{one}").port in ports}


async def test_keys_on_all_nodes_make_one_answer(site: ClusterSite) -> None:
    assert all(ids_on(site, node) for node in site.nodes)
    async with opened(**site.connect()) as source:
        frame = await all_of(source)
        assert (shown(frame), frame.partial, frame.notices) == (WHOLE, False, ())
        assert (await source.ping()).endswith(", cluster, 3 of 3 masters")
        assert source.memory is not None
        assert (source.memory.keys, len(source.memory.servers)) == (2 * COUNT + 1, 3)


async def test_one_node_is_enough_to_find_the_others(site: ClusterSite) -> None:
    async with opened(cluster=True, port=site.nodes[2].port) as source:
        assert shown(await all_of(source)) == WHOLE
    dead = "127.0.0.1:1"
    async with opened(cluster=True, nodes=[dead, f"127.0.0.1:{site.nodes[1].port}"]) as source:
        assert shown(await all_of(source)) == WHOLE


async def test_many_panels_at_once_send_one_pipeline_to_each_node(site: ClusterSite) -> None:
    async with opened(**site.connect()) as source:
        await all_of(source)
        for node in site.nodes:
            node.client.config_resetstat()
        frames = await asyncio.gather(*(all_of(source) for _ in range(20)))
        assert [shown(frame) for frame in frames] == [WHOLE] * 20
        calls = [node.client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0) for node in site.nodes]
        assert sum(calls) == COUNT


async def test_what_a_killed_node_has_is_missing_and_said_and_the_rest_is_shown(own_site: ClusterSite) -> None:
    victim = others(own_site)[0]
    gone = ids_on(own_site, victim)
    async with opened(**own_site.connect()) as source:
        await whole_within(source, 1.0)
        victim.kill()
        for _ in range(2):  # the second time the node is known to be down
            frame = await all_of(source)
            assert shown(frame) == {labels: points for labels, points in WHOLE.items() if labels[2:] not in gone}
            assert frame.partial
            assert [re.sub(r" \(.*\)", "", notice.text) for notice in frame.notices] == [
                f"node 127.0.0.1:{victim.port} of the cluster does not answer: "
                f"{len(gone)} of {COUNT} hashes are missing from the figures"
            ]
        for is_whole in (None, False):  # the first time it may be chance
            assert (await source.ping()).endswith(", cluster, 2 of 3 masters")
            said = f"node 127.0.0.1:{victim.port} does not answer" in (source.warning or "")
            assert (source.is_whole, said) == (is_whole, True)
        sampled = await source.fetch(statement(SAMPLED, by="a"))
        [notice] = sampled.notices
        assert re.search(rf"{len(gone)} of {COUNT} hashes and \d+ of \d+ sample lists are missing", notice.text)
        victim.start()
        own_site.await_state("ok")
        fill(own_site)
        await whole_within(source, START_S)
        assert ((await source.ping())[-7:], source.is_whole, source.warning) == ("masters", True, None)


async def test_without_the_index_or_the_only_hash_there_is_no_answer_but_an_error(own_site: ClusterSite) -> None:
    victim, key = own_site.node_of("i"), "h:1"
    async with opened(**own_site.connect()) as source:
        await whole_within(source, 1.0)
        victim.kill()
        for entry in (EACH, SIZES):
            with pytest.raises(SourceUnavailable, match=f"node 127.0.0.1:{victim.port} of the cluster: "):
                await source.fetch(statement(entry))
        own_site.node_of(key).kill()
        with pytest.raises(SourceUnavailable, match="of the cluster: "):
            await source.fetch(statement(ONE))


async def test_a_node_that_hangs_is_left_out_as_soon_as_a_ping_has_seen_it(own_site: ClusterSite) -> None:
    victim = others(own_site)[0]
    async with opened(**own_site.connect()) as source:
        await whole_within(source, 1.0)
        victim.pause()
        await source.ping()
        begun = time.monotonic()
        frame = await all_of(source)
        took_s = time.monotonic() - begun
        assert (frame.partial, "no answer within 0.5s (ping)" in frame.notices[0].text) == (True, True)
        victim.resume()
        await whole_within(source, START_S)
    async with opened(**own_site.connect(reply_timeout_s=1.0)) as source:
        await all_of(source)
        victim.pause()
        begun = time.monotonic()
        assert (await all_of(source)).partial
        # The same read waits for the node where no ping has been there before.
        assert took_s < time.monotonic() - begun
        victim.resume()


async def test_a_cluster_that_must_be_whole_refuses_as_a_whole_and_comes_back(tmp_path: Path) -> None:
    with ClusterSite(tmp_path, is_whole=True) as site:
        fill(site)
        victim = others(site)[0]
        async with opened(**site.connect()) as source:
            await whole_within(source, 1.0)
            victim.kill()
            site.await_state("fail", victim)
            with pytest.raises(SourceUnavailable, match="CLUSTERDOWN The cluster is down"):
                await all_of(source)
            with pytest.raises(SourceUnavailable, match="CLUSTERDOWN"):
                await source.ping()
            victim.start()
            site.await_state("ok")
            fill(site)
            await source.ping()
            await whole_within(source, START_S)


async def test_a_replica_that_takes_over_is_asked_without_a_restart(tmp_path: Path) -> None:
    with ClusterSite(tmp_path, replicas=1) as site:
        fill(site)
        victim = others(site)[0]
        async with opened(**site.connect()) as source:
            await whole_within(source, 1.0)
            await source.ping()
            before = source.memory
            site.await_replicas()
            victim.kill()
            assert (await all_of(source)).partial
            await whole_within(source, START_S)
            await source.ping()
            assert before is not None
            assert source.memory is not None
            assert len(set(before.servers) & set(source.memory.servers)) == 2
            assert source.is_whole


def node_id(node: RedisServer) -> str:
    return str(node.client.execute_command("CLUSTER", "MYID"))


async def test_redirections_are_followed_while_a_slot_moves_and_after_it(own_site: ClusterSite) -> None:
    key, source_node = "h:3", own_site.node_of("h:3")
    target = next(node for node in own_site.nodes if node is not source_node)
    slot = key_slot(key.encode())
    async with opened(**own_site.connect()) as source:
        await whole_within(source, 1.0)
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source_node))
        source_node.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))
        source_node.client.execute_command("MIGRATE", target.host, target.port, key, 0, 5000)
        frames = await asyncio.gather(*(all_of(source) for _ in range(5)))  # ASK
        assert [(shown(frame), frame.partial) for frame in frames] == [(WHOLE, False)] * 5
        for node in (target, source_node, *own_site.nodes):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))
        assert shown(await all_of(source)) == WHOLE  # MOVED
        target_hits = target.client.info("commandstats")["cmdstat_hmget"]["calls"]
        assert shown(await all_of(source)) == WHOLE
        assert target.client.info("commandstats")["cmdstat_hmget"]["calls"] > target_hits
        redirected = source_node.client.info("errorstats")
        assert (redirected["errorstat_ASK"]["count"] > 0, redirected["errorstat_MOVED"]["count"] > 0) == (True, True)


async def test_a_single_server_is_no_cluster_and_says_so(server: RedisServer) -> None:
    async with opened(cluster=True, port=server.port) as source:
        with pytest.raises(SourceError, match="cluster support disabled"):
            await source.ping()
        with pytest.raises(SourceError, match="cluster support disabled"):
            await all_of(source)


async def test_a_server_of_a_cluster_that_is_not_said_to_be_one_is_told(site: ClusterSite) -> None:
    async with opened(port=site.nodes[0].port) as source:
        with pytest.raises(SourceUnavailable, match="is a node of a Redis Cluster and has not all keys; set `cluster: true`"):
            await all_of(source)
        await source.ping()
        assert source.warning == "is a node of a Redis Cluster; set `cluster: true`"


async def test_no_node_that_answers_is_unavailable_with_the_nodes_name(own_site: ClusterSite) -> None:
    async with opened(**own_site.connect()) as source:
        for node in own_site.nodes:
            node.kill()
        with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:\d+: "):
            await all_of(source)
        with pytest.raises(SourceUnavailable):
            await source.ping()


async def test_a_wrong_password_is_denied_and_a_caller_who_leaves_hurts_nobody(own_site: ClusterSite) -> None:
    async with opened(**own_site.connect()) as source:
        await whole_within(source, 1.0)
        for node in own_site.nodes:
            node.pause()
        leaving = [asyncio.create_task(all_of(source)) for _ in range(5)]
        await asyncio.sleep(0.1)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        for node in own_site.nodes:
            node.resume()
        await whole_within(source, START_S)
    for node in own_site.nodes:
        node.client.config_set("requirepass", "right")
    async with opened(**own_site.connect(password="wrong")) as source:
        with pytest.raises(SourceDenied):
            await all_of(source)
    async with opened(**own_site.connect(password="right")) as source:
        assert shown(await all_of(source)) == WHOLE


async def test_a_map_that_never_comes_ends_at_the_limit(own_site: ClusterSite) -> None:
    for node in own_site.nodes:
        node.pause()
    async with opened(**own_site.connect()) as source:
        with pytest.raises(SourceTimeout):
            await all_of(source)
    for node in own_site.nodes:
        node.resume()
