"""The thin Windows part: reports to the service control manager and the Event Log. All logic is in lifecycle.py."""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pywintypes
import servicemanager
import win32api
import win32con
import win32console
import win32job
import win32service
import win32serviceutil

from winsvc.arguments import service_arguments
from winsvc.lifecycle import State, Work, run_service

_CODES = {
    State.STARTING: win32service.SERVICE_START_PENDING,
    State.RUNNING: win32service.SERVICE_RUNNING,
    State.STOPPING: win32service.SERVICE_STOP_PENDING,
}
#: "the service has an exit code of its own"
_SPECIFIC = 1066


class EventLog:
    """The journal of a service: the Windows Event Log, under the service's name."""

    def info(self, text: str) -> None:
        """Log a start or stop."""
        servicemanager.LogInfoMsg(text)

    def error(self, text: str) -> None:
        """Log the error that ended the service."""
        servicemanager.LogErrorMsg(text)


class HostedService(win32serviceutil.ServiceFramework):
    """Connects one work with the service control manager: reports go there, stop requests come from there."""

    _svc_name_ = ""
    arguments: argparse.Namespace

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments)
        self._stop = threading.Event()

    def GetAcceptedControls(self) -> int:
        """Stop and preshutdown, which gives more time than shutdown."""
        return int(win32service.SERVICE_ACCEPT_STOP | win32service.SERVICE_ACCEPT_PRESHUTDOWN)

    def SvcStop(self) -> None:
        """Handle the stop request."""
        self._stop.set()

    def SvcOtherEx(self, control: int, event_type: int, data: object) -> None:
        """Handle the shutdown of the machine."""
        if control == win32service.SERVICE_CONTROL_PRESHUTDOWN:
            self._stop.set()

    def SvcRun(self) -> None:
        """Run the service. pywin32's own method would report "running" too early."""
        code = run_service(self._svc_name_, self._make_work, self._stop, self._report_state, EventLog())
        if code:
            self.ReportServiceStatus(win32service.SERVICE_STOPPED, win32ExitCode=_SPECIFIC, svcExitCode=code)
            # Do not return to pywin32: it would report another stop, without an error.
            os._exit(code)

    def _make_work(self) -> Work:
        # The import takes seconds. The service control manager grants them only after the first report. A failed import is
        # reported in the Event Log by its name.
        from winsvc.work import work_of

        return work_of(self.arguments, tie_to_job, interrupt_process)

    def _report_state(self, state: State, hint_s: float) -> None:
        self.ReportServiceStatus(_CODES[state], waitHint=round(hint_s * 1000))


def tie_to_job(process: subprocess.Popen[str]) -> Callable[[], None]:
    """Let the process and its children end with this one: a Grafana that is left behind would block its port."""
    job = win32job.CreateJobObject(None, "")
    limits = win32job.QueryInformationJobObject(job, win32job.JobObjectExtendedLimitInformation)
    limits["BasicLimitInformation"]["LimitFlags"] |= win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    win32job.SetInformationJobObject(job, win32job.JobObjectExtendedLimitInformation, limits)
    handle = win32api.OpenProcess(win32con.PROCESS_ALL_ACCESS, False, process.pid)
    win32job.AssignProcessToJobObject(job, handle)
    handle.Close()
    return lambda: job.Close()


def interrupt_process(process: subprocess.Popen[str]) -> None:
    """Send CTRL_BREAK, which Go programs (Grafana, Prometheus) treat as an interrupt; without a console, end by force.

    os.kill would not do: if it cannot send the event, it ends the process at once and raises too.
    """
    try:
        win32api.GenerateConsoleCtrlEvent(win32con.CTRL_BREAK_EVENT, process.pid)
    except pywintypes.error:
        process.terminate()


def main(argv: Sequence[str]) -> None:
    """Be the service that the command line describes."""
    arguments = service_arguments(argv)
    _without_console(arguments)
    HostedService._svc_name_ = arguments.name
    HostedService.arguments = arguments
    servicemanager.Initialize(arguments.name, servicemanager.__file__)
    servicemanager.PrepareToHostSingle(HostedService)
    servicemanager.StartServiceCtrlDispatcher()


def _without_console(arguments: argparse.Namespace) -> None:
    """A service has no standard streams, so send what libraries and crashes print to a file beside the log."""
    folder: Path = arguments.folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.folder)
    console = folder / "console.log"
    if console.exists():
        console.replace(folder / "console.old.log")
    sys.stdout = sys.stderr = console.open("w", buffering=1, encoding="utf-8")
    faulthandler.enable(sys.stderr)
    if arguments.command == "supervise":
        win32console.AllocConsole()  # invisible, but CTRL_BREAK needs one
