"""A world in a ClickHouse that the committed files made, and servers on copies of it for each user."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import clickhouse_connect

from app.model import TimeRange
from demo.accounts import opening, states, ticks
from demo.clickhouse_writer import ClickHouseWriter
from demo.schema import clickhouse_statements
from demo.world import HOUR_MS, World
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import clickhouse_as
from tests.servers.eventful import make_eventful

UNTIL_MS = time.time_ns() // 1_000_000 // HOUR_MS * HOUR_MS
WHOLE = TimeRange(UNTIL_MS - 3 * HOUR_MS, UNTIL_MS, 60_000)


def write(server: ClickHouseServer, world: World) -> None:
    """Three hours of the world, and its last trades a second time, as by a writer that lost the answer."""
    client = clickhouse_connect.get_client(host=server.host, port=server.port, password=server.password)
    writer = ClickHouseWriter(client)
    for _ in range(2):
        writer.insert_trades(world, world.start_ms, UNTIL_MS)
    writer.insert_ticks(world, states(world, ticks(world.start_ms, UNTIL_MS), opening(world)))
    writer.insert_events(world, world.start_ms, UNTIL_MS)
    client.close()


def fill(folder: Path, configuration: Path) -> None:
    """The tables, made twice by the schema user and filled by the backend."""
    with clickhouse_as("schema", folder, configuration / "schema") as server:
        for statement in clickhouse_statements() * 2:
            server.execute(statement)
    world = World(7, 12, UNTIL_MS - 3 * HOUR_MS)
    world.extend(UNTIL_MS + 2 * HOUR_MS)
    make_eventful(world, UNTIL_MS)
    with clickhouse_as("backend", folder, configuration / "backend") as server:
        write(server, world)


@contextmanager
def server_for(user: str, data: Path, folder: Path) -> Iterator[ClickHouseServer]:
    shutil.copytree(data, folder / "data", symlinks=True)
    with clickhouse_as(user, folder / "data", folder / "configuration") as server:
        yield server
