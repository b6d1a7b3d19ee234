"""Links between dashboards. They keep the time range, the lists that both dashboards have, and the filters."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

#: A panel with a "relative time" of its own has no range in `${__url_time_range}`, and its own one in `${__from}`: no panel with
#: a link may have one. The bridge narrows the window instead (`within`).
RANGE = "${__url_time_range}"
FILTERS = "filters"


def drill_down(subject_uid: str, label: str, kept: Sequence[str]) -> DynamicConfigValue:
    """A link from a cell to another dashboard, narrowed to the value in the cell."""
    lists = [f"${{{name}:queryparam}}" for name in (*kept, FILTERS) if name != label]
    url = "&".join([f"/d/{subject_uid}?var-{label}=${{__value.raw:percentencode}}", RANGE, *lists])
    return DynamicConfigValue("links", [{"title": "More of this one", "url": url, "targetBlank": False}])


def other_dashboards(tag: str) -> build.DashboardLink:
    """A menu of all dashboards with that tag. Grafana adds lists, filters and range to each address."""
    link = build.DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([tag]).as_dropdown(True)
    return link.icon("external link").include_vars(True).keep_time(True)
