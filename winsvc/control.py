"""Installing, updating, removing, starting and stopping services: the plan carried out, and the service control manager asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from winsvc.lifecycle import MEANING
from winsvc.plan import SECRETS, Service, Step, installing, removing, updating

_STATES = {1: "stopped", 2: "starting", 3: "stopping", 4: "running", 5: "continuing", 6: "pausing", 7: "paused"}
_SPECIFIC = 1066
_START_S, _STOP_S = 60, 90


class Refused(Exception):
    """What was asked for cannot be done; the message says why."""


def install(service: Service, program: PureWindowsPath) -> None:
    """Make the folders and register the service. Every step that failed is named; the others are done all the same."""
    _make_folders(service)
    carry_out(installing(service, program, _messages()))


def update(service: Service, program: PureWindowsPath) -> None:
    """Bring a registered service to what it is to be."""
    _make_folders(service)
    carry_out(updating(service, program, _messages()))


def remove(name: str) -> None:
    """Stop the service and take it away; its files stay."""
    stop(name)
    carry_out(removing(name))


def carry_out(steps: Sequence[Step], run: Callable[[Sequence[str]], tuple[int, str]] | None = None) -> None:
    """Run the steps in order. Raises Refused with every one that had to succeed and did not."""
    failed = []
    for step in steps:
        code, said = (run or _run)(step.command)
        if code and step.must:
            failed.append(f"{step}\n    exit code {code}: {said.strip() or 'it said nothing'}")
    if failed:
        raise Refused("\n".join(("these commands failed; the others are done:", *failed)))


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
    except OSError as problem:
        return 1, str(problem)
    return done.returncode, done.stdout + done.stderr


def _make_folders(service: Service) -> None:
    for folder in (service.folder, *service.writes):
        Path(folder).mkdir(parents=True, exist_ok=True)
    secrets = Path(service.folder / SECRETS)
    if not secrets.exists():
        secrets.write_text(
            "# Lines NAME=value; only administrators and the service itself may read this file.\n", encoding="utf-8"
        )


def _messages() -> PureWindowsPath:
    """The DLL that has the texts for the Event Log: pywin32's."""
    import servicemanager

    return PureWindowsPath(servicemanager.__file__)


def start(name: str, ready: str | None = None) -> None:
    """Start the service and wait until it runs; with `ready` also until that address answers with 200."""
    with _service_of(name, "SERVICE_START") as (win32service, service):
        win32service.StartService(service, None)
    _await(name, "running", _START_S)
    if ready is not None:
        _await_ready(ready)


def stop(name: str) -> None:
    """Stop the service and wait until it has drained; nothing where it is stopped."""
    state = state_of(name)
    if state == "stopped":
        return
    if state == "starting":  # Windows takes no stop before it runs
        _await(name, "running", _START_S)
    with _service_of(name, "SERVICE_STOP") as (win32service, service):
        win32service.ControlService(service, win32service.SERVICE_CONTROL_STOP)
    _await(name, "stopped", _STOP_S)


def status(name: str) -> str:
    """One line: the state, the process or why it stopped."""
    found = _query(name)
    state = _STATES[found["CurrentState"]]
    if state != "stopped":
        return f"{name}: {state}, process {found['ProcessId']}"
    code = found["ServiceSpecificExitCode"] if found["Win32ExitCode"] == _SPECIFIC else found["Win32ExitCode"]
    return f"{name}: stopped, exit code {code}: {MEANING.get(code, f'`net helpmsg {code}` says what it means')}"


def state_of(name: str) -> str:
    """The state in a word. Raises Refused where there is no such service."""
    return _STATES[_query(name)["CurrentState"]]


def _query(name: str) -> dict[str, int]:
    with _service_of(name, "SERVICE_QUERY_STATUS") as (win32service, service):
        found: dict[str, int] = win32service.QueryServiceStatusEx(service)
        return found


@contextmanager
def _service_of(name: str, right: str) -> Iterator[tuple[Any, Any]]:
    """pywin32's module and the opened service; what Windows refuses is Refused, in its words."""
    import pywintypes
    import win32service

    try:
        manager = win32service.OpenSCManager(None, None, win32service.SC_MANAGER_CONNECT)
        try:
            service = win32service.OpenService(manager, name, getattr(win32service, right))
            try:
                yield win32service, service
            finally:
                win32service.CloseServiceHandle(service)
        finally:
            win32service.CloseServiceHandle(manager)
    except pywintypes.error as problem:
        raise Refused(f"{name}: {problem.strerror.strip()} (error {problem.winerror})") from problem


def _await(name: str, wanted: str, limit_s: float) -> None:
    ends_s = time.monotonic() + limit_s
    while (state := state_of(name)) != wanted:
        if state == "stopped":
            raise Refused(status(name))
        if time.monotonic() > ends_s:
            raise Refused(f"{name}: not {wanted} after {limit_s:g}s, but {state}")
        time.sleep(0.2)


def _await_ready(url: str) -> None:
    ends_s = time.monotonic() + _START_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer = "nothing"
    while time.monotonic() < ends_s:
        try:
            with direct.open(url, timeout=2):
                return
        except OSError as problem:
            answer = str(problem)
        time.sleep(0.2)
    raise Refused(f"{url} is not ready after {_START_S}s: {answer}")


def require_windows() -> None:
    """For verbs that ask the service control manager."""
    if sys.platform != "win32":
        raise Refused(
            f"there is no service control manager on {os.name}; use `debug`, or `install --print` to see what it would do"
        )
