"""Counting and timing what the callers of a source really get."""

from __future__ import annotations

import asyncio
import logging
import time

from app.errors import BridgeError, SourceCrashed, SourceError
from app.model import Fetch, Frame, Statement
from app.telemetry import Telemetry

_log = logging.getLogger(__name__)


class Observed:
    """Outermost. A bug in a source becomes SourceCrashed: logged loudly, neighbours unharmed."""

    def __init__(self, source: str, fetch: Fetch, telemetry: Telemetry) -> None:
        self._source = source
        self._fetch = fetch
        self._telemetry = telemetry

    async def __call__(self, statement: Statement) -> Frame:
        """Fetch."""
        begun_s = time.perf_counter()
        try:
            frame = await self._fetch(statement)
        except asyncio.CancelledError:
            self._telemetry.cancelled.labels(self._source).inc()
            raise
        except SourceError as failure:
            self._count(failure)
            raise
        except BridgeError:
            raise
        except Exception as bug:
            _log.exception("%s crashed while reading %s", self._source, statement.metric)
            crash = SourceCrashed(self._source, f"internal error ({type(bug).__name__}); see the bridge's log")
            self._count(crash)
            raise crash from bug
        finally:
            self._telemetry.source_seconds.labels(self._source).observe(time.perf_counter() - begun_s)
        self._telemetry.source_up.labels(self._source).set(1)
        return frame

    def _count(self, failure: SourceError) -> None:
        self._telemetry.source_errors.labels(self._source, failure.kind).inc()
        if failure.trips_breaker:
            self._telemetry.source_up.labels(self._source).set(0)
