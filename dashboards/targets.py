"""The targets of the plugins, in the form that the SDK wants. The SDK itself does not have them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from grafana_foundation_sdk.builders.prometheus import Dataquery as PrometheusBuilder
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

BRIDGE = DataSourceRef(type_val="simpod-json-datasource", uid="bridge-json")
ROWS = DataSourceRef(type_val="yesoreyeram-infinity-datasource", uid="bridge-infinity")
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")

#: The value of a variable set to All. The bridge drops such a filter, so new accounts are included.
ALL = "__all"

T = TypeVar("T", covariant=True)


@dataclass(frozen=True, slots=True)
class Made(Builder[T], Generic[T]):
    """A finished object where the SDK wants a builder."""

    made: T

    def build(self) -> T:
        """The finished object."""
        return self.made


@dataclass(frozen=True, slots=True)
class BridgeTarget(Dataquery):
    """A target of the JSON plugin: one metric, with options. With several the plugin's editor shows an empty field.

    A variable is written as `"${account:csv}"`: that is valid JSON for one value and for several, in every plugin version.
    """

    metric: str
    by: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    ref_id: str = "A"

    def payload(self) -> dict[str, object]:
        """The options of the query."""
        by: dict[str, object] = {"by": list(self.by)} if self.by else {}
        return by | dict(self.options) | {name: f"${{{name}:csv}}" for name in self.variables}

    def to_json(self) -> dict[str, object]:
        """The target as the plugin saves it in a dashboard."""
        return {
            "refId": self.ref_id,
            "datasource": BRIDGE,
            "editorMode": "code",
            "target": self.metric,
            "payload": json.dumps(self.payload()),
        }


@dataclass(frozen=True, slots=True)
class EventsTarget(Dataquery):
    """A target of the JSON plugin that lists events. With `most` the bridge groups them if there are more than that."""

    event: str
    where: tuple[str, ...] = ()
    ref_id: str = "A"
    most: int | None = None

    def to_json(self) -> dict[str, object]:
        """The target as the plugin saves it in a dashboard."""
        where = {name: f"${{{name}:csv}}" for name in self.where}
        payload: dict[str, object] = {"where": where} if where else {}
        payload |= {"most": self.most} if self.most else {}
        return {
            "refId": self.ref_id,
            "datasource": BRIDGE,
            "editorMode": "code",
            "target": self.event,
            "payload": json.dumps(payload),
        }


@dataclass(frozen=True, slots=True)
class RowsTarget(Dataquery):
    """A target of the Infinity plugin that reads rows of the bridge. `columns` maps a name to its type in the plugin."""

    url: str
    params: Sequence[tuple[str, str]]
    columns: Mapping[str, str]
    ref_id: str = "A"

    def to_json(self) -> dict[str, object]:
        """The target as the plugin saves it in a dashboard."""
        return {
            "refId": self.ref_id,
            "datasource": ROWS,
            "type": "json",
            "source": "url",
            "parser": "backend",
            "format": "table",
            "url": self.url,
            "url_options": {
                "method": "GET",
                "data": "",
                "headers": [],
                "params": [{"key": key, "value": value} for key, value in self.params],
            },
            "root_selector": "rows",
            "columns": [{"selector": name, "text": name, "type": kind} for name, kind in self.columns.items()],
            "computed_columns": [],
            "filters": [],
            "filterExpression": "",
            "pagination_mode": "none",
        }


def prometheus(expression: str, legend: str, ref_id: str = "A", instant: bool = False) -> PrometheusBuilder:
    """A Prometheus target: over the range, or one value now."""
    query = PrometheusBuilder().expr(expression).legend_format(legend).ref_id(ref_id).datasource(PROMETHEUS)
    query = query.editor_mode(QueryEditorMode.CODE)
    return query.instant().format(PromQueryFormat.TABLE) if instant else query.range()
