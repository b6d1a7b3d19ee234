from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import SourceUnavailable
from app.model import CacheTimes, Notice, Statement, TimeRange
from app.operations import cache_file as warm
from app.policies import Guard, Policy, PolicyDeps, PrioritySemaphore, guard
from app.telemetry import Telemetry
from tests.frames import frame, shown
from tests.policies.scripted import Clock, Scripted, no_sleep

DOWN = ConnectionError("never asked")
#: nothing in these tests is older
OLDEST = 0
ANSWER = frame({"account=A": {0: 1, 1000: None}})


def statement(text: str = "t") -> Statement:
    return Statement("s", "m", text, (("w0", ("a", "b")),), TimeRange(0, 5000, 1000), ("account",))


def guarded(clock: Clock, fingerprint: str = "f") -> dict[str, Guard]:
    common = PolicyDeps(Telemetry(), clock, no_sleep, PrioritySemaphore(5))
    return {"s": guard("s", Scripted(ANSWER), Policy(), common, fingerprint)}


async def saved(folder: Path, clock: Clock) -> int:
    guards = guarded(clock)
    for text in ("a", "b"):
        await guards["s"].fetch(statement(text))
        clock.now_ms += 600_000
    return warm.save(folder, guards, clock.now_ms - 900_000)


async def test_what_may_still_be_shown_is_there_after_a_restart_with_its_true_age(tmp_path: Path) -> None:
    clock = Clock()
    assert await saved(tmp_path, clock) == 1
    guards = guarded(clock)
    assert warm.load(tmp_path, guards, OLDEST) == 1
    found = await guards["s"].fetch(replace(statement("b"), accept="cached_only"))
    assert (shown(found), found.provenance.asked_ms) == (shown(ANSWER), 1_600_000)


async def restarted_after_half_an_hour(folder: Path, asked: Statement) -> Guard:
    clock = Clock()
    guards = guarded(clock)
    await guards["s"].fetch(asked)
    clock.now_ms += 1_800_000
    warm.save(folder, guards, clock.now_ms - 3_600_000)
    again = guarded(clock)
    warm.load(folder, again, clock.now_ms - 3_600_000)
    return again["s"]


async def test_a_metric_that_may_be_stale_for_longer_than_its_source_has_its_answers_after_a_restart(tmp_path: Path) -> None:
    asked = replace(statement(), cache=CacheTimes(stale_s=3600), accept="cached_only")
    again = await restarted_after_half_an_hour(tmp_path, replace(asked, accept="fresh"))
    assert shown(await again.fetch(asked)) == shown(ANSWER)


async def test_the_longer_stale_time_of_one_metric_makes_no_other_metrics_answer_live_longer(tmp_path: Path) -> None:
    again = await restarted_after_half_an_hour(tmp_path, statement())
    with pytest.raises(SourceUnavailable, match="nothing newer than 900s is kept"):
        await again.fetch(replace(statement(), accept="cached_only"))


async def test_a_loaded_answer_is_never_fresh(tmp_path: Path) -> None:
    clock = Clock()
    guards = guarded(clock)
    await guards["s"].fetch(statement())
    warm.save(tmp_path, guards, 0)
    again = guarded(clock)
    warm.load(tmp_path, again, OLDEST)
    [kept] = again["s"].cache.answers
    assert not kept.frame.provenance.is_fresh(clock.now_ms)


async def test_answers_of_a_source_that_is_configured_otherwise_are_not_its_own(tmp_path: Path) -> None:
    clock = Clock()
    await saved(tmp_path, clock)
    assert warm.load(tmp_path, guarded(clock, "another server"), OLDEST) == 0


async def test_without_a_file_there_is_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert (warm.load(tmp_path, guarded(Clock()), OLDEST), caplog.records) == (0, [])


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty"])
async def test_a_damaged_file_is_ignored_with_one_log_line(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    await saved(tmp_path, clock)
    file = tmp_path / warm.FILE
    whole = file.read_bytes()
    changed = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    file.write_bytes({"cut": whole[:-5], "changed": changed, "foreign": b"PK" * 90, "empty": b""}[damage])
    with caplog.at_level(logging.INFO):
        assert warm.load(tmp_path, guarded(clock), OLDEST) == 0
    assert len(caplog.records) == 1
    assert "are ignored" in caplog.text


def resealed(file: Path, old: bytes, new: bytes) -> None:
    """Change what the file holds, of the same length, and put the right checksum over it."""
    whole = file.read_bytes()
    magic = whole[: whole.index(b"\n") + 1]
    body = whole[len(magic) + 32 :].replace(old, new)
    assert new in body
    assert len(body) == len(whole) - len(magic) - 32
    file.write_bytes(magic + hashlib.sha256(body).digest() + body)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"asked":1600000', b'"asked":"60000"'),
        (b'"rows":2', b'"rows":[]'[:8]),
        (b'"text":{}', b'"text":[]'),
        (b"[0,5000,1000,0]", b'[0,5000,"00",0]'),
        (b"[0,5000,1000,0]", b"[0,5000,00.0,0]"),
        (b'["a","b"]', b'{"a":"b"}'),
        (b'"account","A"', b'"account", 12'),
        (b'"offsets":[0,2]', b'"offsets":[2,0]'),
        # whole, and no answer to its question
        (b"[0,5000,1000,0]", b"[0,0500,1000,0]"),
        (b"[0,5000,1000,0]", b"[0,1000,1000,0]"),
        (b"[0,5000,1000,0]", b"[0,5000,3000,0]"),
        (b'"account","A"', b'"acc_unt","A"'),
    ],
)
async def test_a_wrong_content_under_a_right_checksum_is_ignored_with_one_log_line(
    tmp_path: Path, old: bytes, new: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    await saved(tmp_path, clock)
    resealed(tmp_path / warm.FILE, old, new)
    with caplog.at_level(logging.INFO):
        assert warm.load(tmp_path, guarded(clock), OLDEST) == 0
    assert len(caplog.records) == 1
    assert "are ignored" in caplog.text


async def test_an_answer_that_cannot_be_written_down_is_left_out_and_the_others_are_saved(tmp_path: Path) -> None:
    clock = Clock()
    guards = guarded(clock)
    odd = replace(ANSWER, notices=(Notice("info", "a store's \ud800"),))
    for text, answer in (("a", ANSWER), ("b", odd), ("c\ud800", ANSWER)):
        guards["s"].cache.answers.put(statement(text), answer, clock.now_ms)
    assert warm.save(tmp_path, guards, 0) == 1
    assert warm.load(tmp_path, guarded(clock), OLDEST) == 1


async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    await saved(tmp_path, Clock())
    assert (tmp_path / warm.FILE).stat().st_mode & 0o077 == 0
