from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.errors import (
    CircuitOpen,
    SourceDenied,
    SourceError,
    SourceFailed,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.model import Frame, Matcher, TimeRange
from app.policies import Policy
from app.policies.breaker import Breaker
from app.telemetry import Telemetry
from tests.policies.scripted import Scripted, hang, statement

DOWN = SourceUnavailable("s", "refused")
SLOW = SourceTimeout("s", "slow")


class Bench:
    """A breaker, its source, a clock for it, and everything that its circuit has told."""

    def __init__(self, *script: Frame | BaseException) -> None:
        self.now_s = 100.0
        self.source = Scripted(*script)
        self.telemetry = Telemetry()
        self.breaker = Breaker("s", self.source, Policy(), self.telemetry, lambda: self.now_s, lambda: 0.0)
        self.told: list[str] = []
        self.breaker.listeners.append(lambda state, _: self.told.append(state))

    async def ask(self, text: str = "t") -> str:
        try:
            await self.breaker(statement(text))
        except SourceError as failure:
            return type(failure).__name__
        return "answer"

    async def asked(self, *texts: str) -> list[str]:
        return [await self.ask(text) for text in texts]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, {"source": "s", **labels})


async def test_after_three_failures_in_a_row_the_source_is_not_asked() -> None:
    bench = Bench(DOWN)
    assert await bench.asked(*"abcd") == ["SourceUnavailable"] * 3 + ["CircuitOpen"]
    assert (bench.source.askings, bench.told, bench.sample("bridge_breaker_state")) == (3, ["open"], 2)


async def test_the_refusal_says_why_and_when_the_next_try_is() -> None:
    bench = Bench(DOWN)
    await bench.asked(*"abc")
    with pytest.raises(CircuitOpen, match="s: not asked, it has just failed: refused; next try in 5s"):
        await bench.breaker(statement())


async def test_failures_with_answers_between_them_open_it_when_they_are_half_of_twenty() -> None:
    bench = Bench(*(DOWN, Frame()) * 10)
    results = await bench.asked(*(str(number) for number in range(21)))
    assert (results[18:20], bench.told) == (["SourceUnavailable", "answer"], [])
    bench = Bench(*(Frame(), DOWN) * 10)
    results = await bench.asked(*(str(number) for number in range(21)))
    assert (results[20], bench.told) == ("CircuitOpen", ["open"])


async def test_old_failures_do_not_count() -> None:
    bench = Bench(*(Frame(), DOWN) * 20)
    for number in range(40):
        bench.now_s += 1
        await bench.ask(str(number))
    assert bench.told == []


async def test_after_five_seconds_one_try_decides_for_all() -> None:
    bench = Bench(DOWN, DOWN, DOWN, hang, Frame())  # type: ignore[arg-type]  # a callable is a script entry too
    await bench.asked(*"abc")
    bench.now_s += 5
    trying = asyncio.create_task(bench.ask("a"))
    await asyncio.sleep(0)
    assert await bench.asked(*"bc") == ["CircuitOpen"] * 2
    trying.cancel()
    await asyncio.wait([trying])
    assert (await bench.asked(*"bc"), bench.told) == (["answer", "answer"], ["open", "half_open", "closed"])


async def test_a_try_that_fails_opens_it_for_another_five_seconds() -> None:
    bench = Bench(DOWN)
    await bench.asked(*"abc")
    bench.now_s += 5
    assert await bench.asked(*"ab") == ["SourceUnavailable", "CircuitOpen"]
    bench.now_s += 4.9
    assert await bench.ask() == "CircuitOpen"


async def test_where_somebody_else_tries_the_source_no_user_has_to() -> None:
    bench = Bench(DOWN, DOWN, DOWN, Frame())
    bench.breaker.circuit.probed = True
    await bench.asked(*"abc")
    bench.now_s += 100
    assert await bench.ask() == "CircuitOpen"
    bench.breaker.probe_passed()
    assert (await asyncio.gather(*(bench.ask(text) for text in "abc")), bench.told[-1]) == (["answer"] * 3, "closed")


