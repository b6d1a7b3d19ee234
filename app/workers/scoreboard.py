"""What each worker says of itself in memory that all processes share: no message is needed, so a hung worker shows at once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from multiprocessing.context import SpawnContext
from typing import Any

#: the connections of a worker that does not accept: nobody leaves one to it
NOT_LISTENING = 1 << 30


class Seat(ctypes.Structure):
    """One worker's line. Only that worker writes it while it runs; each number is written in one instruction."""

    beat_s: float
    connections: int
    loop_lag_s: float
    sources_up: int
    sources: int

    _fields_ = (
        #: when its event loop ran last, by the clock that all processes of a machine share (`time.monotonic`)
        ("beat_s", ctypes.c_double),
        ("connections", ctypes.c_int64),
        ("loop_lag_s", ctypes.c_double),
        ("sources_up", ctypes.c_int64),
        ("sources", ctypes.c_int64),
    )

    def clear(self) -> None:
        """Forget the worker that was here."""
        self.beat_s, self.connections, self.loop_lag_s, self.sources_up, self.sources = 0.0, NOT_LISTENING, 0.0, 0, 0


#: four times the interval of beats
_ALIVE_S = 1.0

#: one seat for each worker
Scoreboard = Sequence[Seat]


def make_scoreboard(context: SpawnContext, workers: int) -> Scoreboard:
    """A scoreboard of empty seats, to be handed to the workers at their start."""
    seats: Any = context.RawArray(Seat, workers)
    for seat in seats:
        seat.clear()
    board: Scoreboard = seats
    return board


def surplus_connections(board: Scoreboard, number: int, now_s: float) -> int:
    """How many more connections this worker has than the one with the fewest, those that stand still aside."""
    own = board[number].connections
    return own - min((seat.connections for seat in board if now_s - seat.beat_s < _ALIVE_S), default=own)
