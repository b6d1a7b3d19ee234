"""`python -m tests.provisioning.quiet_day --seeds 20 --hours 24`: whole quiet days, on which no rule may say anything.

Grafana's rules are evaluated every 10 s and asked at the bridge's routes every few minutes (`--sample`); Prometheus' twins every
15 s on a real Prometheus that holds the same day.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.output import print_lines
from tests.provisioning.alerting import ON_THE_BRIDGE, RULES
from tests.provisioning.days.desk import Desk
from tests.provisioning.days.evaluating import messages_of
from tests.provisioning.days.scraped import grafana_messages, scraped_day, twins_told


def said_on(desk: Desk, sample: int) -> Iterator[str]:
    """What Grafana's rules on the bridge say on that day, a line a message."""
    yield from (f"{one.at_s} s: {one.alert}: {one.status}: {one.summary}" for one in messages_of(desk, sample))


def scraped_on(desk: Desk) -> Iterator[str]:
    """What the rules on Prometheus say on that day, Grafana's and the twins."""
    with TemporaryDirectory() as folder, scraped_day(Path(folder), desk) as port:
        yield from (f"{one.at_s} s: {one.alert}: {one.status}: {one.summary}" for one in grafana_messages(port, desk))
        for one in twins_told(port, desk):
            yield f"{one.from_s - desk.start_ms // 1000} s: {one.alert}: {sorted(one.labels)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the days. Returns 1 where a rule said anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.provisioning.quiet_day", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="days, each of another world")
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--instances", type=int, default=12)
    parser.add_argument("--sample", type=int, default=30, metavar="N", help="ask the bridge at every Nth evaluation; 1 at each")
    parser.add_argument("--only", choices=("bridge", "prometheus"), help="only the rules that ask the bridge, or only the others")
    options = parser.parse_args(arguments)
    total = 0
    for seed in range(options.first, options.first + options.seeds):
        begun_s = time.monotonic()
        desk = Desk(seed, options.hours, options.instances)
        said = [] if options.only == "prometheus" else list(said_on(desk, options.sample))
        said += [] if options.only == "bridge" else scraped_on(desk)
        total += len(said)
        orders = sum(len(at_ms) for at_ms, _ in desk.orders.values())
        evaluated = f"{len(desk.at_ms)} evaluations of each rule"
        print_lines(f"seed {seed}: {len(said)} messages, {orders} orders, {evaluated}, {time.monotonic() - begun_s:.0f} s", *said)
    rules = f"{len(RULES)} rules of Grafana ({len(ON_THE_BRIDGE)} on the bridge)"
    print_lines(f"{options.seeds} quiet days of {options.hours:g} hours, {rules}: {total} messages")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
