"""The commands for an outage, as processes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from app.sync import verify
from tests.servers.receiver import receiver

SECRET = "a-secret-of-the-backends"
REDIS = {"rts": {"connect": {"kind": "redis", "port": 7001}}, "ris": {"connect": {"kind": "redis", "port": 7001}}}
OTHERS = {"rtss": {"connect": {"kind": "redis", "port": 7002}}}


async def bridge(folder: Path, words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    file = folder / "bridge.json"
    file.write_text(json.dumps({"sources": REDIS | OTHERS, **settings}), encoding="utf-8")
    command = [sys.executable, "-m", "app", *words.split(), "--config", str(file)]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)


async def test_the_backend_is_told_by_hand_once_for_each_server(tmp_path: Path) -> None:
    async with receiver() as backend:
        done = await bridge(tmp_path, "sync --from now-30m", sync={"url": backend.url, "secret": SECRET})
    told = sorted((call.told["server"], call.told["sources"], call.told["event"]) for call in backend.received)
    assert told == [("127.0.0.1:7001", ["ris", "rts"], "manual"), ("127.0.0.1:7002", ["rtss"], "manual")]
    first = backend.received[0]
    assert first.told["to_ms"] - first.told["from_ms"] == 1_800_000
    sent_s = int(first.headers["bridge-timestamp"])
    assert verify(SECRET, first.headers["bridge-signature"], sent_s, first.body, int(time.time()))
    assert (done.returncode, done.stdout.count("the backend answered 204")) == (0, 2)


async def test_one_source_can_be_named_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    async with receiver() as backend:
        sync = {"url": backend.url, "secret": SECRET}
        done = await bridge(tmp_path, "sync --source rtss", sync=sync)
        wrong = await bridge(tmp_path, "sync --source rtsx", sync=sync)
    assert (done.returncode, [call.told["server"] for call in backend.received]) == (0, ["127.0.0.1:7002"])
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "bridge: --source: rtsx is no Redis source; allowed: rts, ris, rtss\n",
    )


async def test_without_a_url_sync_says_what_to_set(tmp_path: Path) -> None:
    done = await bridge(tmp_path, "sync")
    assert (done.returncode, done.stderr) == (
        1,
        "bridge: sync: there is no backend to tell: set sync.url and sync.secret\n",
    )


async def test_a_backend_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = await bridge(tmp_path, "sync", sync={"url": "http://127.0.0.1:1/x", "secret": SECRET})
    assert (done.returncode, done.stderr.count("\n"), SECRET in done.stderr + done.stdout) == (1, 1, False)


async def test_a_haproxy_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "haproxy", "reconnect", "b1", "--socket", str(tmp_path / "none.sock")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stderr.startswith("bridge: haproxy: ")) == (1, 1, True)


async def test_a_port_that_is_taken_is_named_before_anything_is_begun(tmp_path: Path) -> None:
    async with receiver() as somebody:
        done = await bridge(tmp_path, "serve", http={"port": 0}, agent={"port": somebody.port})
    taken = f"bridge: agent.port: {somebody.port} is taken by another program; name a free one, for example {somebody.port + 1}\n"
    assert (done.returncode, done.stderr) == (1, taken)
