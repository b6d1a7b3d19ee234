"""provisioning/clickhouse/cluster.sql: generated, parsed as it is, and read by the catalogue over two shards.

The embedded engine has no keeper, so the replicated tables are made as plain ones. `Distributed` is the real thing: both shards
are this process, and a filter on each local table gives each shard its own half of the rows. What stays unseen: replication, and
the network between servers.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from app.errors import SourceRejected
from app.sources.base import Ask
from demo.schema import DATABASE
from demo.world import HOUR_MS, World
from manual.cluster_schema import cluster_schema
from tests.provisioning.history import UNTIL_MS, WHOLE, fill, server_for, write
from tests.provisioning.reading import reads
from tests.provisioning.test_clickhouse import TABLES, answers, source_on
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import PROVISIONED, configured, running
from tests.servers.eventful import make_eventful

CLUSTER = (PROVISIONED / "cluster.sql").read_text(encoding="utf-8")
STATEMENTS = [
    text for text in re.sub(r"^--.*\n", "", CLUSTER, flags=re.MULTILINE).strip().removesuffix(";").split(";\n\n") if text.strip()
]
LOCAL = re.findall(rf"Distributed\('{{cluster}}', '{DATABASE}', '(\w+)', cityHash64\((\w+)\)\)", CLUSTER)

_SHARD = "<shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard>"
_SERVERS = f"<remote_servers><two replace='replace'>{_SHARD * 2}</two></remote_servers>"
#: The port is never listened on: it tells the engine which addresses are itself.
_CONFIG = f"<clickhouse><tcp_port>9000</tcp_port><macros><cluster>two</cluster></macros>{_SERVERS}</clickhouse>"


def without_keeper(statement: str) -> str:
    """The statement with the replicated engine as the plain one."""
    plain = re.sub(r"Replicated(\w*MergeTree)\('[^']*', '[^']*\{replica\}'(?:, )?", r"\1(", statement)
    return re.sub(r"replicated_deduplication_window_seconds = \d+, replicated_", "non_replicated_", plain)


def half_of_each() -> str:
    """The user's file that gives each shard its own rows of every local table."""
    filters = "".join(f"<{table}><filter>cityHash64({key}) % 2 = shardNum() - 1</filter></{table}>" for table, key in LOCAL)
    databases = f"<databases><{DATABASE}>{filters}</{DATABASE}></databases>"
    return f"<clickhouse><users><default>{databases}</default></users></clickhouse>"


def configured_cluster(user: str, folder: Path, split: bool) -> Path:
    config = configured(user, folder)
    (folder / "config.d" / "cluster.xml").write_text(_CONFIG)
    if split:
        (folder / "users.d" / "zz-halves.xml").write_text(half_of_each())
    return config


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables, made twice by the schema user; three hours, written by the backend under the tables' own names."""
    folder = tmp_path_factory.mktemp("cluster")
    with running(folder, configured_cluster("schema", tmp_path_factory.mktemp("schema"), split=False)) as server:
        for statement in STATEMENTS * 2:
            server.execute(without_keeper(statement))
    world = World(7, 12, UNTIL_MS - 3 * HOUR_MS)
    world.extend(UNTIL_MS + 2 * HOUR_MS)
    make_eventful(world, UNTIL_MS)
    with running(folder, configured_cluster("backend", tmp_path_factory.mktemp("backend"), split=False)) as server:
        write(server, world)
    return folder


@pytest.fixture
def bridge(data: Path, tmp_path: Path) -> Iterator[ClickHouseServer]:
    """The cluster as the bridge's user sees it."""
    with running(data, configured_cluster("bridge", tmp_path, split=True)) as server:
        yield server


def test_every_table_of_the_schema_is_there_for_all_servers_and_the_part_of_one(bridge: ClickHouseServer) -> None:
    found = set(bridge.execute(f"SHOW TABLES FROM {DATABASE}").splitlines())
    assert found == TABLES | {table for table, _ in LOCAL}
    assert {table.removesuffix("_local") for table, _ in LOCAL} <= TABLES
    assert len(re.findall(r"ENGINE = Replicated\w+\('/clickhouse/tables/\{shard\}/", CLUSTER)) == len(LOCAL)


def test_the_file_for_several_servers_loads_beside_the_others(data: Path, tmp_path: Path) -> None:
    config = configured("administrator", tmp_path)
    text = (PROVISIONED / "optional" / "zz-cluster.xml").read_text(encoding="utf-8")
    # No name is looked up in a test.
    (tmp_path / "config.d" / "zz-cluster.xml").write_text(re.sub(r"<host>\w+</host>", "<host>127.0.0.1</host>", text))
    with running(data, config) as server:
        clusters = server.execute(
            "SELECT cluster, shard_num, replica_num, port FROM system.clusters WHERE cluster = getMacro('cluster')"
        )
        kept = server.execute("SELECT macro FROM system.macros ORDER BY macro").splitlines()
        ports = server.execute("SELECT value FROM system.server_settings WHERE name = 'interserver_http_port'")
    assert clusters.splitlines() == ["trade_system\t1\t1\t9000", "trade_system\t1\t2\t9000"]
    assert (kept, ports) == (["cluster", "replica", "shard"], "9009")


def test_the_engine_reads_each_statement_as_it_is(bridge: ClickHouseServer) -> None:
    kinds = [bridge.execute(f"EXPLAIN AST {statement}").partition(" ")[0] for statement in STATEMENTS]
    assert set(kinds) <= {"CreateQuery", "InsertQuery"}
    assert "Replicated" in "".join(STATEMENTS)


