"""One dashboard: its head (variables, annotations, links), and where its panels stand on Grafana's grid of 24 columns."""

from __future__ import annotations

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from app.catalog import Catalogue
from dashboards.targets import ALL, BRIDGE, EventsTarget

TAG = "tds"
WIDTH = 24
#: an event's colour on the time axis
_COLORS = {"system_events": "purple", "trade_failures": "red"}

Cell = tuple[Builder[model.Panel], int]


def uid(subject: str) -> str:
    """The dashboard's address: links and bookmarks rely on it, so it never changes."""
    return f"tds-{subject.replace('_', '-')}"


class Board:
    """A dashboard in the making, filled from the top down; a line of panels always spans the whole width."""

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
            .timepicker(build.TimePicker().refresh_intervals(["5s", "10s", "30s", "1m", "5m"]))
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .link(_other_dashboards())
            .readonly()
        )

    def variables(self, *labels: str, ad_hoc: bool = True) -> Board:
        """A list to choose from for each label; a label's values are narrowed by those before it where one metric has both."""
        self._labels = labels
        for place, label in enumerate(labels):
            self._made.with_variable(self._variable(label, [one for one in labels[:place] if self._share(label, one)]))
        if ad_hoc:
            described = "Further filters, on any label. A panel that has no such label says that the filter does not apply."
            self._made.with_variable(build.AdHocVariable("filters").label("Filters").description(described).datasource(BRIDGE))
        return self

    def _share(self, label: str, other: str) -> bool:
        metric = self.catalogue.label(label).metric
        return metric is not None and other in self.catalogue.metric(metric).entry.labels

    def _variable(self, label: str, before: Sequence[str]) -> build.QueryVariable:
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

    def events(self, *names: str) -> Board:
        """What happened, as marks on the time axis of every panel; the lists that an event has a label for narrow it down."""
        annotations: list[Builder[model.AnnotationQuery]] = []
        for name in names:
            made = build.AnnotationQuery().name(self.catalogue.event(name).entry.title).datasource(BRIDGE)
            made = made.enable(True).icon_color(_COLORS[name])
            # The model's own target knows Grafana's built-in annotations alone.
            obeyed = tuple(label for label in self._labels if label in self.catalogue.event(name).entry.labels)
            annotations.append(_WithTarget(made.build(), EventsTarget(name, obeyed, "Anno").to_json()))
        self._made.annotations(annotations)
        return self

    def row(self, title: str) -> Board:
        """A heading across the whole width."""
        self._panels += 1
        self._made.with_row(build.Row(title).id(self._panels).grid_pos(model.GridPos(1, WIDTH, 0, self._y)))
        self._y += 1
        return self

    def line(self, height: int, *cells: Cell) -> Board:
        """Panels side by side, each with its width."""
        self._place(height, self._y, cells, WIDTH)
        self._y += height
        return self

    def head(self, height: int, stats: Sequence[Builder[model.Panel]], beside: Cell) -> Board:
        """The figures that matter most, in two lines, and one panel beside both."""
        panel, width = beside
        each = (WIDTH - width) * 2 // len(stats)
        for place in (0, 1):
            half = stats[place * len(stats) // 2 : (place + 1) * len(stats) // 2]
            self._place(height // 2, self._y + place * height // 2, [(stat, each) for stat in half], WIDTH - width)
        self._set(panel, model.GridPos(height, width, WIDTH - width, self._y))
        self._y += height
        return self

    def _place(self, height: int, y: int, cells: Sequence[Cell], wide: int) -> None:
        widths = sum(width for _, width in cells)
        if widths != wide:
            raise ValueError(f"the panels of a line are {widths} wide in all, not {wide}")
        x = 0
        for panel, width in cells:
            self._set(panel, model.GridPos(height, width, x, y))
            x += width

    def _set(self, builder: Builder[model.Panel], where: model.GridPos) -> None:
        self._panels += 1
        panel = builder.build()
        panel.id_val, panel.grid_pos = self._panels, where
        self._made.with_panel(_Placed(panel))

    def build(self) -> model.Dashboard:
        """The dashboard as the SDK's model."""
        return self._made.build()


class _Placed(Builder[model.Panel]):
    def __init__(self, panel: model.Panel) -> None:
        self._panel = panel

    def build(self) -> model.Panel:
        return self._panel


class _WithTarget(Builder[model.AnnotationQuery]):
    """An annotation whose target is a plugin's."""

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


def _other_dashboards() -> build.DashboardLink:
    link = build.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.icon("external link").include_vars(True).keep_time(True)
