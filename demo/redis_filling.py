"""Fills an empty Redis, at the start and after its server was lost, as the trading system's backend would do."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import redis

from demo.accounts import AccountStates, closing, instants, opening_at, states, ticks
from demo.progress import Tell, tell_nobody
from demo.redis_writer import RedisWriter
from demo.world import HOUR_MS, TICK_MS, World

_log = logging.getLogger(__name__)
_SAMPLES_AT_ONCE = 60
#: the prefixes of all keys that the demo writes
_OWN_KEYS = ("account_state:", "trade_", "instance", "host", "hist:", "sync:")


def fill_redis(world: World, writer: RedisWriter, until_ms: int, tell: Tell = tell_nobody) -> None:
    """Write the state at `until_ms`, the samples of the hour before, and the newest stream entries."""
    hour_ms = ticks(max(world.start_ms, until_ms - HOUR_MS + TICK_MS), until_ms)
    hour = states(world, hour_ms, opening_at(world, instants(world, int(hour_ms[0]) - 1)))
    now = states(world, np.array([until_ms]), closing(hour))
    # Some minutes at a time: a pipeline is held in memory as a whole.
    for first in range(0, len(hour_ms), _SAMPLES_AT_ONCE):
        writer.write_samples(world, _rows(hour, first, first + _SAMPLES_AT_ONCE), until_ms)
        tell(min(0.8, 0.8 * (first + _SAMPLES_AT_ONCE) / len(hour_ms)))
    writer.write(world, now, world.start_ms, until_ms)
    tell(1.0)


def _rows(found: AccountStates, first: int, end: int) -> AccountStates:
    return AccountStates(*(getattr(found, name)[first:end] for name in AccountStates.__slots__))


def _key_text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode(errors="replace")


class RefilledRedis(RedisWriter):
    """Writes to a server that may fail and come back. Until then it writes nothing; then it fills the server again."""

    def __init__(self, client: redis.Redis, stream_length: int) -> None:
        super().__init__(client, stream_length)
        self._inner = RedisWriter(client, stream_length)
        self._lost = False

    def write_samples(self, world: World, states: AccountStates, to_ms: int) -> None:
        """See RedisWriter."""
        if not self._lost:
            self._try_writing(lambda: self._inner.write_samples(world, states, to_ms))

    def write(self, world: World, states: AccountStates, from_ms: int, to_ms: int) -> None:
        """See RedisWriter."""
        if not self._lost:
            self._try_writing(lambda: self._inner.write(world, states, from_ms, to_ms))
        elif self._try_writing(lambda: self._fill_again(world, to_ms)):
            self._lost = False
            _log.warning("Redis is back and filled again")

    def _fill_again(self, world: World, until_ms: int) -> None:
        foreign = next((key for key in self._client.scan_iter(count=1000) if not _key_text(key).startswith(_OWN_KEYS)), None)
        if foreign is not None:
            raise redis.RedisError(
                f"what listens there now holds data of somebody else's ({_key_text(foreign)[:40]!r}), which is left as it is"
            )
        self._client.flushdb()
        fill_redis(world, self._inner, until_ms)

    def _try_writing(self, writing: Callable[[], None]) -> bool:
        try:
            writing()
        except redis.RedisError as problem:
            if not self._lost:
                _log.warning("Redis is not fed any more: %s", problem)
            self._lost = True
            return False
        return True
