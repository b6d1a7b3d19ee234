"""Telling the backend: signed, at least once, in order, and never at the cost of the bridge."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import SourceUnavailable
from app.sync import BackendSync, SyncCall, SyncSettings, signature, verify
from app.sync.delivery import _Attempt
from app.sync.spool import Spool
from demo.stores import free_port
from tests.servers.receiver import HANG, receiver

SECRET = "correct-horse-battery"
NOW_MS = 1_760_000_000_000
DOWN = SyncCall("redis.down", "redis:6379", ("rts",), NOW_MS - 5000, None, None, "aaa", None, 100, None)
UP = replace(DOWN, event="redis.up", to_ms=NOW_MS, memory_lost=True, run_id_after="bbb", keys_after=0)


@dataclass
class World:
    """What a BackendSync is given: a clock that its sleeps advance, and who counts."""

    now_ms: int = NOW_MS
    slept_s: list[float] = field(default_factory=list)
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_ms += round(seconds * 1000)
        await asyncio.sleep(0.001)

    def count(self, event: str, outcome: str) -> None:
        self.counted[event, outcome] += 1

    def sync(
        self, url: str | None, spool: Path | None = None, sleep: Callable[[float], Awaitable[None]] | None = None, **more: Any
    ) -> BackendSync:
        settings = SyncSettings(url=url, secret=SECRET, spool=spool, **more)
        return BackendSync(settings, self.count, lambda: self.now_ms, sleep or self.sleep)


@pytest.fixture
def world() -> World:
    return World()


def own_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that no authority has signed, its key in the same file."""
    file = folder / "own.pem"
    new_key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*new_key, *names, "-keyout", str(folder / "key"), "-out", str(folder / "cert")], check=True, capture_output=True
    )
    file.write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return file


