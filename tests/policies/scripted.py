"""Sources that do what a test says, and the clock it says it by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.model import Frame, Statement, TimeRange
from tests.frames import frame


def statement(text: str = "t", now_ms: int = 0) -> Statement:
    return Statement("s", "m", text, (), TimeRange(0, 1000, 1000), now_ms=now_ms)


async def no_sleep(_: float) -> None:
    return None


class Scripted:
    """A fetch that does what the script says, one entry an asking (the last for ever), and counts."""

    def __init__(self, *script: Frame | BaseException | Callable[[], Awaitable[Frame]]) -> None:
        self.script = list(script)
        self.askings = 0
        self.cancelled = 0
        self.running = 0
        self.most_running = 0

    async def __call__(self, _: Statement) -> Frame:
        entry = self.script[min(self.askings, len(self.script) - 1)]
        self.askings += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if isinstance(entry, BaseException):
                raise entry
            return entry if isinstance(entry, Frame) else await entry()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1


async def hang() -> Frame:
    await asyncio.Event().wait()
    raise AssertionError


def after(seconds: float) -> Callable[[], Awaitable[Frame]]:
    async def answer() -> Frame:
        await asyncio.sleep(seconds)
        return frame({"": {0: 1}})

    return answer


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms
