"""Redis filled from nothing: at the start, and again when its server was gone, as the trading system's backend would do it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import redis

from app.demo.accounts import AccountStates, closing, opening, states, ticks
from app.demo.redis_writer import RedisWriter
from app.demo.world import HOUR_MS, TICK_MS, World

_log = logging.getLogger(__name__)


def fill_redis(world: World, writer: RedisWriter, until_ms: int) -> None:
    """The state at `until_ms`, the last hour's samples, the newest stream entries."""
    hour = ticks(max(world.start_ms, until_ms - HOUR_MS + TICK_MS), until_ms)
    history = states(world, np.append(ticks(world.start_ms, int(hour[0]) - 1), hour), opening(world))
    now = states(world, np.array([until_ms]), closing(history))
    writer.samples(world, _newest(history, len(hour)), until_ms)
    writer.write(world, now, world.start_ms, until_ms)


def _newest(history: AccountStates, count: int) -> AccountStates:
    return AccountStates(*(getattr(history, name)[-count:] for name in AccountStates.__slots__))


class RefilledRedis(RedisWriter):
    """Writes to a server that may be killed, hang and come back: nothing is written meanwhile, and then everything anew."""

    def __init__(self, client: redis.Redis, stream_length: int) -> None:
        super().__init__(client, stream_length)
        self._inner = RedisWriter(client, stream_length)
        self._lost = False

    def samples(self, world: World, states: AccountStates, to_ms: int) -> None:
        """See RedisWriter."""
        if not self._lost:
            self._try(lambda: self._inner.samples(world, states, to_ms))

    def write(self, world: World, states: AccountStates, from_ms: int, to_ms: int) -> None:
        """See RedisWriter."""
        if not self._lost:
            self._try(lambda: self._inner.write(world, states, from_ms, to_ms))
        elif self._try(lambda: self._refill(world, to_ms)):
            self._lost = False
            _log.warning("Redis is back and filled again")

    def _refill(self, world: World, until_ms: int) -> None:
        self._client.flushdb()
        fill_redis(world, self._inner, until_ms)

    def _try(self, writing: Callable[[], None]) -> bool:
        try:
            writing()
        except redis.RedisError as problem:
            if not self._lost:
                _log.warning("Redis is not fed any more: %s", problem)
            self._lost = True
            return False
        return True
