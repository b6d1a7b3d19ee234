"""What our cached answer is compared with: the least that an ASGI server can do, and what a tutorial writes.

`least` decodes the same question, aligns its window, looks its key up and sends the bytes, and does nothing else. `naive` is a
FastAPI handler in the manner of grafana-pandas-datasource: it asks the store for rows each time and returns lists of points.
Both find their answer (or their database) by environment: BENCH_BODY, BENCH_DATABASE.
"""

from __future__ import annotations

import os
from collections.abc import Hashable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

_STEP_MS = 60_000


class _Window(msgspec.Struct):
    since: str = msgspec.field(name="from")
    to: str


class _Target(msgspec.Struct):
    target: str
    refId: str


class _Panel(msgspec.Struct):
    range: _Window
    targets: list[_Target]
    maxDataPoints: int
    intervalMs: int


_decode = msgspec.json.Decoder(_Panel).decode
_BODY = Path(os.environ["BENCH_BODY"]).read_bytes() if "BENCH_BODY" in os.environ else b""
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))],
}
#: for whoever looks whether the server is up
_NOTHING = b'{"range":{"from":"1970-01-01","to":"1970-01-01"},"targets":[],"maxDataPoints":1,"intervalMs":1}'
_known: dict[Hashable, bytes] = {}


async def least(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    panel = _decode(body or _NOTHING)
    from_ms = round(datetime.fromisoformat(panel.range.since).timestamp() * 1000)
    to_ms = round(datetime.fromisoformat(panel.range.to).timestamp() * 1000)
    names = tuple([(one.target, one.refId) for one in panel.targets])
    key = (from_ms // _STEP_MS, -(-to_ms // _STEP_MS), panel.maxDataPoints, panel.intervalMs, names)
    answer = _known.get(key)
    if answer is None:
        answer = _known[key] = _BODY
    await send(_START)
    await send({"type": "http.response.body", "body": answer})


naive = FastAPI()


@naive.post("/json/query")
def query(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The equity of two brokers, a minute a point."""
    window = body["range"]
    from_ms, to_ms = (datetime.fromisoformat(window[name]).timestamp() * 1000 for name in ("from", "to"))
    with duckdb.connect(os.environ["BENCH_DATABASE"], read_only=True) as database:
        rows = database.execute(
            "SELECT epoch_ms(ts) // 60000 * 60000 AS time, broker_id, sum(equity) FROM account_snapshots"
            " WHERE epoch_ms(ts) >= ? AND epoch_ms(ts) < ? GROUP BY ALL ORDER BY time",
            [from_ms, to_ms],
        ).fetchall()
    series: dict[str, list[Any]] = {}
    for time, broker, value in rows:
        series.setdefault(broker, []).append([value, time])
    return [{"target": broker, "datapoints": points} for broker, points in series.items()]
