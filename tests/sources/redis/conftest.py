"""A real server for all tests of this folder, emptied before each, and a source on it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.sources.redis.source import RedisConfig, RedisSource
from tests.servers.redis import RedisServer
from tests.sources.redis.asking import Asker


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.client.flushall()
    return running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that a test may kill."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def source(server: RedisServer) -> AsyncIterator[RedisSource]:
    source = RedisConfig(port=server.port).build("rts")
    yield source
    await source.close()


@pytest.fixture
def ask(source: RedisSource) -> Asker:
    return Asker(source)


def divide_finely(patch: pytest.MonkeyPatch) -> None:
    """Make every read come in rounds of a few values, handled in slices of fewer."""
    patch.setattr("app.sources.redis.rounds.ROUND_CELLS", 60)
    patch.setattr("app.sources.redis.rounds.SLICE_CELLS", 3)
    patch.setattr("app.sources.redis.tables.SLICE_CELLS", 3)
    patch.setattr("app.sources.redis.events._ROUND_ENTRIES", 3)


@pytest.fixture(params=["one round", "many rounds"])
def rounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a read comes in one round or in many: no answer depends on it."""
    if request.param == "many rounds":
        divide_finely(monkeypatch)


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A certificate for this machine, its key beside it."""
    path = str(tmp_path / "cert.pem")
    new_key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*new_key, *subject, "-keyout", f"{path}.key", "-out", path], check=True, capture_output=True)
    return path
