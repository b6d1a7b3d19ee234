"""Whoever waits for an installation sees what is done and for how long."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRESS = ROOT / "scripts" / "progress.sh"


def progress(script: str, every_s: int = 10) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRESS), "making it: about a second", "bash", "-c", script]
    environment = os.environ | {"PROGRESS_EVERY_S": str(every_s)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_it_says_what_begins_how_it_goes_and_that_it_is_done() -> None:
    done = progress("echo first; echo downloading; sleep 1.5", every_s=1)
    assert re.fullmatch(r"making it: about a second\n(  \d s: downloading\n)+  done in \d s\n", done.stdout), done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_of_a_command_that_fails_everything_is_shown_and_its_code_kept() -> None:
    done = progress("echo one; echo two >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[:2]) == (7, "making it: about a second\n", ["one", "two"])
    assert "failed after" in done.stderr


def has_ended(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_whose_waiting_is_interrupted_ends_too(tmp_path: Path, number: signal.Signals) -> None:
    command = [str(PROGRESS), "waiting", "bash", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"]
    # Tests that run in the background have SIGINT ignored, and a child inherits that.
    heard = signal.signal(number, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    signal.signal(number, heard)
    ends_s = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < ends_s
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(10) == 130
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_no_step_of_an_installation_is_silent() -> None:
    """What downloads tells how it goes, or goes through progress.sh; `-q` says nothing for minutes."""
    texts = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    texts += [file.read_text(encoding="utf-8") for file in (ROOT / "scripts").glob("*.sh")]
    lines = [line.strip() for text in texts for line in re.sub(r"\\\n\s*", "", text).splitlines()]
    downloads = [line for line in lines if re.search(r"pip\b.* install |apt-get (update|install)|npm ci", line)]
    downloads = [line for line in downloads if not line.startswith(("#", "echo"))]
    assert len(downloads) >= 5
    assert [line for line in downloads if "progress.sh" not in line] == []
