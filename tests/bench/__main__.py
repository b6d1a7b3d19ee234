"""`make bench`: what is fast or slow as ratios and differences within one run, as a table and as JSON (bench-out/bench.json).

Rounds are interleaved: what is compared is measured under the same load of the machine. It is a report and exits with 0;
`--strict` makes a missed target exit 1. `tests/bench/README.md` says what each number means to a user.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.bench.columns import columns
from tests.bench.fan_out import measured
from tests.bench.hits import hits
from tests.bench.living import living
from tests.bench.report import report
from tests.servers.world import running_stores


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--strict", action="store_true")
    arguments = parser.parse_args()
    lines = columns(arguments.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_stores(folder, hours=17, instances=5) as stores:
            lines += hits(stores, folder, arguments.rounds)
            lines += asyncio.run(measured(stores, folder, arguments.rounds))
            lines += asyncio.run(living(stores, folder, arguments.rounds))
    report(lines)
    return 1 if arguments.strict and not all(line.ok for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
