"""A second process that holds a DuckDB file open for writing and publishes snapshots of it, as the real writer does."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import duckdb

TABLE = "CREATE TABLE samples (ts TIMESTAMP_MS, account VARCHAR, broker VARCHAR, amount DECIMAL(18, 4))"


def snapshot_name(covers_to_ms: int) -> str:
    """How a snapshot is called that is complete up to an instant."""
    stamp = datetime.fromtimestamp(covers_to_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
    return f"snap-{stamp}.{covers_to_ms % 1000:03d}Z.duckdb"


class SnapshotPublisher:
    """The writer's process. `folder`/live.duckdb is open in it all the time; snapshots go to `folder`/snapshots."""

    def __init__(self, folder: Path) -> None:
        self.live = folder / "live.duckdb"
        self.snapshots = folder / "snapshots"
        self.snapshots.mkdir()

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", __file__, str(self.live)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.run(TABLE)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, statement: str) -> None:
        """Run one statement in the writer. Raises RuntimeError with its error."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(statement.replace("\n", " ") + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if answer != "ok":
            raise RuntimeError(answer)

    def insert(self, *rows: tuple[int, str, str, float | None]) -> None:
        """Add rows of (time ms, account, broker, amount)."""
        values = ", ".join(
            f"(make_timestamp_ms({at}), '{account}', '{broker}', {'NULL' if amount is None else amount})"
            for at, account, broker, amount in rows
        )
        self.run(f"INSERT INTO samples VALUES {values}")

    def publish(self, covers_to_ms: int, pointed: bool = True) -> Path:
        """Publish what is there as complete up to an instant."""
        target = self.snapshots / snapshot_name(covers_to_ms)
        self.run(f"ATTACH '{target}' AS snap")
        self.run("COPY FROM DATABASE live TO snap")
        self.run("DETACH snap")
        if pointed:
            self.point(target.name)
        return target

    def point(self, text: str) -> None:
        """Write the pointer, in one step."""
        new = self.snapshots / "latest.new"
        new.write_text(text + "\n", encoding="utf-8")
        os.replace(new, self.snapshots / "latest")


def _serve(file: str) -> None:
    connection = duckdb.connect(file)
    for line in sys.stdin:
        try:
            connection.execute(line)
            print("ok", flush=True)  # noqa: T201  the answer to the parent
        except duckdb.Error as problem:
            print(str(problem).replace("\n", " "), flush=True)  # noqa: T201  the answer to the parent


if __name__ == "__main__":
    _serve(sys.argv[1])
