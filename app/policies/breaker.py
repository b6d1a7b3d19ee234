"""Not asking what has just failed: a circuit per source, one per question's shape, and a short memory for wrong statements."""

from __future__ import annotations

import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

from app.errors import CircuitOpen, SourceDenied, SourceError, SourceOverloaded, SourceTimeout
from app.model import Fetch, Frame, Statement
from app.telemetry import Telemetry

State = Literal["closed", "half_open", "open"]
_GAUGE: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}

_WINDOW_S = 10.0
_WINDOW_CALLS = 20
#: a wrong statement is not sent again for so long
_WRONG_S = 1.0
_SHAPES = 2000


class BreakerNumbers(Protocol):
    """What the breaker needs of the policy's numbers."""

    @property
    def failures(self) -> int:
        """Failures one after the other that open the circuit."""

    @property
    def probe_s(self) -> float:
        """Time between tries while it is open."""

    @property
    def denied_s(self) -> float:
        """The same after wrong credentials."""


@dataclass(frozen=True, slots=True)
class _Call:
    at_s: float
    who: Hashable
    failure: SourceError | None


class Circuit:
    """Closed, open, half open. Opens after `failures` in a row, or when at least half of 20 calls within 10 s failed.

    Time-outs that all come from one and the same question say nothing about the source and leave a source's circuit closed.
    While it is open one try is let through every `probe_s`, less up to a fifth (so replicas do not try in step); while `probed`
    somebody else tries the source, and tells by `probe_passed`. After that all are let through and the first one decides.
    """

    def __init__(
        self,
        numbers: BreakerNumbers,
        now_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        single: bool = False,
    ) -> None:
        self._numbers = numbers
        self._now_s = now_s
        self._jitter = jitter
        self._single = single
        self._calls: deque[_Call] = deque(maxlen=_WINDOW_CALLS)
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
        """Whether a call may be made now. In the half-open state one at a time tries for all."""
        if self.state == "open" and not self.probed and not self.wait_s:
            self._to("half_open")
            self._trying = False
        if self.state == "open" or (self.state == "half_open" and self._trying and not self.probed):
            return False
        self._trying = self.state == "half_open"
        return True

    def succeeded(self, who: Hashable = None) -> None:
        """A call was answered."""
        self._row = 0
        self._calls.append(_Call(self._now_s(), who, None))
        if self.state == "half_open":
            self._calls.clear()
            self.open_for_s = self._now_s() - self._opened_s
            self._to("closed")

    def failed(self, failure: SourceError, who: Hashable = None) -> None:
        """A call failed."""
        self._row += 1
        self._calls.append(_Call(self._now_s(), who, failure))
        if self.state == "half_open" or (self.state == "closed" and self._too_many()):
            self._open(failure)
        elif self.state == "open":
            self._postpone(failure)

    def left(self) -> None:
        """A call ended without an answer that would say anything: its asker left."""
        self._trying = False

    def probe_passed(self) -> None:
        """The source answers again, says somebody who tried."""
        if self.state == "open":
            self._row = 0
            self._trying = False
            self._to("half_open")

    def _too_many(self) -> bool:
        since_s = self._now_s() - _WINDOW_S
        recent = [call for call in self._calls if call.at_s >= since_s]
        failed = [call for call in recent if call.failure is not None]
        half = len(recent) == _WINDOW_CALLS and 2 * len(failed) >= _WINDOW_CALLS
        if self._row < self._numbers.failures and not half:
            return False
        alone = len({call.who for call in failed}) == 1 and all(isinstance(call.failure, SourceTimeout) for call in failed)
        return self._single or not alone

    def _open(self, failure: SourceError) -> None:
        if self.state == "closed":
            self._opened_s = self._now_s()
        self._postpone(failure)
        self._to("open")

    def _postpone(self, failure: SourceError) -> None:
        self.cause = failure
        between_s = self._numbers.denied_s if isinstance(failure, SourceDenied) else self._numbers.probe_s
        self._next_try_s = self._now_s() + between_s * (1 - 0.2 * self._jitter())

    def _to(self, state: State) -> None:
        self.state = state


Changed = Callable[[State, "Circuit"], None]


