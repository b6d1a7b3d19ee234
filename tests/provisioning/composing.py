"""docker-compose.yml as it is written, and as the tool understands it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")
#: as it is written: variables are not filled in
WRITTEN: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = WRITTEN["services"]
PROFILES = sorted({profile for service in SERVICES.values() for profile in service.get("profiles", ())})


def config(variables: Path, profiles: list[str], file: Path = FILE) -> subprocess.CompletedProcess[str]:
    """What the tool says to the file: the whole configuration, or what is wrong with it."""
    program = shutil.which("docker-compose")
    assert program, "docker-compose is not installed; on Debian: apt-get install docker-compose"
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    # The folder is the repository's, whatever file it is; nothing but the variables' file may fill a gap.
    command = [program, "--project-directory", str(ROOT), "--env-file", str(variables), "-f", str(file), *chosen, "config"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})


@cache
def understood(variables: Path) -> dict[str, Any]:
    """Everything, all profiles on, variables filled in."""
    said = config(variables, PROFILES)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = yaml.safe_load(said.stdout)
    return found
