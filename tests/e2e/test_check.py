"""`bridge check --connect` over real stores: nothing to say of what is right, and every planted mistake in one run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.servers.world import Stores

ROOT = Path(__file__).parents[2]


def sources_of(stores: Stores) -> dict[str, Any]:
    redis = {"connect": {"kind": "redis", "port": stores.redis.port}}
    return {
        **{name: json.loads(json.dumps(redis)) for name in ("rts", "ris", "rtss", "rtrs")},
        "clickhouse": {"connect": {"kind": "clickhouse", "port": stores.clickhouse.port, "password": stores.clickhouse.password}},
        "duckdb": {"connect": {"kind": "duckdb", "snapshots": str(stores.snapshots)}},
        "prometheus": {"connect": {"kind": "prometheus", "url": f"http://127.0.0.1:{stores.prometheus_port}"}},
    }


async def checked(config: Path, *options: str, **variables: str) -> tuple[int, list[str], list[str]]:
    command = [sys.executable, "-m", "app", "check", "--connect", "--config", str(config), *options]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, **variables}
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


async def test_every_statement_of_the_catalogue_is_explained_by_its_store(stores: Stores, tmp_path: Path) -> None:
    config = tmp_path / "bridge.yaml"
    config.write_text(yaml.safe_dump({"sources": sources_of(stores)}))
    status, said, wrong = await checked(config)
    explained = {line.split(":")[0] for line in said if re.search(r", \d+ reads explained$", line)}
    assert (status, wrong, explained) == (0, [], {"clickhouse", "duckdb", "prometheus"})


CATALOGUE = """
group: planted
title: Planted
lables: {}
labels:
  account: {title: Account, metric: eqity}
  broker: {title: Broker, metric: balance, values: [a]}
  state: {title: State, values: [on, off, off]}
  where: {title: Where, values: [a]}
metrics:
  equity: {title: E, description: D, unit: curencyUSD, aggregate: sum, over_time: last, labels: [account], live: LIVE}
  balance: {title: B, description: D, unit: short, agregate: sum, over_time: last, live: LIVE}
  margin: {title: M, description: D, unit: short, aggregate: sun, over_time: last, live: LIVE}
  credit: {title: C, description: D, unit: short, aggregate: sum, over_time: last,
    live: {source: rtx, index: i, hash: h, value: count}}
  profit: {title: P, description: D, unit: short, aggregate: sum, over_time: last, labels: [acount], live: LIVE}
  swap: {title: S, description: D, unit: short, aggregate: sum, over_time: last}
  trades: {title: T, description: D, unit: short, aggregate: sum, over_time: last, live: LIVE, aliases: [fees]}
  fees: {title: F, description: D, unit: short, aggregate: sum, over_time: last, live: LIVE, export: {name: tds_x, by: [accont]}}
  lots: {title: L, description: D, unit: short, aggregate: sum, over_time: last, live: LIVE, export: {name: tds_x}}
  pips: {title: P, description: D, unit: short, aggregate: sum, over_time: last,
    live: {source: rts, index: i, hsh: h, value: count}}
  either: {title: E, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: clickhouse, sql: "SELECT 1 AS time, 1 AS value FROM trades WHERE 1 OR 0 {where}"}}
  no_table: {title: N, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: clickhouse, sql: "SELECT 1 AS time, 1 AS value FROM tradse"}}
  no_column: {title: N, description: D, unit: short, aggregate: sum, over_time: sum, labels: [account],
    history: {source: clickhouse, labels: {account: acount_id},
      sql: "SELECT toInt64(1) AS time, {by}, count() AS value FROM trades WHERE 1 {where} GROUP BY ALL"}}
  no_integer: {title: N, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: clickhouse, sql: "SELECT now() AS time, 1 AS value"}}
  no_snapshot_table: {title: N, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: duckdb, sql: "SELECT $from_ms AS time, 1 AS value FROM acount_snapshots"}}
  not_sql: {title: N, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: duckdb, sql: "SELEC $from_ms AS time, 1 AS value"}}
  not_promql: {title: N, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: prometheus, query: "sum(rate(up[1m])"}}
  no_vector: {title: N, description: D, unit: short, aggregate: sum, over_time: sum,
    history: {source: prometheus, query: "'words'"}}
events:
  outages: {title: O, description: D, read: {source: clickhouse, sql: "SELECT 1 AS time, titel AS title FROM system_event_log"}}
