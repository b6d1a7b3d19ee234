from __future__ import annotations

from typing import Any

from app.operations.redis_outages import RedisOutages
from app.sources.base import Memory
from app.sync import SyncCall

BEFORE, EMPTY, SAME = Memory("run-1", 100), Memory("run-2", 0), Memory("run-1", 90)


class Bench:
    """Two sources on one server, a clock, and a sync that keeps what it is told."""

    def __init__(self) -> None:
        self.now_ms = 1000
        self.calls: list[SyncCall] = []
        told: Any = self
        self.outages = RedisOutages(told, lambda: self.now_ms)
        for source in ("rts", "ris"):
            self.outages.follow("h:1", source)

    def tell(self, call: SyncCall) -> None:
        self.calls.append(call)

    def answered(self, memory: Memory | None) -> None:
        self.now_ms += 1000
        self.outages.answered("h:1", memory)

    def failed(self) -> None:
        self.now_ms += 1000
        self.outages.failed("h:1")


def test_an_outage_is_told_once_at_its_begin_and_once_at_its_end_however_many_sources_the_server_is() -> None:
    bench = Bench()
    bench.answered(BEFORE)
    for _ in range(2):
        bench.failed()
    for _ in range(2):
        bench.answered(EMPTY)
    down, up = bench.calls
    assert down == SyncCall("redis.down", "h:1", ("ris", "rts"), 2000, None, None, "run-1", None, 100, None)
    assert up == SyncCall("redis.up", "h:1", ("ris", "rts"), 2000, 5000, True, "run-1", "run-2", 100, 0)


def test_a_server_that_was_only_out_of_reach_has_lost_nothing() -> None:
    bench = Bench()
    bench.answered(BEFORE)
    bench.failed()
    bench.answered(SAME)
    assert bench.calls[-1].memory_lost is False


def test_a_restart_that_loaded_its_keys_again_has_lost_nothing() -> None:
    bench = Bench()
    bench.answered(BEFORE)
    bench.failed()
    bench.answered(Memory("run-2", 100))
    assert bench.calls[-1].memory_lost is False


def test_a_restart_between_two_looks_is_an_outage() -> None:
    bench = Bench()
    bench.answered(BEFORE)
    bench.answered(EMPTY)
    [call] = bench.calls
    assert (call.event, call.from_ms, call.to_ms, call.memory_lost) == ("redis.up", 2000, 3000, True)


def test_a_server_that_was_never_seen_well_has_lost_nobody_knows_what() -> None:
    bench = Bench()
    bench.failed()
    bench.answered(EMPTY)
    assert [call.memory_lost for call in bench.calls] == [None, None]
    assert bench.calls[0].from_ms == 2000


def test_a_server_that_tells_nothing_of_itself_is_told_of_all_the_same() -> None:
    bench = Bench()
    bench.answered(None)
    bench.failed()
    bench.answered(None)
    assert [(call.event, call.memory_lost) for call in bench.calls] == [("redis.down", None), ("redis.up", None)]
