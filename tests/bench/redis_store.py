"""A Redis as large as the desk: 1000 accounts with an hour of samples, 10,000 open trades, 10,000 entries of a stream.

The keys, fields and forms are those that the trading system writes (`demo.redis_writer`).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from demo.redis_writer import iso_text

ACCOUNTS = 1000
TRADES = 10_000
ENTRIES = 10_000
SAMPLE_MS = 10_000
HOUR_MS = 3_600_000
SAMPLED = ("equity", "balance", "margin", "free_margin", "floating_pnl", "peak_equity")
_AMOUNTS = (*SAMPLED, "credit")
_SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "US500", "DE40")
_BATCH = 100


def fill_redis(client: Any, accounts: int = ACCOUNTS, trades: int = TRADES, entries: int = ENTRIES) -> int:
    """Write everything as of now. Returns that instant, epoch ms."""
    now_ms = time.time_ns() // 1_000_000
    numbers = np.random.default_rng(14)
    names = [f"{5_000_000 + place}" for place in range(accounts)]
    _fill_accounts(client, names, now_ms, numbers)
    _fill_samples(client, names, now_ms, numbers)
    _fill_trades(client, names, trades, now_ms, numbers)
    _fill_stream(client, names, entries, now_ms, numbers)
    return now_ms


def _broker_of(name: str) -> str:
    return f"broker-{int(name) % 7}"


def _fill_accounts(client: Any, names: list[str], now_ms: int, numbers: np.random.Generator) -> None:
    pipe = client.pipeline(transaction=False)
    pipe.sadd("account_state:index", *names)
    for name, row in zip(names, numbers.normal(1e5, 1e3, (len(names), len(_AMOUNTS))).tolist(), strict=True):
        amounts = {field: f"{value:.4f}" for field, value in zip(_AMOUNTS, row, strict=True)}
        constant = {"leverage": "100", "currency": "USD", "margin_so_call": "100", "margin_so_so": "50"}
        written = iso_text(now_ms - int(numbers.integers(0, 20_000)))
        who = {"account_id": name, "broker_id": _broker_of(name), "last_updated_at": written}
        pipe.hset(f"account_state:{name}", mapping=who | amounts | constant)
    pipe.execute()


def _fill_samples(client: Any, names: list[str], now_ms: int, numbers: np.random.Generator) -> None:
    times = np.arange((now_ms - HOUR_MS) // SAMPLE_MS * SAMPLE_MS + SAMPLE_MS, now_ms, SAMPLE_MS).tolist()
    pipe = client.pipeline(transaction=False)
    for place, name in enumerate(names):
        for field in SAMPLED:
            values = numbers.normal(1e5, 1e3, len(times)).tolist()
            pipe.zadd(f"hist:{field}:{name}", {f"{at}:{value:.15g}": at for at, value in zip(times, values, strict=True)})
        if place % _BATCH == _BATCH - 1:
            pipe.execute()
    pipe.execute()


def _fill_trades(client: Any, names: list[str], trades: int, now_ms: int, numbers: np.random.Generator) -> None:
    pipe = client.pipeline(transaction=False)
    for place in range(trades):
        trade, since_ms = f"{numbers.bytes(16).hex()}", now_ms - int(numbers.integers(0, HOUR_MS))
        pipe.hset(f"trade_state:{trade}", mapping=_trade_fields(trade, names[place % len(names)], since_ms, numbers))
        pipe.zadd("trade_state:open", {trade: since_ms})
        if place % 1000 == 0:
            pipe.execute()
    pipe.execute()


def _trade_fields(trade: str, name: str, since_ms: int, numbers: np.random.Generator) -> dict[str, str]:
    price = f"{numbers.normal(1.1, 0.01):.8g}"
    return {
        "trade_id": trade,
        "signal_id": f"{numbers.bytes(16).hex()}",
        "account_id": name,
        "broker_id": _broker_of(name),
        "instance_id": f"instance-{int(name) // 2}",
        "symbol": _SYMBOLS[int(numbers.integers(len(_SYMBOLS)))],
        "order_type": "market",
        "direction": "buy",
        "lot_size": "0.1",
        "requested_price": price,
        "execution_price": price,
        "stop_loss": "",
        "take_profit": "",
        "partial_fill_percentage": "100",
        "state": "executed",
        "profit": "",
        "swap": "0",
        "retcode": "10009",
        "execution_latency_ms": str(int(numbers.integers(20, 400))),
        "created_at": iso_text(since_ms),
        "updated_at": iso_text(since_ms),
    }


def _fill_stream(client: Any, names: list[str], entries: int, now_ms: int, numbers: np.random.Generator) -> None:
    pipe = client.pipeline(transaction=False)
    for place in range(entries):
        at_ms = now_ms - HOUR_MS + 1000 + place * (HOUR_MS - 2000) // entries
        fields = _trade_fields(f"{numbers.bytes(16).hex()}", names[place % len(names)], at_ms, numbers)
        kept = ("trade_id", "signal_id", "account_id", "instance_id", "broker_id", "symbol", "direction", "retcode")
        event = {"event": "execution"} | {field: fields[field] for field in (*kept, "execution_latency_ms")}
        pipe.xadd("trade_results", event | {"slippage_points": "1.5", "pnl": "", "commission": ""}, id=f"{at_ms}-{place}")
        if place % 1000 == 0:
            pipe.execute()
    pipe.execute()
