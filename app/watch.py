"""Looking after one source: asked every few seconds whether anybody needs it or not, more often while it fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

from app.errors import BridgeError, SourceCrashed, SourceError, SourceTimeout
from app.policies import Guard
from app.policies.breaker import Circuit, State
from app.sources.base import SKEW_LIMIT_S, Source
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

_PING_S = 1.0
#: after a failure, until the circuit has opened
_DOUBT_S = 0.5


class Watch:
    """Pings the source every `every_s`. While its circuit is open, it alone tries the source (users get what is kept); when the
    source answers again, its connections are made anew and the circuit lets questions through.

    `answered` is called after each ping that was answered, `failed` when the circuit opens. One log line a transition.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        guard: Guard,
        telemetry: Telemetry,
        every_s: float,
        answered: Callable[[], object] = lambda: None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._source = source
        self._breaker = guard.breaker
        self._telemetry = telemetry
        self._every_s = every_s
        self._answered = answered
        self._failed = failed
        self._clock_is_off = False
        self.last_error: str | None = None
        guard.breaker.listeners.append(self._changed)

    @property
    def circuit(self) -> Circuit:
        """The source's circuit."""
        return self._breaker.circuit

    async def run(self) -> None:
        """Watch for ever."""
        self.circuit.probed = True
        while True:
            await self._probe()
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        if self.circuit.state == "open":
            return max(self.circuit.wait_s, 0.01)
        return _DOUBT_S if self.circuit.failing else self._every_s * random.uniform(0.8, 1)  # noqa: S311  jitter is no secret

    async def _probe(self) -> None:
        if self.circuit.wait_s:
            return
        try:
            async with asyncio.timeout(_PING_S):
                await self._source.ping()
        except TimeoutError:
            self._breaker.probe_failed(SourceTimeout(self._name, f"no answer within {_PING_S:g}s (ping)"))
        except SourceError as failure:
            self._breaker.probe_failed(failure)
        except Exception as bug:
            _log.exception("%s: the ping crashed", self._name)
            self._breaker.probe_failed(SourceCrashed(self._name, type(bug).__name__))
        else:
            await self._well()

    async def _well(self) -> None:
        if self.circuit.state == "open":
            # Those made before the outage may hang half open, or lead to a server that is no more.
            with contextlib.suppress(BridgeError):
                await self._source.reconnect()
            self._telemetry.reconnects.labels(self._name).inc()
        self._breaker.probe_passed()
        self._compare_clocks()
        self._answered()

    def _compare_clocks(self) -> None:
        skew_s = self._source.skew_s
        if skew_s is None:
            return
        self._telemetry.clock_skew.labels(self._name).set(skew_s)
        off = abs(skew_s) > SKEW_LIMIT_S
        if off and not self._clock_is_off:
            _log.warning("%s: its clock is %.1fs off the bridge's; its live edge is off by as much", self._name, skew_s)
        self._clock_is_off = off

    def _changed(self, state: State, circuit: Circuit) -> None:
        if state == "open":
            self.last_error = str(circuit.cause)
            _log.warning("%s is not asked any more, tried every %gs: %s", self._name, self._every_s, circuit.cause)
            self._failed()
        elif state == "closed":
            _log.info("%s answers again after %.1fs", self._name, circuit.open_for_s)
