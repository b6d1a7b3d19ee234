"""Installs, updates, removes, starts and stops services, by the plan's commands and the service control manager."""

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
from winsvc.plan import SECRETS, Service, Step, install_steps, remove_steps, update_steps

_STATES = {1: "stopped", 2: "starting", 3: "stopping", 4: "running", 5: "continuing", 6: "pausing", 7: "paused"}
_SPECIFIC = 1066
_START_S, _STOP_S = 60, 90


class Refused(Exception):
    """The verb cannot be done; the message says why."""


def install(service: Service, program: PureWindowsPath) -> None:
    """Make the folders and register the service. Failed steps are reported and do not stop the others."""
    _make_folders(service)
    carry_out(install_steps(service, program, _message_file()))


def update(service: Service, program: PureWindowsPath) -> None:
    """Bring a registered service to the wanted state."""
    _make_folders(service)
    carry_out(update_steps(service, program, _message_file()))


def remove(name: str) -> None:
    """Stop and remove the service; its files stay."""
    stop(name)
    carry_out(remove_steps(name))


def carry_out(steps: Sequence[Step], run: Callable[[Sequence[str]], tuple[int, str]] | None = None) -> None:
    """Run the steps in order. Raises Refused with every required step that failed."""
    failed = []
    for step in steps:
        code, said = (run or _run_command)(step.command)
        if code and step.must:
            failed.append(f"{step}\n    exit code {code}: {said.strip() or 'it said nothing'}")
    if failed:
        raise Refused("\n".join(("these commands failed; the others are done:", *failed)))


def _run_command(command: Sequence[str]) -> tuple[int, str]:
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


def _message_file() -> PureWindowsPath:
    """pywin32's DLL with the texts for the Event Log."""
    import servicemanager

    return PureWindowsPath(servicemanager.__file__)


def start(name: str, ready: str | None = None) -> None:
    """Start the service and wait until it runs; with `ready` also until that address answers 200."""
    with _service_of(name, "SERVICE_START") as (win32service, service):
        win32service.StartService(service, None)
    _await_state(name, "running", _START_S)
    if ready is not None:
        _await_ready(ready)


def stop(name: str) -> None:
    """Stop the service, unless it is stopped, and wait until it has drained."""
    state = state_of(name)
    if state == "stopped":
        return
    if state == "starting":  # Windows accepts no stop before it runs
        _await_state(name, "running", _START_S)
    with _service_of(name, "SERVICE_STOP") as (win32service, service):
        win32service.ControlService(service, win32service.SERVICE_CONTROL_STOP)
    _await_state(name, "stopped", _STOP_S)


def status(name: str) -> str:
    """One line: the state, and the process or the reason of the stop."""
    found = _query_status(name)
    state = _STATES[found["CurrentState"]]
    if state != "stopped":
        return f"{name}: {state}, process {found['ProcessId']}"
    code = found["ServiceSpecificExitCode"] if found["Win32ExitCode"] == _SPECIFIC else found["Win32ExitCode"]
    return f"{name}: stopped, exit code {code}: {MEANING.get(code, f'`net helpmsg {code}` says what it means')}"


def state_of(name: str) -> str:
    """The state in a word. Raises Refused if there is no such service."""
    return _STATES[_query_status(name)["CurrentState"]]


def _query_status(name: str) -> dict[str, int]:
    with _service_of(name, "SERVICE_QUERY_STATUS") as (win32service, service):
        found: dict[str, int] = win32service.QueryServiceStatusEx(service)
        return found


@contextmanager
def _service_of(name: str, right: str) -> Iterator[tuple[Any, Any]]:
    """pywin32's module and the opened service. An error of Windows becomes Refused, with its text."""
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


def _await_state(name: str, wanted: str, limit_s: float) -> None:
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
    """Raise Refused on other systems: they have no service control manager."""
    if sys.platform != "win32":
        raise Refused(
            f"there is no service control manager on {os.name}; use `debug`, or `install --print` to see what it would do"
        )
