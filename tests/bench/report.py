"""What was measured, as a table and as JSON (bench-out/bench.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Line:
    """One line of the report."""

    name: str
    ours: str
    reference: str
    result: str
    target: str
    ok: bool


def report(lines: Sequence[Line]) -> None:
    table = Table("what", "ours", "reference", "result", "target", "", box=box.SIMPLE_HEAD)
    for line in lines:
        table.add_row(line.name, line.ours, line.reference, line.result, line.target, "ok" if line.ok else "MISSED")
    Console(width=140).print(table)
    out = Path("bench-out")
    out.mkdir(exist_ok=True)
    (out / "bench.json").write_text(json.dumps([asdict(line) for line in lines], indent=1), encoding="utf-8")
