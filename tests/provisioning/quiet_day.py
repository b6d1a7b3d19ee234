"""`python -m tests.provisioning.quiet_day --seeds 20 --hours 24`: whole quiet days, on which no rule may say anything.

Grafana's rules are evaluated every 10 s and asked at the bridge's routes every few minutes (`--sample`); Prometheus' twins every
15 s on a real Prometheus that holds the same day.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.output import print_lines
from tests.provisioning.alerting import ON_THE_BRIDGE, RULES
from tests.provisioning.days.desk import Desk
from tests.provisioning.days.evaluating import messages_of
from tests.provisioning.days.scraped import (
    bridge_samples,
    grafana_messages,
    openmetrics_of,
    twins_told,
    world_samples,
)
from tests.servers.prometheus import prometheus_with


def said_on(desk: Desk, sample: int, twins: bool) -> list[str]:
    """What all rules say on that day, a line a message."""
    said = [f"{one.at_s} s: {one.alert}: {one.status}: {one.summary}" for one in messages_of(desk, sample)]
    if not twins:
        return said
    with (
        TemporaryDirectory() as folder,
        prometheus_with(Path(folder), openmetrics_of(world_samples(desk), bridge_samples(desk))) as port,
    ):
        said += [f"{one.at_s} s: {one.alert}: {one.status}: {one.summary}" for one in grafana_messages(port, desk)]
        said += [f"{one.from_s - desk.start_ms // 1000} s: {one.alert}: {sorted(one.labels)}" for one in twins_told(port, desk)]
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the days. Returns 1 where a rule said anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.provisioning.quiet_day", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="days, each of another world")
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--instances", type=int, default=12)
    parser.add_argument("--sample", type=int, default=30, metavar="N", help="ask the bridge at every Nth evaluation; 1 at each")
    parser.add_argument("--no-twins", action="store_true", help="Grafana's rules on the bridge alone")
    options = parser.parse_args(arguments)
    total = 0
    for seed in range(options.first, options.first + options.seeds):
        begun_s = time.monotonic()
        desk = Desk(seed, options.hours, options.instances)
        said = said_on(desk, options.sample, not options.no_twins)
        total += len(said)
        orders = sum(len(at_ms) for at_ms, _ in desk.orders.values())
        evaluated = f"{len(desk.at_ms)} evaluations of each rule"
        print_lines(f"seed {seed}: {len(said)} messages, {orders} orders, {evaluated}, {time.monotonic() - begun_s:.0f} s", *said)
    rules = f"{len(RULES)} rules of Grafana ({len(ON_THE_BRIDGE)} on the bridge)"
    print_lines(f"{options.seeds} quiet days of {options.hours:g} hours, {rules}: {total} messages")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
