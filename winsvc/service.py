"""The thin Windows part: what the service control manager and the Event Log are told. All logic is in lifecycle.py."""

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
from winsvc.lifecycle import State, Work, host

_CODES = {
    State.STARTING: win32service.SERVICE_START_PENDING,
    State.RUNNING: win32service.SERVICE_RUNNING,
    State.STOPPING: win32service.SERVICE_STOP_PENDING,
}
#: "the service has an exit code of its own"
_SPECIFIC = 1066


class EventLog:
    """The journal of a service: the Windows Event Log, in its own name."""

    def info(self, text: str) -> None:
        """Started, stopped."""
        servicemanager.LogInfoMsg(text)

    def error(self, text: str) -> None:
        """What ended the service."""
        servicemanager.LogErrorMsg(text)


class HostedService(win32serviceutil.ServiceFramework):
    """One work as a Windows service: its reports go to the service control manager, whose stop goes to it."""

    _svc_name_ = ""
    arguments: argparse.Namespace

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__(arguments)
        self._stop = threading.Event()

    def GetAcceptedControls(self) -> int:
        """Stop, and preshutdown, which leaves more time than shutdown does."""
        return int(win32service.SERVICE_ACCEPT_STOP | win32service.SERVICE_ACCEPT_PRESHUTDOWN)

    def SvcStop(self) -> None:
        """Told to stop."""
        self._stop.set()

    def SvcOtherEx(self, control: int, event_type: int, data: object) -> None:
        """Told that the machine is going down."""
        if control == win32service.SERVICE_CONTROL_PRESHUTDOWN:
            self._stop.set()

    def SvcRun(self) -> None:
        """The service's life. pywin32's own would say that it runs before it does."""
        code = host(self._svc_name_, self._work, self._stop, self._report, EventLog())
        if code:
            self.ReportServiceStatus(win32service.SERVICE_STOPPED, win32ExitCode=_SPECIFIC, svcExitCode=code)
            # Not back into pywin32, which would report a stop without an error on top.
            os._exit(code)

    def _work(self) -> Work:
        # Imported here: it takes seconds, which the service control manager grants to a service that has spoken to it, and what
        # cannot be imported is a failure with a name in the Event Log.
        from winsvc.work import work_of

        return work_of(self.arguments, tied, interrupted)

    def _report(self, state: State, hint_s: float) -> None:
        self.ReportServiceStatus(_CODES[state], waitHint=round(hint_s * 1000))


def tied(process: subprocess.Popen[str]) -> Callable[[], None]:
    """The process and all that it starts end when this one does: a Grafana left behind would keep its port from the next."""
    job = win32job.CreateJobObject(None, "")
    limits = win32job.QueryInformationJobObject(job, win32job.JobObjectExtendedLimitInformation)
    limits["BasicLimitInformation"]["LimitFlags"] |= win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
    win32job.SetInformationJobObject(job, win32job.JobObjectExtendedLimitInformation, limits)
    handle = win32api.OpenProcess(win32con.PROCESS_ALL_ACCESS, False, process.pid)
    win32job.AssignProcessToJobObject(job, handle)
    handle.Close()
    return lambda: job.Close()


def interrupted(process: subprocess.Popen[str]) -> None:
    """CTRL_BREAK, which Go programs (Grafana, Prometheus) take as an interrupt; by force where no console carries it.

    Not by os.kill: where the event cannot be sent, that ends the process at once and raises besides.
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
    """A service has no standard streams: what libraries print, and what a crash says, goes to a file beside the log."""
    folder: Path = arguments.folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.folder)
    console = folder / "console.log"
    if console.exists():
        console.replace(folder / "console.old.log")
    sys.stdout = sys.stderr = console.open("w", buffering=1, encoding="utf-8")
    faulthandler.enable(sys.stderr)
    if arguments.command == "supervise":
        win32console.AllocConsole()  # nobody sees it; without one no CTRL_BREAK reaches the program
