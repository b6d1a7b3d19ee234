"""The state of terminals, hosts and syncs as functions of time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from demo.market import Floats, Ints, hashed
from demo.world import TICK_MS, Flags, World

_BEAT_MS = 10_000
_SYNC_EVERY_MS = {("rtrs", "duckdb"): 5_000, ("duckdb", "clickhouse"): 15_000}


def cpu_percent(world: World, instance: int, at_ms: Ints) -> Floats:
    """The CPU load of a terminal in percent; 0 while it is down."""
    base = 12 + 20 * hashed(world.seed, np.full(1, instance), np.full(1, 31))
    swing = 6 * np.sin(at_ms / 3_600_000 * 2 * np.pi / 5 + instance)
    noise = 14 * hashed(world.seed, np.full_like(at_ms, instance), at_ms // TICK_MS) ** 2
    return np.where(world.down(instance, at_ms), 0.0, np.round(base + swing + noise, 2))


def memory_mb(world: World, instance: int, at_ms: Ints) -> Floats:
    """The resident memory of a terminal in MB. It grows for hours and falls back; it is 0 while the terminal is down."""
    base = 180 + 120 * hashed(world.seed, np.full(1, instance), np.full(1, 32))
    grown = (at_ms // TICK_MS + instance * 211) % 2160 / 2160 * 90
    return np.where(world.down(instance, at_ms), 0.0, np.round(base + grown, 1))


def socket_failures(world: World, instance: int, at_ms: Ints) -> Floats:
    """Failed socket connections since the terminal's last start: a counter that resets to 0."""
    begins = [world.start_ms, *(outage.to_ms for outage in world.outages_of(instance))]
    started = np.array(begins)[np.searchsorted(np.array(begins), at_ms, side="right") - 1]
    return _failures_until(world, instance, at_ms) - _failures_until(world, instance, started)


def _failures_until(world: World, instance: int, at_ms: Ints) -> Floats:
    first, last = world.start_ms // TICK_MS, world.until_ms // TICK_MS
    failed = _failures(world.seed, instance, first, last)
    found: Floats = failed[np.clip(at_ms // TICK_MS - first, 0, len(failed) - 1)].astype(np.float64)
    return found


@lru_cache(maxsize=512)
def _failures(seed: int, instance: int, first: int, last: int) -> npt.NDArray[np.int32]:
    """The failures until each tick from the first to the last. Every sample of a terminal's counter needs it anew."""
    at_tick = np.arange(first, last + 1)
    return np.cumsum(hashed(seed, np.full_like(at_tick, instance), at_tick + 7_000_000_000) < 0.012, dtype=np.int32)


def heartbeat_ms(world: World, instance: int, at_ms: Ints) -> Floats:
    """The instant of the last heartbeat. It does not change while the terminal is down."""
    phase = _beat_phase(instance)
    beat = (at_ms - phase) // _BEAT_MS * _BEAT_MS + phase
    for outage in world.outages_of(instance):
        last = beats_until(instance, outage.from_ms) * _BEAT_MS + phase
        beat = np.where((at_ms >= outage.from_ms) & (at_ms < outage.to_ms), last, beat)
    return beat.astype(np.float64)


def beats_until(instance: int, at_ms: int) -> int:
    """The number of a terminal's heartbeats since the epoch, had it never been down."""
    return (at_ms - _beat_phase(instance)) // _BEAT_MS


def _beat_phase(instance: int) -> int:
    return instance * 700 % _BEAT_MS


def states_at(world: World, state: str, at_ms: Ints) -> Floats:
    """The number of terminals in a state."""
    down = {"stopped": np.zeros(len(at_ms)), "crashed": np.zeros(len(at_ms))}
    for outage in world.outages:
        inside = (at_ms >= outage.from_ms) & (at_ms < outage.to_ms)
        stopped = inside & (at_ms >= outage.to_ms - 20_000)
        down["stopped"] += stopped
        down["crashed"] += inside & ~stopped
    return world.instances - down["stopped"] - down["crashed"] if state == "running" else down[state]


def restarts(world: World, instance: int, at_ms: int) -> int:
    """The number of restarts of a terminal."""
    return sum(outage.to_ms <= at_ms for outage in world.outages_of(instance))


def host_figures(world: World, host: int, at_ms: Ints) -> dict[str, Floats]:
    """A host's cpu_load (percent), network_latency_ms, memory_used and disk_used (MB), network_bytes_total."""
    tick, place = at_ms // TICK_MS, np.full_like(at_ms, host)
    hours = (at_ms - world.start_ms) / 3_600_000
    seconds = (at_ms - world.start_ms) // 1000
    return {
        "cpu_load": np.round(25 + 10 * np.sin(hours / 4 + host) + 20 * hashed(world.seed, place, tick + 11) ** 2, 2),
        "network_latency_ms": np.round(14 + 5 * host + 30 * hashed(world.seed, place, tick + 12) ** 8, 3),
        "memory_used": np.round(
            9_000 + 700 * host + 400 * np.sin(hours / 3 + host) + 50 * hashed(world.seed, place, tick + 13), 1
        ),
        "disk_used": np.round(120_000 + 8_000 * host + 12 * hours, 1),
        "network_bytes_total": np.floor(seconds * 45_000.0 * (host + 1) + 2_000_000 * np.sin(hours / 2)) + 4_000_000.0,
    }


@dataclass(frozen=True, slots=True)
class SyncRuns:
    """Every run of one sync: instant, success, duration."""

    at_ms: Ints
    ok: Flags
    lasted_s: Floats


def sync_runs(world: World, pair: tuple[str, str]) -> SyncRuns:
    """The runs of a sync, from the world's start to its known end."""
    every_ms = _SYNC_EVERY_MS[pair]
    at_ms = np.arange(world.start_ms + every_ms, world.until_ms, every_ms)
    chance = hashed(world.seed, at_ms, np.full_like(at_ms, every_ms))
    lasted_s = np.round(0.012 + 0.15 * hashed(world.seed, at_ms, np.full_like(at_ms, every_ms + 1)) ** 4, 6)
    return SyncRuns(at_ms, chance > 0.008, lasted_s)
