"""The bridge's Dockerfile, as far as that goes without an engine: what it copies is enough to run, as what it says it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.stores import free_port

ROOT = Path(__file__).parents[2]
#: (instruction, its words), continued lines joined, comments left out
STEPS = [
    (line.partition(" ")[0], line.partition(" ")[2].strip())
    for line in re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))).splitlines()
    if line
]


def words(instruction: str) -> list[str]:
    return [said for name, said in STEPS if name == instruction]


def copied() -> list[tuple[str, str]]:
    """What comes from the repository, and where it goes to."""
    pairs = [tuple(said.split()) for said in words("COPY") if not said.startswith("--from")]
    assert {len(pair) for pair in pairs} == {2}
    return [(pair[0], pair[1]) for pair in pairs]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of the image."""
    folder = tmp_path_factory.mktemp("image")
    for source, target in copied():
        if not target.startswith("/"):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, folder / target)
    return folder


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=tree, capture_output=True, text=True, check=False)


def test_both_stages_are_of_one_exact_version() -> None:
    bases = {said.partition(" ")[0] for said in words("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim", bases.pop())


def test_every_dependency_is_locked_by_its_hash_and_nothing_is_built() -> None:
    [install] = [said for said in words("RUN") if "install --no-cache" in said]
    assert {"--require-hashes", "--only-binary=:all:", "-r"} <= set(install.split())
    assert install.split()[-1] == dict(copied())["requirements/run.lock"]


def test_it_runs_as_nobodys_root() -> None:
    [user] = words("USER")
    made = " ".join(words("RUN"))
    number = user.partition(":")[0]
    assert (f"--gid {number} bridge" in made, f"--uid {number} " in made, number != "0") == (True, True, True)
    assert STEPS.index(("USER", user)) > max(place for place, (name, _) in enumerate(STEPS) if name == "RUN")


def test_the_builder_is_sent_what_is_copied_and_no_more() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == {source for source, _ in copied()}
    assert "*" in ignored


def test_what_is_copied_is_enough_for_the_bridge_and_for_the_feed(tree: Path) -> None:
    assert run(tree, "-m", "app", "check").returncode == 0
    assert run(tree, "-m", "demo.feeding", "--help").returncode == 0


def test_its_health_check_sees_a_bridge_that_serves_and_one_that_drains(tree: Path, tmp_path: Path) -> None:
    port = free_port()
    [health] = words("HEALTHCHECK")
    check = json.loads(health.partition("CMD ")[2])
    assert (check[:2], words("EXPOSE")) == (["python", "-c"], ["8080 8081"])
    said = dict(pair.split("=", 1) for line in words("ENV") for pair in line.split() if pair.startswith("BRIDGE_"))
    own = {"BRIDGE_HTTP__HOST": "127.0.0.1", "BRIDGE_HTTP__PORT": str(port), "BRIDGE_AGENT__PORT": "0"}
    own |= {"BRIDGE_AGENT__HOST": "127.0.0.1", "BRIDGE_STATE": str(tmp_path / "state")}
    assert said.keys() >= {"BRIDGE_HTTP__HOST", "BRIDGE_AGENT__HOST", "BRIDGE_STATE"}

    def healthy() -> bool:
        return run(tree, "-c", check[2].replace(":8080", f":{port}")).returncode == 0

    command = [sys.executable, *json.loads(words("ENTRYPOINT")[0])[1:], *json.loads(words("CMD")[0])]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tree, env=os.environ | said | own, stdout=log, stderr=log)
    try:
        ends_s = time.monotonic() + 20
        while not healthy():
            assert (process.poll(), time.monotonic() < ends_s) == (None, True), (tmp_path / "log").read_text()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert (process.poll(), healthy()) == (None, False)  # in its lame duck's seconds
    finally:
        process.kill()
        process.wait(10)
