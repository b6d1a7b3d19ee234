"""Figures and curves over the bridge's metrics. Titles, units, descriptions and sources come from the catalogue, limits from
`limits.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.models import common as look_model
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from app.catalog import Catalogue, Metric
from dashboards import limits, look
from dashboards.targets import BRIDGE, BridgeTarget, Made
from dashboards.titles import description, panel_title, short_title

#: "Now" is the newest value of the last minutes. An older value no longer counts, as of an account that uses no margin now.
NOW = "5m"
#: Figures of rare things cover the clock hour.
HOUR = "1h"
#: No panel draws or lists more than the list "Top" says; the bridge says how many it left out.
TOP = "${top:csv}"
#: Labels that may have hundreds of values.
_MANY = ("account", "instance", "host", "symbol")
#: Metrics of which less is worse. Of all others more is worse, or more is at least what one looks for.
LESS_IS_WORSE = ("margin_level", "free_margin", "floating_pnl", "total_pnl", "fill_rate")
#: Metrics that may be negative: their axis does not begin at zero.
_SIGNED = ("slippage", "broker_slippage", "floating_pnl", "total_pnl", "free_margin", "equity", "balance")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a dashboard's panels are filtered by: the lists at its top (`variables`) whose label all metrics of a panel have."""

    catalogue: Catalogue
    variables: tuple[str, ...] = ()

    def obeyed(self, metrics: Sequence[str]) -> tuple[str, ...]:
        """The lists that narrow a panel of these metrics."""
        labels = [self.catalogue.metric(one).entry.labels for one in metrics]
        return tuple(name for name in self.variables if all(name in found for found in labels))

    def described_as(self, metrics: Sequence[str], note: str = "") -> str:
        """The description of a panel of these metrics."""
        heard = self.obeyed(metrics)
        return description(self.catalogue, metrics, note, [name for name in self.variables if name not in heard])

    def finest_step(self, *metrics: str) -> str:
        """The shortest useful step: how often the data comes."""
        return f"{max(self.catalogue.metric(one).entry.resolution_s for one in metrics)}s"


