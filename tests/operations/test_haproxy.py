"""The agent's words on a real socket, and the Runtime API's commands against a scripted one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app.errors import BadQuery, SourceTimeout, SourceUnavailable
from app.operations import haproxy
from app.operations.haproxy import Agent, Condition, agent_words, reconnect

GOOD = Condition(ready=True, loop_lag_s=0.0, sources_up=2, sources=2)
MAINT, SHUTDOWN, READY = STEPS = [
    "set server be/b1 state maint",
    "shutdown sessions server be/b1",
    "set server be/b1 state ready",
]


@pytest.mark.parametrize(
    ("up", "sources", "lag_s", "words"),
    [
        (4, 4, 0.0, "up 100%"),
        (0, 0, 0.0, "up 100%"),
        (3, 4, 0.0, "up 50%"),
        (1, 4, 0.0, "up 50%"),
        (0, 4, 0.0, "up 1% #isolated"),
        (0, 1, 9.0, "up 1% #isolated"),
        (4, 4, 0.049, "up 100%"),
        (4, 4, 0.05, "up 50%"),
        (4, 4, 0.5, "up 10%"),
        (1, 4, 0.05, "up 25%"),
        (1, 4, 0.5, "up 5%"),
        (0, 0, 60.0, "up 10%"),
    ],
)
def test_the_weight_tells_of_sources_and_loop_lag_and_is_never_nothing(up: int, sources: int, lag_s: float, words: str) -> None:
    assert agent_words(Condition(True, lag_s, up, sources)) == words


def test_being_ready_or_not_does_not_change_the_weight() -> None:
    assert agent_words(replace(GOOD, ready=False)) == agent_words(GOOD)


@dataclass
class Bridge:
    """What an agent speaks for."""

    condition: Condition = GOOD

    def look(self) -> Condition:
        return self.condition


@asynccontextmanager
async def agent_of(bridge: Bridge, announce_s: float = 5.0) -> AsyncIterator[int]:
    agent = Agent(bridge.look, announce_s)
    port = await agent.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await agent.stop()


async def polled(port: int, sent: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(2):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"be_bridge/b1\n", b"no end of line", b"x" * 200_000])
async def test_the_agent_answers_one_whole_line_and_closes_whatever_is_sent(sent: bytes) -> None:
    async with agent_of(Bridge()) as port:
        assert await polled(port, sent) == b"ready up 100%\n"


async def test_ready_is_not_repeated_for_ever_so_that_an_operators_drain_holds() -> None:
    async with agent_of(Bridge(), announce_s=0.1) as port:
        assert await polled(port) == b"ready up 100%\n"
        await asyncio.sleep(0.15)
        assert await polled(port) == b"up 100%\n"


async def test_every_poller_hears_ready_after_the_start_and_drain_while_draining() -> None:
    bridge = Bridge()
    async with agent_of(bridge) as port:
        assert [await polled(port), await polled(port)] == [b"ready up 100%\n"] * 2
        bridge.condition = Condition(ready=False, loop_lag_s=0.0, sources_up=1, sources=2)
        assert [await polled(port), await polled(port)] == [b"drain up 50%\n"] * 2


async def test_a_drain_that_was_the_agents_own_is_taken_back_for_a_while() -> None:
    bridge = Bridge(replace(GOOD, ready=False))
    async with agent_of(bridge, announce_s=0.4) as port:
        await asyncio.sleep(0.45)
        assert await polled(port) == b"drain up 100%\n"
        bridge.condition = GOOD
        assert await polled(port) == b"ready up 100%\n"
        await asyncio.sleep(0.45)
        assert await polled(port) == b"up 100%\n"


async def test_a_poller_that_never_closes_is_closed_soon_and_does_not_hold_up_the_stop() -> None:
    async with agent_of(Bridge()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begun = time.monotonic()
        assert await reader.read() == b"ready up 100%\n"
        assert time.monotonic() - begun < 3
        _, hanging = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    hanging.close()


async def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    agent = Agent(Bridge().look)
    await agent.stop()
    port = await agent.start("127.0.0.1", 0)
    await agent.stop()
    await agent.stop()
    with pytest.raises(ConnectionRefusedError):
        await polled(port)


@dataclass
class ScriptedApi:
    """A Runtime API that answers a command as `answers` says, else with an empty line; `hang` gets no answer."""

    address: str
    answers: dict[str, str] = field(default_factory=dict)
    hang: str = ""
    heard: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            command = (await reader.readline()).decode().strip()
            self.heard.append(command)
            if command == self.hang:
                await reader.read()
            writer.write(f"{self.answers.get(command, '')}\n".encode())
        writer.close()


@pytest.fixture
def socket_path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hap") as short:  # a unix socket's path must be short
        yield str(Path(short) / "s")


@pytest.fixture
async def api(socket_path: str) -> AsyncIterator[ScriptedApi]:
    scripted = ScriptedApi(socket_path)
    async with await asyncio.start_unix_server(scripted.serve, socket_path):
        yield scripted


async def test_reconnect_says_maint_shutdown_ready_in_this_order_and_tells_what_it_did(api: ScriptedApi) -> None:
    assert await reconnect(api.address, "be", "b1") == STEPS
    assert api.heard == STEPS


async def test_reconnect_speaks_to_a_loopback_port_too() -> None:
    scripted = ScriptedApi("")
    async with await asyncio.start_server(scripted.serve, "127.0.0.1", 0) as server:
        for host in ("127.0.0.1", "localhost"):
            await reconnect(f"{host}:{server.sockets[0].getsockname()[1]}", "be", "b1")
    assert scripted.heard == STEPS * 2


@pytest.mark.parametrize(("failing", "heard"), [(MAINT, [MAINT, READY]), (SHUTDOWN, [MAINT, SHUTDOWN, READY])])
async def test_a_refused_step_is_told_and_the_server_made_ready_all_the_same(
    api: ScriptedApi, failing: str, heard: list[str]
) -> None:
    api.answers[failing] = "Permission denied\n\n"
    with pytest.raises(SourceUnavailable) as caught:
        await reconnect(api.address, "be", "b1")
    assert str(caught.value) == f"haproxy: '{failing}' was answered with: Permission denied"
    assert api.heard == heard


async def test_a_server_that_may_be_left_in_maint_is_told_with_the_command_that_helps(api: ScriptedApi) -> None:
    api.answers[READY] = "No such server."
    with pytest.raises(SourceUnavailable, match=f"No such server.*; if it is in maint, say to HAProxy: {READY}$"):
        await reconnect(api.address, "be", "b1")
    assert api.heard == [*STEPS, READY]


async def test_an_api_that_hangs_costs_no_more_than_the_limit_and_ready_is_tried(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy, "_WORK_S", 0.1)
    api.hang = SHUTDOWN
    with pytest.raises(SourceTimeout, match="no answer within"):
        await reconnect(api.address, "be", "b1")
    assert api.heard == STEPS


async def test_a_caller_that_gives_up_does_not_leave_the_server_in_maint(api: ScriptedApi) -> None:
    api.hang = SHUTDOWN
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reconnect(api.address, "be", "b1"), 0.2)
    assert api.heard == STEPS


async def test_nobody_at_the_address_says_what_to_look_at(socket_path: str) -> None:
    with pytest.raises(SourceUnavailable, match="No such file or directory; is HAProxy running"):
        await reconnect(socket_path, "be", "b1")
    server = await asyncio.start_server(ScriptedApi("").serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(SourceUnavailable, match="Connection refused; is HAProxy running"):
        await reconnect(f"127.0.0.1:{port}", "be", "b1")


@pytest.mark.parametrize("name", ["", "b1 b2", "b1;show info", "b1\n", "b1\nshow info", "a/b", "b\u0661", "b1\x00"])
async def test_a_name_that_could_be_another_command_is_refused_and_nothing_is_said(api: ScriptedApi, name: str) -> None:
    with pytest.raises(BadQuery, match=r"^backend "):
        await reconnect(api.address, name, "b1")
    with pytest.raises(BadQuery, match=r"^server "):
        await reconnect(api.address, "be", name)
    assert api.heard == []


@pytest.mark.parametrize(
    "address", ["", "haproxy.sock", "10.0.0.1:9999", "0.0.0.0:9999", "lb.example:9999", "127.0.0.1", "127.0.0.1:0", "[::1]:x"]
)
async def test_an_address_beyond_this_machine_is_refused(address: str) -> None:
    with pytest.raises(BadQuery, match=r"unix socket's path .* or host:port with a loopback host"):
        await reconnect(address, "be", "b1")
