"""The kinds of panels. Titles, units, descriptions and sources come from the catalogue, limits from `limits.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, BigValueTextMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DataTransformerConfig, DynamicConfigValue, FieldColorModeId

from app.catalog import Catalogue, Metric
from dashboards import limits
from dashboards.targets import BRIDGE, ROWS, BridgeTarget, EventsTarget, Made, RowsTarget

MOST_POINTS = 1000
#: "Now" is the newest value of the last minutes. An older value no longer counts, as of an account that uses no margin now.
NOW = "5m"
#: Figures of rare things cover the clock hour.
HOUR = "1h"

AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, table.Panel, bargauge.Panel)
Calc = Literal["lastNotNull", "sum", "min", "max", "mean"]


def rows(title: str, text: str, datasource: DataSourceRef, points: int = MOST_POINTS) -> table.Panel:
    """A table with the common settings."""
    return described(table.Panel(), title, text, datasource, points).show_header(True)


def described(panel: AnyPanel, title: str, text: str, datasource: DataSourceRef, points: int = MOST_POINTS) -> AnyPanel:
    """Apply the settings that every panel has."""
    return panel.title(title).description(text).datasource(datasource).max_data_points(points)


def legend(calcs: Sequence[str] = ("lastNotNull",)) -> common.VizLegendOptions:
    """A legend below the curves, with the calculations as figures."""
    made = common.VizLegendOptions().display_mode(look.LegendDisplayMode.TABLE if calcs else look.LegendDisplayMode.LIST)
    return made.placement(look.LegendPlacement.BOTTOM).show_legend(True).calcs(list(calcs))


def curves(panel: timeseries.Panel, fill: float = 8) -> timeseries.Panel:
    """Set the look of curves: gaps stay open, and the tooltip shows all curves, the greatest first."""
    tooltip = common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING)
    return (
        panel.draw_style(look.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(fill)
        .show_points(look.VisibilityMode.AUTO)
        .span_nulls(False)
        .tooltip(tooltip)
        .legend(legend())
    )


def limited(panel: timeseries.Panel, steps: limits.Steps) -> timeseries.Panel:
    """Draw the limits as dashed lines."""
    if len(steps) < 2:
        return panel
    style = common.GraphThresholdsStyleConfig().mode(look.GraphTresholdsStyleMode.DASHED)
    return panel.thresholds(limits.thresholds(steps)).thresholds_style(style)


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """Set a logarithmic axis, for small values that matter beside others a thousand times as large."""
    return panel.scale_distribution(common.ScaleDistributionConfig().type(look.ScaleDistribution.LOG).log(10))


def figure(panel: stat.Panel, calc: Calc, steps: limits.Steps, fields: str = "", curve: bool = True) -> stat.Panel:
    """Set the look of one large figure."""
    reduced = common.ReduceDataOptions().values(False).calcs([calc]).fields(fields)
    return (
        panel.reduce_options(reduced)
        .thresholds(limits.thresholds(steps))
        .color_mode(BigValueColorMode.VALUE if len(steps) < 2 else BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(BigValueGraphMode.AREA if curve else BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .no_value("no data")
    )


@dataclass(frozen=True, slots=True)
class Panels:
    """Panels over the bridge's metrics.

    `variables` are the variables of the dashboard; a panel is filtered by those whose label its metrics have. `bucket` is the
    shortest bucket of the small curve of a figure, long enough that the default range of the dashboard needs no thinning.
    """

    catalogue: Catalogue
    variables: tuple[str, ...] = ()
    bucket: str = "1m"

    def value(
        self,
        metric: str,
        calc: Calc = "lastNotNull",
        title: str = "",
        note: str = "",
        where: Mapping[str, str] | None = None,
        step: str = "${__interval:raw}",
    ) -> stat.Panel:
        """One figure over everything selected, with its curve."""
        entry = self._metric_named(metric).entry
        target = replace(self._target_for(metric), options={"step": step, **(where or {})})
        panel = described(stat.Panel(), title or _short_title(entry.title), self._description_of((metric,), note), BRIDGE)
        made = figure(panel.unit(entry.unit), calc, limits.LIMITS.get(metric, limits.NONE)).with_target(Made(target))
        return made.interval(self.bucket)

    def total(self, metric: str, title: str, note: str = "") -> stat.Panel:
        """One figure for exactly the range of the panel: one bucket, so no step matters."""
        entry = self._metric_named(metric).entry
        target = replace(self._target_for(metric), options={"step": "range"})
        panel = described(stat.Panel(), title, self._description_of((metric,), note), BRIDGE)
        made = figure(panel.unit(entry.unit), "lastNotNull", limits.LIMITS.get(metric, limits.NONE), curve=False)
        return made.with_target(Made(target))

    def worst(
        self, metric: str, by: str, calc: Literal["min", "max"], title: str, note: str = "", hourly: bool = False
    ) -> stat.Panel:
        """The figure of the worst value of a label."""
        entry = self._metric_named(metric).entry
        target = replace(self._target_for(metric, by), options=_newest_options(hourly))
        panel = described(stat.Panel(), title, self._description_of((metric,), note), BRIDGE)
        made = figure(panel.unit(entry.unit), calc, limits.LIMITS.get(metric, limits.NONE), "/^value$/", curve=False)
        return made.with_target(Made(target)).time_from("2h" if hourly else NOW).interval(self._finest_step(metric))

    def lines(self, metric: str, *by: str, title: str = "", note: str = "") -> timeseries.Panel:
        """A curve for each value of the labels."""
        entry = self._metric_named(metric).entry
        panel = described(timeseries.Panel(), title or self._title_of(metric, by), self._description_of((metric,), note), BRIDGE)
        panel = limited(curves(panel.unit(entry.unit)), limits.LIMITS.get(metric, limits.NONE))
        return panel.interval(self._finest_step(metric)).with_target(Made(self._target_for(metric, *by)))

    def several(self, title: str, *metrics: str, note: str = "") -> timeseries.Panel:
        """Several metrics of one unit in one panel, each over everything selected."""
        panel = described(timeseries.Panel(), title, self._description_of(metrics, note), BRIDGE)
        panel = curves(panel.unit(self._metric_named(metrics[0]).entry.unit)).interval(self._finest_step(*metrics))
        for place, metric in enumerate(metrics):
            panel = panel.with_target(Made(replace(self._target_for(metric), ref_id=chr(ord("A") + place))))
        return panel

    def bars(self, metric: str, *by: str, title: str = "", note: str = "", interval: str = "1m") -> timeseries.Panel:
        """Stacked bars per bucket. A bucket is never shorter than the interval."""
        entry = self._metric_named(metric).entry
        panel = described(timeseries.Panel(), title or self._title_of(metric, by), self._description_of((metric,), note), BRIDGE)
        panel = curves(panel.unit(entry.unit), 70).draw_style(look.GraphDrawStyle.BARS).legend(legend(("sum",)))
        stacked = common.StackingConfig().mode(look.StackingMode.NORMAL).group("A")
        return panel.stacking(stacked).interval(interval).with_target(Made(self._target_for(metric, *by)))

    def matrix(self, title: str, by: str, *metrics: str, note: str = "", hourly: bool = False, link: str = "") -> table.Panel:
        """The present values: a row for each value of the label, a column for each metric."""
        asked = BridgeTarget(metrics, (by,), self._obeyed_variables(metrics), _newest_options(hourly))
        corner, name = f"{by}\\metric", self.catalogue.label(by).title
        grouped = DataTransformerConfig(
            "groupingToMatrix", options={"columnField": "metric", "rowField": by, "valueField": "value", "emptyValue": "null"}
        )
        titles = {metric: _short_title(self._metric_named(metric).entry.title) for metric in metrics}
        order = {corner: 0} | {metric: place + 1 for place, metric in enumerate(metrics)}
        named = DataTransformerConfig(
            "organize", options={"excludeByName": {}, "indexByName": order, "renameByName": {corner: name} | titles}
        )
        panel = rows(title, self._description_of(metrics, note), BRIDGE).with_target(Made(asked))
        panel = panel.with_transformation(grouped).with_transformation(named)
        panel = panel.time_from("2h" if hourly else NOW).interval(self._finest_step(*metrics))
        for metric in metrics:
            # The unit in the response overrides that of the panel, and an override overrides both.
            panel = panel.override_by_name(titles[metric], self._column_overrides(metric))
        return panel.override_by_name(name, [_drill_down_link(link, by)]) if link else panel

    def _column_overrides(self, metric: str) -> list[DynamicConfigValue]:
        found = [DynamicConfigValue("unit", self._metric_named(metric).entry.unit)]
        steps = limits.LIMITS.get(metric)
        if steps is None:
            return found
        cell = {"type": "color-text"}
        return [*found, DynamicConfigValue("thresholds", limits.as_json(steps)), DynamicConfigValue("custom.cellOptions", cell)]

    def events(self, name: str, title: str = "") -> table.Panel:
        """Events, the newest first."""
        event = self.catalogue.event(name)
        obeyed = tuple(label for label in self.variables if label in event.entry.labels)
        named = DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {"timeEnd": True, "id": True, "tags": True},
                "indexByName": {"time": 0, "title": 1, "text": 2},
                "renameByName": {"time": "Time", "title": "What", "text": "Details"},
            },
        )
        text = f"{event.entry.description} At most 1000 are shown. Source: {event.read.source}."
        panel = rows(title or event.entry.title, text, BRIDGE).with_target(Made(EventsTarget(name, obeyed)))
        newest = common.TableSortByFieldState().display_name("Time").desc(True)
        time, what = [DynamicConfigValue("custom.width", 180)], [DynamicConfigValue("custom.width", 260)]
        return panel.with_transformation(named).sort_by([newest]).override_by_name("Time", time).override_by_name("What", what)

    def state(self, *metrics: str) -> table.Panel:
        """The age and state of the data of this dashboard, from a request of its own to the bridge."""
        params = (("metric", ",".join(metrics)), ("instant", "true"), ("marks", "true"), ("from", "now-1h"), ("to", "now"))
        target = RowsTarget(params, {"metric": "string", "status": "string", "age_s": "number"})
        text = (
            "State and age of the bridge's answer for each metric, over the last hour whatever range is chosen. "
            "fresh: asked less than 10 s ago. stale: its source does not answer, what was known before stands in, of that age. "
            "partial: a part is missing or from a fallback. error: no answer at all; its panel says why."
        )
        named = DataTransformerConfig(
            "organize",
            options={
                "excludeByName": {},
                "indexByName": {"metric": 0, "status": 1, "age_s": 2},
                "renameByName": {"metric": "Metric", "status": "State", "age_s": "Age"},
            },
        )
        panel = rows("Data: state and age", text, ROWS).with_target(Made(target))
        return (
            panel.with_transformation(named)
            .cell_height(look.TableCellHeight.SM)
            .override_by_name(
                "State", [_state_mapping(), DynamicConfigValue("custom.cellOptions", {"type": "color-text"}), _column_width(80)]
            )
            .override_by_name("Age", [DynamicConfigValue("unit", "s"), DynamicConfigValue("decimals", 0), _column_width(80)])
        )

    def _target_for(self, metric: str, *by: str) -> BridgeTarget:
        return BridgeTarget((metric,), by, self._obeyed_variables((metric,)))

    def _obeyed_variables(self, metrics: Sequence[str]) -> tuple[str, ...]:
        return tuple(label for label in self.variables if all(label in self._metric_named(one).entry.labels for one in metrics))

    def _finest_step(self, *metrics: str) -> str:
        """The shortest useful step: how often the data comes."""
        return f"{max(self._metric_named(one).entry.resolution_s for one in metrics)}s"

    def _metric_named(self, name: str) -> Metric:
        return self.catalogue.metric(name)

    def _title_of(self, metric: str, by: Sequence[str]) -> str:
        labels = " and ".join(self.catalogue.label(label).title.lower() for label in by)
        title = _short_title(self._metric_named(metric).entry.title)
        return f"{title} by {labels}" if labels and " by " not in title else title

    def _description_of(self, metrics: Sequence[str], note: str) -> str:
        """What the panel shows and its sources, by metric if there are several."""
        if len(metrics) == 1:
            metric = self._metric_named(metrics[0])
            return " ".join(part for part in (metric.entry.description, note, _sources_text(metric)) if part)
        lines = [
            f"- **{_short_title(one.entry.title)}**: {one.entry.description} {_sources_text(one)}"
            for one in map(self._metric_named, metrics)
        ]
        return "\n".join([*([note, ""] if note else []), *lines])


def _newest_options(hourly: bool) -> dict[str, object]:
    """Options for the newest value of each label set, as a table."""
    return {"instant": True, "format": "table"} | ({"step": HOUR} if hourly else {})


def _short_title(title: str) -> str:
    """The title without the remark in brackets, which the description repeats."""
    return title.split(" (")[0]


def _sources_text(metric: Metric) -> str:
    parts = [f"live {metric.live.source}"] if metric.live else []
    parts += [f"history {metric.history.source}"] if metric.history else []
    fallbacks = ", then ".join(read.source for read in metric.fallback)
    return f"Source: {', '.join(parts)}{f'; when that is down {fallbacks}, marked' if fallbacks else ''}."


def _drill_down_link(subject: str, label: str) -> DynamicConfigValue:
    url = f"/d/{subject}?var-{label}=${{__value.raw}}&${{__url_time_range}}"
    return DynamicConfigValue("links", [{"title": "More of this one", "url": url, "targetBlank": False}])


def _state_mapping() -> DynamicConfigValue:
    colors = {"fresh": limits.GOOD, "partial": limits.NOTE, "stale": limits.WARN, "error": limits.BAD}
    options = {state: {"text": state, "color": color, "index": place} for place, (state, color) in enumerate(colors.items())}
    return DynamicConfigValue("mappings", [{"type": "value", "options": options}])


def _column_width(pixels: int) -> DynamicConfigValue:
    return DynamicConfigValue("custom.width", pixels)
