"""The look of panels: units, figures, curves, legends, thresholds, and the grey of what is old or missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, BigValueTextMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardRegexMapOptions,
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DynamicConfigValue,
    FieldColorModeId,
    FieldColorSeriesByMode,
    RegexMap,
    SpecialValueMap,
    SpecialValueMatch,
    ValueMappingResult,
)

from dashboards import limits
from dashboards.limits import OLD

MOST_POINTS = 1000
#: Below a figure stands the state of its answer, after its labels if it has any (`app.responses.tile_names`).
NOT_FRESH = "/^(.*, )?(stale|partial|error|no data)\\b/"
#: Money has all its digits and no sign: it is in the deposit currency of the accounts, whichever that is.
_SHOWN_UNITS = {"currencyUSD": ("locale", 2)}
#: Where an axis ends if all values are near zero. Without it Grafana draws a curve of zeros on an axis to 100.
_LEAST_TOPS = {"percent": 5.0, "s": 1.0, "ms": 100.0, "bytes": 1024.0, "Bps": 1024.0, "percentunit": 0.05}

AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, table.Panel)
Calc = Literal["lastNotNull", "sum", "min", "max", "mean"]


def described(panel: AnyPanel, title: str, text: str, datasource: DataSourceRef) -> AnyPanel:
    """Apply the settings that every panel has."""
    return panel.title(title).description(text).datasource(datasource).max_data_points(MOST_POINTS).no_value("no data")


def measured(panel: AnyPanel, unit: str) -> AnyPanel:
    """Set the unit. The unit in a response overrides that of a panel, and an override overrides both."""
    shown, decimals = _SHOWN_UNITS.get(unit, (unit, None))
    if shown == unit:
        return panel.unit(unit)
    return panel.unit(shown).override_by_field_type("number", unit_values(unit, decimals))


def unit_values(unit: str, decimals: int | None = None) -> list[DynamicConfigValue]:
    """The unit of a metric as the value of an override."""
    shown, _ = _SHOWN_UNITS.get(unit, (unit, None))
    digits = [DynamicConfigValue("decimals", decimals)] if decimals is not None else []
    return [DynamicConfigValue("unit", shown), *digits]


def legend(calcs: Sequence[str] = ("lastNotNull",), beside: bool = False, lowest_first: bool = False) -> common.VizLegendOptions:
    """A legend below the curves or beside them, with the calculations as figures and the worst curve first."""
    made = common.VizLegendOptions().display_mode(look.LegendDisplayMode.TABLE).show_legend(True).calcs(list(calcs))
    made = made.sort_by({"lastNotNull": "Last *", "sum": "Total"}[calcs[0]]).sort_desc(not lowest_first)
    return made.placement(look.LegendPlacement.RIGHT if beside else look.LegendPlacement.BOTTOM)


def curves(panel: timeseries.Panel, fill: float = 0) -> timeseries.Panel:
    """Set the look of curves: gaps stay open, nothing is filled, and the tooltip shows all curves, the greatest first."""
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


def from_zero(panel: timeseries.Panel, unit: str) -> timeseries.Panel:
    """Begin the axis at zero, and end it near zero where all is zero. For values that are never negative."""
    return panel.axis_soft_min(0).axis_soft_max(_LEAST_TOPS.get(unit, 1.0))


def limited(panel: timeseries.Panel, steps: limits.Steps) -> timeseries.Panel:
    """Draw the limits as dashed lines, and tint what is beyond them: a tint is seen under any number of curves."""
    if len(steps) < 2:
        return panel
    clear = tuple((value, "transparent" if color == limits.GOOD else color) for value, color in steps)
    style = common.GraphThresholdsStyleConfig().mode(look.GraphTresholdsStyleMode.DASHED_AND_AREA)
    return panel.thresholds(limits.thresholds(clear)).thresholds_style(style)


def by_value(panel: timeseries.Panel, lowest_first: bool = False) -> timeseries.Panel:
    """Colour curves by their newest value, the worst one brightest: twenty colours of a palette tell nobody anything.

    From blue over yellow to red, or, where less is worse, from yellow to blue.
    """
    mode = FieldColorModeId.CONTINUOUS_YL_BL if lowest_first else FieldColorModeId.CONTINUOUS_BL_YL_RD
    return panel.color_scheme(FieldColor().mode(mode).series_by(FieldColorSeriesByMode.LAST))


def logarithmic(panel: timeseries.Panel) -> timeseries.Panel:
    """Set a logarithmic axis, for small values that matter beside others a thousand times as large."""
    return panel.scale_distribution(common.ScaleDistributionConfig().type(look.ScaleDistribution.LOG).log(10))


def directed(panel: timeseries.Panel) -> timeseries.Panel:
    """Name each curve by its way, with an arrow from source to sink."""
    return panel.display_name("${__field.labels.source} \u2192 ${__field.labels.sink}")


def figure(panel: stat.Panel, calc: Calc, steps: limits.Steps, curve: bool = True) -> stat.Panel:
    """Set the look of one large figure: in its colour while it is fresh, grey with its state in words if it is not."""
    reduced = common.ReduceDataOptions().values(False).calcs([calc]).fields("")
    return (
        panel.reduce_options(reduced)
        .thresholds(limits.thresholds(steps))
        .color_mode(BigValueColorMode.VALUE if len(steps) < 2 else BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(BigValueGraphMode.AREA if curve else BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .text(common.VizTextDisplayOptions().title_size(12))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .mappings([missing_mapping("no data")])
        .override_by_regexp(NOT_FRESH, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": OLD})])
    )


def sentence(panel: stat.Panel, field: str, good: str) -> stat.Panel:
    """Set the look of one line of text: in the colour of what is well if it matches `good`, else of a warning."""
    reduced = common.ReduceDataOptions().values(False).calcs(["lastNotNull"]).fields(field)
    colors = ((good, limits.GOOD), (".+", limits.WARN))
    mappings = [RegexMap(DashboardRegexMapOptions(pattern, ValueMappingResult(color=color))) for pattern, color in colors]
    return (
        panel.reduce_options(reduced)
        .color_mode(BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE)
        .text(common.VizTextDisplayOptions().value_size(18))
        .thresholds(limits.thresholds(limits.NONE))
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .mappings([missing_mapping("no data: the bridge does not answer"), *mappings])
    )


def missing_mapping(word: str) -> SpecialValueMap:
    """A missing figure is this word, in grey: without it the tile has the colour of the lowest limit."""
    result = ValueMappingResult(text=word, color=OLD, index=0)
    return SpecialValueMap(DashboardSpecialValueMapOptions(SpecialValueMatch.NULL_AND_NAN, result))
