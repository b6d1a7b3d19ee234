"""Letting requests in: the bound on those under way, and the turnstile before the steps that compute."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from app.cooperative import Turnstile
from app.model import Lane
from app.server.edge import Admission
from app.telemetry import Telemetry


class Bench:
    """An admission, and as many places of it taken as a test wants."""

    def __init__(self, most: int) -> None:
        self.telemetry = Telemetry()
        self.admission = Admission(most, self.telemetry)
        self.stack = ExitStack()

    def take(self, lane: Lane, number: int) -> None:
        for _ in range(number):
            assert not self.admission.refuses(lane)
            self.stack.enter_context(self.admission.occupy_slot())

    def ended(self, end: BaseException) -> None:
        """A request that ends so."""
        with self.admission.occupy_slot():
            assert self.admission.under_way == 1
            raise end

    def shed(self, lane: Lane) -> float | None:
        return self.telemetry.registry.get_sample_value("bridge_shed_total", {"lane": lane})


@pytest.mark.parametrize("lane", ["interactive", "background"])
def test_nine_tenths_of_the_places_are_for_everybody(lane: Lane) -> None:
    bench = Bench(20)
    bench.take(lane, 18)
    assert bench.admission.refuses(lane)


def test_alert_rules_may_use_the_last_tenth_and_no_more() -> None:
    bench = Bench(20)
    bench.take("interactive", 18)
    bench.take("alert", 2)
    assert bench.admission.refuses("alert")
    assert bench.admission.refuses("interactive")


def test_alert_rules_may_use_every_place() -> None:
    bench = Bench(20)
    bench.take("alert", 20)
    assert bench.admission.refuses("alert")


def test_a_single_place_is_for_everybody() -> None:
    bench = Bench(1)
    bench.take("interactive", 1)
    assert bench.admission.refuses("alert")


def test_a_place_is_free_again_when_its_request_is_answered() -> None:
    bench = Bench(10)
    bench.take("interactive", 9)
    bench.stack.close()
    assert bench.admission.under_way == 0
    assert not bench.admission.refuses("interactive")


@pytest.mark.parametrize("end", [ValueError, asyncio.CancelledError])
def test_a_place_is_free_again_whatever_ends_its_request(end: type[BaseException]) -> None:
    bench = Bench(10)
    with pytest.raises(end):
        bench.ended(end())
    assert bench.admission.under_way == 0


def test_every_refusal_is_counted_by_lane_and_nothing_else_is() -> None:
    bench = Bench(10)
    bench.take("interactive", 9)
    assert [bench.admission.refuses("interactive") for _ in range(3)] == [True] * 3
    assert not bench.admission.refuses("alert")
    assert (bench.shed("interactive"), bench.shed("alert"), bench.shed("background")) == (3, 0, 0)


class Passing:
    """Waiters at one turnstile, in the order in which they got through, each with the number of its loop turn."""

    def __init__(self) -> None:
        self.turnstile = Turnstile()
        self.passed: list[str] = []
        self.turns: list[int] = []
        self._turn = 0

    async def wait(self, name: str, lane: Lane = "interactive") -> None:
        await self.turnstile.wait_turn(lane)
        self.passed.append(name)
        self.turns.append(self._turn)

    def come(self, name: str, lane: Lane = "interactive") -> asyncio.Task[None]:
        return asyncio.create_task(self.wait(name, lane))

    async def turn(self, number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
            self._turn += 1


async def test_who_finds_nobody_there_goes_through_at_once() -> None:
    passing = Passing()
    coming = passing.wait("a")
    with pytest.raises(StopIteration):
        coming.send(None)  # without a turn of the loop
    assert passing.passed == ["a"]


async def test_one_waiter_gets_through_in_each_turn_of_the_loop_in_the_order_of_coming() -> None:
    passing = Passing()
    for name in "abcdefgh":
        passing.come(name)
    await passing.turn(30)
    assert passing.passed == list("abcdefgh")
    assert len(set(passing.turns)) == 8, "no two in the same turn"


async def test_other_work_of_the_loop_goes_on_between_two_waiters() -> None:
    passing = Passing()
    for name in "abc":
        passing.come(name)
    for number in range(12):
        await passing.turn(1)
        passing.passed.append("-") if number else None
    assert "bc" not in "".join(passing.passed)
    assert "ab" not in "".join(passing.passed)


async def test_alert_rules_go_first_and_background_last() -> None:
    passing = Passing()
    for name, lane in (("first", "interactive"), ("b", "background"), ("i", "interactive"), ("a", "alert"), ("A", "alert")):
        passing.come(name, lane)  # type: ignore[arg-type]  # the names of lanes
    await passing.turn(30)
    assert passing.passed == ["first", "a", "A", "i", "b"]


async def test_an_alert_rule_that_comes_later_passes_those_who_wait() -> None:
    passing = Passing()
    for name in "abcd":
        passing.come(name)
    await passing.turn(1)
    passing.come("alert", "alert")
    await passing.turn(30)
    assert passing.passed.index("alert") < passing.passed.index("d")


async def test_who_leaves_while_waiting_does_not_hold_up_the_others() -> None:
    passing = Passing()
    tasks = {name: passing.come(name) for name in "abcde"}
    await passing.turn(1)
    for name in "bcd":
        tasks[name].cancel()
    await passing.turn(6)
    assert passing.passed == ["a", "e"]


async def test_who_leaves_in_the_moment_of_getting_through_does_not_hold_up_the_others() -> None:
    passing = Passing()
    tasks = [passing.come(name) for name in "abcd"]
    while len(passing.passed) < 2:
        await passing.turn(1)
        tasks[2].cancel()
    await passing.turn(10)
    assert passing.passed[-1] == "d"


async def test_when_all_have_left_the_next_one_gets_through() -> None:
    passing = Passing()
    tasks = [passing.come(name) for name in "abc"]
    await passing.turn(1)
    for task in tasks[1:]:
        task.cancel()
    await passing.turn(5)
    passing.come("late")
    await passing.turn(5)
    assert passing.passed == ["a", "late"]
