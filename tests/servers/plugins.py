"""What Grafana and its plugins would send for a dashboard: variables filled in, range and interval computed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = Mapping[str, Any]

_VARIABLE = re.compile(r"\$\{(\w+):csv\}")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}
#: Grafana's own rounding of an interval (`roundInterval` of @grafana/data): below the first the second.
_ROUND_MS = (
    (1500, 1000),
    (3500, 2000),
    (7500, 5000),
    (12_500, 10_000),
    (17_500, 15_000),
    (25_000, 20_000),
    (45_000, 30_000),
    (90_000, 60_000),
    (210_000, 120_000),
    (450_000, 300_000),
    (750_000, 600_000),
    (1_050_000, 900_000),
    (1_500_000, 1_200_000),
    (2_700_000, 1_800_000),
    (5_400_000, 3_600_000),
    (9_000_000, 7_200_000),
    (16_200_000, 10_800_000),
    (32_400_000, 21_600_000),
    (86_400_000, 43_200_000),
)
_PANEL_WIDTH = 812


@dataclass(frozen=True, slots=True)
class Viewer:
    """Someone who looks at a dashboard: the range, what is chosen in its lists (nothing is "All"), ad-hoc filters."""

    to_ms: int
    from_ms: int
    chosen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    filters: Sequence[Json] = ()

    def filled(self, text: str, dashboard: Json) -> str:
        """The text with its variables in the form that it names."""
        variables = {one["name"]: one for one in dashboard["templating"].get("list", [])}

        def value(found: re.Match[str]) -> str:
            chosen, variable = self.chosen.get(found[1]), variables[found[1]]
            unchosen = variable["current"]["value"] if variable["type"] == "custom" else variable["allValue"]
            return ",".join(chosen) if chosen else str(unchosen)

        done = _VARIABLE.sub(value, text)
        assert "$" not in done, f"{text!r} has a variable that nobody fills in"
        return done

    def json_query(self, dashboard: Json, panel: Json) -> Json:
        """The JSON plugin's `POST /query` for a panel."""
        points = min(panel["maxDataPoints"], _PANEL_WIDTH)
        own = panel.get("timeFrom")
        from_ms = self.to_ms - _duration_ms(own) if own else self.from_ms
        return self._query(dashboard, panel["targets"], from_ms, points, panel.get("interval"))

    def annotation_query(self, dashboard: Json, annotation: Json) -> Json:
        """The JSON plugin's `POST /query` for an annotation."""
        return self._query(dashboard, [annotation["target"]], self.from_ms, 1600, None)

    def _query(self, dashboard: Json, targets: Sequence[Json], from_ms: int, points: int, least: str | None) -> Json:
        least_ms = _duration_ms(least) if least else 1000
        interval_ms = max(_rounded_ms((self.to_ms - from_ms) / points), least_ms)
        return {
            "app": "dashboard",
            "requestId": "SQR117",
            "timezone": "browser",
            "dashboardUID": dashboard["uid"],
            "range": {"from": _iso(from_ms), "to": _iso(self.to_ms), "raw": {"from": "now-24h", "to": "now"}},
            "interval": f"{interval_ms // 1000}s",
            "intervalMs": interval_ms,
            "maxDataPoints": points,
            "startTime": self.to_ms,
            "targets": [self._target(dashboard, target, f"{interval_ms // 1000}s") for target in targets],
            "filters": list(self.filters),
            "scopedVars": {
                "__sceneObject": {"text": "__sceneObject"},
                "__interval_ms": {"text": str(interval_ms), "value": interval_ms},
            },
        }

    def _target(self, dashboard: Json, target: Json, interval: str) -> Json:
        """The plugin parses the payload after filling it in; what is no JSON any more would silently become `{}`."""
        payload = json.loads(self.filled(target["payload"].replace("${__interval:raw}", interval), dashboard))
        return {**target, "target": self.filled(target["target"], dashboard), "payload": payload}

    def variable_query(self, dashboard: Json, variable: Json) -> Json:
        """The JSON plugin's `POST /variable`."""
        query = variable["query"]
        assert query["format"] == "json"
        return {"payload": json.loads(self.filled(query["query"], dashboard)), "range": {}}

    def infinity_request(self, dashboard: Json, target: Json) -> tuple[str, list[tuple[str, str]]]:
        """The Infinity plugin's URL and parameters, which it sorts by key."""
        params = [(param["key"], self.filled(param["value"], dashboard)) for param in target["url_options"]["params"]]
        return target["url"], sorted(params, key=lambda pair: pair[0])


def opened(dashboard: Json, now_ms: int) -> Viewer:
    """Someone who has just opened it."""
    return Viewer(now_ms, now_ms - _duration_ms(dashboard["time"]["from"].removeprefix("now-")))


def panels_of(dashboard: Json) -> Iterator[Json]:
    """Every panel but the headings."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def _rounded_ms(exact_ms: float) -> int:
    return next(step for below, step in _ROUND_MS if exact_ms < below)


def _duration_ms(text: str) -> int:
    return int(text[:-1]) * _UNIT_MS[text[-1]]


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}Z"
