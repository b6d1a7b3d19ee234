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
from dashboards.titles import short_title, unheard_text

#: State of an answer -> its colour as a word. As the colour of a whole row all but `fresh` are grey.
_STATE_COLORS = {"fresh": limits.GOOD, "partial": limits.NOTE, "stale": limits.WARN, "error": limits.BAD}
#: Unit -> the width of a column of such figures, pixels. Grafana's own least width of 150 would push columns off the panel.
_WIDTHS = {"currencyUSD": 90, "percent": 80, "s": 80, "ms": 75, "bytes": 80, "Bps": 85, "short": 75, "cpm": 90, "opm": 95}
#: A margin level is many thousand percent where little margin is used.
_WIDER = {"margin_level": 95}
_LABEL_WIDTH, _STATE_WIDTH, _AGE_WIDTH, LEAST_REASON_WIDTH = 90, 70, 70, 110
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
            panel.sort_by([newest]).override_by_name("Time", [_column_width(170)]).override_by_name("What", [_column_width(200)])
        )

    def matrix(self, title: str, by: str, *metrics: str, note: str = "", hourly: bool = False, link: str = "") -> table.Panel:
        """The present values: a row for each value of the label, a column for each metric, and the state of the row.

        The row of the worst value of the first metric comes first. A row that is not fresh is grey as a whole.
        """
        first, name = metrics[0], self.scope.catalogue.label(by).title
        titles = {metric: self.scope.catalogue.metric(metric).entry.short_title for metric in metrics}
        order = "lowest" if first in LESS_IS_WORSE else "highest"
        ranked = f"As many rows as Top says, those with the {order} {titles[first].lower()}."
        text = self.scope.described_as(metrics, " ".join(filter(None, (note, ranked, _ROW_NOTE))))
        panel = rows(title, text, BRIDGE).with_transformation(
            _arranged({by: name} | {title: title for title in titles.values()} | _STATE_HEADERS)
        )
        options = {"format": "pivot", **newest_options(hourly)}
        ranked_by = {first: {"sort": worst_first(first, TOP)["sort"], "top": TOP}}
        for place, metric in enumerate(metrics):
            asked = options | ranked_by.get(metric, {})
            target = BridgeTarget(metric, (by,), self.scope.obeyed(metrics), asked, chr(ord("A") + place))
            panel = panel.with_target(Made(target))
        panel = panel.interval(self.scope.finest_step(*metrics))
        for metric in metrics:
            panel = panel.override_by_name(titles[metric], self._column_overrides(metric))
        panel = _with_row_state(panel)
        links = [drill_down(link, by, self.scope.obeyed(metrics))] if link else []
        return panel.override_by_name(name, [_column_width(_LABEL_WIDTH), *links])

    def _column_overrides(self, metric: str) -> list[DynamicConfigValue]:
        unit = self.scope.catalogue.metric(metric).entry.unit
        found = [*look.unit_values(unit, _SHOWN_DECIMALS.get(unit)), DynamicConfigValue("noValue", "\u2013")]
        header_px = 22 + 8 * len(self.scope.catalogue.metric(metric).entry.short_title)
        found.append(_column_width(max(_WIDER.get(metric, _WIDTHS[unit]), header_px)))
        steps = limits.LIMITS.get(metric)
        if steps is None:
            return found
        cell = {"type": "color-text"}
        return [*found, DynamicConfigValue("thresholds", limits.as_json(steps)), DynamicConfigValue("custom.cellOptions", cell)]

    def state(self, *metrics: str) -> table.Panel:
        """The state of the data of this dashboard, a row for each metric, from a request of its own to the bridge."""
        params = (("metric", ",".join(metrics)), ("instant", "true"), ("marks", "true"), ("from", "now-1h"), ("to", "now"))
        target = RowsTarget("/v1/rows", params, {"metric": "string", "status": "string", "age_s": "number", "reason": "string"})
        text = f"State and age of the bridge's answer for each metric over the last hour. {_STATE_NOTE} " + unheard_text(
            self.scope.catalogue, self.scope.variables, more=("Filters",)
        )
        panel = rows("Data: state, age and reason", text, ROWS).with_target(Made(target))
        headers = {"metric": "Metric", "status": "State", "age_s": "Age", "reason": "Reason"}
        names = {metric: short_title(self.scope.catalogue.metric(metric).entry.title) for metric in metrics}
        return (
            panel.with_transformation(_arranged(headers))
            .override_by_name("Metric", [_words_mapping(names), _column_width(215)])
            .override_by_name(
                "State",
                [
                    _colors_mapping(_STATE_COLORS),
                    DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
                    _column_width(_STATE_WIDTH),
                ],
            )
            .override_by_name("Age", _AGE)
            .override_by_name("Reason", _REASON)
        )

    def state_line(self, *metrics: str) -> stat.Panel:
        """The state of the whole dashboard in one line, with the reason: `3 of 9 metrics older than 10 s: rts, 4 min`."""
        text = f"Whether each metric of this dashboard is fresh. {_STATE_NOTE} {self._unheard_text(metrics)}".strip()
        panel = look.described(stat.Panel(), "State of the data", text, BRIDGE)
        for place, metric in enumerate(metrics):
            options = {"format": "summary", "within": "1h"}
            target = BridgeTarget(metric, (), self.scope.obeyed((metric,)), options, chr(ord("A") + place))
            panel = panel.with_target(Made(target))
        return look.sentence(panel, "/^summary$/", good="^all \\d+ metrics are fresh")

    def _unheard_text(self, metrics: Sequence[str]) -> str:
        """The lists that narrow none of these metrics."""
        heard = {name for metric in metrics for name in self.scope.obeyed((metric,))}
        return unheard_text(self.scope.catalogue, [name for name in self.scope.variables if name not in heard])


