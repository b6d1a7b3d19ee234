"""The bridge as the wheel has it, run from a folder that is no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from app.backup.manifest import hash_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel would put into site-packages, by what pyproject.toml says of it."""
    folder = tmp_path_factory.mktemp("site")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in wheel["force-include"].items():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, folder / target)
    return folder


def bridge(site: Path, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    command = [sys.executable, "-m", "app", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=clean | {"PYTHONPATH": str(site)} | environment
    )


def test_the_catalogue_is_listed_without_a_configuration(site: Path, tmp_path: Path) -> None:
    done = bridge(site, tmp_path, "metrics", COLUMNS="200")
    assert (done.returncode, done.stderr, "open_trades" in done.stdout) == (0, "", True)


def test_a_configuration_that_is_named_must_be_there_for_the_list_too(site: Path, tmp_path: Path) -> None:
    for done in (
        bridge(site, tmp_path, "metrics", "--config", "none.yaml"),
        bridge(site, tmp_path, "metrics", BRIDGE_CONFIG="none.yaml"),
    ):
        assert (done.returncode, done.stderr.startswith("none.yaml: cannot be read")) == (2, True)


@pytest.mark.parametrize("command", ["check", "serve", "sync", "backup list"])
def test_without_a_configuration_it_is_said_how_to_get_one(site: Path, tmp_path: Path, command: str) -> None:
    done = bridge(site, tmp_path, *command.split())
    assert (done.returncode, done.stderr.count("\n"), "`bridge init`" in done.stderr) == (2, 1, True)


@pytest.mark.parametrize("words", [[], ["etc"], ["etc/deep", "--catalog"]])
def test_what_init_writes_is_right_as_it_stands(site: Path, tmp_path: Path, words: list[str]) -> None:
    written = bridge(site, tmp_path, "init", *words)
    [file] = tmp_path.rglob("bridge.yaml")
    named = ["--config", str(file)] if words else []
    done = bridge(site, tmp_path, "check", *named)
    assert (written.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert "catalogue: ok, " in done.stdout
    if "--catalog" in words:
        (file.parent / "catalog" / "account.yaml").write_text("metrics: {}\n")
        assert bridge(site, tmp_path, "check", *named).returncode == 2  # it is the copy that counts
    else:
        assert yaml.safe_load(file.read_text()) == yaml.safe_load((ROOT / "provisioning" / "bridge.yaml").read_text())


@pytest.mark.parametrize("taken", ["bridge.yaml", "catalog/system_health.yaml"])
def test_init_overwrites_nothing_and_writes_nothing_then(site: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / "etc" / taken).parent.mkdir(parents=True)
    (tmp_path / "etc" / taken).write_text("mine")
    before = hash_files(tmp_path)
    done = bridge(site, tmp_path, "init", "etc", "--catalog")
    assert (done.returncode, done.stderr) == (
        1,
        f"bridge: etc/{taken} exists and is left as it is; name another folder: bridge init FOLDER\n",
    )
    assert hash_files(tmp_path) == before


def test_init_follows_no_link_in_the_files_place(site: Path, tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    done = bridge(site, tmp_path, "init", ".")
    assert (done.returncode, (tmp_path / "elsewhere.yaml").exists()) == (1, False)


def test_init_below_a_file_says_so(site: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = bridge(site, tmp_path, "init", "file/etc")
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (1, 1, False)


def test_the_demo_without_its_libraries_says_what_to_install(site: Path, tmp_path: Path) -> None:
    (hidden := tmp_path / "hidden" / "fakeredis").mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ModuleNotFoundError(name='fakeredis')")
    done = bridge(site, tmp_path, "demo", "--port", "0", PATH="", PYTHONPATH=f"{hidden.parent}{os.pathsep}{site}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "install redis-server, or fakeredis" in done.stderr
