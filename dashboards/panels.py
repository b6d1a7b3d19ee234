"""The kinds of panels: each is the catalogue's entry (title, unit, description, sources) with the limits of `limits.py`."""

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
#: "Now" is the newest value of the last minutes; older ones are no value of now (an account whose margin is no more in use).
NOW = "5m"
#: Figures of what happens now and then are those of the clock hour.
HOUR = "1h"

AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, table.Panel, bargauge.Panel)
Calc = Literal["lastNotNull", "sum", "min", "max", "mean"]


def rows(title: str, text: str, datasource: DataSourceRef, points: int = MOST_POINTS) -> table.Panel:
    """A table."""
    return described(table.Panel(), title, text, datasource, points).show_header(True)


def described(panel: AnyPanel, title: str, text: str, datasource: DataSourceRef, points: int = MOST_POINTS) -> AnyPanel:
    """What every panel has."""
    return panel.title(title).description(text).datasource(datasource).max_data_points(points)


def legend(calcs: Sequence[str] = ("lastNotNull",)) -> common.VizLegendOptions:
    """A legend below the curves, with figures."""
    made = common.VizLegendOptions().display_mode(look.LegendDisplayMode.TABLE if calcs else look.LegendDisplayMode.LIST)
    return made.placement(look.LegendPlacement.BOTTOM).show_legend(True).calcs(list(calcs))


def curves(panel: timeseries.Panel, fill: float = 8) -> timeseries.Panel:
    """How curves look: a gap is a gap, the tooltip shows all of them, the greatest first."""
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
    """The limits as dashed lines."""
    if len(steps) < 2:
        return panel
    style = common.GraphThresholdsStyleConfig().mode(look.GraphTresholdsStyleMode.DASHED)
    return panel.thresholds(limits.thresholds(steps)).thresholds_style(style)


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """For values of which the small ones matter while others are a thousand times as large."""
    return panel.scale_distribution(common.ScaleDistributionConfig().type(look.ScaleDistribution.LOG).log(10))


