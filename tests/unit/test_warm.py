from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from app import warm
from app.model import Statement, TimeRange
from app.policies import Common, Guard, Places, Policy, guard
from app.telemetry import Telemetry
from tests.unit.frames import frame, shown
from tests.unit.policies.scripted import Clock, Scripted, no_sleep

DOWN = ConnectionError("never asked")
ANSWER = frame({"account=A": {0: 1, 1000: None}})


def statement(text: str = "t") -> Statement:
    return Statement("s", "m", text, (("w0", ("a", "b")),), TimeRange(0, 5000, 1000), ("account",))


def guarded(clock: Clock, fingerprint: str = "f") -> dict[str, Guard]:
    common = Common(Telemetry(), clock, no_sleep, Places(5))
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
    assert warm.load(tmp_path, guards) == 1
    found = await guards["s"].fetch(replace(statement("b"), accept="kept"))
    assert (shown(found), found.asked_ms) == (shown(ANSWER), 1_600_000)


async def test_a_loaded_answer_is_never_fresh(tmp_path: Path) -> None:
    clock = Clock()
    guards = guarded(clock)
    await guards["s"].fetch(statement())
    warm.save(tmp_path, guards, 0)
    again = guarded(clock)
    warm.load(tmp_path, again)
    [kept] = again["s"].cache.answers
    assert kept.fresh_to_ms == 0


async def test_answers_of_a_source_that_is_configured_otherwise_are_not_its_own(tmp_path: Path) -> None:
    clock = Clock()
    await saved(tmp_path, clock)
    assert warm.load(tmp_path, guarded(clock, "another server")) == 0


async def test_without_a_file_there_is_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert (warm.load(tmp_path, guarded(Clock())), caplog.records) == (0, [])


@pytest.mark.parametrize("damage", ["cut", "changed", "foreign", "empty"])
async def test_a_damaged_file_is_ignored_with_one_log_line(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    await saved(tmp_path, clock)
    file = tmp_path / warm.FILE
    whole = file.read_bytes()
    changed = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    file.write_bytes({"cut": whole[:-5], "changed": changed, "foreign": b"PK" * 90, "empty": b""}[damage])
    with caplog.at_level(logging.INFO):
        assert warm.load(tmp_path, guarded(clock)) == 0
    assert len(caplog.records) == 1
    assert "are ignored" in caplog.text


async def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    await saved(tmp_path, Clock())
    assert (tmp_path / warm.FILE).stat().st_mode & 0o077 == 0
