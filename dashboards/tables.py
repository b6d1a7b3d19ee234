"""Tables over the bridge's metrics and events, and the state of the data. Their marks are columns: no client loses a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, stat, table
from grafana_foundation_sdk.models import common as look_model
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DataTransformerConfig, DynamicConfigValue

from dashboards import limits, look
from dashboards.links import drill_down
from dashboards.panels import LESS_IS_WORSE, TOP, Scope, newest_options, worst_first
from dashboards.targets import BRIDGE, ROWS, BridgeTarget, EventsTarget, Made, RowsTarget
from dashboards.titles import column_title, short_title, unheard_text

#: State of an answer -> its colour as a word. As the colour of a whole row all but `fresh` are grey.
_STATE_COLORS = {"fresh": limits.GOOD, "partial": limits.NOTE, "stale": limits.WARN, "error": limits.BAD}
_SHOWN_DECIMALS = {"currencyUSD": 0, "percent": 1, "s": 1, "ms": 0, "short": None}


def rows(title: str, text: str, datasource: DataSourceRef) -> table.Panel:
    """A table with the common settings."""
    return look.described(table.Panel(), title, text, datasource).show_header(True).cell_height(look_model.TableCellHeight.SM)


@dataclass(frozen=True, slots=True)
class Tables:
    """Tables of a dashboard."""

    scope: Scope

    def events(self, name: str, title: str = "") -> table.Panel:
        """Events, the newest first."""
        event = self.scope.catalogue.event(name)
        obeyed = tuple(label for label in self.scope.variables if label in event.entry.labels)
        unheard = unheard_text(self.scope.catalogue, [label for label in self.scope.variables if label not in obeyed])
        text = f"{event.entry.description} At most 1000 are shown. Source: {event.read.source}. {unheard}".strip()
        panel = rows(title or event.entry.title, text, BRIDGE).with_target(Made(EventsTarget(name, obeyed)))
        panel = panel.no_value("none in this range").with_transformation(
            _arranged({"time": "Time", "title": "What", "text": "Details"}, "timeEnd", "id", "tags")
        )
        newest = common.TableSortByFieldState().display_name("Time").desc(True)
        return (
            panel.sort_by([newest])
            .override_by_name("Time", [_column_width(170)])
            .override_by_name("What", [_column_width(220)])
        )