def figure(panel: stat.Panel, calc: Calc, steps: limits.Steps, fields: str = "", curve: bool = True) -> stat.Panel:
    """How one large figure looks."""
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

    `variables` are the dashboard's lists, which a panel obeys where it has the label. `bucket` is the shortest bucket of a
    figure's small curve: long enough that the dashboard's own range needs no thinning.
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
        """One figure over everything that is chosen, with its curve."""
        entry = self._metric(metric).entry
        target = replace(self._target(metric), options={"step": step, **(where or {})})
        panel = described(stat.Panel(), title or _short(entry.title), self._text((metric,), note), BRIDGE)
        made = figure(panel.unit(entry.unit), calc, limits.LIMITS.get(metric, limits.NONE)).with_target(Made(target))
        return made.interval(self.bucket)

    def worst(
        self, metric: str, by: str, calc: Literal["min", "max"], title: str, note: str = "", hourly: bool = False
    ) -> stat.Panel:
        """The figure of the one that is worst off."""
        entry = self._metric(metric).entry
        target = replace(self._target(metric, by), options=_newest(hourly))
        panel = described(stat.Panel(), title, self._text((metric,), note), BRIDGE)
        made = figure(panel.unit(entry.unit), calc, limits.LIMITS.get(metric, limits.NONE), "/^value$/", curve=False)
        return made.with_target(Made(target)).time_from("2h" if hourly else NOW).interval(self._resolution(metric))

    def lines(self, metric: str, *by: str, title: str = "", note: str = "") -> timeseries.Panel:
        """A curve for each of the labels' values."""
        entry = self._metric(metric).entry
        panel = described(timeseries.Panel(), title or self._title(metric, by), self._text((metric,), note), BRIDGE)
        panel = limited(curves(panel.unit(entry.unit)), limits.LIMITS.get(metric, limits.NONE))
        return panel.interval(self._resolution(metric)).with_target(Made(self._target(metric, *by)))

    def several(self, title: str, *metrics: str, note: str = "") -> timeseries.Panel:
        """Metrics of one unit in one panel, each over everything that is chosen."""
        panel = described(timeseries.Panel(), title, self._text(metrics, note), BRIDGE)
        panel = curves(panel.unit(self._metric(metrics[0]).entry.unit)).interval(self._resolution(*metrics))
        for place, metric in enumerate(metrics):
            panel = panel.with_target(Made(replace(self._target(metric), ref_id=chr(ord("A") + place))))
        return panel

    def bars(self, metric: str, *by: str, title: str = "", note: str = "", interval: str = "1m") -> timeseries.Panel:
        """What happened in each bucket, stacked; a bucket is never shorter than the interval."""
        entry = self._metric(metric).entry
        panel = described(timeseries.Panel(), title or self._title(metric, by), self._text((metric,), note), BRIDGE)
        panel = curves(panel.unit(entry.unit), 70).draw_style(look.GraphDrawStyle.BARS).legend(legend(("sum",)))
        stacked = common.StackingConfig().mode(look.StackingMode.NORMAL).group("A")
        return panel.stacking(stacked).interval(interval).with_target(Made(self._target(metric, *by)))

    def matrix(self, title: str, by: str, *metrics: str, note: str = "", hourly: bool = False, link: str = "") -> table.Panel:
        """A row for each value of the label, a column for each metric: what it is now."""
        asked = BridgeTarget(metrics, (by,), self._obeyed(metrics), _newest(hourly))
        corner, name = f"{by}\\metric", self.catalogue.label(by).title
        grouped = DataTransformerConfig(
            "groupingToMatrix", options={"columnField": "metric", "rowField": by, "valueField": "value", "emptyValue": "null"}
        )
        titles = {metric: _short(self._metric(metric).entry.title) for metric in metrics}
        order = {corner: 0} | {metric: place + 1 for place, metric in enumerate(metrics)}
        named = DataTransformerConfig(
            "organize", options={"excludeByName": {}, "indexByName": order, "renameByName": {corner: name} | titles}
        )
        panel = rows(title, self._text(metrics, note), BRIDGE).with_target(Made(asked))
        panel = panel.with_transformation(grouped).with_transformation(named)
        panel = panel.time_from("2h" if hourly else NOW).interval(self._resolution(*metrics))
        for metric in metrics:
            # A unit that the data source sends counts more than the panel's, an override counts more than both.
            panel = panel.override_by_name(titles[metric], self._column(metric))
        return panel.override_by_name(name, [_link(link, by)]) if link else panel

    def _column(self, metric: str) -> list[DynamicConfigValue]:
        found = [DynamicConfigValue("unit", self._metric(metric).entry.unit)]
        steps = limits.LIMITS.get(metric)
        if steps is None:
            return found
        cell = {"type": "color-text"}
        return [*found, DynamicConfigValue("thresholds", limits.as_json(steps)), DynamicConfigValue("custom.cellOptions", cell)]

    def events(self, name: str, title: str = "") -> table.Panel:
        """What happened, the newest first."""
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
        """How old the data of this dashboard is and whether it is whole: asked of the bridge beside the panels."""
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
            .override_by_name("State", [_states(), DynamicConfigValue("custom.cellOptions", {"type": "color-text"}), _width(80)])
            .override_by_name("Age", [DynamicConfigValue("unit", "s"), DynamicConfigValue("decimals", 0), _width(80)])
        )

    def _target(self, metric: str, *by: str) -> BridgeTarget:
        return BridgeTarget((metric,), by, self._obeyed((metric,)))

    def _obeyed(self, metrics: Sequence[str]) -> tuple[str, ...]:
        return tuple(label for label in self.variables if all(label in self._metric(one).entry.labels for one in metrics))

    def _resolution(self, *metrics: str) -> str:
        """The shortest step that makes sense: how often the data comes."""
        return f"{max(self._metric(one).entry.resolution_s for one in metrics)}s"

    def _metric(self, name: str) -> Metric:
        return self.catalogue.metric(name)

    def _title(self, metric: str, by: Sequence[str]) -> str:
        labels = " and ".join(self.catalogue.label(label).title.lower() for label in by)
        title = _short(self._metric(metric).entry.title)
        return f"{title} by {labels}" if labels and " by " not in title else title

    def _text(self, metrics: Sequence[str], note: str) -> str:
        """What the panel shows and where it comes from; each metric by name where there are several."""
        if len(metrics) == 1:
            metric = self._metric(metrics[0])
            return " ".join(part for part in (metric.entry.description, note, _sources(metric)) if part)
        lines = [
            f"- **{_short(one.entry.title)}**: {one.entry.description} {_sources(one)}" for one in map(self._metric, metrics)
        ]
        return "\n".join([*([note, ""] if note else []), *lines])


def _newest(hourly: bool) -> dict[str, object]:
    """The newest value of each label's value, as a table."""
    return {"instant": True, "format": "table"} | ({"step": HOUR} if hourly else {})


def _short(title: str) -> str:
    """A title without the remark in brackets, which the description repeats."""
    return title.split(" (")[0]


def _sources(metric: Metric) -> str:
    parts = [f"live {metric.live.source}"] if metric.live else []
    parts += [f"history {metric.history.source}"] if metric.history else []
    fallbacks = ", then ".join(read.source for read in metric.fallback)
    return f"Source: {', '.join(parts)}{f'; when that is down {fallbacks}, marked' if fallbacks else ''}."


def _link(subject: str, label: str) -> DynamicConfigValue:
    url = f"/d/{subject}?var-{label}=${{__value.raw}}&${{__url_time_range}}"
    return DynamicConfigValue("links", [{"title": "More of this one", "url": url, "targetBlank": False}])


def _states() -> DynamicConfigValue:
    colors = {"fresh": limits.GOOD, "partial": limits.NOTE, "stale": limits.WARN, "error": limits.BAD}
    options = {state: {"text": state, "color": color, "index": place} for place, (state, color) in enumerate(colors.items())}
    return DynamicConfigValue("mappings", [{"type": "value", "options": options}])


def _width(pixels: int) -> DynamicConfigValue:
    return DynamicConfigValue("custom.width", pixels)
