"""The circuit breaker: one circuit per source, one per shape of question, and a short memory for wrong statements."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from app.errors import CircuitOpen, SourceError
from app.jitter import JITTER
from app.model import Fetch, Frame, Statement
from app.policies.settings import Policy
from app.telemetry import Telemetry

State = Literal["closed", "half_open", "open"]
_GAUGE: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}

_WINDOW_S = 10.0
_WINDOW_CALLS = 20
#: for so long a wrong statement is not sent again
_WRONG_S = 1.0
_SHAPES = 2000


@dataclass(frozen=True, slots=True)
class _Outcome:
    at_s: float
    who: Hashable
    failure: SourceError | None


class Circuit:
    """Closed, open or half open. It opens after `failures` in a row, or when at least half of 20 calls within 10 s failed.

    Failures that one question may cause (`of_question`: time-outs, answers that cannot be read) leave a source's circuit closed
    when all of them come from the same question.
    While it is open one call is let through every `probe_s`, less up to a fifth (so that replicas do not try at the same time).
    With `probed` a background probe tries the source instead and calls `probe_passed`; then all calls are let through and the
    first one decides.
    """

    def __init__(
        self,
        numbers: Policy,
        now_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = JITTER.random,
        single: bool = False,
    ) -> None:
        self._numbers = numbers
        self._now_s = now_s
        self._jitter = jitter
        self._single = single
        self._calls: deque[_Outcome] = deque(maxlen=_WINDOW_CALLS)
        self._row = 0
        self._next_try_s = 0.0
        self._trying = False
        self.state: State = "closed"
        self.probed = False
        self._opened_s = 0.0
        #: how long it was open the last time
        self.open_for_s = 0.0
        self.cause: SourceError | None = None

    @property
    def wait_s(self) -> float:
        """Time until the next try; 0 when it is due or the circuit is closed."""
        return max(self._next_try_s - self._now_s(), 0.0) if self.state == "open" else 0.0

    def admits(self) -> bool:
        """Whether a call may be made now. Half open lets one call at a time through."""
        if self.state == "open" and not self.probed and not self.wait_s:
            self._set_state("half_open")
            self._trying = False
        if self.state == "open" or (self.state == "half_open" and self._trying and not self.probed):
            return False
        self._trying = self.state == "half_open"
        return True

    def record_success(self, who: Hashable = None) -> None:
        """A call was answered."""
        self._row = 0
        self._calls.append(_Outcome(self._now_s(), who, None))
        if self.state == "half_open":
            self._calls.clear()
            self.open_for_s = self._now_s() - self._opened_s
            self._set_state("closed")

    def record_failure(self, failure: SourceError, who: Hashable = None) -> None:
        """A call failed."""
        self._row += 1
        self._calls.append(_Outcome(self._now_s(), who, failure))
        if self.state == "half_open" or (self.state == "closed" and self._fails_too_often()):
            self._open_circuit(failure)
        elif self.state == "open":
            self._postpone_try(failure)

    def record_departure(self) -> None:
        """A call ended without a verdict: its caller left."""
        self._trying = False

    def probe_passed(self) -> None:
        """A background probe got an answer."""
        if self.state == "open":
            self._row = 0
            self._trying = False
            self._set_state("half_open")

    def _fails_too_often(self) -> bool:
        since_s = self._now_s() - _WINDOW_S
        recent = [call for call in self._calls if call.at_s >= since_s]
        failed = [call for call in recent if call.failure is not None]
        half = len(recent) == _WINDOW_CALLS and 2 * len(failed) >= _WINDOW_CALLS
        if self._row < self._numbers.failures and not half:
            return False
        alone = len({call.who for call in failed}) == 1 and all(call.failure and call.failure.of_question for call in failed)
        return self._single or not alone

    def _open_circuit(self, failure: SourceError) -> None:
        if self.state == "closed":
            self._opened_s = self._now_s()
        self._postpone_try(failure)
        self._set_state("open")

    def _postpone_try(self, failure: SourceError) -> None:
        self.cause = failure
        between_s = self._numbers.denied_s if failure.denied else self._numbers.probe_s
        self._next_try_s = self._now_s() + between_s * (1 - 0.2 * self._jitter())

    def _set_state(self, state: State) -> None:
        self.state = state


Changed = Callable[[State, "Circuit"], None]


class Breaker:
    """Raises CircuitOpen instead of fetching while a circuit is open.

    The source's circuit counts failures that say something about the source (`trips_breaker`). A shape's circuit counts those
    that one question may cause (`of_question`): time-outs, overloads, answers that cannot be read. For the source's circuit all
    questions with one text are the same question: one bad read does not open it, whatever filters, labels and steps callers try.
    A failure that cannot pass by itself (no `allows_stale`) is remembered for a second per shape and raised again as it was.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        numbers: Policy,
        telemetry: Telemetry,
        now_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = JITTER.random,
    ) -> None:
        self._source = source
        self._fetch = fetch
        self._numbers = numbers
        self._telemetry = telemetry
        self._now_s = now_s
        self._jitter = jitter
        self.circuit = Circuit(numbers, now_s, jitter)
        self._shapes: OrderedDict[Hashable, Circuit] = OrderedDict()
        self._wrong: OrderedDict[Hashable, tuple[float, SourceError]] = OrderedDict()
        self._last_told: State = "closed"
        #: called at each change of the source's circuit
        self.listeners: list[Changed] = []
        self._tell_listeners()

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        shape = statement.shape
        try:
            self._check_circuits(shape)
        except SourceError as refusal:
            self._telemetry.source_errors.labels(self._source, refusal.kind).inc()
            raise
        finally:
            self._tell_listeners()
        heard = False
        try:
            frame = await self._fetch(statement)
            heard = True
        except SourceError as failure:
            heard = True
            # A copy without the traceback, which would keep all objects of the failed fetch alive.
            self._note_failure(statement, failure.again())
            raise
        finally:
            if not heard:
                self._note_departure(shape)
        self._note_success(statement)
        return frame

    def probe_failed(self, failure: SourceError) -> None:
        """A background probe got no answer."""
        self._count_failure(failure)
        if failure.trips_breaker:
            self.circuit.record_failure(failure, object())  # each probe counts as another question
        self._tell_listeners()

    def probe_passed(self) -> None:
        """A background probe got an answer. The circuits of all shapes are reset with the end of the outage."""
        if self.circuit.state == "open":
            self._shapes.clear()
            self.circuit.probe_passed()
        elif self.circuit.state == "half_open":
            self.circuit.record_success()  # the second probe in a row, with no call between
        self._telemetry.source_up.labels(self._source).set(1)
        self._tell_listeners()

    def _check_circuits(self, shape: Hashable) -> None:
        until_s, wrong = self._wrong.get(shape, (0.0, None))
        if wrong is not None and self._now_s() < until_s:
            raise wrong.again()
        own = self._shapes.get(shape)
        if own is not None and not own.admits():
            raise self._circuit_open(own, "this question is not asked")
        if not self.circuit.admits():
            if own is not None:
                own.record_departure()
            raise self._circuit_open(self.circuit, "not asked")

    def _circuit_open(self, circuit: Circuit, text: str) -> CircuitOpen:
        reason = circuit.cause.reason if circuit.cause else "no answer"
        return CircuitOpen(self._source, f"{text}, it has just failed: {reason}; next try in {circuit.wait_s:.0f}s")

    def _note_success(self, statement: Statement) -> None:
        self.circuit.record_success(statement.text)
        self._shapes.pop(statement.shape, None)
        self._telemetry.source_up.labels(self._source).set(1)
        self._tell_listeners()

    def _note_failure(self, statement: Statement, failure: SourceError) -> None:
        shape = statement.shape
        self._count_failure(failure)
        if not failure.allows_stale:
            self._remember_wrong(shape, failure)
        if failure.of_question:
            self._circuit_of(shape).record_failure(failure, shape)
        if failure.trips_breaker:
            self.circuit.record_failure(failure, statement.text)
        elif self.circuit.state == "half_open":
            self.circuit.record_success(statement.text)  # it answered, if only with an error
        self._tell_listeners()

    def _count_failure(self, failure: SourceError) -> None:
        self._telemetry.source_errors.labels(self._source, failure.kind).inc()
        if failure.trips_breaker:
            self._telemetry.source_up.labels(self._source).set(0)

    def _note_departure(self, shape: Hashable) -> None:
        self.circuit.record_departure()
        if shape in self._shapes:
            self._shapes[shape].record_departure()

    def _remember_wrong(self, shape: Hashable, failure: SourceError) -> None:
        now_s = self._now_s()
        self._wrong[shape] = (now_s + _WRONG_S, failure)
        self._wrong.move_to_end(shape)
        while len(self._wrong) > _SHAPES or next(iter(self._wrong.values()))[0] <= now_s:
            self._wrong.popitem(last=False)

    def _circuit_of(self, shape: Hashable) -> Circuit:
        if shape not in self._shapes:
            self._shapes[shape] = Circuit(self._numbers, self._now_s, self._jitter, single=True)
            if len(self._shapes) > _SHAPES:
                self._shapes.popitem(last=False)
        return self._shapes[shape]

    def _tell_listeners(self) -> None:
        state = self.circuit.state
        self._telemetry.breaker_state.labels(self._source).set(_GAUGE[state])
        if state != self._last_told:
            self._last_told = state
            for listener in self.listeners:
                listener(state, self.circuit)