@asynccontextmanager
async def garbled_server() -> AsyncIterator[int]:
    """A server that does not speak HTTP: its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not true():
            await asyncio.sleep(0.002)


async def settle(sync: BackendSync, *calls: SyncCall) -> None:
    """Start, tell, wait until nothing is pending, stop."""
    await sync.start()
    for call in calls:
        sync.tell(call)
    await until(lambda: sync.pending == 0)
    await sync.stop()


async def test_a_call_arrives_whole_and_signed(world: World) -> None:
    async with receiver() as backend:
        await settle(world.sync(backend.url), UP)
    [got] = backend.received
    assert got.method == "POST"
    assert got.told == {
        "event": "redis.up",
        "server": "redis:6379",
        "sources": ["rts"],
        "from_ms": NOW_MS - 5000,
        "to_ms": NOW_MS,
        "memory_lost": True,
        "run_id_before": "aaa",
        "run_id_after": "bbb",
        "keys_before": 100,
        "keys_after": 0,
        "idempotency_key": UP.idempotency_key,
        "sent_ms": NOW_MS,
    }
    assert got.headers["content-type"] == "application/json"
    assert got.headers["idempotency-key"] == UP.idempotency_key
    sent_s = int(got.headers["bridge-timestamp"])
    assert verify(SECRET, got.headers["bridge-signature"], sent_s, got.body, NOW_MS // 1000)
    assert world.counted == {("redis.up", "delivered"): 1}


def test_the_signature_is_stripes_scheme() -> None:
    # printf '1.{}' | openssl dgst -sha256 -hmac correct-horse-battery
    assert signature(SECRET, 1, b"{}") == "v1=55cfcbbd6b26fb96a1c19d6989d8d9eed5ecf9adfa9518b1407feca2739fc35b"


@pytest.mark.parametrize(
    ("secret", "timestamp_s", "body", "now_s", "trusted"),
    [
        (SECRET, 1000, b"body", 1000, True),
        (SECRET, 1000, b"body", 1300, True),
        (SECRET, 1000, b"body", 1301, False),
        (SECRET, 1000, b"body", 699, False),
        (SECRET, 1001, b"body", 1000, False),
        (SECRET, 1000, b"bodY", 1000, False),
        (SECRET + "x", 1000, b"body", 1000, False),
    ],
)
def test_whoever_tampers_is_not_trusted(secret: str, timestamp_s: int, body: bytes, now_s: int, trusted: bool) -> None:
    assert verify(secret, signature(SECRET, 1000, b"body"), timestamp_s, body, now_s) is trusted


@pytest.mark.parametrize("header", ["", "v1=", "v1=ü", "\udc80", "v0=" + "0" * 64])
def test_a_header_that_is_no_signature_is_not_trusted(header: str) -> None:
    assert verify(SECRET, header, 1000, b"body", 1000) is False


async def test_calls_of_one_server_arrive_in_order_even_when_the_first_fails(world: World) -> None:
    calls = [replace(DOWN, from_ms=NOW_MS + minute * 60_000) for minute in range(5)]
    async with receiver(500, 503) as backend:
        await settle(world.sync(backend.url), *calls)
    first = calls[0].from_ms
    assert [got.told["from_ms"] for got in backend.received] == [first, first, *(call.from_ms for call in calls)]


async def test_a_server_does_not_wait_for_another_servers_failing_call(world: World) -> None:
    never = asyncio.Event()

    async def for_ever(_: float) -> None:
        await never.wait()

    async with receiver(500) as backend:
        sync = world.sync(backend.url, sleep=for_ever)
        await sync.start()
        sync.tell(DOWN)
        await until(lambda: world.counted["redis.down", "failed_attempt"] == 1)
        sync.tell(replace(DOWN, server="other:6379"))
        await until(lambda: world.counted["redis.down", "delivered"] == 1)
        assert sync.pending == 1
        await sync.stop()
    assert [got.told["server"] for got in backend.received] == ["redis:6379", "other:6379"]


async def test_a_second_attempt_keeps_the_idempotency_key_and_signs_anew(world: World) -> None:
    async def ten_seconds(_: float) -> None:
        world.now_ms += 10_000

    async with receiver(500, 200) as backend:
        await settle(world.sync(backend.url, sleep=ten_seconds), UP)
    first, second = backend.received
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == UP.idempotency_key
    assert int(second.headers["bridge-timestamp"]) == int(first.headers["bridge-timestamp"]) + 10
    assert verify(SECRET, second.headers["bridge-signature"], NOW_MS // 1000 + 10, second.body, world.now_ms // 1000)
    assert world.counted == {("redis.up", "failed_attempt"): 1, ("redis.up", "delivered"): 1}


async def test_a_backend_that_refuses_connections_gets_the_call_when_it_is_up(world: World) -> None:
    port = free_port()
    sync = world.sync(f"http://127.0.0.1:{port}/redis-events")
    await sync.start()
    sync.tell(UP)
    await until(lambda: world.counted["redis.up", "failed_attempt"] >= 2)
    async with receiver(port=port) as backend:
        await until(lambda: sync.pending == 0)
        await sync.stop()
    assert [got.told["event"] for got in backend.received] == ["redis.up"]


async def test_the_time_limit_holds_for_the_whole_call_and_not_for_each_byte(world: World) -> None:
    left = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.005)
        writer.close()
        left.set()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.1s"):
            await world.sync(f"http://127.0.0.1:{port}", timeout_s=0.1).deliver_now(UP)
        # What the server still holds when its loop ends would be reported in a later test.
        await left.wait()


async def test_a_backend_whose_certificate_nobody_vouches_for_gets_nothing(world: World, tmp_path: Path) -> None:
    certificate, received = own_certificate(tmp_path), []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1))
        writer.close()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await world.sync(f"https://127.0.0.1:{port}").deliver_now(UP)
    assert received == []


async def test_a_password_in_the_url_is_sent_and_never_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with receiver(500, 200) as backend:
        await settle(world.sync(backend.url.replace("://", "://bridge:hunter22@")), UP)
    assert backend.received[0].headers["authorization"] == "Basic " + base64.b64encode(b"bridge:hunter22").decode()
    async with garbled_server() as port:
        sync = world.sync(f"http://bridge:hunter22@127.0.0.1:{port}/")
        with pytest.raises(SourceUnavailable) as refused:
            await sync.deliver_now(UP)
    assert "hunter22" not in caplog.text + str(refused.value)


async def test_a_backend_that_hangs_is_asked_again(world: World) -> None:
    async with receiver(HANG, 200) as backend:
        await settle(world.sync(backend.url, timeout_s=0.05), UP)
    assert len(backend.received) == 2


async def test_a_redirect_is_not_followed_but_tried_again(world: World) -> None:
    async with receiver(302) as backend:
        backend.extra["Location"] = "/elsewhere"
        await settle(world.sync(backend.url), UP)
    assert [got.method for got in backend.received] == ["POST", "POST"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422])
async def test_what_the_backend_will_never_take_is_dropped_at_once(
    world: World, status: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver(status) as backend:
        await settle(world.sync(backend.url, tmp_path), UP)
    assert len(backend.received) == 1
    assert [record.levelname for record in caplog.records if record.name == "app.sync" and record.levelno > logging.INFO] == [
        "ERROR"
    ]
    assert world.counted["redis.up", "dropped"] == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_call_is_given_up_after_its_time_with_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with receiver(*[500] * 100) as backend:
        await settle(world.sync(backend.url, give_up_s=20, most_retry_s=8), UP)
    assert 3 < len(backend.received) < 100
    assert world.now_ms - NOW_MS >= 20_000
    assert [record.levelname for record in caplog.records if record.name == "app.sync"] == ["WARNING", "ERROR"]
    assert world.counted["redis.up", "dropped"] == 1


async def test_waits_grow_up_to_their_bound(world: World) -> None:
    async with receiver(*[500] * 40) as backend:
        await settle(world.sync(backend.url, first_retry_s=1, most_retry_s=8), UP)
    bounds = [min(8, 2**attempt) for attempt in range(40)]
    assert all(0 <= slept <= bound for slept, bound in zip(world.slept_s, bounds, strict=True))
    assert max(world.slept_s) > 4


@pytest.mark.parametrize(("wish", "slept_s"), [("7", 7), ("3600", 8), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("²", None)])
async def test_the_backends_own_wait_is_honoured_within_the_bound(world: World, wish: str, slept_s: float | None) -> None:
    async with receiver(429) as backend:
        backend.extra["Retry-After"] = wish
        await settle(world.sync(backend.url, first_retry_s=0.1, most_retry_s=8), UP)
    assert world.slept_s == [slept_s] if slept_s else world.slept_s[0] <= 0.1


def test_waits_stay_finite_after_a_day_of_attempts(world: World) -> None:
    wait_s = world.sync("http://127.0.0.1:1")._wait_s(5000, _Attempt(500, ""))  # noqa: SLF001  a day would be too long here
    assert 0 <= wait_s <= 60


async def test_the_spool_survives_a_restart_in_order(world: World, tmp_path: Path) -> None:
    port = free_port()
    url, spool = f"http://127.0.0.1:{port}/redis-events", tmp_path / "made" / "here"
    before = world.sync(url, spool)
    await before.start()
    before.tell(DOWN)
    before.tell(UP)
    await until(lambda: world.counted["redis.down", "failed_attempt"] >= 1)
    await before.stop()
    names = {f"{call.from_ms}-{call.event}-{call.idempotency_key}.json" for call in (DOWN, UP)}
    assert {file.name for file in spool.iterdir()} == names
    async with receiver(port=port) as backend:
        await settle(world.sync(url, spool))
    assert [got.told["event"] for got in backend.received] == ["redis.down", "redis.up"]
    assert [got.headers["idempotency-key"] for got in backend.received] == [DOWN.idempotency_key, UP.idempotency_key]
    assert list(spool.iterdir()) == []


async def test_a_call_told_before_start_or_after_stop_waits(world: World, tmp_path: Path) -> None:
    async with receiver() as backend:
        sync = world.sync(backend.url, tmp_path)
        sync.tell(DOWN)
        assert sync.pending == 1
        await settle(sync)
        sync.tell(UP)
        await asyncio.sleep(0.01)
        assert (sync.pending, len(backend.received), len(list(tmp_path.iterdir()))) == (1, 1, 1)
        await settle(sync)
    assert [got.told["event"] for got in backend.received] == ["redis.down", "redis.up"]


def test_files_of_others_in_the_spools_folder_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("package.json", "1-notes.json", "redis.json"):
        (tmp_path / name).write_text("mine")
    assert Spool(tmp_path).read_calls() == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1-notes.json", "package.json", "redis.json"]


async def test_a_damaged_spool_file_is_put_aside_and_the_rest_delivered(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1-redis.up-half.json").write_text('{"call": {"event": "redis.up"')
    async with receiver() as backend:
        world.sync(backend.url, tmp_path).tell(UP)
        await settle(world.sync(backend.url, tmp_path))
    assert len(backend.received) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["1-redis.up-half.bad"]
    assert len([record for record in caplog.records if "damaged" in record.message]) == 1


async def test_a_spool_that_cannot_be_written_does_not_stop_the_delivery(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    async with receiver() as backend:
        await settle(world.sync(backend.url, tmp_path / "file"), UP)
    assert len(backend.received) == 1
    assert "would not survive a restart" in caplog.text


async def test_without_a_url_nothing_is_told_or_kept(world: World, tmp_path: Path) -> None:
    sync = BackendSync(SyncSettings(spool=tmp_path), world.count, lambda: world.now_ms)
    await sync.start()
    sync.tell(UP)
    assert (sync.on, sync.pending, list(tmp_path.iterdir())) == (False, 0, [])
    with pytest.raises(SourceUnavailable, match=r"sync\.url"):
        await sync.deliver_now(UP)
    await sync.stop()


async def test_telling_never_raises(world: World, caplog: pytest.LogCaptureFixture) -> None:
    sync = world.sync("http://127.0.0.1:1")
    sync.tell(replace(UP, server="\udc80"))
    assert "could not be queued" in caplog.text
    assert sync.pending == 0


async def test_the_same_call_told_twice_waits_once(world: World) -> None:
    sync = world.sync("http://127.0.0.1:1")
    sync.tell(UP)
    sync.tell(UP)
    assert sync.pending == 1


async def test_calls_that_are_lost_at_a_stop_without_a_spool_are_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    sync = world.sync("http://127.0.0.1:1")
    sync.tell(UP)
    await sync.stop()
    assert "1 calls are not delivered" in caplog.text


async def test_one_attempt_by_hand_gives_the_status_or_says_what_to_do(world: World) -> None:
    async with receiver(202, 401, 404, 500, 400) as backend:
        sync = world.sync(backend.url)
        assert await sync.deliver_now(UP) == 202
        for advice in ("401; is sync.secret", "404; does sync.url", "500; try again", "400; do the backend"):
            with pytest.raises(SourceUnavailable, match=advice):
                await sync.deliver_now(UP)
    with pytest.raises(SourceUnavailable, match="is the backend running"):
        await world.sync(f"http://127.0.0.1:{free_port()}").deliver_now(UP)
    assert world.counted == {("redis.up", "delivered"): 1, ("redis.up", "failed_attempt"): 5}


async def test_the_logs_tell_the_story_once_and_without_the_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiver(500, 500, 500) as backend:
        sync = world.sync(backend.url)
        await settle(sync, UP)
    told = [record.getMessage() for record in caplog.records if record.name == "app.sync"]
    assert [next(word for word in ("queued", "not delivered yet", "delivered") if word in line) for line in told] == [
        "queued",
        "not delivered yet",
        "delivered",
    ]
    assert SECRET not in caplog.text
    assert not any(got.headers["bridge-signature"] in caplog.text for got in backend.received)
    assert SECRET not in repr(sync._settings) + str(sync._settings) + repr(sync)  # noqa: SLF001


def test_two_replicas_send_the_same_key_for_the_same_outage() -> None:
    later: dict[str, Any] = {"from_ms": UP.from_ms + 70_000, "sources": ("live",), "to_ms": NOW_MS + 1, "keys_before": 99}
    assert replace(UP, **later).idempotency_key == UP.idempotency_key
    same_minute = UP.from_ms // 60_000 * 60_000
    assert replace(DOWN, from_ms=same_minute).idempotency_key == replace(DOWN, from_ms=same_minute + 59_999).idempotency_key
    kept_running = replace(UP, run_id_after="aaa", from_ms=same_minute)
    assert replace(kept_running, from_ms=same_minute + 1, to_ms=None).idempotency_key == kept_running.idempotency_key


def test_different_occurrences_have_different_keys() -> None:
    manual = SyncCall("manual", "redis:6379", (), 0, 60_000, None, None, None, None, None)
    calls = [
        DOWN,
        UP,
        replace(UP, run_id_after="ccc"),
        replace(UP, server="other:6379"),
        replace(DOWN, from_ms=DOWN.from_ms + 60_000),
        manual,
        replace(manual, from_ms=1),
        replace(manual, to_ms=60_001),
    ]
    keys = {call.idempotency_key for call in calls}
    assert len(keys) == len(calls)
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "http://backend"}, "required when url is set"),
        ({"url": "http://backend", "secret": "fifteen-letters"}, "at least 16 characters"),
        ({"url": "ftp://backend", "secret": SECRET}, "http:// or https://"),
        ({"url": "backend:8080", "secret": SECRET}, "http:// or https://"),
        ({"url": "http://", "secret": SECRET}, "http:// or https://"),
        ({"url": "http://backend:port", "secret": SECRET}, "http:// or https://"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"timeout_s": 61}, "less than or equal to 60"),
        ({"uri": "http://backend"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_telling_the_secret(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        SyncSettings(**values)
    assert values.get("secret", SECRET) not in str(refused.value)
