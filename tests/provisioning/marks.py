"""`python -m tests.provisioning.marks`: how each provisioned panel tells its reader that data is old, partial or missing.

The answers are the bridge's own, over real stores that are broken where the bridge asks them (its `Fetch`). They go through
Grafana's frame converter, the transformations and the field settings of the panel. The mark is looked for in what comes out.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np

from app.catalog import load_folder
from app.errors import SourceUnavailable
from app.main import build_operations, build_sources, compose_service
from app.model import Fetch, Frame, Notice, Statement, frame_of_runs
from dashboards.__main__ import FOLDER
from dashboards.limits import OLD
from tests.e2e.conftest import client_of
from tests.servers.grafana import PanelRenderer
from tests.servers.plugins import Json, Viewer, opened, panels_of
from tests.servers.world import Stores, running_stores, unhurried

State = Literal["fresh", "stale", "partial", "error", "no data"]
STATES: tuple[State, ...] = ("fresh", "stale", "partial", "error", "no data")
DASHBOARDS: dict[str, Any] = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}
_WORDS = re.compile(
    r"\b(stale|partial|error|no data)\b|older than|incomplete|without an answer|without data|nothing in this range"
)
#: how much later than the last good answer the stale one is asked for
_LATER_MS = 240_000


@dataclass
class World:
    """What the stores answer, and what time it is."""

    now_ms: int
    state: State = "fresh"
    #: as many accounts as this, all like the first one; 0 for those that there are
    accounts: int = 0

    def breaking(self, fetch: Fetch, name: str) -> Fetch:
        """A store that answers as the state has it."""

        async def answer(statement: Statement) -> Frame:
            if self.state in ("stale", "error"):
                raise SourceUnavailable(name, "connection refused")
            if self.state == "no data":
                return Frame()
            found = await fetch(statement)
            if self.accounts and "account" in statement.labels and len(found):
                found = _with_accounts(found, self.accounts)
            half = Notice("warning", f"{name}: half of it is missing")
            return replace(found.remark(half), partial=True) if self.state == "partial" else found

        return answer


def _with_accounts(frame: Frame, count: int) -> Frame:
    """The first series once for each of that many accounts, each a little higher than the one before."""
    columns = np.column_stack([frame.value, frame.weight]) if len(frame.weight) else frame.value
    rows = slice(0, frame.offsets[1])
    labels, times, values = dict(frame.series[0]), frame.time[rows], columns[rows]
    accounts = [tuple(sorted((labels | {"account": f"X{number:05}"}).items())) for number in range(count)]
    runs = [(account, times, values * (1 + number / count)) for number, account in enumerate(accounts)]
    rest = {name: getattr(frame, name) for name in ("notices", "covers_to_ms", "covers_from_ms", "partial", "provenance")}
    return frame_of_runs(runs, **rest)


@asynccontextmanager
async def bridge_over(stores: Stores, world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a bridge whose stores answer as the world says."""
    settings = unhurried(stores.settings(fresh_s=10.0))
    sources = build_sources(settings)
    for name, source in sources.items():
        setattr(source, "fetch", world.breaking(source.fetch, name))  # noqa: B010  the seam between a source and its policies
    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    operations = build_operations(settings, catalogue, sources, lambda: world.now_ms)
    async with client_of(compose_service(settings, operations).app) as client:
        yield client


@dataclass(frozen=True)
class Seen:
    """What a reader sees of one panel in one state."""

    #: the text of a failed request, which Grafana shows on the panel
    failure: str = ""
    frames: Sequence[Json] = ()
    figures: Sequence[Json] = ()

    @property
    def warnings(self) -> list[str]:
        """The notices behind the warning sign in the corner."""
        found = [notice for frame in self.frames for notice in frame["notices"]]
        return [notice["text"] for notice in found if notice["severity"] != "info"]

    @property
    def cells(self) -> list[Json]:
        """Every cell of a table, every point of a curve."""
        return [cell for frame in self.frames for field in frame["fields"] for cell in field["cells"]]

    @property
    def words(self) -> list[str]:
        """The cells that say a state."""
        return [cell["text"] for cell in self.cells if isinstance(cell["value"], str) and _WORDS.search(cell["text"])]


async def see(client: httpx.AsyncClient, renderer: PanelRenderer, name: str, panel: Json, viewer: Viewer) -> Seen:
    """Ask as the panel's plugin does, and look at what is drawn."""
    if panel["datasource"]["type"] == "simpod-json-datasource":
        reply = await client.post("/json/query", json=viewer.json_query(DASHBOARDS[name], panel))
        body = reply.json()
    else:
        [target] = panel["targets"]
        url, params = viewer.infinity_request(DASHBOARDS[name], target)
        reply = await client.get(url, params=dict(params))
        body = [infinity_frame(target, reply.json())] if reply.status_code == 200 else []
    if reply.status_code != 200:
        return Seen(failure=reply.json()["message"])
    seen = renderer.render(body, panel)
    return Seen("", seen["frames"], seen["figures"])