""".replace("LIVE", "{source: rts, index: i, hash: 'h:{id}', value: count}")

JSON_SOURCE, ROWS_SOURCE = {"type": "simpod-json-datasource"}, {"type": "yesoreyeram-infinity-datasource"}
DASHBOARD = {
    "templating": {"list": [{"name": "account", "type": "query", "datasource": JSON_SOURCE, "query": {"query": "brokr"}}]},
    "panels": [
        {
            "id": 1,
            "title": "One",
            "datasource": JSON_SOURCE,
            "fieldConfig": {"defaults": {"unit": "prcent"}},
            "targets": [
                {"refId": "A", "target": "lot"},
                {"refId": "B", "target": "lots", "payload": {"by": ["x"], "step": "1y", "stp": "1m", "where": "account=$acount"}},
            ],
        },
        {
            "id": 2,
            "title": "Two",
            "datasource": ROWS_SOURCE,
            "targets": [
                {"refId": "A", "url": "/v1/row"},
                {"refId": "B", "url": "/v1/rows", "url_options": {"params": [{"key": "metrc", "value": "lots"}]}},
                {"refId": "C", "url": "/v1/rows?metric=lots&maxDataPoint=10"},
                {"refId": "D", "url": "/v1/events?name=outage"},
            ],
        },
    ],
}
RULES = """
groups:
  - rules:
      - {uid: r1, title: Rule, data: [{refId: A, model: {refId: A, url: "/v1/rows?metric=lotss",
         datasource: {type: yesoreyeram-infinity-datasource}}}]}