async def test_wrong_credentials_are_tried_again_after_a_minute() -> None:
    bench = Bench(SourceDenied("s", "credentials"))
    await bench.asked(*"abc")
    bench.now_s += 59
    assert await bench.ask() == "CircuitOpen"
    bench.now_s += 1
    assert await bench.ask() == "SourceDenied"


async def test_one_heavy_question_that_times_out_does_not_shut_the_source_off_for_others() -> None:
    bench = Bench(SLOW, SLOW, SLOW, Frame())
    assert await bench.asked("heavy", "heavy", "heavy") == ["SourceTimeout"] * 3
    assert await bench.asked("heavy", "light") == ["CircuitOpen", "answer"]
    assert bench.told == []


async def test_time_outs_of_several_questions_do() -> None:
    bench = Bench(SLOW)
    assert (await bench.asked(*"abcd"), bench.told) == (["SourceTimeout"] * 3 + ["CircuitOpen"], ["open"])


async def test_the_window_is_no_part_of_a_questions_shape() -> None:
    bench = Bench(SourceOverloaded("s", "memory"))
    for number in range(3):
        with pytest.raises(SourceOverloaded):
            await bench.breaker(replace(statement(), range=TimeRange(number * 1000, number * 1000 + 5000, 1000)))
    assert (await bench.ask(), bench.told) == ("CircuitOpen", [])


async def test_a_wrong_statement_is_remembered_for_a_second_as_what_it_is_and_opens_nothing() -> None:
    bench = Bench(SourceRejected("s", "no such column"))
    assert await bench.asked(*["wrong"] * 10) == ["SourceRejected"] * 10
    assert (bench.source.askings, bench.told) == (1, [])
    bench.now_s += 1
    assert (await bench.ask("wrong"), bench.source.askings) == ("SourceRejected", 2)


ILL = (SourceGarbled("s", "nonsense"), SourceFailed("s", "no such part"))


@pytest.mark.parametrize("failure", ILL, ids=type)
async def test_what_several_questions_bring_counts_against_the_source(failure: SourceError) -> None:
    bench = Bench(failure)
    assert (await bench.asked(*"abcd"), bench.told) == ([type(failure).__name__] * 3 + ["CircuitOpen"], ["open"])


@pytest.mark.parametrize("failure", [*ILL, SLOW], ids=type)
async def test_what_one_question_brings_closes_the_source_to_nobody_else(failure: SourceError) -> None:
    bench = Bench(failure, failure, failure, Frame())
    assert (await bench.asked(*"aaaab"), bench.told) == ([type(failure).__name__] * 3 + ["CircuitOpen", "answer"], [])


@pytest.mark.parametrize("failure", [*ILL, SLOW], ids=type)
async def test_one_read_with_ever_other_filters_is_one_question(failure: SourceError) -> None:
    bench = Bench(failure)
    for number in range(30):
        with pytest.raises(type(failure)):
            await bench.breaker(replace(statement(), where=(Matcher("account", "=", (str(number),)),)))
    assert bench.told == []


async def test_when_the_source_is_back_nothing_is_held_against_its_questions() -> None:
    bench = Bench(SLOW, SLOW, SLOW, DOWN, Frame())
    bench.breaker.circuit.probed = True
    await bench.asked("heavy", "heavy", "heavy", "a")
    bench.breaker.probe_passed()
    assert await bench.ask("heavy") == "answer"


async def test_pings_that_fail_open_it_with_nobody_asking() -> None:
    bench = Bench(Frame())
    for _ in range(3):
        bench.breaker.probe_failed(SourceTimeout("s", "no answer"))
    assert (bench.told, bench.sample("bridge_source_up")) == (["open"], 0)


async def test_every_failure_is_counted_by_kind_and_the_source_is_down_until_it_answers() -> None:
    bench = Bench(DOWN, SourceRejected("s", "typo"), Frame())
    up = []
    for text in "abc":
        await bench.ask(text)
        up.append(bench.sample("bridge_source_up"))
    kinds = ("source_unavailable", "source_rejected")
    assert (up, [bench.sample("bridge_source_errors_total", kind=kind) for kind in kinds]) == ([0, 0, 1], [1, 1])