def infinity_frame(target: Json, body: Json) -> Json:
    """The frame that the Infinity plugin makes of rows: a field for each of the target's columns, and no notices."""
    kinds = {"timestamp_epoch": "time", "string": "string", "number": "number"}
    rows = body[target["root_selector"]]
    fields = [
        {"name": one["text"], "type": kinds[one["type"]], "config": {}, "values": [row.get(one["selector"]) for row in rows]}
        for one in target["columns"]
    ]
    return {"refId": target["refId"], "fields": fields, "length": len(rows)}


def telling(panel: Json, seen: Seen, state: State) -> str:
    """How the reader is told, in a few words; empty if nothing tells."""
    if seen.failure:
        return f"the panel's error: {seen.failure}"
    ways = []
    if panel["type"] == "stat":
        grey = [one for one in seen.figures if str(one["color"]).lower() == OLD.lower()]
        said = [one["text"] if _is_sentence(panel) else f"{one['text']} ({one['title']})" for one in seen.figures]
        if _WORDS.search(" ".join(said)) and (grey or _is_sentence(panel)):
            ways.append(f"tile: {'grey, ' if grey else ''}{said[0].strip()}")
    elif panel["type"] == "table" and seen.words:
        ways.append(f"cell: {seen.words[0]}")
    if seen.warnings:
        ways.append("warning sign")
    if state == "no data" and not ways and not any(cell["value"] is not None for cell in seen.cells):
        ways.append(f"empty: {panel['fieldConfig']['defaults']['noValue']}")
    return "; ".join(ways)


def _is_sentence(panel: Json) -> bool:
    """Whether the tile is one line of text, whose colour is a warning's."""
    return bool(panel["options"]["reduceOptions"]["fields"])


def asking_panels() -> Iterator[tuple[str, Json]]:
    """Every panel that asks the bridge, with the name of its dashboard."""
    for name, one in DASHBOARDS.items():
        yield from ((name, panel) for panel in panels_of(one) if panel["datasource"]["type"] != "prometheus")


async def survey(stores: Stores, renderer: PanelRenderer, state: State) -> Mapping[tuple[str, int], Seen]:
    """What is seen of each panel in that state, by dashboard and panel id."""
    world = World(stores.until_ms)
    found = {}
    async with bridge_over(stores, world) as client:
        if state == "stale":
            for name, panel in asking_panels():
                await see(client, renderer, name, panel, opened(DASHBOARDS[name], world.now_ms))
            world.now_ms += _LATER_MS
        world.state = state
        for name, panel in asking_panels():
            viewer = opened(DASHBOARDS[name], world.now_ms)
            found[name, panel["id"]] = await see(client, renderer, name, panel, viewer)
    return found


async def _print_table() -> None:
    with tempfile.TemporaryDirectory() as folder, running_stores(Path(folder)) as stores, PanelRenderer() as renderer:
        surveys = {state: await survey(stores, renderer, state) for state in STATES}
        others = [
            (panel["title"], panel["type"], _told_by_prometheus(panel, renderer)) for panel in panels_of(DASHBOARDS["bridge"])
        ]
    sys.stdout.write(f"| dashboard | panel | {' | '.join(STATES)} |\n|{'---|' * (len(STATES) + 2)}\n")
    for name, panel in asking_panels():
        told = [telling(panel, surveys[state][name, panel["id"]], state) or "-" for state in STATES]
        sys.stdout.write(f"| {name} | {panel['title']} ({panel['type']}) | {' | '.join(one[:110] for one in told)} |\n")
    for title, kind, told in others:
        sys.stdout.write(f"| bridge | {title} ({kind}) | {' | '.join(told)} |\n")


def _told_by_prometheus(panel: Json, renderer: PanelRenderer) -> list[str]:
    """A panel of the bridge's own dashboard asks Prometheus at that moment: no older and no partial answer can stand in."""
    seen = renderer.render([], panel)
    nothing = f"empty: {panel['fieldConfig']['defaults']['noValue']}"
    figures = [f"tile: grey, {one['text']}" for one in seen["figures"] if str(one["color"]).lower() == OLD.lower()]
    return ["-", "cannot be", "cannot be", "the panel's error", figures[0] if figures else nothing]


if __name__ == "__main__":
    asyncio.run(_print_table())
