"""The dashboard of the bridge itself. It reads Prometheus, so it also works when the bridge is down."""

from __future__ import annotations

from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue

from app.catalog import Catalogue
from dashboards import limits
from dashboards.board import FIGURE_HEIGHT, WIDTH, Board
from dashboards.limits import BAD, GOOD, NOTE, WARN, Steps
from dashboards.look import curves, described, figure, from_zero, limited
from dashboards.tables import rows
from dashboards.targets import PROMETHEUS, prometheus

_RATE = "[$__rate_interval]"
#: A zero for each source.
_NONE_OF_SOURCE = "0 * min by (source) (bridge_source_up)"


def _stat_panel(title: str, text: str, expression: str, unit: str, steps: Steps = limits.NONE) -> stat.Panel:
    panel = described(stat.Panel(), title, text, PROMETHEUS).unit(unit)
    return figure(panel, "lastNotNull", steps).text_mode(BigValueTextMode.VALUE).with_target(prometheus(expression, title))


def _or_zero(expression: str, **labels: str) -> str:
    """The expression, and a zero with these labels while it has no series.

    What has never happened has no series in Prometheus, and its panel would be empty while all is well.
    """
    zero = "vector(0)"
    for name, value in labels.items():
        zero = f'label_replace({zero}, "{name}", "{value}", "", "")'
    return f"{expression} or ({zero} unless on () ({expression}))"


def _line_panel(title: str, text: str, unit: str, *asked: tuple[str, str], steps: Steps = limits.NONE) -> timeseries.Panel:
    panel = limited(curves(described(timeseries.Panel(), title, text, PROMETHEUS).unit(unit)), steps)
    panel = from_zero(panel, unit)
    for place, (expression, legend) in enumerate(asked):
        panel = panel.with_target(prometheus(expression, legend, chr(ord("A") + place)))
    return panel


