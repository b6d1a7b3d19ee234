"""Workers that cannot run, for a supervisor to start."""

from __future__ import annotations

import os
import sys

from app.workers.link import Failed, WorkerLink
from app.workers.process import Start


def refuse_to_run(start: Start) -> None:
    """Say why, and end as for a wrong configuration."""
    WorkerLink(start.link).send(Failed("catalog: the folder is gone"))
    sys.exit(2)


def crash(start: Start) -> None:
    """End without a word."""
    os._exit(7)