@dataclass(frozen=True, slots=True)
class Panels:
    """Panels over the bridge's metrics. `bucket` is the shortest bucket of the small curve of a figure, long enough that the
    default range of the dashboard needs no thinning."""

    scope: Scope
    bucket: str = "1m"

    def value(
        self,
        metric: str,
        calc: look.Calc = "lastNotNull",
        title: str = "",
        note: str = "",
        where: Mapping[str, str] | None = None,
        step: str = "${__interval:raw}",
    ) -> stat.Panel:
        """One figure over everything selected, with its curve."""
        target = self._target_for(metric, options={"step": step, "legend": "state", **(where or {})})
        return self._figure(metric, title, note, calc, target).interval(self.bucket)

    def total(self, metric: str, title: str, note: str = "") -> stat.Panel:
        """One figure for exactly the range of the panel: one bucket, so no step matters."""
        target = self._target_for(metric, options={"step": "range", "legend": "state"})
        return self._figure(metric, title, note, "lastNotNull", target, curve=False)

    def worst(self, metric: str, by: str, title: str, note: str = "", hourly: bool = False) -> stat.Panel:
        """The figure of the worst value of a label, and which one that is."""
        target = self._target_for(metric, by, options={**newest_options(hourly), **worst_first(metric, 1), "legend": "state"})
        panel = self._figure(metric, title, note, "lastNotNull", target, curve=False)
        return panel.interval(self.scope.finest_step(metric))

    def lines(self, metric: str, *by: str, title: str = "", note: str = "") -> timeseries.Panel:
        """A curve for each value of the labels; the worst ones if a label may have many values."""
        many = [label for label in by if label in _MANY]
        target = self._target_for(metric, *by, options=worst_first(metric, TOP) if many else {})
        kind = "lowest" if metric in LESS_IS_WORSE else "highest"
        worst = (
            f"As many as Top says, the {kind} of the range; how many more there are is behind the sign in the corner."
            if many
            else ""
        )
        panel = look.curves(self._plot(metric, by, title, " ".join(filter(None, (note, worst)))))
        panel = panel.legend(look.legend(beside=bool(many), lowest_first=metric in LESS_IS_WORSE))
        panel = look.by_value(panel, metric in LESS_IS_WORSE) if many else panel
        return panel.with_target(Made(target))

    def several(self, title: str, *metrics: str, note: str = "") -> timeseries.Panel:
        """Several metrics of one unit in one panel, each over everything selected: one solid, the other dashed."""
        panel = look.described(timeseries.Panel(), title, self.scope.described_as(metrics, note), BRIDGE)
        panel = look.measured(look.curves(panel), self._metric_named(metrics[0]).entry.unit)
        for place, metric in enumerate(metrics):
            ref_id = chr(ord("A") + place)
            panel = panel.with_target(Made(replace(self._target_for(metric), ref_id=ref_id)))
            panel = panel.override_by_query(ref_id, _told_apart(place))
        return panel.interval(self.scope.finest_step(*metrics))

    def bars(self, metric: str, *by: str, title: str = "", note: str = "", interval: str = "1m") -> timeseries.Panel:
        """Stacked bars per bucket. A bucket is never shorter than the interval."""
        panel = look.curves(self._plot(metric, by, title, note), 70).draw_style(look_model.GraphDrawStyle.BARS)
        panel = panel.legend(look.legend(("sum",), lowest_first=metric in LESS_IS_WORSE))
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(look_model.GraphTresholdsStyleMode.OFF))
        stacked = common.StackingConfig().mode(look_model.StackingMode.NORMAL).group("A")
        return panel.stacking(stacked).interval(interval).with_target(Made(self._target_for(metric, *by)))

    def _figure(
        self, metric: str, title: str, note: str, calc: look.Calc, target: BridgeTarget, curve: bool = True
    ) -> stat.Panel:
        entry = self._metric_named(metric).entry
        text = self.scope.described_as((metric,), note)
        panel = look.described(stat.Panel(), title or short_title(entry.title), text, BRIDGE)
        steps = limits.LIMITS.get(metric, limits.NONE)
        return look.measured(look.figure(panel, calc, steps, curve), entry.unit).with_target(Made(target))

    def _plot(self, metric: str, by: Sequence[str], title: str, note: str) -> timeseries.Panel:
        entry = self._metric_named(metric).entry
        title = title or panel_title(self.scope.catalogue, metric, by)
        panel = look.described(timeseries.Panel(), title, self.scope.described_as((metric,), note), BRIDGE)
        panel = look.limited(look.measured(panel, entry.unit), limits.LIMITS.get(metric, limits.NONE))
        panel = panel if metric in _SIGNED else look.from_zero(panel, entry.unit)
        return panel.interval(self.scope.finest_step(metric))

    def _target_for(self, metric: str, *by: str, options: Mapping[str, object] | None = None) -> BridgeTarget:
        return BridgeTarget(metric, by, self.scope.obeyed((metric,)), options or {})

    def _metric_named(self, name: str) -> Metric:
        return self.scope.catalogue.metric(name)


def worst_first(metric: str, top: int | str) -> dict[str, object]:
    """Options for the worst series of a metric, the worst one first."""
    lowest = metric in LESS_IS_WORSE
    return {"sort": "value" if lowest else "-value", "top": top, "top_by": "last" if top == 1 else "min" if lowest else "max"}


def newest_options(hourly: bool) -> dict[str, object]:
    """Options for the newest value of each label set."""
    return {"instant": True, "within": "2h" if hourly else NOW} | ({"step": HOUR} if hourly else {})


def _told_apart(place: int) -> list[DynamicConfigValue]:
    """Colour and dash of the curves of a panel, so that nobody has to tell colours apart."""
    color, style = (("#56B4E9", {"fill": "solid"}), ("#E69F00", {"fill": "dash", "dash": [10, 6]}))[place % 2]
    return [
        DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color}),
        DynamicConfigValue("custom.lineStyle", style),
    ]
