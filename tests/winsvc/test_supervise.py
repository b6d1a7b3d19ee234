"""The supervisor, with real programs."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from winsvc.lifecycle import Exit, Failed, State, run_service
from winsvc.processes import environment_of, process_handling
from winsvc.supervise import Patience, ProgramWork

QUICK = Patience(restart_s=0.05, longest_s=0.2, tries=3, grace_s=0.5)


class Journal:
    """What an operator would find."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.errors: list[str] = []

    def info(self, text: str) -> None:
        self.infos.append(text)

    def error(self, text: str) -> None:
        self.errors.append(text)


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def counting(file: Path, then: str) -> list[str]:
    """A program that leaves its process id in a file, a line for each life, and then does something."""
    return python(f"import os, signal, sys, time\nopen({str(file)!r}, 'a').write(f'{{os.getpid()}}\\n')\n{then}")


def lives(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def until(file: Path, count: int) -> None:
    ends_s = time.monotonic() + 10
    while len(lives(file)) < count:
        assert time.monotonic() < ends_s, f"only {lives(file)}"
        time.sleep(0.01)


def gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def in_service(work: ProgramWork, stop: threading.Event, journal: Journal, states: list[State]) -> int:
    return run_service("X", lambda: work, stop, lambda state, _: states.append(state), journal)


def test_a_program_that_was_killed_is_started_again(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    work = ProgramWork(counting(begun, "time.sleep(60)"), process_handling({}), QUICK)
    work.start()
    until(begun, 1)
    os.kill(lives(begun)[0], 9)
    until(begun, 2)
    work.ask_to_stop()
    while not work.ended:
        time.sleep(0.01)
    work.result()
    assert len(lives(begun)) == 2
    assert all(gone(process) for process in lives(begun))


def test_a_program_that_never_stays_up_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    begun, journal, states = tmp_path / "begun", Journal(), list[State]()
    work = ProgramWork(counting(begun, "print('no database'); sys.exit(7)"), process_handling({}), QUICK)
    code = in_service(work, threading.Event(), journal, states)
    assert (code, len(lives(begun))) == (Exit.DIED, 3)
    said = f"X has failed: {sys.executable} ended 3 times in a row, the last time with code 7; it said last: no database"
    assert journal.errors == [f"{said}\nno database\nno database"]


def test_one_that_was_up_for_long_begins_to_count_anew(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    patience = Patience(restart_s=0.01, steady_s=0.0, tries=2)
    work = ProgramWork(counting(begun, "sys.exit(7)"), process_handling({}), patience)
    work.start()
    until(begun, 4)
    work.ask_to_stop()
    while not work.ended:
        time.sleep(0.01)
    work.result()


def test_the_waits_between_restarts_get_longer_and_have_an_end() -> None:
    assert [Patience().wait_s(failures) for failures in range(1, 7)] == [5, 10, 20, 40, 60, 60]


def test_a_stop_lets_the_program_finish_what_it_does(tmp_path: Path) -> None:
    begun, done = tmp_path / "begun", tmp_path / "done"
    finish = f"signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), open({str(done)!r}, 'w'), sys.exit(0)))\n"
    work = ProgramWork(counting(begun, f"{finish}print('up')\ntime.sleep(60)"), process_handling({}), Patience(grace_s=5))
    stop, journal, states = threading.Event(), Journal(), list[State]()
    threading.Thread(target=_stop_when_up, args=(begun, stop)).start()
    assert in_service(work, stop, journal, states) == 0
    assert done.exists()
    assert journal.infos == ["X has started", "X has stopped in good order"]
    assert list(dict.fromkeys(states)) == [State.STARTING, State.RUNNING, State.STOPPING]


def _stop_when_up(begun: Path, stop: threading.Event) -> None:
    until(begun, 1)
    time.sleep(0.3)  # for its handler of the signal
    stop.set()


def test_a_program_deaf_to_stop_is_ended_by_force_when_its_grace_is_over(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(60)"
    work = ProgramWork(counting(begun, deaf), process_handling({}), QUICK)
    work.start()
    until(begun, 1)
    time.sleep(0.2)
    begun_s = time.monotonic()
    work.ask_to_stop()
    while not work.ended:
        time.sleep(0.01)
    assert 0.4 < time.monotonic() - begun_s < 5
    assert gone(lives(begun)[0])
    work.result()


def test_a_stop_between_two_restarts_is_obeyed_at_once(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    work = ProgramWork(counting(begun, "sys.exit(7)"), process_handling({}), Patience(restart_s=30))
    work.start()
    until(begun, 1)
    time.sleep(0.3)
    work.ask_to_stop()
    time.sleep(0.3)
    assert work.ended
    work.result()


def test_a_program_that_is_not_there_fails_at_once() -> None:
    work = ProgramWork(["/no/such/grafana"], process_handling({}), QUICK)
    work.start()
    while not work.ended:
        time.sleep(0.01)
    with pytest.raises(Failed, match=r"^/no/such/grafana cannot be started: No such file or directory$"):
        work.result()


def test_the_secrets_file_reaches_the_program_and_nobody_else(tmp_path: Path) -> None:
    secrets, seen = tmp_path / "secrets.env", tmp_path / "seen"
    secrets.write_text("\ufeff# a comment\nGF_SECURITY_ADMIN_PASSWORD=a=b c\n\n", encoding="utf-8")
    code = f"import os; open({str(seen)!r}, 'w').write(os.environ['GF_SECURITY_ADMIN_PASSWORD']); import time; time.sleep(60)"
    work = ProgramWork(python(code), process_handling(environment_of(secrets)), QUICK)
    work.start()
    ends_s = time.monotonic() + 10
    while not (seen.exists() and seen.read_text()):
        assert time.monotonic() < ends_s
        time.sleep(0.01)
    work.ask_to_stop()
    assert seen.read_text() == "a=b c"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in os.environ
    assert environment_of(tmp_path / "none") == {}
    while not work.ended:
        time.sleep(0.01)
