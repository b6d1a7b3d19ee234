"""`bridge rollup`: the newest snapshot again, with roll-ups, for a writer that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.__main__ import main
from app.model import Matcher, TimeRange
from app.sources.base import Ask
from app.sources.duckdb import rolling
from app.sources.duckdb.rolling import publish_rollups
from app.sources.duckdb.rollups import ROLLUPS, update_rollups
from app.sources.duckdb.source import DuckDBConfig
from demo.schema import DUCKDB
from tests.rollups.drawing import HOUR_MS, rolled_reads
from tests.servers.snapshots import snapshot_name

BEGIN_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS


def publish(folder: Path, hours: int, where: str = "TRUE", more: str = "") -> Path:
    """A writer's snapshot of so many hours, without roll-ups, and the pointer to it."""
    folder.mkdir(exist_ok=True)
    file = folder / snapshot_name(BEGIN_MS + hours * HOUR_MS)
    with duckdb.connect(str(file)) as database:
        database.execute(DUCKDB)
        database.execute(
            f"""INSERT INTO account_snapshots SELECT make_timestamp_ms({BEGIN_MS} + n // 2 * 10000), 'A' || n % 2, 'B', 1000, 0,
            hash(n) % 1000, 10, 5, hash(n, 1) % 90, 2000, 1, 0 FROM range({hours * 720}) r(n) WHERE {where}"""
        )
        if more:
            database.execute(more)
    (folder / "latest").write_text(f"{file.name}\n", encoding="utf-8")
    return file


def rows(file: Path, table: str) -> list[Any]:
    with duckdb.connect(str(file), read_only=True) as database:
        return database.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


def made_at_once(file: Path, folder: Path) -> dict[str, list[Any]]:
    """The roll-ups of the same samples, made in one go."""
    fresh = folder / "fresh.duckdb"
    fresh.write_bytes(file.read_bytes())
    with duckdb.connect(str(fresh)) as database:
        update_rollups(database, anew=True)
    return {table: rows(fresh, table) for table in ROLLUPS}


def pointed(folder: Path) -> Path:
    return folder / (folder / "latest").read_text(encoding="utf-8").strip()


def test_the_newest_snapshot_is_published_again_with_roll_ups_and_the_writers_file_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = publish(tmp_path / "s", 3)
    before = written.read_bytes()
    assert main(["rollup", "--folder", str(written.parent)]) == 0
    made = pointed(written.parent)
    assert (written.read_bytes(), made.name) == (before, snapshot_name(BEGIN_MS + 3 * HOUR_MS + 1))
    assert {table: rows(made, table) for table in ROLLUPS} == made_at_once(written, tmp_path)
    assert sorted(file.name for file in written.parent.iterdir()) == [".rollup.lock", "latest", written.name, made.name]
    assert capsys.readouterr().out == f"{made}: published, 3 hours rolled up\n"
    assert publish_rollups(written.parent, written.parent) == f"{made}: has its roll-ups"


def test_only_what_has_changed_is_rolled_up_again(tmp_path: Path) -> None:
    folder, to = tmp_path / "s", tmp_path / "rolled"
    to.mkdir()
    publish(folder, 5, "n < 3000 AND n % 100 <> 7 OR n >= 3000")
    publish_rollups(folder, to)
    # Late samples in three hours, a deletion in the fourth, and a new hour.
    written = publish(folder, 6, "n < 2000 OR n NOT BETWEEN 2200 AND 2250")
    said = publish_rollups(folder, to)
    assert said == f"{to / written.name}: published, 6 hours rolled up"
    third = publish(folder, 7, "n < 2000 OR n NOT BETWEEN 2200 AND 2250")
    said = publish_rollups(folder, to)
    assert said == f"{to / third.name}: published, 1 hours rolled up"
    assert {table: rows(to / third.name, table) for table in ROLLUPS} == made_at_once(third, tmp_path)
    assert not (folder / ".rollup.lock").exists()


def test_what_the_raw_table_no_longer_has_stays_in_the_roll_ups(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    whole = publish(folder, 5)
    publish_rollups(folder, folder)
    publish(folder, 6, "n >= 2 * 720 + 100")
    publish_rollups(folder, folder)
    old = made_at_once(whole, tmp_path)["account_snapshots_1m"]
    kept = rows(pointed(folder), "account_snapshots_1m")
    assert kept[: len(old)] == old
    assert len(kept) == 6 * 60 * 2


def test_samples_that_were_changed_or_exchanged_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    publish(folder, 3)
    publish_rollups(folder, folder)
    # The second hour has as many samples as before.
    changes = f"""UPDATE account_snapshots SET equity = equity + 1 WHERE ts = make_timestamp_ms({BEGIN_MS + 10_000});
        UPDATE account_snapshots SET ts = ts + INTERVAL 1 SECOND WHERE ts = make_timestamp_ms({BEGIN_MS + HOUR_MS + 50_000})"""
    written = publish(folder, 4, more=changes)
    assert publish_rollups(folder, folder).endswith("published, 3 hours rolled up")
    assert {table: rows(pointed(folder), table) for table in ROLLUPS} == made_at_once(written, tmp_path)


def test_every_hour_can_be_rolled_up_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    publish(folder, 3)
    for _ in range(2):
        assert main(["rollup", "--folder", str(folder), "--anew"]) == 0
    assert capsys.readouterr().out.count("published, 3 hours rolled up") == 2


def test_a_snapshot_that_comes_meanwhile_stays_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    publish(folder, 3)
    usual = rolling.add_rollups

    def add_while_the_writer_publishes(*given: Any) -> int:
        publish(folder, 4)
        return usual(*given)

    monkeypatch.setattr(rolling, "add_rollups", add_while_the_writer_publishes)
    with pytest.raises(rolling.RefusedRollup, match="a newer snapshot came meanwhile"):
        publish_rollups(folder, folder)
    names = {snapshot_name(BEGIN_MS + hours * HOUR_MS) for hours in (3, 4)}
    assert ({file.name for file in folder.glob("snap-*")}, pointed(folder).name) == (names, max(names))


@pytest.mark.parametrize("what", ["CREATE VIEW v AS SELECT 1", "CREATE MACRO m() AS 1"])
def test_a_snapshot_that_could_run_code_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "s"
    written = publish(folder, 3, more=what)
    assert main(["rollup", "--folder", str(folder)]) == 1
    assert pointed(folder) == written


def test_a_folder_without_a_snapshot_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollup", "--folder", str(tmp_path)]) == 1
    assert "no snapshot in" in capsys.readouterr().err


async def test_a_snapshot_whose_roll_ups_lag_behind_is_read_raw(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    publish(folder, 3)
    publish_rollups(folder, folder)
    late = (
        f"INSERT INTO account_snapshots SELECT make_timestamp_ms({BEGIN_MS + 3 * HOUR_MS}), 'A0', 'B', 1, 0, 77, 1, 1, 1, 1, 1, 1"
    )
    read = rolled_reads("duckdb")["equity"]
    span = TimeRange(BEGIN_MS, BEGIN_MS + 4 * HOUR_MS, HOUR_MS)
    statement = read.statement(Ask("equity", span, ("account",), (Matcher("account", "=", ("A0",)),)))
    with duckdb.connect(str(pointed(folder))) as database:
        database.execute("UPDATE account_snapshots_1h SET equity = 55")
    for more, newest in (("", 55.0), (late, 77.0)):
        with duckdb.connect(str(pointed(folder))) as database:
            database.execute(more or "SELECT 1")
        source = DuckDBConfig(snapshots=folder).build("duckdb")
        assert (await source.fetch(statement)).value[-1] == newest
        await source.close()