_STATE_HEADERS = {"status": "State", "age_s": "Age", "reason": "Reason"}
_STATE_NOTE = (
    "fresh: asked less than 10 s ago. stale: its source does not answer, what was known before stands in, of that age. "
    "partial: a part is missing or from a fallback. error: no answer at all."
)
_ROW_NOTE = "A row that is not fresh is grey, and says why."


def _with_row_state(panel: table.Panel) -> table.Panel:
    """Colour a whole row by its state, as words and as grey."""
    colors = {state: "transparent" if state == "fresh" else limits.OLD for state in _STATE_COLORS}
    cell = {"type": "color-background", "applyToRow": True, "mode": "basic"}
    return (
        panel.override_by_name(
            "State", [_colors_mapping(colors), DynamicConfigValue("custom.cellOptions", cell), _column_width(_STATE_WIDTH)]
        )
        .override_by_name("Age", _AGE)
        .override_by_name("Reason", _REASON)
    )


def _arranged(headers: Mapping[str, str], *hidden: str) -> DataTransformerConfig:
    """The columns in this order under these headers. It keeps the remarks of an answer."""
    return DataTransformerConfig(
        "organize",
        options={
            "excludeByName": dict.fromkeys(hidden, True),
            "indexByName": {name: place for place, name in enumerate(headers)},
            "renameByName": dict(headers),
        },
    )


def _colors_mapping(colors: Mapping[str, str]) -> DynamicConfigValue:
    options = {word: {"text": word, "color": color, "index": place} for place, (word, color) in enumerate(colors.items())}
    return DynamicConfigValue("mappings", [{"type": "value", "options": options}])


def _words_mapping(words: Mapping[str, str]) -> DynamicConfigValue:
    options = {name: {"text": text, "index": place} for place, (name, text) in enumerate(words.items())}
    return DynamicConfigValue("mappings", [{"type": "value", "options": options}])


def _column_width(pixels: int) -> DynamicConfigValue:
    return DynamicConfigValue("custom.width", pixels)


_AGE = [DynamicConfigValue("unit", "s"), DynamicConfigValue("decimals", 0), _column_width(_AGE_WIDTH)]
_REASON = [DynamicConfigValue("noValue", ""), DynamicConfigValue("custom.minWidth", LEAST_REASON_WIDTH)]