def bridge(catalogue: Catalogue) -> Board:
    """Whether the bridge is up and answers in time, how old its answers are, and which source is at fault."""
    board = Board(
        catalogue,
        "bridge",
        "TDS / The bridge",
        "The data source itself: sources, freshness, times, cache, load. Asked of Prometheus, so it works without the bridge.",
    )
    board.variables(ad_hoc=False)
    figures = _head_figures()
    board.line(FIGURE_HEIGHT, *[(one, WIDTH // len(figures)) for one in figures])
    board.line(7, (_source_table(), WIDTH))
    board.row("What callers get")
    board.line(9, (_request_rate(), 8), (_response_times(), 8), (_target_outcomes(), 8))
    board.row("Freshness")
    board.line(8, (_stale_answers(), 8), (_oldest_served(), 8), (_snapshot_age(), 8))
    board.row("Sources")
    board.line(9, (_source_times(), 8), (_source_errors(), 8), (_circuit_states(), 8))
    board.row("Inside")
    board.line(8, (_cache_share(), 8), (_event_loop(), 8), (_process_memory(), 8))
    board.line(8, (_refused_requests(), 8), (_clock_skew(), 8), (_sync_calls(), 8))
    board.row("Backups")
    board.line(7, (_backup_age(), 12), (_backup_size(), 12))
    board.row("What ends and what fills")
    board.line(7, (_certificate_ends(), 8), (_key_ends(), 8), (_nodes_of_grafana(), 8))
    board.line(7, (_snapshot_count(), 8), (_snapshot_size(), 8), (_disks(), 8))
    return board


def _head_figures() -> list[stat.Panel]:
    whole = ((None, BAD), (1, GOOD))
    return [
        _stat_panel(
            "Sources down",
            "Sources whose last answer was none.",
            "sum(1 - min by (source) (bridge_source_up))",
            "short",
            ((None, GOOD), (1, BAD)),
        ),
        _stat_panel(
            "Oldest answer",
            "Age of the oldest stand-in that anyone was shown in the last minute or two; 0 when nobody was shown one.",
            "max(bridge_oldest_served_seconds) or vector(0)",
            "s",
            ((None, GOOD), (10, WARN), (300, BAD)),
        ),
        _stat_panel("Replicas up", "Bridges that Prometheus reaches.", "count(bridge_build_info)", "short", whole),
        _stat_panel(
            "95 % answered in",
            "Over all routes; the request's own limit is 4.8 s.",
            f"histogram_quantile(0.95, sum by (le) (rate(bridge_http_request_seconds_bucket{_RATE})))",
            "s",
            ((None, GOOD), (1, WARN), (4.8, BAD)),
        ),
        _stat_panel(
            "Failed queries",
            "Share of targets that got an error.",
            f'(sum(rate(bridge_queries_total{{status="error"}}{_RATE})) or vector(0)) '
            f"/ clamp_min(sum(rate(bridge_queries_total{_RATE})) or vector(0), 0.000001)",
            "percentunit",
            ((None, GOOD), (0.01, WARN), (0.05, BAD)),
        ),
        _stat_panel(
            "Event loop late",
            "How late timers run. Above 1 s the bridge says it is not ready.",
            "max(bridge_event_loop_lag_seconds)",
            "s",
            ((None, GOOD), (0.1, WARN), (1, BAD)),
        ),
    ]


def _source_table() -> table.Panel:
    text = "Each source of each replica, as its last asking went. The age of a snapshot (DuckDB) is below."
    panel = rows("Data: state of the sources", text, PROMETHEUS)
    panel = panel.with_target(prometheus("min by (source) (bridge_source_up)", "", "A", instant=True))
    panel = panel.with_target(prometheus("max by (source) (bridge_breaker_state)", "", "B", instant=True))
    panel = panel.with_target(
        prometheus(f"max by (source) (bridge_oldest_served_seconds) or {_NONE_OF_SOURCE}", "", "C", instant=True)
    )
    order = {"source": 0, "Value #A": 1, "Value #B": 2, "Value #C": 3}
    names = {"source": "Source", "Value #A": "Up", "Value #B": "Circuit", "Value #C": "Oldest served"}
    hidden = {"Time": True, "Time 1": True, "Time 2": True, "Time 3": True}
    named = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    panel = panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel = panel.with_transformation(DataTransformerConfig("organize", options=named))
    return (
        panel.override_by_name("Up", [_value_mapping({"0": ("DOWN", BAD), "1": ("up", GOOD)}), _COLORED])
        .override_by_name(
            "Circuit", [_value_mapping({"0": ("closed", GOOD), "1": ("half open", NOTE), "2": ("open", BAD)}), _COLORED]
        )
        .override_by_name("Oldest served", [DynamicConfigValue("unit", "s"), DynamicConfigValue("noValue", "-")])
    )


_COLORED = DynamicConfigValue("custom.cellOptions", {"type": "color-text"})


def _value_mapping(words: dict[str, tuple[str, str]]) -> DynamicConfigValue:
    options = {
        value: {"text": text, "color": color, "index": place} for place, (value, (text, color)) in enumerate(words.items())
    }
    return DynamicConfigValue("mappings", [{"type": "value", "options": options}])


def _request_rate() -> timeseries.Panel:
    return _line_panel(
        "Requests a second", "By route.", "reqps", (f"sum by (route) (rate(bridge_http_requests_total{_RATE}))", "{{route}}")
    )


def _response_times() -> timeseries.Panel:
    bucket = f"rate(bridge_http_request_seconds_bucket{_RATE})"
    return _line_panel(
        "Time to answer, 95 % within",
        "By route. Sources have 4.5 s, a request 4.8 s, HAProxy 8 s, Grafana 10 s.",
        "s",
        (f"histogram_quantile(0.95, sum by (route, le) ({bucket}))", "{{route}}"),
        steps=((None, GOOD), (4.8, BAD)),
    )


def _target_outcomes() -> timeseries.Panel:
    return _line_panel(
        "Targets by outcome",
        "fresh, stale (an older answer stands in, marked), partial (a part is missing, marked), error.",
        "cps",
        (_or_zero(f"sum by (status) (rate(bridge_queries_total{_RATE}))", status="fresh"), "{{status}}"),
    )


def _stale_answers() -> timeseries.Panel:
    text = "Older answers served because asking failed, each marked. Alert rules never get one."
    return _line_panel(
        "Stale answers a second",
        text,
        "cps",
        (f"sum by (source) (rate(bridge_stale_responses_total{_RATE})) or {_NONE_OF_SOURCE}", "{{source}}"),
    )


def _oldest_served() -> timeseries.Panel:
    text = "Age of the oldest answer that was served. Nothing older than 15 minutes ever is."
    asked = (f"max by (source) (bridge_oldest_served_seconds) or {_NONE_OF_SOURCE}", "{{source}}")
    return _line_panel("Oldest answer served", text, "s", asked, steps=((None, GOOD), (900, BAD)))


def _snapshot_age() -> timeseries.Panel:
    text = "Age of the DuckDB snapshot in use; its writer publishes every few minutes."
    asked = ("max by (source) (bridge_snapshot_age_seconds)", "{{source}}")
    return _line_panel("Snapshot age", text, "s", asked, steps=((None, GOOD), (600, WARN)))


def _source_times() -> timeseries.Panel:
    bucket = f"rate(bridge_source_request_seconds_bucket{_RATE})"
    asked = (f"histogram_quantile(0.95, sum by (source, le) ({bucket}))", "{{source}}")
    return _line_panel("Time of a source, 95 % within", "One asking, as its caller saw it.", "s", asked)


def _source_errors() -> timeseries.Panel:
    errors = f"sum by (source, kind) (rate(bridge_source_errors_total{_RATE}))"
    none = f'label_replace({_NONE_OF_SOURCE}, "kind", "none", "", "")'
    asked = (f"{errors} or ({none} unless on (source) {errors})", "{{source}}: {{kind}}")
    return _line_panel("Failed askings a second", "By source and kind of failure.", "cps", asked)


def _circuit_states() -> timeseries.Panel:
    text = "0 closed, 1 half open, 2 open: only its watch asks then, nobody waits for it. Beside it connections made anew."
    return _line_panel(
        "Circuits and reconnects",
        text,
        "short",
        ("max by (source) (bridge_breaker_state)", "{{source}}"),
        (
            f"sum by (source) (increase(bridge_source_reconnects_total[5m])) or {_NONE_OF_SOURCE}",
            "{{source}}: reconnects in 5 min",
        ),
    )


def _cache_share() -> timeseries.Panel:
    misses = f"sum by (source) (rate(bridge_cache_misses_total{_RATE}))"
    # A source without a hit has no series of hits.
    hits = f"(sum by (source) (rate(bridge_cache_hits_total{_RATE})) or 0 * {misses})"
    text = "Share of askings that cost the source nothing."
    return _line_panel("Answers from the cache", text, "percentunit", (f"1 - {misses} / ({hits} + {misses})", "{{source}}"))


def _event_loop() -> timeseries.Panel:
    return _line_panel(
        "Event loop and queries under way",
        "The loop's delay in seconds; queries as a number.",
        "short",
        ("max by (instance) (bridge_event_loop_lag_seconds)", "{{instance}}: late (s)"),
        ("sum by (instance) (bridge_inflight)", "{{instance}}: queries"),
    )


def _process_memory() -> timeseries.Panel:
    memory = ('process_resident_memory_bytes{job="bridge"}', "{{instance}}: resident")
    cache = ("sum by (instance) (bridge_cache_bytes)", "{{instance}}: cached answers")
    return _line_panel("Memory", "Of the process (on Linux), and what of it is kept answers.", "bytes", memory, cache)


def _refused_requests() -> timeseries.Panel:
    return _line_panel(
        "Refused requests a second",
        "shed: too many under way (429, alert rules last). No key: 401.",
        "cps",
        (_or_zero(f"sum by (lane) (rate(bridge_shed_total{_RATE}))", lane="interactive"), "shed: {{lane}}"),
        (f"sum(rate(bridge_unauthenticated_total{_RATE})) or vector(0)", "no key"),
    )


def _clock_skew() -> timeseries.Panel:
    text = "How far each store's clock is ahead of the bridge's. A live edge needs clocks that agree."
    asked = ("max by (source) (bridge_clock_skew_seconds)", "{{source}}")
    panel = _line_panel("Clock skew", text, "s", asked, steps=((None, WARN), (-2, GOOD), (2, WARN)))
    return panel.axis_soft_min(-3).axis_soft_max(3)


def _sync_calls() -> timeseries.Panel:
    text = "Calls that tell the backend to fill Redis again after an outage, by outcome."
    calls = f"sum by (event, outcome) (rate(bridge_sync_calls_total{_RATE}))"
    asked = (_or_zero(calls, event="no", outcome="calls"), "{{event}} {{outcome}}")
    return _line_panel("Backend sync calls a second", text, "cps", asked)


_NO_BACKUP = "no backup yet: see `bridge backup`"


def _backup_age() -> timeseries.Panel:
    text = "Age of the newest backup of each kind; more than 26 h means that the daily run failed or did not happen."
    asked = ("max by (kind) (bridge_backup_age_seconds)", "{{kind}}")
    return _line_panel("Age of the backups", text, "s", asked, steps=((None, GOOD), (93_600, BAD))).no_value(_NO_BACKUP)


def _backup_size() -> timeseries.Panel:
    text = "Size of the newest backup of each kind: one that suddenly shrinks has lost something."
    asked = ("max by (kind) (bridge_backup_size_bytes)", "{{kind}}")
    return _line_panel("Size of the backups", text, "bytes", asked).no_value(_NO_BACKUP)


_DAY_S = 86_400


def _certificate_ends() -> timeseries.Panel:
    text = "Time until the certificate of each watched endpoint ends (`certificates.endpoints` in the bridge's configuration)."
    asked = ("min by (endpoint) (bridge_certificate_end_timestamp_seconds - time())", "{{endpoint}}")
    steps = ((None, BAD), (3 * _DAY_S, WARN), (21 * _DAY_S, GOOD))
    return _line_panel("Certificates end in", text, "s", asked, steps=steps).no_value("no endpoint is watched")


def _key_ends() -> timeseries.Panel:
    text = "Time until each key of the bridge ends that has an end (`auth.keys.NAME.expires`)."
    asked = ("min by (key) (bridge_key_end_timestamp_seconds - time())", "{{key}}")
    steps = ((None, BAD), (2 * _DAY_S, WARN), (14 * _DAY_S, GOOD))
    return _line_panel("Keys end in", text, "s", asked, steps=steps).no_value("no key has an end")


def _nodes_of_grafana() -> timeseries.Panel:
    text = "How many of the nodes that send notifications each Grafana sees; of two, 1 means that people get each message twice."
    asked = ("min by (instance) (alertmanager_cluster_members)", "{{instance}}")
    steps = ((None, WARN), (2, GOOD))
    return _line_panel("Grafana nodes that see each other", text, "short", asked, steps=steps).no_value("one node alone")


def _snapshot_count() -> timeseries.Panel:
    text = "Snapshots in the writer's folder; `bridge snapshots prune` removes old ones."
    asked = ("max by (source) (bridge_snapshots)", "{{source}}")
    return _line_panel("Snapshots kept", text, "short", asked, steps=((None, GOOD), (20, WARN))).no_value("no folder is watched")


def _snapshot_size() -> timeseries.Panel:
    text = "Size of all snapshots in the writer's folder."
    asked = ("max by (source) (bridge_snapshots_bytes)", "{{source}}")
    return _line_panel("Size of the snapshots", text, "bytes", asked).no_value("no folder is watched")


def _disks() -> timeseries.Panel:
    text = "How full each disk is, each for itself: a sum over disks would hide a full one."
    asked = ("max by (host, disk) (tds_host_disk_used_ratio)", "{{host}} {{disk}}")
    steps = ((None, GOOD), (0.85, WARN), (0.95, BAD))
    return _line_panel("Disks used", text, "percentunit", asked, steps=steps).no_value("no exporter tells of disks")
