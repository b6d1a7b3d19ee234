"""A service's log: a rotating file. A service has no console, and the Event Log is only for what an operator must see."""

from __future__ import annotations

import logging
import logging.handlers
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rotation:
    """The largest size of a file, and the number of files with the current one."""

    file_bytes: int = 10_000_000
    files: int = 8


def rotating_handler(file: Path, rotation: Rotation) -> logging.Handler:
    """The handler for `file`. Windows cannot rename an open file: one handler per process, opened late."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return logging.handlers.RotatingFileHandler(
        file, maxBytes=rotation.file_bytes, backupCount=rotation.files - 1, encoding="utf-8", delay=True
    )
