"""What is kept is bounded: kept answers by bytes, a breaker's memory of shapes by number, however many questions there are.

`size_bytes` is an estimate; that it is an honest one is measured with tracemalloc (which sees the arrays of numpy too) and by the
resident memory.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from app.errors import SourceError, SourceOverloaded, SourceRejected, SourceTimeout
from app.model import Frame, Provenance, Statement, TimeRange
from app.policies import Policy
from app.policies.breaker import Breaker
from app.policies.cache.answers import AnswerCache
from app.policies.cache.cached import Cached
from app.telemetry import Telemetry
from tests.policies.scripted import Clock, statement

MIB = 1 << 20
LIMIT = 16 * MIB
#: true bytes over the limit that are allowed
SLACK = 1.5
BROKERS = ("B1", "B2", "B3")
#: bytes that a source holds when it fails
IN_HAND = 20_000


def resident() -> int:
    """The process's resident bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Growth:
    """Bytes that Python has allocated since the block began and still holds."""

    def __init__(self) -> None:
        self._begun = tracemalloc.get_traced_memory()[0]

    @property
    def held(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._begun


@contextmanager
def traced() -> Iterator[Growth]:
    gc.collect()
    tracemalloc.start()
    try:
        yield Growth()
    finally:
        tracemalloc.stop()


def asked(number: int, shapes: int = 10**9) -> Statement:
    """A question like no other: every text and tuple in it is its own, as a parsed request's are."""
    from_ms = number * 3_600_000
    params = (("from_ms", from_ms), ("to_ms", from_ms + 600_000), ("account", f"A{number % shapes:012}"))
    return Statement(
        "rts", "equity", f"SELECT {number % shapes:012}", params, TimeRange(from_ms, from_ms + 600_000, 60_000), ("account",)
    )


def answered(number: int, points: int, series: int = 1) -> Frame:
    """Columns and label values of this answer's own; names and brokers are shared by its series, as sources share them."""
    labels = tuple((("account", f"A{number:09}{place:03}"), ("broker", BROKERS[place % 3])) for place in range(series))
    rows = points * series
    time = np.arange(rows, dtype=np.int64) + number
    known = Provenance(asked_ms=number, fresh_until_ms=number)
    return Frame(time, time.astype(np.float64), labels, tuple(range(0, rows + 1, points)), provenance=known)


@pytest.mark.parametrize(
    ("points", "series", "shapes"),
    [(1, 1, 10**9), (60, 1, 10**9), (60, 1, 100), (60, 12, 10**9), (1, 200, 10**9), (10_000, 1, 10**9)],
    ids=["single values", "an hour", "an hour, few shapes", "twelve series", "two hundred labels", "long"],
)
def test_what_kept_answers_really_take_is_near_what_they_say(points: int, series: int, shapes: int) -> None:
    with traced() as growth:
        answers, number, most = AnswerCache(LIMIT // 4, 10**9), 0, 0
        while not answers.evicted or number % 500:
            answers.put(asked(number, shapes), answered(number, points, series), number)
            number += 1
            most = max(most, answers.size_bytes)
        held = growth.held
    assert most <= LIMIT // 4
    assert 0.2 < held / answers.size_bytes <= SLACK, f"{held} bytes for {answers.size_bytes} said, {len(answers)} answers"


def test_two_hundred_thousand_questions_never_take_more_than_the_limit() -> None:
    span, template, most = TimeRange(0, 3_600_000, 60_000), answered(0, 60), 0
    begun = resident()
    answers = AnswerCache(LIMIT, 10**9)
    for number in range(200_000):  # about twenty times what there is room for
        # The arrays are each answer's own: what is kept is really there.
        known = Provenance(asked_ms=number)
        frame = Frame(template.time.copy(), template.value.copy(), template.series, (0, 60), provenance=known)
        answers.put(Statement("rts", "equity", str(number), (), span), frame, number)
        most = max(most, answers.size_bytes)
    assert LIMIT * 0.9 < most <= LIMIT
    assert len(answers) + answers.evicted == 200_000
    assert answers.size_bytes == sum(kept.size_bytes for kept in answers)
    grown = resident() - begun
    assert grown <= SLACK * LIMIT, f"{grown / MIB:.1f} MiB"


def test_fewer_answers_than_the_bytes_allow_are_kept_where_their_number_is_limited() -> None:
    answers = AnswerCache(LIMIT, 100)
    for number in range(10_000):
        answers.put(asked(number), answered(number, 1), number)
        assert len(answers) <= 100


async def test_the_cache_keeps_its_limit_under_ever_new_questions_and_says_how_much_it_holds() -> None:
    policy, telemetry = Policy(cache_bytes=LIMIT // 8, cache_entries=10**6), Telemetry()
    number = 0

    async def fetch(_: Statement) -> Frame:
        return answered(number, 60)

    with traced() as growth:
        cached = Cached("rts", fetch, policy, telemetry, Clock())
        for number in range(3_000):
            await cached(asked(number))
            assert cached.answers.size_bytes <= policy.cache_bytes
        held = growth.held
    assert held <= SLACK * policy.cache_bytes
    assert telemetry.registry.get_sample_value("bridge_cache_bytes", {"source": "rts"}) == cached.answers.size_bytes


class Failures:
    """A source that fails each question anew, with something large in its hands."""

    def __init__(self, kind: type[SourceError]) -> None:
        self._kind = kind

    async def __call__(self, asked: Statement) -> Frame:
        if asked.text == "well":
            return Frame()
        reply = bytes(IN_HAND)
        raise self._kind("rts", f"cannot be read: {reply[:4]!r}")


def breaker_of(kind: type[SourceError]) -> Breaker:
    # The source's own circuit never opens: each shape gets to the source, and its failure into the memory.
    return Breaker("rts", Failures(kind), Policy(failures=100), Telemetry())


async def fail(breaker: Breaker, numbers: Iterable[int]) -> None:
    """A new shape each; two answers after each keep the source's circuit closed."""
    for number in numbers:
        with suppress(SourceError):
            await breaker(statement(f"SELECT {number}"))
        await breaker(statement("well"))
        await breaker(statement("well"))


@pytest.mark.parametrize("kind", [SourceRejected, SourceOverloaded, SourceTimeout])
async def test_a_breaker_forgets_the_oldest_when_tens_of_thousands_of_shapes_fail(kind: type[SourceError]) -> None:
    breaker = breaker_of(kind)
    await fail(breaker, range(10_000))
    begun = resident()
    await fail(breaker, range(10_000, 40_000))
    grown = resident() - begun
    assert grown <= 8 * MIB, f"{grown / MIB:.1f} MiB more after 30,000 more"


@pytest.mark.parametrize("kind", [SourceRejected, SourceOverloaded])
async def test_a_remembered_failure_does_not_keep_what_the_source_had_in_hand(kind: type[SourceError]) -> None:
    breaker = breaker_of(kind)
    with traced() as growth:
        await fail(breaker, range(500))
        held = growth.held / 500
    assert held < IN_HAND, f"{held:.0f} bytes a shape"
