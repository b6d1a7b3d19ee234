"""What a panel may hide from its reader: marks that a client throws away, lists that do nothing, links that lose the range."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.check.refusals import VARIABLE
from app.documents.nearest import printable_text

#: Transformations that make new frames without the remarks of the old ones; the last five do so where they join several frames.
#: Tried with each of the package @grafana/data (12.4).
LOSES_MARKS = frozenset(
    (
        *("groupBy", "groupToNestedTable", "groupingToMatrix", "histogram", "seriesToRows"),
        *("calculateField", "concatenate", "ensureColumns", "joinByField", "merge"),
    )
)
#: Shapes of an answer in which the state of each row stands beside its figures.
_MARKED_SHAPES = ("pivot", "summary")
_YES = ("true", "1", "yes", "on")
#: A sentence with one of these words and the name of a list says that the list does nothing.
_DENIES = re.compile(r"\b(not|never|ignores?|regardless|whatever|always|without)\b", re.IGNORECASE)
_RANGE = re.compile(r"__url_time_range|[?&]from=")


def lost_marks(panel: Mapping[str, Any], json_targets: Sequence[Any], rows_targets: Sequence[Any]) -> Iterator[str]:
    """Marks of the bridge's answers that no reader of the panel would see."""
    for change in _mappings_in(panel.get("transformations")):
        if change.get("id") in LOSES_MARKS and not change.get("disabled") and not all(map(_is_marked_payload, json_targets)):
            yield (
                f"the transformation {change['id']} drops the remarks of an answer, so old figures look fresh; "
                'allowed: one table made by the bridge (payload "format": "pivot"), which has its state in columns'
            )
    for target in rows_targets:
        if _is_rows_url(target) and not _is_marked_request(target):
            yield (
                f"target {target.get('refId')}: the plugin shows no remarks of an answer, so old figures look fresh; "
                "allowed: the parameter marks=true, shape=pivot or shape=summary"
            )


def _is_marked_payload(target: Mapping[str, Any]) -> bool:
    payload = _payload_of(target)
    return payload is not None and payload.get("format") in _MARKED_SHAPES


def _payload_of(target: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The payload of a target; None if it cannot be read, which is a mistake of its own."""
    payload = target.get("payload") or {}
    if isinstance(payload, str):
        try:
            payload = json.loads(payload)
        except (ValueError, RecursionError):
            return None
    return payload if isinstance(payload, dict) else None


def _is_rows_url(target: Mapping[str, Any]) -> bool:
    """Whether the target shows rows that may be old: not an alert rule, whose route has no such rows, and no frames."""
    url = str(target.get("url")).partition("?")[0]
    return url.endswith("/v1/rows") and not url.endswith("/alert/v1/rows")


def _params_of(target: Mapping[str, Any]) -> dict[str, str]:
    options = target.get("url_options")
    found = {
        str(one.get("key")): str(one.get("value"))
        for one in _mappings_in(options.get("params") if isinstance(options, dict) else None)
    }
    query = str(target.get("url")).partition("?")[2]
    return found | dict(part.split("=", 1) for part in query.split("&") if "=" in part)


def _is_marked_request(target: Mapping[str, Any]) -> bool:
    found = _params_of(target)
    return found.get("marks", "").lower() in _YES or found.get("shape") in _MARKED_SHAPES


def count_variables(targets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Variables that say how many series come (`top`). They narrow nothing, so a panel that comes whole needs no word on them."""
    for target in targets:
        given = [str((_payload_of(target) or {}).get("top", "")), _params_of(target).get("top", "")]
        yield from (next(filter(None, found)) for text in given for found in VARIABLE.findall(text))


def unheard_variables(panel: Mapping[str, Any], targets: Sequence[Any], variables: Mapping[str, str]) -> Iterator[str]:
    """Lists of the dashboard (name -> label) that change nothing in the panel, where no sentence of its description says so."""
    if any(_payload_of(target) is None for target in targets):
        return
    asked = json.dumps(targets)
    sentences = [one for one in re.split(r"[.;\n]", str(panel.get("description") or "")) if _DENIES.search(one)]
    for name, label in variables.items():
        used = re.search(rf"\$\{{?{re.escape(name)}\b|\[\[{re.escape(name)}\b", asked)
        words = "|".join(re.escape(word) for word in (name, label) if word)
        if not used and not any(re.search(rf"\b({words})\b", one, re.IGNORECASE) for one in sentences):
            yield (
                f"the list {printable_text(name)} at the top does not narrow this panel, and nothing says so; "
                f"allowed: ${{{printable_text(name)}:csv}} in the target, or a sentence of the panel's description: "
                f"not narrowed by {printable_text(label or name)}"
            )


def rangeless_links(panel: Mapping[str, Any]) -> Iterator[str]:
    """Links of a panel to other dashboards that do not keep the time range."""
    for url in _urls_of(panel):
        shown = printable_text(url, 80)
        if not _RANGE.search(url):
            yield f"the link {shown} loses the time range; allowed: ${{__url_time_range}} in it"
        elif panel.get("timeFrom") and "from=now" not in url:
            yield (
                f"the link {shown} loses the time range, because the panel has a relative time of its own (timeFrom); "
                'allowed: no timeFrom, and "within" in the payload'
            )


def rangeless_dashboard_links(dashboard: Mapping[str, Any]) -> Iterator[str]:
    """Links at the top of a dashboard that do not keep the time range."""
    for link in _mappings_in(dashboard.get("links")):
        is_inside = link.get("type") == "dashboards" or _is_dashboard_url(link.get("url"))
        if is_inside and not link.get("keepTime"):
            yield f"link {printable_text(link.get('title', ''))!r}: loses the time range; allowed: keepTime: true"


def _urls_of(panel: Mapping[str, Any]) -> Iterator[str]:
    config = panel.get("fieldConfig")
    config = config if isinstance(config, dict) else {}
    defaults = config.get("defaults")
    lists = [panel.get("links"), defaults.get("links") if isinstance(defaults, dict) else None]
    for rule in _mappings_in(config.get("overrides")):
        lists += [one.get("value") for one in _mappings_in(rule.get("properties")) if one.get("id") == "links"]
    return (str(link["url"]) for found in lists for link in _mappings_in(found) if _is_dashboard_url(link.get("url")))


def _is_dashboard_url(url: Any) -> bool:
    return isinstance(url, str) and re.search(r"(^|/)d/", url) is not None


def _mappings_in(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
