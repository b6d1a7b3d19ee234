"""`bridge check`: everything that is wrong with configuration, catalogue, dashboards and statements, in one run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app import backup
from app.catalog import CatalogueSurvey, survey_folder
from app.check.dashboards import CheckedFiles, check_alerts, check_dashboards
from app.check.dry_run import DryRun
from app.check.statements import SourcesReport, ask_sources
from app.config import Settings, Survey, shipped_catalogue, survey_settings
from app.errors import Problem

#: Where the repository has them, relative to its root.
DASHBOARDS = Path("provisioning/grafana/dashboards")
ALERTS = Path("provisioning/grafana/alerting")


@dataclass(slots=True)
class Report:
    """The lines to print, all problems, and whether a source is down."""

    lines: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    down: bool = False

    @property
    def exit_code(self) -> int:
        """2 if there is a problem, 1 if there is none but a source is down, else 0."""
        return 2 if self.problems else 1 if self.down else 0

    def add_subject(self, subject: str, problems: Iterable[Problem], right: str) -> None:
        """Add one subject with its problems, or with what to print when it has none."""
        wrong = list(problems)
        self.problems += wrong
        self.lines.append(f"{subject}: {len(wrong)} problem{'s' * (len(wrong) > 1)}" if wrong else f"{subject}: ok, {right}")


def check(config: Path | None, catalog: Path | None, dashboards: Path | None, alerts: Path | None, connect: bool) -> Report:
    """Check every subject, also after problems in an earlier one. With `connect` each source is asked, too."""
    configured, report = survey_settings(config), Report()
    sources = configured.settings.sources if configured.settings else {}
    report.add_subject("configuration", configured.problems, f"{len(sources)} sources")
    found = survey_folder(catalog or configured.catalog or shipped_catalogue(), configured.kinds)
    known = found.catalogue
    counts = f"{len(known.metrics)} metrics, {len(known.events)} events, {len(known.labels)} labels"
    report.add_subject("catalogue", found.problems, counts)
    shipped = catalog is None and configured.catalog is None
    folder = dashboards or (DASHBOARDS if shipped and DASHBOARDS.is_dir() else None)
    if folder is None:
        report.lines.append(_not_checked())
    rules = alerts or (ALERTS if dashboards is None and shipped and ALERTS.is_dir() else None)
    asyncio.run(_check_requests(report, configured, found, folder, rules, connect))
    return report


async def _check_requests(
    report: Report, configured: Survey, found: CatalogueSurvey, dashboards: Path | None, alerts: Path | None, connect: bool
) -> None:
    bridge = DryRun(configured.partial, found.catalogue)
    if dashboards is not None:
        checked = await check_dashboards(dashboards, bridge, found.unread)
        report.add_subject("dashboards", checked.problems, f"{checked.files} with {_request_count(checked)}")
    if alerts is not None:
        checked = await check_alerts(alerts, bridge, found.unread)
        report.add_subject("alert rules", checked.problems, _request_count(checked))
    if configured.settings is not None:
        report.lines += _settings_lines(configured.settings)
    if connect:
        await _add_sources(report, configured.partial, found)


def _not_checked() -> str:
    there = DASHBOARDS.is_dir()
    why = f"those of {DASHBOARDS} are for the catalogue that is shipped" if there else f"there is no {DASHBOARDS} here"
    return f"dashboards: not checked, {why} (--dashboards FOLDER)"


def _request_count(checked: CheckedFiles) -> str:
    return f"{checked.targets} questions to the bridge"


def _settings_lines(settings: Settings) -> Iterator[str]:
    totals = [source.policy.total_timeout_s for source in settings.sources.values() if source.connect.enabled]
    budget_s, tier, sync = settings.request.budget_s, settings.tier, settings.sync
    yield (f"time limits: ok, source {max(totals, default=0):g}s < request {budget_s:g}s; set Grafana's and HAProxy's above that")
    yield f"backend sync: {sync.url}" if sync.url else "backend sync: off (no sync.url): nobody is told of an outage"
    shared = f"redis {tier.host}:{tier.port}" if tier.host else "off (no tier.host): each replica asks for itself"
    yield f"shared answers: {shared}"
    yield from backup.health_lines(settings.backups)
    yield f"state folder: {settings.state or 'none: nothing is kept over a restart'}"


async def _add_sources(report: Report, settings: Settings, found: CatalogueSurvey) -> None:
    asked = await ask_sources(settings, found)
    report.problems += asked.problems
    report.down = not all(facts["up"] for facts in asked.health.values())
    report.lines += [f"{name}: off (enabled: false)" for name in settings.sources.keys() - asked.health.keys()]
    report.lines += [_source_line(name, asked) for name in asked.health]


def _source_line(name: str, asked: SourcesReport) -> str:
    facts = asked.health[name]
    if not facts["up"]:
        return f"{name}: DOWN: {facts['error'].removeprefix(f'{name}: ')}"
    explained = f", {asked.explained[name]} reads explained" if name in asked.explained else ""
    warning = f", WARNING: {facts['warning']}" if facts["warning"] else ""
    return f"{name}: {facts['answer']} ({facts['latency_ms']} ms){warning}{explained}"
