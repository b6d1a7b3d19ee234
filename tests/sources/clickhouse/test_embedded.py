"""The embedded engine's handles: what was killed or has failed is never asked again, whatever else goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import chdb
import clickhouse_connect
import pytest

from app.errors import SourceRejected
from app.model import Frame
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseSource
from tests.sources.clickhouse.conftest import SLOW, series, statement

ONE = statement("SELECT toInt64(0) AS time, 1 AS value")
#: Columns of different types and lengths, so that one's bytes are no other's.
MANY = [
    statement(
        f"SELECT toInt64(number) AS time, {{by}} number + {rows} AS value FROM numbers({rows})", by=by, a="toString(number % 7)"
    )
    for rows in (3, 2_000, 60_000, 150_000)
    for by in ((), ("a",))
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The engine's folder, held open as the demo's writer holds it."""
    folder = tmp_path_factory.mktemp("embedded")
    connection: Any = chdb.connect(str(folder))  # type: ignore[no-untyped-call]  # chdb has no types
    yield folder
    connection.close()


@pytest.fixture
async def single(engine: Path) -> AsyncIterator[ClickHouseSource]:
    """A source with one handle, so that the next question takes the one that the last has left."""
    source = ClickHouseConfig(interface="chdb", path=engine, database="default", pool_size=1).build("history")
    yield source
    await source.close()


def alike(one: Frame, other: Frame) -> bool:
    columns = [(frame.series, frame.offsets, frame.time.tobytes(), frame.value.tobytes()) for frame in (one, other)]
    return columns[0] == columns[1]


async def leave(source: ClickHouseSource, moments: random.Random, stays: asyncio.Event) -> None:
    """Ask and leave a moment later, over and over."""
    while not stays.is_set():
        asking = asyncio.create_task(source.fetch(moments.choice(MANY)))
        await asyncio.wait([asking], timeout=moments.uniform(0, 0.03))
        asking.cancel()
        await asyncio.wait([asking])


async def test_whoever_asks_while_others_leave_at_any_moment_gets_his_own_rows(engine: Path) -> None:
    source = ClickHouseConfig(interface="chdb", path=engine, database="default").build("history")
    right = [await source.fetch(one) for one in MANY]
    moments, stays = random.Random(11), asyncio.Event()
    leavers = [asyncio.create_task(leave(source, moments, stays)) for _ in range(3)]
    asked = [moments.randrange(len(MANY)) for _ in range(60)]
    wrong = [place for place in asked if not alike(await source.fetch(MANY[place]), right[place])]
    stays.set()
    await asyncio.gather(*leavers)
    await source.close()
    assert wrong == []


async def test_the_handle_of_a_killed_query_is_closed_and_another_one_answers(
    single: ClickHouseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = watch_handles(monkeypatch)
    await single.fetch(ONE)
    asking = asyncio.create_task(single.fetch(statement(SLOW)))
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.wait([asking])
    assert series(await single.fetch(ONE)) == {(): [(0, 1.0)]}
    assert handles == {"made": 3, "closed": 1}  # the first, the one for kills, the one in the killed one's place


async def test_the_handle_of_a_statement_that_failed_is_not_asked_again(
    single: ClickHouseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles = watch_handles(monkeypatch)
    with pytest.raises(SourceRejected):
        await single.fetch(statement("SELECT toInt64(number) AS time, throwIf(number = 5, 'no') AS value FROM numbers(9)"))
    assert series(await single.fetch(ONE)) == {(): [(0, 1.0)]}
    assert handles == {"made": 2, "closed": 1}


async def test_a_kill_of_what_has_ended_is_not_sent(single: ClickHouseSource, monkeypatch: pytest.MonkeyPatch) -> None:
    handles = watch_handles(monkeypatch)
    await single.fetch(ONE)
    await single._link.kill("one that has ended")  # noqa: SLF001  the race of a caller who leaves too late
    assert handles == {"made": 1, "closed": 0}


def watch_handles(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many handles the engine's driver makes and closes from now on."""
    counted = {"made": 0, "closed": 0}
    make = clickhouse_connect.get_client

    def made(**given: Any) -> Any:
        client: Any = make(**given)
        close = client.close
        counted["made"] += 1

        def closed() -> None:
            counted["closed"] += 1
            close()

        client.close = closed
        return client

    monkeypatch.setattr(clickhouse_connect, "get_client", made)
    return counted
