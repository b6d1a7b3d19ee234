"""A service's log: a file that turns over. A service has no console, and the Event Log is for what an operator must see."""

from __future__ import annotations

import logging
import logging.handlers
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rotation:
    """How large one file gets, and how many are kept, the current one included."""

    file_bytes: int = 10_000_000
    files: int = 8


def rotating(file: Path, rotation: Rotation) -> logging.Handler:
    """The handler for `file`. Windows renames no open file: one process, one handler, and it opens when it first writes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return logging.handlers.RotatingFileHandler(
        file, maxBytes=rotation.file_bytes, backupCount=rotation.files - 1, encoding="utf-8", delay=True
    )
