"""Heavy requests: how many at the same time, in whose turn, and who is sent away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from app.errors import TooBusy
from app.query.admission import Caller, CostAdmission, CostLimits
from app.query.costs import Cost
from app.telemetry import Telemetry

LIMITS = CostLimits(light_bytes=100, heavy_bytes=1000, unsent_bytes=5000)
#: for tests in which nobody's time is up
LONG_S = 60.0


class Bench:
    """An admission, and the requests that came, by name, in the order in which they were let in."""

    def __init__(self, unsent: Callable[[], int] = lambda: 0) -> None:
        self.telemetry = Telemetry()
        self.admission = CostAdmission(LIMITS, self.telemetry, unsent)
        self.let_in: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def come(
        self, name: str, size: int = 600, caller: Caller | None = None, left_s: float = LONG_S, seconds: float | None = 0.0
    ) -> asyncio.Task[None]:
        """A request that stays until `end`."""
        self._ends[name] = asyncio.Event()
        task = asyncio.create_task(self._stay(name, Cost(size, seconds), caller or Caller(), left_s))
        await asyncio.sleep(0)
        return task

    async def _stay(self, name: str, cost: Cost, caller: Caller, left_s: float) -> None:
        async with self.admission.let_in(caller, cost, asyncio.get_running_loop().time() + left_s):
            self.let_in.append(name)
            await self._ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            for _ in range(6):
                await asyncio.sleep(0)

    async def end_all(self) -> None:
        """One after another, in the order in which they are let in."""
        done = 0
        while done < len(self.let_in):
            await self.end(self.let_in[done])
            done += 1

    def count(self, outcome: str) -> float | None:
        return self.telemetry.registry.get_sample_value("bridge_heavy_requests_total", {"outcome": outcome})


def test_a_request_is_heavy_above_the_bound_of_light_ones() -> None:
    admission = Bench().admission
    assert [admission.is_heavy(Cost(size)) for size in (0, 100, 101)] == [False, False, True]


async def test_heavy_requests_are_let_in_up_to_their_sum_and_the_others_wait() -> None:
    bench = Bench()
    for name in "abc":
        await bench.come(name, 400)
    assert (bench.let_in, bench.admission.heavy_bytes) == (["a", "b"], 800)
    await bench.end("a")
    assert bench.let_in == ["a", "b", "c"]
    await bench.end_all()
    assert bench.admission.heavy_bytes == 0
    assert (bench.count("at_once"), bench.count("waited")) == (2, 1)


async def test_one_that_is_larger_than_all_together_may_be_is_let_in_alone() -> None:
    bench = Bench()
    await bench.come("small", 400)
    await bench.come("huge", 10**6)
    assert bench.let_in == ["small"]
    await bench.end("small")
    assert bench.let_in == ["small", "huge"]


async def test_a_small_one_does_not_overtake_a_large_one_for_ever() -> None:
    bench = Bench()
    for name, size in (("a", 600), ("large", 900), ("small", 200)):
        await bench.come(name, size)
    await bench.end_all()
    assert bench.let_in == ["a", "large", "small"]


async def test_keys_take_turns_and_within_a_key_its_dashboards() -> None:
    bench = Bench()
    await bench.come("first")
    for name in ("a1", "a2", "a3", "a4"):
        await bench.come(name, caller=Caller("grafana", "wall"))
    await bench.come("a5", caller=Caller("grafana", "desk"))
    await bench.come("b1", caller=Caller("scripts"))
    await bench.end_all()
    assert bench.let_in == ["first", "a1", "b1", "a5", "a2", "a3", "a4"]


async def test_alert_rules_go_first() -> None:
    bench = Bench()
    for name in ("first", "panel"):
        await bench.come(name)
    await bench.come("rule", caller=Caller(lane="alert"))
    await bench.end_all()
    assert bench.let_in == ["first", "rule", "panel"]


async def test_who_would_wait_longer_than_there_is_time_is_sent_away_at_once_and_told_when_to_come_back() -> None:
    bench = Bench()
    await bench.come("measured")
    await asyncio.sleep(0.05)
    await bench.end("measured")
    for name in "abcde":
        await bench.come(name)
    with pytest.raises(TooBusy) as refused:
        await (await bench.come("late", left_s=0.1))
    assert (refused.value.status, refused.value.retry_after_s) == (429, 1)
    assert (bench.let_in, bench.count("refused")) == (["measured", "a"], 1)
    assert bench.telemetry.registry.get_sample_value("bridge_shed_total", {"lane": "interactive"}) == 1


async def test_who_waits_is_sent_away_when_there_is_no_time_left_to_answer() -> None:
    bench = Bench()
    await bench.come("first")
    task = await bench.come("second", left_s=0.3, seconds=0.28)
    with pytest.raises(TooBusy):
        await task
    await bench.end_all()
    assert (bench.let_in, bench.admission.heavy_bytes) == (["first"], 0)


async def test_who_leaves_while_waiting_holds_nothing() -> None:
    bench = Bench()
    await bench.come("first")
    leaving = await bench.come("leaving")
    await bench.come("next")
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    await bench.end_all()
    assert (bench.let_in, bench.admission.heavy_bytes, bench.count("left")) == (["first", "next"], 0, 1)


async def test_who_leaves_in_the_moment_of_being_let_in_holds_nothing() -> None:
    bench = Bench()
    first = await bench.come("first")
    leaving = await bench.come("leaving")
    bench._ends["first"].set()  # noqa: SLF001  without a turn of the loop in between
    await first
    leaving.cancel()
    with suppress(asyncio.CancelledError):
        await leaving
    assert bench.admission.heavy_bytes == 0


async def test_no_heavy_request_is_let_in_while_too_much_waits_for_readers() -> None:
    unsent = 4500
    bench = Bench(lambda: unsent)
    with pytest.raises(TooBusy, match=r"wait for readers.*http\.unsent_bytes"):
        await (await bench.come("first"))
    unsent = 0
    await bench.come("second")
    assert bench.let_in == ["second"]


async def test_a_refusal_is_found_before_a_request_comes_and_counts_those_that_are_on_their_way() -> None:
    bench = Bench()
    await bench.come("measured")
    await asyncio.sleep(0.05)
    await bench.end("measured")
    looks = [bench.admission.find_refusal(Caller(), Cost(400, 0.0), 0.04) for _ in range(4)]
    assert [look is None for look in looks] == [True, True, False, False]
    assert bench.count("refused") == 2
    await asyncio.sleep(0.2)
    assert bench.admission.find_refusal(Caller(), Cost(400, 0.0), 0.04) is None, "nobody came, so nobody is expected"
