"""The demo as its user runs it: the README's own commands, on a process of its own."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.stores import free_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCES = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.strip() for fence in FENCES for line in fence.splitlines() if line.strip()]


@contextmanager
def running_demo(folder: Path, **environment: str) -> Iterator[tuple[int, str]]:
    """A running demo: its port, and what it printed until it answered. It must end by itself when told to."""
    port = free_port()
    command = [sys.executable, "-m", "app", "demo", "--folder", str(folder / "data"), "--port", str(port), "--scale", "3"]
    with (folder / "out").open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=os.environ | environment)
        ends = time.monotonic() + 60
        printed = ""
        while "Stop with Ctrl-C" not in printed and time.monotonic() < ends and process.poll() is None:
            time.sleep(0.1)
            printed = Path(output.name).read_text()
        try:
            assert "Stop with Ctrl-C" in printed, printed
            yield port, printed
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, Path(output.name).read_text()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def test_on_a_machine_without_servers_the_demo_uses_embedded_stores_and_marks_what_is_missing(tmp_path: Path) -> None:
    with running_demo(tmp_path, PATH=str(tmp_path)) as (port, printed):
        bridge = httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/rows", trust_env=False, timeout=20)
        whole = bridge.get("", params={"metric": "open_trades", "by": "account"}).json()
        marked = bridge.get("", params={"metric": "cpu_load"}).json()["meta"]["metrics"]["cpu_load"]
        bridge.close()
    assert "Redis      embedded (fakeredis" in printed
    assert "Prometheus not configured" in printed
    assert (whole["meta"]["partial"], {row["account"] for row in whole["rows"]}) == (False, {f"ACC{1001 + n}" for n in range(6)})
    texts = [notice["text"] for notice in marked["notices"]]
    assert (marked["status"], texts) == (
        "partial",
        ["prometheus: is switched off in the configuration (enabled: false); answered by the fallback ris"],
    )


def test_the_demo_says_which_stores_are_real_and_what_to_try_next(demo: tuple[int, str]) -> None:
    _, printed = demo
    for fact in ("Redis      real", "ClickHouse embedded", "DuckDB     real", "Prometheus real"):
        assert fact in printed
    assert printed.count("  curl '") == 4
    assert "/json" in printed


CURLS = [command for command in COMMANDS if command.startswith("curl ")]


@pytest.mark.parametrize("command", CURLS)
def test_each_curl_of_the_readme_gets_an_answer(demo: tuple[int, str], command: str) -> None:
    url = shlex.split(command)[1].replace(":8080", f":{demo[0]}")
    reply = httpx.get(url, trust_env=False, timeout=20)
    assert (reply.status_code, len(reply.text) > 100) == (200, True), reply.text


def tried(demo: tuple[int, str]) -> list[str]:
    """What the demo prints to try."""
    return [line.strip() for line in demo[1].splitlines() if re.match(r"  (curl|\S*bridge|\S*python) ", line)]


def test_what_the_demo_prints_to_try_is_what_the_readme_says_with_the_demos_own_port(demo: tuple[int, str]) -> None:
    port, _ = demo
    lines = tried(demo)
    assert [line.replace(f":{port}", ":8080") for line in lines[:-1]] == CURLS
    [query] = [command for command in COMMANDS if command.startswith(".venv/bin/bridge query")]
    assert lines[-1].partition(" query ")[2] == f"{query.partition(' query ')[2]} --url http://127.0.0.1:{port}"


def test_each_line_that_the_demo_prints_to_try_gets_an_answer_as_it_stands(demo: tuple[int, str]) -> None:
    for line in tried(demo):
        words = shlex.split(line)
        if words[0] == "curl":
            assert httpx.get(words[1], trust_env=False, timeout=20).status_code == 200, line
        else:
            done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
            assert (done.returncode, done.stderr, "ACC1001" in done.stdout) == (0, "", True), line


def test_the_bridge_that_is_asked_is_the_one_of_url_else_of_the_environment(demo: tuple[int, str]) -> None:
    def ask(*words: str, named: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "app", "query", "equity", "--format", "csv", *words]
        environment = os.environ | {"BRIDGE_URL": named}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
        return done.returncode, done.stderr

    answers, silent = f"http://127.0.0.1:{demo[0]}/", "http://127.0.0.1:1"
    assert ask(named=answers) == (0, "")
    assert ask("--url", answers, named=silent) == (0, "")
    assert ask("--url", silent, named=answers)[1].startswith(f"bridge: {silent}: no bridge answers here (--url): ")
    assert ask(named=silent)[1].startswith(f"bridge: {silent}: no bridge answers here (BRIDGE_URL): ")


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(".venv/bin/bridge ")])
def test_each_bridge_command_of_the_readme_is_one(demo: tuple[int, str], command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] in ("serve", "check", "sync", "haproxy"):
        # They need stores, a backend or a balancer; that they parse is what can be tried here.
        words = [words[0], "--help"]
    more = ["--url", f"http://127.0.0.1:{demo[0]}"] if words[0] == "query" else []
    done = subprocess.run([sys.executable, "-m", "app", *words, *more], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_each_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for command in COMMANDS for word in re.findall(r"^make ([a-z]+)", command)}
    assert (named - targets, bool(named)) == (set(), True)


def test_the_feed_goes_on_and_is_seen_within_two_seconds(demo: tuple[int, str]) -> None:
    """With the cache of 10 s a change shows later; a step that no question had before is asked anew each time."""
    port, _ = demo

    def equity(step_s: int) -> list[Any]:
        url = f"http://127.0.0.1:{port}/v1/rows?metric=equity&from=now-1m&step={step_s}s&instant=1"
        return [row["value"] for row in httpx.get(url, trust_env=False).json()["rows"]]

    def changes(step_s: int) -> bool:
        first = equity(step_s)
        time.sleep(2.1)
        return equity(step_s + 5) != first

    # A busy machine may hold the feed up once.
    assert any(changes(step_s) for step_s in (10, 20, 30))


def test_the_history_before_the_start_is_as_fine_as_the_live_part(demo: tuple[int, str]) -> None:
    """Sampled once a minute, a heartbeat every 10 s looked up to 70 s old; one that crashed may really have been."""
    asked = {"metric": "heartbeat_age", "from": "now-2h", "step": "10s", "by": "instance"}
    answer = httpx.get(f"http://127.0.0.1:{demo[0]}/v1/rows", params=asked, trust_env=False, timeout=20).json()
    oldest: dict[str, float] = {}
    for row in answer["rows"]:
        oldest[row["instance"]] = max(row["value"] or 0.0, oldest.get(row["instance"], 0.0))
    assert (len(oldest), min(oldest.values()) < 30) == (3, True), oldest


@pytest.mark.parametrize(("columns", "course"), [("120", 20), ("80", 6), ("40", 0)])
def test_a_query_table_shows_each_series_with_every_figure_whole(demo: tuple[int, str], columns: str, course: int) -> None:
    """The course is what gives way in a narrow terminal, or a pipe."""
    command = [sys.executable, "-m", "app", "query", "equity", "--by", "account", "--url", f"http://127.0.0.1:{demo[0]}"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env={"PYTHONIOENCODING": "utf-8", "COLUMNS": columns}
    )
    lines = [line for line in done.stdout.splitlines() if "ACC" in line]
    assert [line.split()[0] for line in lines] == [f"ACC{account}" for account in range(1001, 1007)]
    assert "…" not in done.stdout
    assert min(len(re.findall("[▁▂▃▄▅▆▇█]", line)) for line in lines) >= course
    assert max(map(len, lines)) <= max(int(columns), 64)


def test_a_port_that_is_taken_is_refused_before_any_store_is_touched(demo: tuple[int, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "demo", "--folder", str(tmp_path / "data"), "--port", str(demo[0])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=20)
    assert (done.returncode, (tmp_path / "data").exists()) == (1, False)
    assert f"--port: {demo[0]} is taken" in done.stderr


def test_a_query_to_nobody_says_what_to_do() -> None:
    command = [sys.executable, "-m", "app", "query", "equity", "--url", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, "start one or name it with --url or BRIDGE_URL" in done.stderr, done.stderr.count("\n")) == (
        1,
        True,
        1,
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8490", "localhost", "/v1", "ftp://127.0.0.1", "http://[::1", "http://127.0.0.1:port"])
def test_what_is_no_address_is_named_with_who_gave_it(url: str) -> None:
    command = [sys.executable, "-m", "app", "query", "equity"]
    environment = os.environ | {"BRIDGE_URL": url}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    allowed = "allowed: http://HOST:PORT or https://HOST:PORT"
    assert (done.returncode, done.stderr) == (1, f"bridge: BRIDGE_URL: {url} is no address of a bridge; {allowed}\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", "what answers here (--url) is no bridge"),
        ("200 OK\r\nContent-Length: 2\r\n\r\n[]", "what answers here (--url) is no bridge"),
        ("301 Moved\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n", "/v1/rows: status 301"),
        ("404 Not Found\r\nContent-Length: 0\r\n\r\n", "/v1/rows: status 404"),
    ],
)
def test_another_program_at_that_address_is_no_bridge_and_no_traceback(answer: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as one:
                one.recv(65536)
                one.sendall(f"HTTP/1.1 {answer}".encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "app", "query", "equity", "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        thread.join(5)
    assert (done.returncode, done.stderr.count("\n"), said in done.stderr) == (1, 1, True), done.stderr


def test_who_stops_reading_gets_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "app", "key", "me"], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
