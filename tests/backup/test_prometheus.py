"""Prometheus' snapshots, on a real server that scrapes all the while."""

from __future__ import annotations

import fcntl
import shutil

import pytest

from tests.backup.desk import Desk, flip
from tests.backup.scraped import samples
from tests.servers.prometheus import PrometheusServer


def test_a_snapshot_under_scrapes_comes_back_with_every_sample(desk: Desk, prometheus: PrometheusServer) -> None:
    before, there = samples(prometheus), set(prometheus.data.glob("snapshots/*"))
    backup = desk.saved("prometheus")
    after = samples(prometheus)
    assert set(prometheus.data.glob("snapshots/*")) == there
    saved = sum(block["samples"] for block in backup.manifest().contents["blocks"].values())
    assert saved > len(before) >= 5
    prometheus.stop()
    shutil.rmtree(prometheus.data / "wal")
    (prometheus.data / "chunks_head").rename(prometheus.data / "nonsense")
    done = desk.run("restore", "prometheus", "latest", "--force")
    (kept,) = prometheus.data.parent.glob("data.before-*")
    assert (done.code, (kept / "nonsense").is_dir()) == (0, True)
    prometheus.start()
    restored = {at: value for at, value in samples(prometheus).items() if at <= max(after)}
    assert before.items() <= restored.items() <= after.items()


@pytest.mark.parametrize("hangs", [False, True], ids=["answering", "hanging"])
def test_a_running_prometheus_is_not_restored_over(desk: Desk, prometheus: PrometheusServer, hangs: bool) -> None:
    desk.saved("prometheus")
    before = desk.state(), prometheus.data.stat().st_ino
    if hangs:
        prometheus.pause()
    done = desk.run("restore", "prometheus", "latest", "--force")
    prometheus.resume()
    url = desk.settings["prometheus"]["url"]
    assert (done.code, done.err) == (1, f"bridge: prometheus: a Prometheus answers at {url}/; stop it first\n")
    assert (desk.state(), prometheus.data.stat().st_ino) == before


def test_the_lock_that_prometheus_holds_on_its_folder_is_respected(desk: Desk, prometheus: PrometheusServer) -> None:
    desk.saved("prometheus")
    data = desk.folder / "data"
    data.mkdir()
    with (data / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = desk.state()
        done = desk.run("restore", "prometheus", "latest", "--to", str(data), "--force")
        assert (done.code, done.err) == (1, f"bridge: prometheus: a Prometheus runs on {data}; stop it first\n")
        assert desk.state() == before


def test_restoring_to_a_new_folder_needs_no_force_and_a_full_one_does(desk: Desk, prometheus: PrometheusServer) -> None:
    backup = desk.saved("prometheus")
    empty = desk.folder / "empty"
    empty.mkdir()
    first = desk.run("restore", "prometheus", backup.name, "--to", str(empty))
    restored = {path.name for path in empty.iterdir()}
    second = desk.run("restore", "prometheus", backup.name, "--to", str(empty))
    assert (first.code, restored) == (0, set(backup.manifest().contents["blocks"]))
    assert (second.code, second.err) == (
        1,
        f"bridge: {backup.name}: {empty} exists; say --force to replace it, the old one is kept beside it\n",
    )


def test_verify_opens_the_blocks_with_prometheus_own_code(desk: Desk, prometheus: PrometheusServer) -> None:
    backup = desk.saved("prometheus")
    good = desk.run("backup", "verify", "prometheus")
    index = min((backup.path / "data").glob("*/index"))
    flip(index)
    bad = desk.run("backup", "verify", "prometheus")
    assert (good.code, "it holds what was saved" in good.out) == (0, True)
    name = index.relative_to(backup.path / "data").as_posix()
    assert (bad.code, bad.err) == (1, f"bridge: {backup.name}: {name} is not what was saved (its SHA-256 differs)\n")


def test_without_the_admin_api_it_says_how_to_switch_it_on(desk: Desk) -> None:
    server = PrometheusServer(desk.folder / "prometheus", 1, 1.0).start()
    desk.settings["prometheus"] = {"url": f"http://127.0.0.1:{server.port}", "data": str(server.data)}
    done = desk.run("backup", "prometheus")
    server.kill()
    assert (done.code, done.err.count("\n"), "--web.enable-admin-api" in done.err, desk.archive.backups()) == (1, 1, True, [])


def test_a_server_that_is_not_there_is_one_line(desk: Desk) -> None:
    desk.settings["prometheus"] = {"url": "http://127.0.0.1:1", "data": str(desk.folder)}
    before = desk.state()
    done = desk.run("backup", "prometheus")
    assert (done.code, done.err.count("\n"), done.err.startswith("bridge: prometheus: http://127.0.0.1:1: no snapshot: ")) == (
        1,
        1,
        True,
    )
    assert desk.state() == before


def test_a_data_folder_of_another_server_is_named_and_nothing_is_published(desk: Desk, prometheus: PrometheusServer) -> None:
    desk.settings["prometheus"]["data"] = str(desk.folder / "etc")
    done = desk.run("backup", "prometheus")
    assert (done.code, "backup.prometheus.data is not its folder" in done.err, desk.archive.backups()) == (1, True, [])
