"""Large askings in rounds, and their replies in slices.

The samples of a thousand accounts are a third of a million values. They are asked for in rounds of bounded size, and the next
round is on its way while the replies of one are handled. Between two slices every other task has its turn. What fits into one
round is one pipeline.

No pipeline is a transaction: Redis serves writers between two commands of a pipeline as it does between two rounds. A read of
many keys is as wide in time as it takes, in one round or in many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from app.sources.redis.connections import Command, Reply
from app.sources.redis.link import Session

#: Values that the replies of one round may have: about a megabyte.
ROUND_CELLS = 20_000
#: Values after which other tasks have their turn: one or two milliseconds of work.
SLICE_CELLS = 8_000
#: What a command costs besides the values of its reply, in values.
COMMAND_CELLS = 10
#: Turns of the event loop until a round has left: that of its task, and that of the pipeline that it joins.
_TURNS_TO_LEAVE = 2

#: Handles replies a slice at a time; yields how many values each slice had.
Slices = Iterator[int]


class Rounds(Protocol):
    """What is asked, round by round, and what becomes of the replies."""

    def next_commands(self, replies: Sequence[Reply]) -> Sequence[Command]:
        """The commands of the next round, given the replies of the last one (none before the first); empty at the end."""

    def take_replies(self, replies: Sequence[Reply]) -> Slices:
        """Handle the replies to the commands that were given last."""


class Part(Protocol):
    """Commands of one kind, and what becomes of their replies."""

    @property
    def count(self) -> int:
        """How many commands there are."""

    @property
    def cells(self) -> int:
        """About how many values the reply to one of them has."""

    def command_at(self, index: int) -> Command:
        """One of them."""

    def take_replies(self, first: int, replies: Sequence[Reply]) -> Slices:
        """Handle the replies to the commands from `first` on."""


async def ask_in_rounds(connections: Session, rounds: Rounds, missing: tuple[str, ...] = ()) -> None:
    """Ask round by round. Raises SourceError for the first error reply that has none of the `missing` texts."""
    commands = rounds.next_commands(())
    replies = await connections.ask(commands, missing) if commands else []
    while commands:
        slices = rounds.take_replies(replies)
        commands = rounds.next_commands(replies)
        if not commands:
            await _run_slices(slices)
            return
        coming = asyncio.create_task(connections.ask(commands, missing))
        with _cancel_on_failure(coming):
            for _ in range(_TURNS_TO_LEAVE):
                await asyncio.sleep(0)
            await _run_slices(slices)
        replies = await coming


async def ask_parts(connections: Session, *parts: Part, missing: tuple[str, ...] = ()) -> None:
    """Ask for all parts, in order, as `ask_in_rounds` does."""
    await ask_in_rounds(connections, _PartRounds(parts), missing)


def fits_one_round(*parts: Part) -> bool:
    """Whether all parts together are one round."""
    return sum(part.count * (part.cells + COMMAND_CELLS) for part in parts) <= ROUND_CELLS


def slice_evenly(count: int, cells: int) -> Iterator[slice]:
    """Slices of `count` things that have so many values each."""
    width = max(SLICE_CELLS // max(cells, 1), 1)
    return (slice(first, min(first + width, count)) for first in range(0, count, width))


async def _run_slices(slices: Slices) -> None:
    handled = 0
    for cells in slices:
        handled += cells
        if handled >= SLICE_CELLS:
            handled = 0
            await asyncio.sleep(0)


@contextmanager
def _cancel_on_failure(coming: asyncio.Task[list[Reply]]) -> Iterator[None]:
    """A round that nobody will handle is not waited for: its connection is closed."""
    try:
        yield
    except BaseException:
        coming.cancel()
        coming.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # else asyncio logs it
        raise


class _PartRounds:
    """Parts, divided into rounds."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._rounds = _divide_parts(parts)
        self._spans: list[_Span] = []

    def next_commands(self, replies: Sequence[Reply]) -> Sequence[Command]:
        self._spans = next(self._rounds, [])
        return [part.command_at(index) for part, first, end in self._spans for index in range(first, end)]

    def take_replies(self, replies: Sequence[Reply]) -> Slices:
        return _take_spans(self._spans, replies)


#: A part, and its commands from one index up to another.
_Span = tuple[Part, int, int]


def _divide_parts(parts: Sequence[Part]) -> Iterator[list[_Span]]:
    """The spans of each round. A part is asked how large its replies are when a round is put together, so it may learn that."""
    spans, room = list[_Span](), ROUND_CELLS
    for part in parts:
        first = 0
        while first < part.count:
            weight = part.cells + COMMAND_CELLS
            fitting = min(part.count - first, room // weight if spans else max(room // weight, 1))
            if fitting:
                spans.append((part, first, first + fitting))
                first, room = first + fitting, room - fitting * weight
            else:
                yield spans
                spans, room = [], ROUND_CELLS
    if spans:
        yield spans


def _take_spans(spans: Sequence[_Span], replies: Sequence[Reply]) -> Slices:
    begin = 0
    for part, first, end in spans:
        yield from part.take_replies(first, replies[begin : begin + end - first])
        begin += end - first
