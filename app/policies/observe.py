"""Counting and timing what the callers of a source really get."""

from __future__ import annotations

import asyncio
import logging
import time

from app.errors import BridgeError, SourceCrashed
from app.model import Clock, Fetch, Frame, Statement
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)


class Observed:
    """Outermost. A bug in a source becomes SourceCrashed: logged loudly, neighbours unharmed."""

    def __init__(self, source: str, fetch: Fetch, telemetry: Telemetry, clock: Clock) -> None:
        self._source = source
        self._fetch = fetch
        self._telemetry = telemetry
        self._clock = clock

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        begun_s = time.perf_counter()
        try:
            frame = await self._fetch(statement)
        except asyncio.CancelledError:
            self._telemetry.cancelled.labels(self._source).inc()
            raise
        except BridgeError:
            raise
        except Exception as bug:
            _log.exception("%s crashed while reading %s", self._source, statement.metric)
            crash = SourceCrashed(self._source, f"internal error ({type(bug).__name__}); see the bridge's log")
            self._telemetry.source_errors.labels(self._source, crash.kind).inc()
            raise crash from bug
        finally:
            self._telemetry.source_seconds.labels(self._source).observe(time.perf_counter() - begun_s)
        if frame.stale is not None:
            self._telemetry.stale_served(self._source, self._clock() - frame.asked_ms)
        return frame
