"""State machines: whatever the order of askings, failures and the passing of time, the promises hold."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.errors import SourceDenied, SourceError, SourceTimeout, SourceUnavailable
from app.model import Frame, Statement, TimeRange
from app.policies import Policy
from app.policies.attempts import RetryBudget
from app.policies.breaker import Circuit
from app.policies.cache.cached import Cached
from app.telemetry import Telemetry
from tests.frames import frame

DOWN = SourceUnavailable("s", "refused")


class CacheMachine(RuleBasedStateMachine):
    """A source whose every answer is the number of its asking, so that an answer's true age is known."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000_000
        self.asked_at: dict[int, int] = {}
        self.down = False
        self.numbers = Policy(cache_bytes=60_000, cache_entries=8)
        self.cache = Cached("s", self.fetch, self.numbers, Telemetry(), lambda: self.now_ms)

    async def fetch(self, _: Statement) -> Frame:
        if self.down:
            raise DOWN
        number = len(self.asked_at)
        self.asked_at[number] = self.now_ms
        return frame({f"n={row}": {0: number} for row in range(number % 40 + 1)})

    @rule(
        text=st.sampled_from("abcdefghijklmnop"),
        window=st.integers(0, 3),
        accept=st.sampled_from(("fresh", "stale", "cached_only")),
    )
    def ask(self, text: str, window: int, accept: str) -> None:
        span = TimeRange(window * 1000, window * 1000 + 10_000, 1000)
        statement = Statement("s", "m", text, (), span, accept=accept)  # type: ignore[arg-type]  # one of the three
        before = len(self.asked_at)
        try:
            found = asyncio.run(self.answer(statement))
        except SourceError:
            assert self.down or accept == "cached_only"
            return
        age_ms = self.now_ms - self.asked_at[int(found.value[0])]
        assert found.provenance.asked_ms == self.asked_at[int(found.value[0])]
        if found.provenance.stale is None:
            assert age_ms < 10_000
        else:
            assert age_ms <= 900_000
            assert accept != "fresh"
            assert self.down or accept == "cached_only"
        assert len(self.asked_at) - before <= 1

    async def answer(self, statement: Statement) -> Frame:
        return await self.cache(statement)

    @rule(ms=st.sampled_from((1, 999, 5_000, 9_500, 10_001, 60_000, 400_000, 900_001)))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(down=st.booleans())
    def store(self, down: bool) -> None:
        self.down = down

    @invariant()
    def room_is_kept(self) -> None:
        kept = list(self.cache.answers)
        assert len(kept) <= 8
        assert self.cache.answers.size_bytes == sum(answer.size_bytes for answer in kept) <= 60_000


class CircuitMachine(RuleBasedStateMachine):
    """A circuit with a clock of its own; what it admits is answered or fails at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.circuit = Circuit(Policy(), lambda: self.now_s, lambda: 0.5, single=True)
        self.row = 0
        self.refused_since_s: float | None = None

    @rule(
        who=st.sampled_from("abc"), failure=st.sampled_from((None, DOWN, SourceTimeout("s", "slow"), SourceDenied("s", "who?")))
    )
    def call(self, who: Hashable, failure: SourceError | None) -> None:
        state = self.circuit.state
        if not self.circuit.admits():
            assert state == "open"
            self.refused_since_s = self.refused_since_s if self.refused_since_s is not None else self.now_s
            assert self.now_s - self.refused_since_s <= 60
            return
        self.refused_since_s = None
        if failure is None:
            self.circuit.record_success(who)
            assert self.circuit.state == "closed"
            self.row = 0
        else:
            self.circuit.record_failure(failure, who)
            self.row += 1
            if state == "half_open" or self.row >= 3:
                assert self.circuit.state == "open"

    @rule(s=st.sampled_from((0.1, 1.0, 4.4, 4.6, 11.0, 61.0)))
    def time_passes(self, s: float) -> None:
        self.now_s += s

    @precondition(lambda self: self.circuit.state == "open")
    @rule()
    def a_probe_passes(self) -> None:
        self.circuit.probe_passed()
        assert self.circuit.admits()
        self.circuit.record_departure()

    @invariant()
    def a_closed_circuit_is_not_at_its_limit(self) -> None:
        assert self.circuit.state != "closed" or self.row < 3
        assert self.circuit.wait_s <= 60


class BudgetMachine(RuleBasedStateMachine):
    """Retries against askings, counted from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = RetryBudget(share=0.1, most=10)
        self.askings = 0
        self.retries = 0

    @rule(askings=st.integers(1, 50))
    def ask(self, askings: int) -> None:
        for _ in range(askings):
            self.budget.earn()
        self.askings += askings

    @rule(wanted=st.integers(1, 30))
    def retry(self, wanted: int) -> None:
        self.retries += sum(self.budget.spend() for _ in range(wanted))

    @rule()
    def one_in_ten_is_always_there(self) -> None:
        for _ in range(10):
            self.budget.earn()
        self.askings += 10
        assert self.budget.spend()
        self.retries += 1

    @invariant()
    def retries_are_a_tenth_and_ten(self) -> None:
        assert self.retries <= 10 + self.askings * 0.1 + 1e-6


for machine in (CacheMachine, CircuitMachine, BudgetMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)

TestCache = CacheMachine.TestCase
TestCircuit = CircuitMachine.TestCase
TestBudget = BudgetMachine.TestCase