class Breaker:
    """Raises CircuitOpen instead of asking while a circuit is open.

    The source's circuit hears of failures that say something about the source (`trips_breaker`). A shape's circuit hears of those
    that a heavy question brings on itself: time-outs and overloads. A failure that cannot heal (no `allows_stale`) is remembered
    for a second per shape and raised again as it was, never hidden.
    """

    def __init__(
        self,
        source: str,
        fetch: Fetch,
        numbers: BreakerNumbers,
        telemetry: Telemetry,
        now_s: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
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
        self._told: State = "closed"
        #: told of each change of the source's circuit
        self.listeners: list[Changed] = []
        self._tell()

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        shape = statement.shape
        try:
            self._refuse(shape)
        except SourceError as refusal:
            self._telemetry.source_errors.labels(self._source, refusal.kind).inc()
            raise
        finally:
            self._tell()
        heard = False
        try:
            frame = await self._fetch(statement)
            heard = True
        except SourceError as failure:
            heard = True
            # Remembered without its traceback, which would keep everything alive that the source had in hand.
            self._failed(shape, failure.again())
            raise
        finally:
            if not heard:
                self._left(shape)
        self._succeeded(shape)
        return frame

    def probe_failed(self, failure: SourceError) -> None:
        """Somebody who tried the source got no answer."""
        self._count(failure)
        if failure.trips_breaker:
            self.circuit.failed(failure, object())  # a ping is no heavy question: three of them count
        self._tell()

    def probe_passed(self) -> None:
        """Somebody who tried the source got an answer: whatever was held against questions is forgotten with the outage."""
        if self.circuit.state == "open":
            self._shapes.clear()
            self.circuit.probe_passed()
        elif self.circuit.state == "half_open":
            self.circuit.succeeded()  # twice in a row, and no user has asked meanwhile
        self._telemetry.source_up.labels(self._source).set(1)
        self._tell()

    def _refuse(self, shape: Hashable) -> None:
        until_s, wrong = self._wrong.get(shape, (0.0, None))
        if wrong is not None and self._now_s() < until_s:
            raise wrong.again()
        own = self._shapes.get(shape)
        if own is not None and not own.admits():
            raise self._refusal(own, "this question is not asked")
        if not self.circuit.admits():
            if own is not None:
                own.left()
            raise self._refusal(self.circuit, "not asked")

    def _refusal(self, circuit: Circuit, text: str) -> CircuitOpen:
        reason = circuit.cause.reason if circuit.cause else "no answer"
        return CircuitOpen(self._source, f"{text}, it has just failed: {reason}; next try in {circuit.wait_s:.0f}s")

    def _succeeded(self, shape: Hashable) -> None:
        self.circuit.succeeded(shape)
        self._shapes.pop(shape, None)
        self._telemetry.source_up.labels(self._source).set(1)
        self._tell()

    def _failed(self, shape: Hashable, failure: SourceError) -> None:
        self._count(failure)
        if not failure.allows_stale:
            self._remember(shape, failure)
        if isinstance(failure, SourceTimeout | SourceOverloaded):
            self._shape(shape).failed(failure, shape)
        if failure.trips_breaker:
            self.circuit.failed(failure, shape)
        elif self.circuit.state == "half_open":
            self.circuit.succeeded(shape)  # it answered, though not what we wanted
        self._tell()

    def _count(self, failure: SourceError) -> None:
        self._telemetry.source_errors.labels(self._source, failure.kind).inc()
        if failure.trips_breaker:
            self._telemetry.source_up.labels(self._source).set(0)

    def _left(self, shape: Hashable) -> None:
        self.circuit.left()
        if shape in self._shapes:
            self._shapes[shape].left()

    def _remember(self, shape: Hashable, failure: SourceError) -> None:
        now_s = self._now_s()
        self._wrong[shape] = (now_s + _WRONG_S, failure)
        self._wrong.move_to_end(shape)
        while len(self._wrong) > _SHAPES or next(iter(self._wrong.values()))[0] <= now_s:
            self._wrong.popitem(last=False)

    def _shape(self, shape: Hashable) -> Circuit:
        if shape not in self._shapes:
            self._shapes[shape] = Circuit(self._numbers, self._now_s, self._jitter, single=True)
            if len(self._shapes) > _SHAPES:
                self._shapes.popitem(last=False)
        return self._shapes[shape]

    def _tell(self) -> None:
        state = self.circuit.state
        self._telemetry.breaker_state.labels(self._source).set(_GAUGE[state])
        if state != self._told:
            self._told = state
            for listener in self.listeners:
                listener(state, self.circuit)