"""

#: what each line begins with, and what it must say besides: the wrong value or the nearest right one
PLANTED = [
    ("bridge.yaml: http.prot: ", "nearest: port"),
    ("bridge.yaml: log_level: ", "found 'inf'; nearest: info"),
    ("bridge.yaml: sources.duckdb.policy.total_timeout_s: ", "less than or equal to 60; found '99'"),
    ("bridge.yaml: sources.other.connect: ", "found 'reddis'; nearest: redis"),
    ("the environment: BRIDGE_LOGLEVEL: ", "nearest: BRIDGE_LOG_LEVEL"),
    ("the environment: BRIDGE_SOURCES__CLICKHOSE__CONNECT__PASSWORD: ", "nearest: clickhouse"),
    ("the environment: BRIDGE_REQUEST__MOST_CELLS: ", "request.most_cells: Input should be a valid integer"),
    ("secrets.env: BRIDGE_SOURCES__RTS__CONECT__PASSWORD: ", "nearest: BRIDGE_SOURCES__RTS__CONNECT__PASSWORD"),
    ("secrets.env: line 2: ", "is no BRIDGE_SECTION__KEY=value"),
    ("broken.yaml: line 2, column 1: ", "'title' is defined twice"),
    ("planted.yaml: lables: ", "nearest: labels"),
    ("planted.yaml: labels.account.metric: ", "no metric 'eqity' in the catalogue; nearest:"),
    ("planted.yaml: labels.broker: ", "has `metric` and `values`"),
    ("planted.yaml: labels.state: ", "'off' twice"),
    ("planted.yaml: labels.where: ", "is a parameter or column"),
    ("planted.yaml: metrics.equity.unit: ", "'curencyUSD' is no unit of Grafana's; nearest: currencyUSD"),
    ("planted.yaml: metrics.balance.agregate: ", "nearest: aggregate"),
    ("planted.yaml: metrics.margin.aggregate: ", "found 'sun'; nearest: sum"),
    ("planted.yaml: metrics.credit.live.source: ", "source 'rtx' is not configured; nearest: rt"),
    ("planted.yaml: metrics.profit.labels: ", "label 'acount' is not declared; nearest: account"),
    ("planted.yaml: metrics.swap: ", "has neither `history` nor `live`"),
    ("planted.yaml: metrics.fees: ", "name fees is already defined in planted.yaml at metrics.trades.aliases"),
    ("planted.yaml: metrics.fees.export.by: ", "label 'accont' is not one of this metric's"),
    ("planted.yaml: metrics.lots.export.name: ", "tds_x is the gauge of fees already"),
    ("planted.yaml: metrics.pips.live.hsh: ", "nearest: hash"),
    ("planted.yaml: metrics.either.history.sql: ", "stands beside an OR"),
    ("planted.yaml: metrics.no_table.history: ", "clickhouse: ", "tradse"),
    ("planted.yaml: metrics.no_column.history: ", "clickhouse: ", "acount_id"),
    ("planted.yaml: metrics.no_integer.history: ", "the column `time` is DateTime"),
    ("planted.yaml: metrics.no_snapshot_table.history: ", "duckdb: ", "acount_snapshots"),
    ("planted.yaml: metrics.not_sql.history.sql: ", "not SQL: "),
    ("planted.yaml: metrics.not_promql.history: ", "prometheus: "),
    ("planted.yaml: metrics.no_vector.history: ", "string"),
    ("planted.yaml: events.outages.read: ", "clickhouse: ", "titel"),
    ("one.json: variable 'account': ", "label 'brokr' is not known; nearest: broker"),
    ("one.json: panel 1 'One': the list account at the top ", "does not narrow this panel"),
    ("one.json: panel 2 'Two': the list account at the top ", "does not narrow this panel"),
    ("one.json: panel 2 'Two': target B: the plugin shows no remarks ", "allowed: the parameter marks=true"),
    ("one.json: panel 2 'Two': target C: the plugin shows no remarks ", "allowed: the parameter marks=true"),
    ("one.json: panel 1 'One', unit: ", "'prcent' is no unit of Grafana's; nearest: percent"),
    ("one.json: panel 1 'One', target A: ", "metric 'lot' is not known; nearest: lots"),
    ("one.json: panel 1 'One', target B: variable $acount ", "nearest: account"),
    ("one.json: panel 1 'One', target B: ", "label 'x' is not known"),
    ("one.json: panel 1 'One', target B: payload.step: ", "'1y' is not a duration"),
    ("one.json: panel 1 'One', target B: payload: ", "'stp' is not known"),
    ("one.json: panel 1 'One', target B: ", "label 'account' is not known"),
    ("one.json: panel 2 'Two', target A: url: ", "'/v1/row' is not known; nearest: /v1/rows"),
    ("one.json: panel 2 'Two', target B: ", "parameter 'metrc' is not known; nearest: metric"),
    ("one.json: panel 2 'Two', target C: ", "parameter 'maxDataPoint' is not known; nearest: maxDataPoints"),
    ("one.json: panel 2 'Two', target D: ", "event 'outage' is not known; nearest: outages"),
    ("rules.yaml: rule r1 'Rule', target A: ", "metric 'lotss' is not known; nearest: lots"),
]


def plant(folder: Path, stores: Stores) -> None:
    sources = sources_of(stores) | {"other": {"connect": {"kind": "reddis"}}}
    sources["duckdb"]["policy"] = {"total_timeout_s": 99}
    values = {"http": {"prot": 1}, "log_level": "inf", "catalog": str(folder / "catalog"), "sources": sources}
    (folder / "bridge.yaml").write_text(yaml.safe_dump(values))
    (folder / "secrets.env").write_text("BRIDGE_SOURCES__RTS__CONECT__PASSWORD=s3cret\nBRIDGE_STATE\n")
    for name in ("catalog", "boards", "rules"):
        (folder / name).mkdir()
    (folder / "catalog" / "planted.yaml").write_text(CATALOGUE)
    (folder / "catalog" / "broken.yaml").write_text("title: a\ntitle: b\nmetrics: {}\n")
    (folder / "boards" / "one.json").write_text(json.dumps(DASHBOARD))
    (folder / "rules" / "rules.yaml").write_text(RULES)


async def test_every_planted_mistake_is_listed_in_one_run_with_file_key_value_and_the_nearest_right_one(
    stores: Stores, tmp_path: Path
) -> None:
    plant(tmp_path, stores)
    status, said, wrong = await checked(
        tmp_path / "bridge.yaml",
        *("--dashboards", str(tmp_path / "boards"), "--alerts", str(tmp_path / "rules")),
        BRIDGE_SECRETS=str(tmp_path / "secrets.env"),
        BRIDGE_LOGLEVEL="s3cret",
        BRIDGE_SOURCES__CLICKHOSE__CONNECT__PASSWORD="s3cret",
        BRIDGE_REQUEST__MOST_CELLS="s3cret",
    )
    lines = [line.removeprefix(f"{tmp_path}/") for line in wrong]
    missed = [one for one in PLANTED if not any(line.startswith(one[0]) and all(part in line for part in one) for line in lines)]
    unasked = [line for line in lines if not any(line.startswith(one[0]) for one in PLANTED)]
    assert (missed, unasked, status) == ([], [], 2)
    assert "s3cret" not in "".join([*said, *wrong])
