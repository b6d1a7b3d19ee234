"""Every panel of every dashboard as what Grafana's plugins ask for it, and whether what comes back is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from dashboards.__main__ import FOLDER
from tests.servers.plugins import Viewer, panels_of

DASHBOARDS: Mapping[str, Any] = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))
}
HOUR_MS = 3_600_000

_JSON, _INFINITY = "simpod-json-datasource", "yesoreyeram-infinity-datasource"
#: what an answer says where a limit of the bridge's own has taken something away
_LIMITED = re.compile(r"missing|max_rows|is (?:shown|kept)$|\bmost_\w+")
#: what a list of events says where there are more than a person would read; it is partial then
_NEWEST_EVENTS = re.compile(r"more than 1000 in this range; only the newest are shown, from \S+ \S+ on$")


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel that asks the bridge, and its dashboard. (The dashboard "The bridge" asks Prometheus itself.)"""

    dashboard: str
    spec: Mapping[str, Any]

    @property
    def many_lines(self) -> bool:
        """Whether it draws a line for each account, terminal, host or symbol."""
        payloads = (json.loads(target.get("payload", "{}").replace("${__interval:raw}", "1s")) for target in self.spec["targets"])
        return self.spec["type"] == "timeseries" and any(payload.get("by") for payload in payloads)

    @property
    def name(self) -> str:
        """Its place and title."""
        return f"{self.dashboard}: {self.spec['title']}"

    async def ask(self, client: httpx.AsyncClient, to_ms: int, hours: float) -> Answer:
        """Ask as its plugin does for the hours until `to_ms`."""
        one = DASHBOARDS[self.dashboard]
        viewer = Viewer(to_ms, to_ms - round(hours * HOUR_MS))
        if self.spec["datasource"]["type"] == _JSON:
            return Answer(await client.post("/json/query", json=viewer.json_query(one, self.spec)))
        url, params = viewer.infinity_request(one, self.spec["targets"][0])
        return Answer(await client.get(url, params=dict(params)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    reply: httpx.Response

    def faults(self) -> list[str]:
        """Why it is not whole: an error, a part that is not fresh, a warning, a remark of a limit. Empty where it is."""
        if self.reply.status_code != 200:
            return [f"{self.reply.status_code} {self.reply.text[:300]}"]
        states = re.findall(r"status=(\w+)", self.reply.headers["Bridge-Result"])
        said = [text for _, text in _notices(self.reply.json())]
        if states == ["partial"] and len(said) == 1 and _NEWEST_EVENTS.search(said[0]):
            return []
        found = [f"status {state}" for state in states if state != "fresh"] or ([] if states else ["no status"])
        notices = list(_notices(self.reply.json()))
        return found + [text for severity, text in notices if severity != "info" or _LIMITED.search(text)]

    def cells(self) -> int:
        """The number of values that are there: points of series, figures of tables, rows."""
        return sum(_filled(element) for element in _elements(self.reply.json()))


def panels() -> list[Panel]:
    """Every panel of the seven dashboards that asks the bridge."""
    found = [Panel(name, spec) for name, one in DASHBOARDS.items() for spec in panels_of(one)]
    return [panel for panel in found if panel.spec["datasource"]["type"] in (_JSON, _INFINITY)]


def _notices(found: Any) -> Iterator[tuple[str, str]]:
    if isinstance(found, list):
        for one in found:
            yield from _notices(one)
    elif isinstance(found, dict):
        if "severity" in found:
            yield found["severity"], found["text"]
        for one in found.values():
            yield from _notices(one)


def _elements(body: Any) -> Iterator[Any]:
    yield from body if isinstance(body, list) else next(value for value in body.values() if isinstance(value, list))


def _filled(element: Any) -> int:
    if "datapoints" in element:
        return sum(value is not None for value, _ in element["datapoints"])
    rows = element["rows"] if "rows" in element else [list(element.values())]
    return sum(cell is not None for row in rows for cell in row)
