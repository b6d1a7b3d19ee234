"""One dashboard: variables, annotations and links, and the places of its panels on Grafana's grid of 24 columns."""

from __future__ import annotations

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from app.catalog import Catalogue
from dashboards.links import FILTERS, other_dashboards
from dashboards.targets import ALL, BRIDGE, EventsTarget

TAG = "tds"
WIDTH = 24
STATE_HEIGHT = 2
FIGURE_HEIGHT = 4
#: The colour of each kind of event on the time axis.
_COLORS = {"system_events": "#CC79A7", "trade_failures": "#D55E00"}
#: More events than this are shown in groups: they would bury the curves.
MOST_MARKS = 20

#: how many lines a panel may be asked to have, and has where nothing was chosen
TOP_CHOICES, DEFAULT_TOP = (10, 20, 50, 100), 20

Cell = tuple[Builder[model.Panel], int]


def uid(subject: str) -> str:
    """The uid of a dashboard. It never changes, because links and bookmarks rely on it."""
    return f"tds-{subject.replace('_', '-')}"


class Board:
    """Builds a dashboard from the top down. A line of panels always spans the whole width."""

    def __init__(self, catalogue: Catalogue, subject: str, title: str, description: str, since: str = "now-1h") -> None:
        self.catalogue = catalogue
        self._y, self._panels = 0, 0
        self._labels: tuple[str, ...] = ()
        self._made = (
            build.Dashboard(title)
            .uid(uid(subject))
            .description(description)
            .tags([TAG, subject.replace("_", "-")])
            .refresh("10s")
            .time(since, "now")
            .timezone("browser")
            .timepicker(build.TimePicker().refresh_intervals(["1s", "5s", "10s", "30s", "1m", "5m"]))
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .link(other_dashboards(TAG))
            .readonly()
        )

    def variables(self, *labels: str, ad_hoc: bool = True, top: bool = False) -> Board:
        """Add a variable for each label. Its values are narrowed by the variables before it if one metric has both labels.

        With `top` there is one for how many lines or rows a panel has at most.
        """
        self._labels = labels
        for place, label in enumerate(labels):
            self._made.with_variable(
                self._label_variable(label, [one for one in labels[:place] if self._share_a_metric(label, one)])
            )
        if top:
            self._made.with_variable(_top_variable())
        if ad_hoc:
            described = "Further filters, on any label. A panel that has no such label says that the filter does not apply."
            self._made.with_variable(build.AdHocVariable(FILTERS).label("Filters").description(described).datasource(BRIDGE))
        return self

    def _share_a_metric(self, label: str, other: str) -> bool:
        metric = self.catalogue.label(label).metric
        return metric is not None and other in self.catalogue.metric(metric).entry.labels

    def _label_variable(self, label: str, before: Sequence[str]) -> build.QueryVariable:
        asked: dict[str, object] = {"label": label}
        if before:
            asked["where"] = {one: f"${{{one}:csv}}" for one in before}
        return (
            build.QueryVariable(label)
            .label(self.catalogue.label(label).title)
            .datasource(BRIDGE)
            .query({"refId": "variable", "query": json.dumps(asked), "format": "json"})
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.NUMERICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(ALL)
            .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )

    def events(self, *names: str, hidden: Sequence[str] = ()) -> Board:
        """Add events as annotations of every panel, filtered by the variables whose label the event has.

        Those in `hidden` are off until somebody switches them on.
        """
        annotations: list[Builder[model.AnnotationQuery]] = []
        for name in names:
            made = build.AnnotationQuery().name(self.catalogue.event(name).entry.title).datasource(BRIDGE)
            made = made.enable(name not in hidden).icon_color(_COLORS[name])
            # The target of the SDK's model supports only the built-in annotations of Grafana.
            obeyed = tuple(label for label in self._labels if label in self.catalogue.event(name).entry.labels)
            annotations.append(_WithTarget(made.build(), EventsTarget(name, obeyed, "Anno", MOST_MARKS).to_json()))
        self._made.annotations(annotations)
        return self

    def row(self, title: str) -> Board:
        """Add a heading across the whole width."""
        self._panels += 1
        self._made.with_row(build.Row(title).id(self._panels).grid_pos(model.GridPos(1, WIDTH, 0, self._y)))
        self._y += 1
        return self

    def line(self, height: int, *cells: Cell) -> Board:
        """Add panels side by side, each with its width."""
        self._place_cells(height, cells)
        self._y += height
        return self

    def head(self, state: Builder[model.Panel], figures: Sequence[Builder[model.Panel]]) -> Board:
        """Add the state of the whole dashboard in one line, and below it the most important figures side by side."""
        self.line(STATE_HEIGHT, (state, WIDTH))
        return self.line(FIGURE_HEIGHT, *[(one, WIDTH // len(figures)) for one in figures])

    def _place_cells(self, height: int, cells: Sequence[Cell]) -> None:
        widths = sum(width for _, width in cells)
        if widths != WIDTH:
            raise ValueError(f"the panels of a line are {widths} wide in all, not {WIDTH}")
        x = 0
        for panel, width in cells:
            self._add_panel(panel, model.GridPos(height, width, x, self._y))
            x += width

    def _add_panel(self, builder: Builder[model.Panel], where: model.GridPos) -> None:
        self._panels += 1
        panel = builder.build()
        panel.id_val, panel.grid_pos = self._panels, where
        self._made.with_panel(_BuiltPanel(panel))

    def build(self) -> model.Dashboard:
        """The dashboard as a model of the SDK."""
        return self._made.build()


def _top_variable() -> build.CustomVariable:
    described = (
        "How many lines or rows a panel of many has: the worst ones. How many more there are is behind the sign in its corner."
    )
    default = model.VariableOption(selected=True, text=str(DEFAULT_TOP), value=str(DEFAULT_TOP))
    numbers = ",".join(map(str, TOP_CHOICES))
    return build.CustomVariable("top").label("Top").description(described).values(numbers).current(default)


class _BuiltPanel(Builder[model.Panel]):
    def __init__(self, panel: model.Panel) -> None:
        self._panel = panel

    def build(self) -> model.Panel:
        return self._panel


class _WithTarget(Builder[model.AnnotationQuery]):
    """Builds an annotation with the target of a plugin."""

    def __init__(self, annotation: model.AnnotationQuery, target: dict[str, object]) -> None:
        self._annotation, self._target = annotation, target

    def build(self) -> model.AnnotationQuery:
        return _PluginAnnotation(self._annotation, self._target)


class _PluginAnnotation(model.AnnotationQuery):
    def __init__(self, annotation: model.AnnotationQuery, target: dict[str, object]) -> None:
        super().__init__(annotation.name, annotation.datasource, annotation.enable, icon_color=annotation.icon_color)
        self._target = target

    def to_json(self) -> dict[str, object]:
        return super().to_json() | {"target": self._target}
