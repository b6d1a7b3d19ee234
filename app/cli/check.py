"""`bridge check`: find mistakes before the bridge runs."""

from __future__ import annotations

import sys
from pathlib import Path

from app.check import survey
from app.cli.output import print_lines


def check(config: Path | None, catalog: Path | None, dashboards: Path | None, alerts: Path | None, connect: bool) -> int:
    """Check configuration, catalogue and dashboards offline; with `connect` also ask each source. List every problem."""
    report = survey.check(config, catalog, dashboards, alerts, connect)
    print_lines(*report.lines)
    if report.problems:
        print(*sorted(set(report.problems)), sep="\n", file=sys.stderr, flush=True)
    return report.exit_code