def test_each_shard_has_a_part_of_the_rows_and_none_is_on_both(bridge: ClickHouseServer) -> None:
    rows = bridge.execute(
        f"SELECT shardNum() AS shard, uniqExact(account_id) FROM {DATABASE}.trades GROUP BY shard ORDER BY shard"
    )
    parts = [int(line.partition("\t")[2]) for line in rows.splitlines()]
    assert len(parts) == 2
    assert min(parts) > 2
    assert sum(parts) == int(bridge.execute(f"SELECT uniqExact(account_id) FROM {DATABASE}.trades"))


async def test_the_catalogue_reads_the_same_over_two_shards_as_from_one_server(bridge: ClickHouseServer, tmp_path: Path) -> None:
    single = tmp_path / "single"
    fill(single, tmp_path / "configuration")
    with server_for("bridge", single, tmp_path / "bridge") as server:
        wanted = await answers(server)
    found = await answers(bridge)
    assert found == wanted
    assert len(found) > 15


async def test_deals_in_several_currencies_are_refused_though_each_shard_has_one(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data", symlinks=True)
    with running(tmp_path / "data", configured_cluster("schema", tmp_path / "schema", split=False)) as server:
        server.execute(f"TRUNCATE TABLE {DATABASE}.trades_local")
    with running(tmp_path / "data", configured_cluster("backend", tmp_path / "backend", split=False)) as server:
        shards = server.execute("SELECT number, cityHash64(toString(number)) % 2 FROM numbers(20)").splitlines()
        at = datetime.fromtimestamp(UNTIL_MS / 1000 - 3600, UTC).strftime("%F %T")
        rest = {"state": "closed", "executed_at": at, "closed_at": at, "pnl": 10, "point": 1, "version": 2}
        rows = [
            {"trade_id": str(uuid4()), "account_id": account, "currency": ("USD", "EUR")[int(shard)]} | rest
            for account, shard in (line.split("\t") for line in shards)
        ]
        server.insert(f"{DATABASE}.trades", rows)
    read = next(read for name, read, _ in reads("clickhouse") if name == "total_pnl from clickhouse")
    with running(tmp_path / "data", configured_cluster("bridge", tmp_path / "bridge", split=True)) as server:
        per_shard = f"SELECT uniqExact(currency) FROM {DATABASE}.trades GROUP BY shardNum()"
        assert server.execute(per_shard).split() == ["1", "1"]
        source = source_on(server)
        by_account = await source.fetch(read.statement(Ask("total_pnl", WHOLE, ("account",))))
        assert by_account.value.tolist() == [10.0] * 20
        with pytest.raises(SourceRejected, match="deals in several currencies are not added up"):
            await source.fetch(read.statement(Ask("total_pnl", WHOLE)))
        await source.close()


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("ALTER TABLE d.t ADD COLUMN a UInt8;\n", "not known how to spread over servers: 'ALTER TABLE d.t"),
        (
            "CREATE TABLE IF NOT EXISTS d.t (\n    account_id String\n)\nENGINE = ReplacingMergeTree\nORDER BY ts;\n",
            "t: account_id is not in its ORDER BY",
        ),
    ],
)
def test_a_schema_that_cannot_be_spread_is_refused(schema: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        cluster_schema(schema)


#: what a schema may have besides: a table like another one, one that no server has a part of, rows to begin with
FURTHER = """
CREATE TABLE IF NOT EXISTS d.samples (
    account_id String,
    ts DateTime
)
ENGINE = MergeTree
ORDER BY (account_id, ts);

INSERT INTO d.gaps (hour) SELECT ts FROM d.samples;

CREATE TABLE IF NOT EXISTS d.samples_1m AS d.samples
ENGINE = ReplacingMergeTree(ts)
ORDER BY (account_id, toStartOfMinute(ts));

CREATE TABLE IF NOT EXISTS d.gaps (
    hour DateTime
)
ENGINE = ReplacingMergeTree
ORDER BY hour;

CREATE MATERIALIZED VIEW IF NOT EXISTS d.samples_1m_of_samples TO d.samples_1m AS
SELECT * FROM d.samples WHERE ts NOT IN (SELECT hour FROM d.gaps);
"""

SPREAD = """
CREATE TABLE IF NOT EXISTS d.samples_local (
    account_id String,
    ts DateTime
)
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/d/samples', '{replica}')
ORDER BY (account_id, ts);

CREATE TABLE IF NOT EXISTS d.samples AS d.samples_local
ENGINE = Distributed('{cluster}', 'd', 'samples_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS d.samples_1m_local AS d.samples_local
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/d/samples_1m', '{replica}', ts)
ORDER BY (account_id, toStartOfMinute(ts));

CREATE TABLE IF NOT EXISTS d.samples_1m AS d.samples_1m_local
ENGINE = Distributed('{cluster}', 'd', 'samples_1m_local', cityHash64(account_id));

CREATE TABLE IF NOT EXISTS d.gaps (
    hour DateTime
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/d/gaps', '{shard}-{replica}')
ORDER BY hour;

CREATE MATERIALIZED VIEW IF NOT EXISTS d.samples_1m_of_samples TO d.samples_1m_local AS
SELECT * FROM d.samples_local WHERE ts NOT IN (SELECT hour FROM d.gaps);

INSERT INTO d.gaps (hour) SELECT ts FROM d.samples;
"""


def test_tables_like_others_small_ones_and_first_rows_are_spread_too() -> None:
    assert re.sub(r"^--.*\n", "", cluster_schema(FURTHER), flags=re.MULTILINE) == SPREAD
