"""How much of the code one answer runs through: what a newcomer has to read to follow it.

A file counts if the request leads to a call of a function in it. The work of tasks that ran before the request (the watch of each
source, for example) does not count: such a task merely has its turn meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from app.main import build_service
from tests.e2e.conftest import client_of
from tests.servers.world import Stores

APP = Path(__file__).parents[2] / "app"
#: history in ClickHouse, live edge in Redis
METRIC = "open_trades"
#: What there is today: 38, and 17 for what a desk of a thousand accounts needs (admission by cost, the size of an answer,
#: roll-ups, Redis in rounds and behind Sentinels). It may become less and not more; thirty is aimed at.
MOST_FILES = 55
#: True in the request's task and in those that it starts. The pings of the stores go on beside it in the same thread.
_IN_REQUEST = ContextVar("in_request", default=False)


@contextmanager
def files_run() -> Iterator[set[str]]:
    """The files of `app/` of which a function is called for the request that is made meanwhile, in this thread."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and _IN_REQUEST.get() and frame.f_code.co_name not in ("<module>", "<lambda>"):
            seen.add(frame.f_code.co_filename)

    before, mark = sys.getprofile(), _IN_REQUEST.set(True)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        _IN_REQUEST.reset(mark)


async def test_a_panels_miss_runs_through_no_more_files_than_it_did(stores: Stores) -> None:
    body = {"targets": [{"refId": "A", "target": METRIC}], "range": {"from": "now-1h", "to": "now"}, "maxDataPoints": 100}
    async with client_of(build_service(stores.settings()).app) as client:
        await client.post("/json/query", json=body)  # connections are made, templates compiled
        with files_run() as seen:
            reply = await client.post("/json/query", json=body | {"maxDataPoints": 10})
    assert reply.json()[0]["datapoints"]
    found = sorted(Path(name).relative_to(APP).as_posix() for name in seen if Path(name).is_relative_to(APP))
    assert len(found) <= MOST_FILES, f"{len(found)} files: {', '.join(found)}"
