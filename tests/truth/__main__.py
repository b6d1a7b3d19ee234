"""`make truth`: 10,000 generated questions, each put to four of the relations that must hold. What does not hold is printed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.servers.world import running_stores
from tests.truth.asking import ask_many


def main() -> int:
    """0 when every relation held for every question."""
    parser = argparse.ArgumentParser(prog="python -m tests.truth")
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=11)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_stores(Path(folder)) as stores:
        begun_s = time.monotonic()
        copy = Path(folder, "copy")
        copy.mkdir()
        found = asyncio.run(ask_many(stores, copy, asked.seed, asked.questions))
    print(f"seed {asked.seed}: {found.asked} questions in {time.monotonic() - begun_s:.0f}s")
    for name, held in sorted(found.held.items()):
        print(f"  held {held} times: {name}")
    for line in found.wrong:
        print(f"  WRONG {line}")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
