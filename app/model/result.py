"""The Result of a Query, the reports of its sources, and the one seam, Fetch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from app.errors import BridgeError
from app.model.frame import Frame, Labels, Values
from app.model.question import Query, Statement, TimeRange

Status = Literal["fresh", "stale", "partial", "error"]


PartName = Literal["history", "live", "fallback"]


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The part of one source in an answer: how long it took, why it is missing, or why an older answer stands in for it."""

    source: str
    part: PartName
    seconds: float
    error: BridgeError | None = None
    stale: str | None = None
    age_s: float = 0.0
    #: how many it gave
    rows: int = 0


_NO_RANGE = TimeRange(0, 1000, 1000)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """How the series of a result were ordered: ascending by `keys` (one for each series; infinity where it has no value), then by
    their labels. `total` is how many there were before `top` cut."""

    keys: Values
    total: int


NOT_RANKED = Ranked(np.empty(0), 0)


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """What tells of each newest value whether it is of now. Instants are epoch ms."""

    #: the instant of the answer, or the end of a window that has passed
    at_ms: int = 0
    #: a value before this instant is not of now
    since_ms: int = 0
    #: see `Frame.written_ms`
    written_ms: Mapping[Labels, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to one Query: a frame or an error. It does not depend on the other queries of its request.

    Where the query asks for an order, the frame's series are in that order, not in the order of their labels.
    """

    query: Query
    frame: Frame = field(default_factory=Frame)
    error: BridgeError | None = None
    status: Status = "fresh"
    range: TimeRange = _NO_RANGE
    asked: tuple[SourceReport, ...] = ()
    #: the age of the oldest part, seconds
    age_s: float = 0.0
    #: until when (epoch ms) the same question has the same answer; None where that is not known
    valid_until_ms: int | None = None
    #: the range begins on a multiple of this
    grid_ms: int = 1000
    #: the order of the series, where one was asked for
    ranked: Ranked = NOT_RANKED
    #: of an instant query: which of its values are of now
    present: Present = field(default_factory=Present)
    #: whether it is a sample of a quantity that always has a value, so that a missing one is worth a word
    sampled: bool = False


#: The one seam. A source is one; a policy takes one and is one.
Fetch = Callable[[Statement], Awaitable[Frame]]

#: Epoch milliseconds, injected wherever time is read.
Clock = Callable[[], int]
