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
#: after a ping that failed, until the circuit has opened
_DOUBT_S = 0.1


class Watch:
    """Pings the source every `look_s`. While its circuit is open, it alone tries the source (users get what is kept); when the
    source answers again, its connections are made anew and the circuit lets questions through.

    `answered` is called after each ping that was answered, `failed` when the circuit opens. One log line a transition.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        guard: Guard,
        telemetry: Telemetry,
        look_s: float,
        answered: Callable[[], object] = lambda: None,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._source = source
        self._breaker = guard.breaker
        self._telemetry = telemetry
        self._look_s = look_s
        self._answered = answered
        self._failed = failed
        self._in_doubt = False
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
        return _DOUBT_S if self._in_doubt else self._look_s * random.uniform(0.8, 1)  # noqa: S311  jitter is no secret

    async def _probe(self) -> None:
        if self.circuit.wait_s:
            return
        failure = await self._ping()
        self._in_doubt = failure is not None
        if failure is None:
            await self._well()
        else:
            self._breaker.probe_failed(failure)

    async def _ping(self) -> SourceError | None:
        try:
            async with asyncio.timeout(_PING_S):
                await self._source.ping()
        except TimeoutError:
            return SourceTimeout(self._name, f"no answer within {_PING_S:g}s (ping)")
        except SourceError as failure:
            return failure.again()
        except Exception as bug:
            _log.exception("%s: the ping crashed", self._name)
            return SourceCrashed(self._name, type(bug).__name__)
        return None

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
            _log.warning("%s is not asked any more, next try in %.1fs: %s", self._name, circuit.wait_s, circuit.cause)
            self._failed()
        elif state == "closed":
            _log.info("%s answers again after %.1fs", self._name, circuit.open_for_s)
