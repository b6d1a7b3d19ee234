"""provisioning/clickhouse on the real engine: the schema, and what each user can and cannot do."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.model import Statement
from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseSource
from demo.schema import DATABASE
from tests.provisioning.history import UNTIL_MS, WHOLE, fill, server_for
from tests.provisioning.reading import Series, plain, statements
from tests.servers.clickhouse import ClickHouseServer
from tests.servers.clickhouse_users import PROVISIONED, clickhouse_as, configured, hashes, running

TABLES = {
    *("trades", "account_snapshots", "execution_1m", "execution_1m_of_trades", "instance_performance", "host_performance"),
    *("account_snapshots_1m", "account_snapshots_1h", "account_extremes_1h", "orders", "orders_1m", "orders_1h", "rollup_gaps"),
    *("account_snapshots_1m_of_samples", "account_snapshots_1h_of_samples", "account_extremes_1h_of_samples"),
    *("orders_1m_of_trades", "orders_1h_of_trades", "rollup_gaps_of_trades"),
    *("system_event_log", "trade_failure_log", "commission_log", "broker_performance", "account_performance", "alert_log"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trade_system")
    fill(folder, tmp_path_factory.mktemp("configuration"))
    return folder


@pytest.fixture(scope="module")
def administrator(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with server_for("administrator", data, tmp_path_factory.mktemp("administrator")) as server:
        yield server


@pytest.fixture(scope="module")
def bridge(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with server_for("bridge", data, tmp_path_factory.mktemp("bridge")) as server:
        yield server


@pytest.fixture
async def source(bridge: ClickHouseServer) -> AsyncIterator[ClickHouseSource]:
    found = source_on(bridge)
    yield found
    await found.close()


def source_on(server: ClickHouseServer) -> ClickHouseSource:
    return ClickHouseConfig(port=server.port, password=server.password).build("clickhouse")


def refusal(server: ClickHouseServer, statement: str) -> str:
    """What the server says to a statement that it refuses; the code alone where that says it all."""
    with pytest.raises(RuntimeError) as refused:
        server.execute(statement)
    return str(refused.value).removeprefix("Code: ").partition(".")[0]


def test_the_schema_loads_twice_and_makes_every_table_and_view(administrator: ClickHouseServer) -> None:
    found = administrator.execute(f"SELECT name FROM system.tables WHERE database = '{DATABASE}'").splitlines()
    assert set(found) == TABLES


def test_a_retried_insert_counts_once(administrator: ClickHouseServer) -> None:
    rows = administrator.execute(f"SELECT count(), uniqExact(trade_id, version) FROM {DATABASE}.trades").split("\t")
    assert rows[0] == rows[1]
    assert int(rows[0]) > 100


def test_the_roll_up_says_what_the_trades_say(administrator: ClickHouseServer) -> None:
    rolled = f"""SELECT minute, broker_id, symbol, sum(requests), sum(fills), sum(rejects), round(sum(slip_sum), 6)
        FROM {DATABASE}.execution_1m GROUP BY ALL ORDER BY ALL"""
    raw = f"""SELECT toStartOfMinute(executed_at) AS minute, broker_id, symbol, count(), countIf(retcode IN (10009, 10010)),
        countIf(retcode NOT IN (0, 10008, 10009, 10010, 10025)), round(sumIf(slippage_points, retcode IN (10009, 10010)), 6)
        FROM (SELECT * , slippage_points FROM {DATABASE}.trades FINAL) GROUP BY ALL ORDER BY ALL"""
    found = administrator.execute(rolled).splitlines()
    assert found == administrator.execute(raw).splitlines()
    assert len(found) > 50


@pytest.mark.parametrize("column", ["slip", "lat"])
def test_the_rolled_up_quantiles_are_those_of_the_fills(administrator: ClickHouseServer, column: str) -> None:
    raw = {"slip": "slippage_points", "lat": "execution_latency_ms"}[column]
    merged = f"SELECT arrayJoin(quantilesTDigestMerge(0.5, 0.95, 0.99)({column})) FROM {DATABASE}.execution_1m"
    found = [float(line) for line in administrator.execute(merged).splitlines()]
    # A digest is right in rank, and between two values it draws a line: half a point, or millisecond, to either side.
    for share, value in zip((0.5, 0.95, 0.99), found, strict=True):
        ranks = f"""SELECT countIf({raw} < {value - 0.5}) / count(), countIf({raw} <= {value + 0.5}) / count()
            FROM {DATABASE}.trades FINAL WHERE retcode IN (10009, 10010)"""
        below, up_to = map(float, administrator.execute(ranks).split("\t"))
        assert below - 0.02 <= share <= up_to + 0.02


def test_views_under_the_systems_other_names_agree_with_the_trades(administrator: ClickHouseServer) -> None:
    earned = "sum(pnl + commission + swap - fees)"
    [trades] = administrator.execute(
        f"SELECT countIf(state = 'failed'), countIf(closed_at IS NOT NULL), {earned} FROM {DATABASE}.trades FINAL"
    ).splitlines()
    counts = [f"(SELECT count() FROM {DATABASE}.{view})" for view in ("trade_failure_log", "commission_log")]
    for view in ("account_performance", "broker_performance"):
        found = administrator.execute(f"SELECT {counts[0]}, {counts[1]}, sum(realised_pnl) FROM {DATABASE}.{view}")
        assert found == trades, view
    brokers = administrator.execute(f"SELECT sum(requests), sum(fills), sum(rejects) FROM {DATABASE}.broker_performance")
    assert brokers == administrator.execute(f"SELECT sum(requests), sum(fills), sum(rejects) FROM {DATABASE}.execution_1m")


def test_the_bridge_may_see_which_roll_ups_are_there(bridge: ClickHouseServer) -> None:
    wanted = ("account_snapshots_1m", "account_snapshots_1h", "account_extremes_1h", "orders_1m", "orders_1h", "orders_1d")
    assert [bridge.execute(f"EXISTS TABLE {DATABASE}.{table}") for table in wanted] == ["1"] * 5 + ["0"]


async def answers(server: ClickHouseServer) -> dict[str, Series]:
    source = source_on(server)
    try:
        return {name: plain(await source.fetch(asked)) for name, asked in statements("clickhouse", WHOLE, UNTIL_MS - 1).items()}
    finally:
        await source.close()


async def test_the_bridges_user_gets_every_answer_of_the_catalogue(
    administrator: ClickHouseServer, bridge: ClickHouseServer
) -> None:
    found = await answers(bridge)
    assert found == await answers(administrator)
    assert [name for name, series in found.items() if not series] == []
    assert len(found) > 15


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (f"INSERT INTO {DATABASE}.trades (account_id) VALUES ('x')", "497"),
        (f"ALTER TABLE {DATABASE}.trades DELETE WHERE 1", "497"),
        (f"TRUNCATE TABLE {DATABASE}.trades", "497"),
        (f"DROP TABLE {DATABASE}.trades", "497"),
        (f"CREATE TABLE {DATABASE}.mine (a Int32) ENGINE = Memory", "497"),
        ("CREATE DATABASE mine", "497"),
        ("CREATE USER me", "497"),
        (f"BACKUP DATABASE {DATABASE} TO Disk('backups', 'mine/')", "497"),
        ("SYSTEM SHUTDOWN", "497"),
        ("SELECT * FROM system.users", "497"),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')", "497"),
        ("SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')", "497"),
        ("SELECT * FROM remote('127.0.0.1:1', system.one)", "497"),
        ("SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')", "497"),
        ("SET max_execution_time = 100", "164"),
        ("SELECT 1 SETTINGS max_result_rows = 0", "164"),
        ("SELECT * FROM numbers(2500001)", "396"),
        ("SELECT sum(number) FROM numbers(200000001)", "158"),
    ],
)
def test_the_bridges_user_is_refused_what_it_does_not_need(bridge: ClickHouseServer, statement: str, code: str) -> None:
    assert refusal(bridge, statement) == code


def test_the_bridges_profile_has_the_limits_that_the_bridge_would_ask_for(bridge: ClickHouseServer) -> None:
    wanted = ClickHouseConfig()
    names = ("max_execution_time", "max_result_rows", "max_memory_usage", "timeout_overflow_mode", "result_overflow_mode")
    limits = (wanted.max_execution_time_s, wanted.max_rows, wanted.max_memory_bytes, "throw", "throw")
    found = bridge.execute(f"SELECT name, value FROM system.settings WHERE name IN {names}")
    assert dict(line.split("\t") for line in found.splitlines()) == {
        name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in zip(names, limits, strict=True)
    }


async def test_a_cancelled_question_of_the_bridges_user_ends_at_the_server(
    bridge: ClickHouseServer, source: ClickHouseSource
) -> None:
    bridge.faults(ignores_leaving=True)  # so that nothing but KILL QUERY ends it
    await source.ping()
    slow = "SELECT toInt64(0) AS time, toFloat64(sum(sipHash128(number) = sipHash128('x'))) AS value FROM numbers(190000000)"
    asking = asyncio.create_task(source.fetch(Statement("clickhouse", "slow", slow, (), WHOLE)))
    while not await asyncio.to_thread(bridge.running, "sipHash128"):
        await asyncio.sleep(0.01)
    kills = bridge.kills()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    begun_s = time.monotonic()
    while await asyncio.to_thread(bridge.running, "sipHash128"):
        await asyncio.sleep(0.01)
    bridge.faults()
    assert time.monotonic() - begun_s < 1
    assert bridge.kills() == kills + 1


def test_the_quota_is_the_bridges(administrator: ClickHouseServer) -> None:
    # The embedded engine begins each statement with an untouched quota, so that it cannot be run into here.
    quota = "CREATE QUOTA bridge KEYED BY user_name FOR INTERVAL 1 minute MAX queries = 3000, errors = 1000, execution_time = 240"
    assert administrator.execute("SHOW CREATE QUOTA bridge") == f"{quota} TO bridge"


def test_the_backend_adds_rows_and_takes_none_away(data: Path, tmp_path: Path) -> None:
    with server_for("backend", data, tmp_path) as server:
        before = int(server.execute(f"SELECT count() FROM {DATABASE}.system_event_log"))
        server.execute(f"INSERT INTO {DATABASE}.system_event_log (ts, title) VALUES (now(), 'tried')")
        assert int(server.execute(f"SELECT count() FROM {DATABASE}.system_event_log")) == before + 1
        changes = ("ALTER TABLE {} DELETE WHERE 1", "TRUNCATE TABLE {}", "DROP TABLE {}", "OPTIMIZE TABLE {} FINAL")
        refused = {change: refusal(server, change.format(f"{DATABASE}.trades")) for change in changes}
        assert refused == dict.fromkeys(changes, "497")


def test_the_backup_user_saves_and_proves_but_cannot_write_into_the_history(data: Path, tmp_path: Path) -> None:
    count = "SELECT count(), sum(cityHash64(trade_id, version)) FROM {}.trades"
    with server_for("backup", data, tmp_path) as server:
        server.execute(f"BACKUP DATABASE {DATABASE} TO Disk('backups', 'full/')")
        server.execute(f"BACKUP DATABASE {DATABASE} TO Disk('backups', 'more/') SETTINGS base_backup = Disk('backups', 'full/')")
        server.execute(f"RESTORE DATABASE {DATABASE} AS trade_system_aside FROM Disk('backups', 'more/')")
        assert server.execute(count.format("trade_system_aside")) == server.execute(count.format(DATABASE))
        server.execute("DROP DATABASE trade_system_aside SYNC")
        assert refusal(server, f"BACKUP DATABASE {DATABASE} TO File('/tmp/elsewhere/')") in {"36", "497"}
        for change in (f"DROP TABLE {DATABASE}.trades", f"INSERT INTO {DATABASE}.trades (account_id) VALUES ('x')"):
            assert refusal(server, change) == "497"
        assert refusal(server, f"RESTORE DATABASE {DATABASE} FROM Disk('backups', 'more/')") == "497"
        assert server.execute("SELECT countIf(status = 'BACKUP_CREATED') FROM system.backups") == "2"


def test_the_schema_user_restores_and_sets_the_old_database_aside(data: Path, tmp_path: Path) -> None:
    count = f"SELECT count(), sum(cityHash64(trade_id, version)) FROM {DATABASE}.trades"
    with server_for("backup", data, tmp_path) as server:
        server.execute(f"BACKUP DATABASE {DATABASE} TO Disk('backups', 'full/')")
        before = server.execute(count)
    with clickhouse_as("schema", tmp_path / "data", tmp_path / "configuration") as server:
        server.execute(f"DETACH TABLE {DATABASE}.execution_1m_of_trades PERMANENTLY")
        server.execute(f"RENAME DATABASE {DATABASE} TO {DATABASE}_before_today")
        server.execute(f"RESTORE DATABASE {DATABASE} FROM Disk('backups', 'full/')")
        assert server.execute(count) == before
        server.execute(f"DROP DATABASE {DATABASE}_before_today SYNC")
        assert refusal(server, "CREATE DATABASE elsewhere") == "497"


def refused_start(folder: Path, environment: dict[str, str]) -> str:
    """Why the engine does not start with the configuration in that folder."""
    engine = "import chdb, sys; chdb.connect(sys.argv[1])"
    command = [sys.executable, "-c", engine, f"{folder / 'data'}?config-file={folder / 'config.xml'}"]
    started = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert started.returncode != 0
    return started.stderr


def test_nobody_gets_in_as_the_user_that_clickhouse_comes_with(tmp_path: Path) -> None:
    configured("administrator", tmp_path)
    shutil.copy(PROVISIONED / "users.d" / "no-default-user.xml", tmp_path / "users.d")
    assert "Authentication failed" in refused_start(tmp_path, hashes())


def test_a_missing_hash_stops_the_server_instead_of_leaving_a_user_without_password(tmp_path: Path) -> None:
    configured("administrator", tmp_path)
    assert "Password hash" in refused_start(tmp_path, {})


def test_the_bridges_user_sees_no_other_users_queries(administrator: ClickHouseServer) -> None:
    policies = administrator.execute("SELECT short_name, select_filter FROM system.row_policies WHERE short_name = 'bridge'")
    assert policies == "bridge\tuser = currentUser()"
    assert set(administrator.execute("SHOW GRANTS FOR bridge").splitlines()) == {
        "GRANT SELECT(query, query_id, user) ON system.processes TO bridge",
        "GRANT SELECT(absolute_delay, database, is_readonly) ON system.replicas TO bridge",
        f"GRANT SELECT ON {DATABASE}.* TO bridge",
    }


def test_every_user_has_a_hashed_password_and_comes_from_a_private_network(administrator: ClickHouseServer) -> None:
    users = administrator.execute("SELECT name, auth_type, host_ip FROM system.users WHERE name != 'default' ORDER BY name")
    networks = "['10.0.0.0/8','172.16.0.0/12','192.168.0.0/16','fd00::/8']"  # this machine's own addresses are kept as a name
    assert users.splitlines() == [
        f"{name}\t['sha256_password']\t{networks}" for name in ("backend", "backup", "bridge", "schema")
    ]


def test_the_optional_grafana_user_loads_beside_the_others(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data", symlinks=True)
    config = configured("administrator", tmp_path)
    # The embedded engine does not read the setting that allows this constraint; config.d/trade_system.xml has it.
    text = (PROVISIONED / "optional" / "grafana.xml").read_text(encoding="utf-8")
    (tmp_path / "users.d" / "grafana.xml").write_text(text.replace("<changeable_in_readonly/>", ""))
    with running(tmp_path / "data", config) as server:
        grants, profile = (server.execute(f"SHOW {what}") for what in ("GRANTS FOR grafana", "CREATE SETTINGS PROFILE grafana"))
    assert grants == f"GRANT SELECT ON {DATABASE}.* TO grafana"
    assert "max_execution_time MIN 1. MAX 10." in profile
    assert "INHERIT bridge" in profile.replace("`", "")
