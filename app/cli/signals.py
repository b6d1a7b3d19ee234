"""Handlers for signals that mean "reload" or "stop"."""

from __future__ import annotations

import logging
import os
import signal

_log = logging.getLogger("bridge")
#: Other programs reload or reopen their logs on these. By default they end a process. Windows has none of them.
_RELOADS = ("SIGHUP", "SIGUSR1", "SIGUSR2")
#: these stop a command
_STOPS = ("SIGTERM", "SIGHUP")


def ignore_reloads() -> None:
    """Log a reload signal and go on. A SIGHUP for a closed terminal counts as SIGTERM.

    Signals that the parent ignores (`nohup`) stay ignored.
    """
    had_terminal = _has_terminal()

    def log_and_ignore(number: int, _: object) -> None:
        if signal.Signals(number).name == "SIGHUP" and had_terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)
            return
        _log.warning(
            "%s does nothing here: the configuration is read at the start; restart to apply another one",
            signal.Signals(number).name,
        )

    for number in _known_signals(_RELOADS):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, log_and_ignore)


def undo_when_stopped() -> None:
    """Let a stop signal undo a half-done command, as Ctrl-C does. Further signals do not interrupt that."""

    def interrupt(*_: object) -> None:
        for number in (signal.SIGINT, *_known_signals(_STOPS)):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, *_known_signals(_STOPS)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def _known_signals(names: tuple[str, ...]) -> list[signal.Signals]:
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except (OSError, AttributeError):  # Windows has neither
        return False
    return True
