"""Long work on the event loop in short steps, so that requests, probes and timers get their turn in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TypeVar

_T = TypeVar("_T")

#: After this much work others are let in.
_TURN_S = 0.002


async def gently(steps: Iterable[_T]) -> list[_T]:
    """What the steps give. Each is to be short: there is no way in while one is at work."""
    found, begun_s = [], time.perf_counter()
    for step in steps:
        found.append(step)
        if time.perf_counter() - begun_s > _TURN_S:
            await asyncio.sleep(0)
            begun_s = time.perf_counter()
    return found
