"""Workers without a bridge, for a supervisor to start: some obey, some cannot run, some hang."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from prometheus_client.core import CounterMetricFamily

from app.workers.link import Collect, Collected, Drain, Failed, Message, Page, PageWanted, Started, WorkerLink
from app.workers.process import Start


def refuse_to_run(start: Start) -> None:
    """Say why, and end as for a wrong configuration."""
    WorkerLink(start.link).send(Failed("catalog: the folder is gone"))
    sys.exit(2)


def crash(start: Start) -> None:
    """End without a word."""
    os._exit(7)


def obey(start: Start) -> None:
    """Serve (three queries so far) until told to stop; the metrics of all are written to `page-N` in the state folder."""
    link, told = WorkerLink(start.link), threading.Event()

    def handle(message: Message) -> None:
        if isinstance(message, Collect):
            link.send(Collected([CounterMetricFamily("bridge_queries", "Queries", value=3)]))
        elif isinstance(message, Page):
            _write_page(start, message.text)
        elif isinstance(message, Drain):
            told.set()

    link.start_reading(handle, lambda: os._exit(1))
    _beat(start)
    link.send(Started())
    while not told.wait(0.1):
        _beat(start)
        link.send(PageWanted(1))
    os._exit(0)


def ignore_stop(start: Start) -> None:
    """Serve for ever."""
    WorkerLink(start.link).send(Started())
    while True:
        _beat(start)
        time.sleep(0.1)


def hang(start: Start) -> None:
    """The first of all stands still as soon as it serves; each later one obeys."""
    assert start.settings.state is not None
    hung = start.settings.state / "hung"
    if hung.exists():
        obey(start)
    hung.touch()
    WorkerLink(start.link).send(Started())
    time.sleep(300)


def _beat(start: Start) -> None:
    seat = start.board[start.number]
    seat.connections, seat.sources, seat.sources_up, seat.beat_s = 0, 2, 2, time.monotonic()


def _write_page(start: Start, text: bytes) -> None:
    assert start.settings.state is not None
    file: Path = start.settings.state / f"page-{start.number}"
    unfinished = file.with_suffix(".new")
    unfinished.write_bytes(text)
    unfinished.replace(file)
