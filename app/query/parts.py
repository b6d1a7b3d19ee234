"""One part of an answer: what one source has answered to one statement."""

from __future__ import annotations

from dataclasses import dataclass

from app.model import Frame, SourceReport, Statement


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """The outcome of one statement: a frame, or the error in `asked`."""

    asked: SourceReport
    frame: Frame | None = None
    statement: Statement | None = None
