"""The size of an answer: how many series a question has, and how many points of each one answer may have.

The number of series is that of the last answer to the same question. Where there is none yet, the bridge asks for the newest
values first, which is cheap. So a store is not asked for more rows than it may return.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.errors import LimitExceeded
from app.model import Notice, Query

#: so many questions are remembered
_REMEMBERED = 5000
#: a number that falls by less than this stays
_MUCH_FEWER = 0.7
#: with fewer points than that a curve says nothing
LEAST_POINTS = 8
_UNBOUNDED = 10**12
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
NARROWER = "allowed: fewer labels in by, a filter in where, top=20, or a shorter range"


@dataclass(frozen=True, slots=True)
class Room:
    """The room for the answer to one question of about `series` series: `cells` points in it, `rows` from a store that cannot
    thin."""

    series: int = 1
    cells: int = _UNBOUNDED
    rows: int = _UNBOUNDED
    #: how many series a store puts together in each point (accounts in a total), where it may be very many; else 0
    behind: int = 0
    #: the number of series is not known: a store has had more rows than it may return
    is_guess: bool = False

    def points_each(self, wanted: int) -> int:
        """How many points each series may have, of so many wanted ones."""
        return min(wanted, max(self.cells // self.series, LEAST_POINTS))

    def remark(self, metric: str, step_ms: int, points: int | None) -> Notice:
        """Says why the grid is coarser than it would be for one series: each has at most `points`, or the step is coarser."""
        if points is not None:
            why = f"at most {points} points a series, since " + (
                "its store has more rows than it may return (max_rows)"
                if self.is_guess
                else f"there are about {self.series} series and one answer has {self.cells} points (request.most_cells)"
            )
        elif self.behind > self.series:
            why = f"a point every {step_ms // 1000}s, since each is put together from about {self.behind} series"
        else:
            why = f"a point every {step_ms // 1000}s, since a store returns {self.rows} rows of about {self.series} series"
        return Notice("info", f"{metric}: {why}; more with a filter, fewer labels in by, or a shorter range")


#: one series, and no bounds
ROOMY = Room()


def too_many_points(metric: str, room: Room, buckets: int) -> LimitExceeded:
    """The refusal of more points than one answer may have, where none may be left out."""
    return LimitExceeded(
        f"step: {metric} has about {room.series} series of {buckets} points, and an answer may have {room.cells} in all "
        f"(request.most_cells), all of them or none; {NARROWER}, or a coarser step"
    )


def too_many_series(query: Query, series: int, most: int) -> LimitExceeded:
    """The refusal of more series than one answer may have."""
    by = ", ".join(query.by)
    return LimitExceeded(
        f"by: {query.metric} has {series} series by {by}; at most {most} are allowed (request.most_series); {NARROWER}"
    )


def share_cells(wanted: Sequence[int], most: int) -> list[int]:
    """How many points each question of a request may have. Those that want little get it all; the others share the rest."""
    shares, left = [0] * len(wanted), most
    by_size = sorted(range(len(wanted)), key=lambda place: wanted[place])
    for done, place in enumerate(by_size):
        shares[place] = min(wanted[place], left // (len(wanted) - done))
        left -= shares[place]
    return shares


class SeriesCounts:
    """How many series a question had when it was last answered."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def find(self, query: Query) -> int | None:
        """The number; where only the question without filters is known, its number: a filter leaves no more."""
        if not query.by:
            return 1
        found = self._counts.get(_question_of(query))
        return found if found is not None else self._counts.get((query.metric, query.by, ()))

    def note(self, query: Query, series: int) -> None:
        """Remember the number of an answer, rounded up. A few more or less change nothing, or the grid would change with them."""
        key, rounded = _question_of(query), _round_up(max(series, 1))
        known = self._counts.get(key, 0)
        remember(self._counts, key, known if _MUCH_FEWER * known < rounded < known else rounded, _REMEMBERED)


def remember(known: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Keep a value as the newest; above `most` of them the oldest go."""
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)


def _round_up(count: int) -> int:
    """Rounded up, by an eighth at most."""
    unit = 1 << max(count.bit_length() - 4, 0)
    return -(-count // unit) * unit


def _question_of(query: Query) -> Hashable:
    return (query.metric, query.by, query.where)
