"""The simulated market: prices as a closed function of time, so any instant can be computed without earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PERIODS_S = (86_400.0, 21_600.0, 3_700.0, 610.0, 97.0)
_SWINGS = (0.004, 0.002, 0.0009, 0.0003, 0.0001)


@dataclass(frozen=True, slots=True)
class Symbol:
    """An instrument. `usd_per_unit` is the gain of one lot in USD when the price rises by 1."""

    name: str
    price: float
    point: float
    usd_per_unit: float


SYMBOLS = (
    Symbol("EURUSD", 1.0850, 0.00001, 100_000.0),
    Symbol("GBPUSD", 1.2700, 0.00001, 100_000.0),
    Symbol("USDJPY", 149.50, 0.001, 670.0),
    Symbol("AUDUSD", 0.6550, 0.00001, 100_000.0),
    Symbol("USDCHF", 0.8800, 0.00001, 113_000.0),
    Symbol("USDCAD", 1.3600, 0.00001, 73_500.0),
    Symbol("NZDUSD", 0.6050, 0.00001, 100_000.0),
    Symbol("XAUUSD", 2030.0, 0.01, 100.0),
)
POINTS = np.array([symbol.point for symbol in SYMBOLS])
USD_PER_UNIT = np.array([symbol.usd_per_unit for symbol in SYMBOLS])
_BASES = np.array([symbol.price for symbol in SYMBOLS])


def hashed(seed: int, *keys: Ints) -> Floats:
    """Reproducible numbers in [0, 1) for whole-number keys (the finaliser of MurmurHash3, A. Appleby)."""
    mixed = np.uint64(seed * 0x9E3779B9 & 0xFFFFFFFF) + np.zeros(
        np.broadcast_shapes(*(np.shape(key) for key in keys)), dtype=np.uint64
    )
    with np.errstate(over="ignore"):
        for key in keys:
            mixed = (mixed ^ np.asarray(key).astype(np.uint64)) * np.uint64(0xFF51AFD7ED558CCD)
            mixed ^= mixed >> np.uint64(33)
            mixed *= np.uint64(0xC4CEB9FE1A85EC53)
            mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def prices(seed: int, symbol: Ints, at_ms: Ints) -> Floats:
    """The price of each symbol (an index into SYMBOLS) at each instant, rounded to its point. It has slow swings and noise."""
    second = at_ms // 1000
    course = np.zeros(np.broadcast_shapes(symbol.shape, at_ms.shape))
    for place, (period_s, swing) in enumerate(zip(_PERIODS_S, _SWINGS, strict=True)):
        phase = hashed(seed, symbol, np.full_like(symbol, place)) * 2 * np.pi
        course += swing * np.sin(2 * np.pi * second / period_s + phase)
    course += 0.00006 * (hashed(seed + 1, symbol, second) - 0.5)
    point = POINTS[symbol]
    rounded: Floats = np.round(_BASES[symbol] * (1 + course) / point) * point
    return rounded
