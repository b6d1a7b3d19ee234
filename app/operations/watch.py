"""Watching one source: ping it every few seconds, and more often while it fails, whether or not anybody queries it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from app.errors import BridgeError, SourceCrashed, SourceError, SourceTimeout
from app.jitter import JITTER
from app.policies import Guard
from app.policies.breaker import Circuit, State
from app.sources.base import SKEW_LIMIT_S, Source
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)

_PING_LIMIT_S = 1.0
#: the pause after a failed ping, until the circuit has opened
_RETRY_PAUSE_S = 0.1


async def ping_source(name: str, source: Source) -> str:
    """The source's answer to a ping: what it is. Raises BridgeError, SourceTimeout after a second."""
    try:
        async with asyncio.timeout(_PING_LIMIT_S):
            return await source.ping()
    except TimeoutError:
        raise SourceTimeout(name, f"no answer within {_PING_LIMIT_S:g}s (ping)") from None


class Watch:
    """Pings the source every `look_s`.

    While the source's circuit is open, only the watch sends it probes; requests get cached responses. When the source answers
    again, the watch renews its connections and closes the circuit.

    `answered` is called after each successful ping, `failed` when the circuit opens. Each transition is one log line.
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
        self._last_ping_failed = False
        self._clock_is_off = False
        self.last_error: str | None = None
        guard.breaker.listeners.append(self._report_transition)

    @property
    def circuit(self) -> Circuit:
        """The source's circuit."""
        return self._breaker.circuit

    async def run(self) -> None:
        """Watch for ever."""
        self.circuit.probed = True
        while True:
            await self._probe_source()
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        if self.circuit.state == "open":
            return max(self.circuit.wait_s, 0.01)
        return _RETRY_PAUSE_S if self._last_ping_failed else self._look_s * JITTER.uniform(0.8, 1)

    async def _probe_source(self) -> None:
        if self.circuit.wait_s:
            return
        failure = await self._ping_failure()
        self._last_ping_failed = failure is not None
        if failure is None:
            await self._accept_success()
        else:
            self._breaker.probe_failed(failure)

    async def _ping_failure(self) -> SourceError | None:
        try:
            await ping_source(self._name, self._source)
        except SourceError as failure:
            return failure.again()
        except Exception as bug:
            _log.exception("%s: the ping crashed", self._name)
            return SourceCrashed(self._name, type(bug).__name__)
        return None

    async def _accept_success(self) -> None:
        if self.circuit.state == "open":
            # Connections from before the outage may hang half open, or lead to a server that is gone.
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

    def _report_transition(self, state: State, circuit: Circuit) -> None:
        if state == "open":
            self.last_error = str(circuit.cause)
            _log.warning("%s is not asked any more, next try in %.1fs: %s", self._name, circuit.wait_s, circuit.cause)
            self._failed()
        elif state == "closed":
            _log.info("%s answers again after %.1fs", self._name, circuit.open_for_s)
