"""The committed alert rules, asked as Grafana asks them, and a world in which things are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import yaml

from tests.provisioning.agreements import ROOT
from tests.servers.alerting import Json, Values, Verdict, figures, infinity_request, judged
from tests.servers.world import Stores

FOLDER = ROOT / "provisioning" / "grafana"
ENVIRONMENT = {"BRIDGE_URL": "http://bridge", "BRIDGE_KEY": "a-key-of-the-tests"}
SOURCES: dict[str, Json] = {
    source["uid"]: source
    for file in sorted(FOLDER.glob("datasources/*.yaml"))
    for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
}
RULES: dict[str, Json] = {
    rule["uid"]: rule
    for file in sorted(FOLDER.glob("alerting/*.yaml"))
    for group in yaml.safe_load(file.read_text(encoding="utf-8")).get("groups", [])
    for rule in group["rules"]
}
ON_THE_BRIDGE = [uid for uid, rule in RULES.items() if rule["data"][0]["datasourceUid"] == "bridge-infinity-alerts"]
ON_PROMETHEUS = [uid for uid in RULES if uid not in ON_THE_BRIDGE]
#: Rejected orders of so many; the last broker is a quiet one.
BROKERS = {"fair": (1, 300), "poor": (9, 300), "broken": (18, 300), "gone": (12, 12), "quiet": (1, 1)}
PAIRS = {"slow": ("rtrs", "duckdb"), "good": ("duckdb", "clickhouse")}


async def asked(client: httpx.AsyncClient, uid: str) -> httpx.Response:
    """The answer to the rule's query."""
    query = RULES[uid]["data"][0]
    return await client.send(infinity_request(SOURCES[query["datasourceUid"]], query["model"], ENVIRONMENT))


def verdict(uid: str, answer: httpx.Response) -> Verdict:
    """What the rule says of an answer to its query."""
    assert answer.status_code == 200, answer.text
    if uid in ON_PROMETHEUS:
        return judged(RULES[uid], _vector(answer))
    return judged(RULES[uid], figures(RULES[uid]["data"][0]["model"], answer.json()))


def asked_prometheus(port: int, uid: str, at_ms: int) -> httpx.Response:
    """The answer to a rule on Prometheus at that time: an instant query."""
    model = RULES[uid]["data"][0]["model"]
    assert (model["instant"], model["range"]) == (True, False)
    params: dict[str, Any] = {"query": model["expr"], "time": at_ms / 1000}
    return httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params=params)


def _vector(answer: httpx.Response) -> Values:
    """One figure a series."""
    return {frozenset(one["metric"].items()): [float(one["value"][1])] for one in answer.json()["data"]["result"]}


def wrong_redis(stores: Stores) -> None:
    """Two accounts near a margin call and in a drawdown, two late terminals, brokers that reject: each a bit, and much.

    The third account has no margin in use, so no margin level; the fifth is not written any more.
    """
    client, at_ms = stores.redis.client, stores.until_ms
    for name, level, fall in (("ACC1001", 190, 11), ("ACC1002", 140, 25)):
        margin = 1000.0
        equity = margin * level / 100
        figures_ = {"equity": equity, "margin": margin, "peak_equity": equity / (1 - fall / 100)}
        client.hset(f"account_state:{name}", mapping=figures_)
    client.hset("account_state:ACC1003", mapping={"margin": "0"})
    # Its terminal hung two minutes ago, in the middle of a margin call.
    hung = datetime.fromtimestamp(at_ms / 1000 - 120, UTC).isoformat()
    for field in ("equity", "margin", "peak_equity"):
        client.zremrangebyscore(f"hist:{field}:ACC1005", at_ms - 120_000, "+inf")
    client.hset("account_state:ACC1005", mapping={"equity": "1", "margin": "1000", "last_updated_at": hung})
    for name, age_s in (("mt5-001", 25), ("mt5-002", 40)):
        client.hset(f"instance:{name}", mapping={"last_heartbeat_ms": at_ms - age_s * 1000})
    numbers = iter(range(1, 1000))
    for broker, (rejects, orders) in BROKERS.items():
        for place in range(orders):
            result = {"event": "reject", "retcode": "10006"} if place < rejects else {"event": "execution", "retcode": "10009"}
            client.xadd("trade_results", result | {"broker_id": broker, "symbol": "EURUSD"}, id=f"{at_ms + 1}-{next(numbers)}")


def signals(stores: Stores, count: int) -> None:
    """Signals that nobody reads."""
    for _ in range(count):
        stores.redis.client.xadd("trade_signals", {"signal_id": "s", "action": "buy"})


def wrong_samples(until_ms: int) -> str:
    """OpenMetrics: of two syncs one is slow and fails; of three stores one is out of every bridge's reach, one of one's."""
    return "\n".join([*_syncs(until_ms), *_bridges(until_ms), *_disks(until_ms), "# EOF\n"])


def _times(until_ms: int) -> Iterator[tuple[int, int]]:
    """Twenty minutes, a sample each 15 s: its number and its time in s."""
    return enumerate(range(until_ms // 1000 - 1200, until_ms // 1000 + 1, 15))


def _syncs(until_ms: int) -> Iterator[str]:
    yield "# TYPE tds_sync_duration_seconds histogram"
    for kind, (source, sink) in PAIRS.items():
        for number, at in _times(until_ms):
            labels = f'source="{source}",sink="{sink}"'
            done = number * 10
            for le, count in (("0.1", 0 if kind == "slow" else done), ("0.25", 0 if kind == "slow" else done), ("+Inf", done)):
                yield f'tds_sync_duration_seconds_bucket{{{labels},le="{le}"}} {count} {at}'
            yield f"tds_sync_duration_seconds_count{{{labels}}} {done} {at}"
            yield f"tds_sync_duration_seconds_sum{{{labels}}} {done} {at}"
    yield "# TYPE tds_sync_failure counter"
    for kind, (source, sink) in PAIRS.items():
        for number, at in _times(until_ms):
            each_15s = 1.5 if kind == "slow" else 0.5
            yield f'tds_sync_failure_total{{source="{source}",sink="{sink}"}} {number * each_15s} {at}'


def _disks(until_ms: int) -> Iterator[str]:
    yield "# TYPE tds_host_disk_used_ratio gauge"
    for host, used in (("host-1", 0.9), ("host-2", 0.97), ("host-3", 0.5)):
        labels = f'host="{host}",disk="/"'
        yield from (f"tds_host_disk_used_ratio{{{labels}}} {used} {at}" for _, at in _times(until_ms))


def _bridges(until_ms: int) -> Iterator[str]:
    up: Mapping[str, tuple[int, int]] = {"rts": (0, 0), "clickhouse": (0, 1), "duckdb": (1, 1)}
    yield "# TYPE bridge_source_up gauge"
    for source, states in up.items():
        for replica, state in enumerate(states):
            labels = f'job="bridge",source="{source}",instance="b{replica}"'
            yield from (f"bridge_source_up{{{labels}}} {state} {at}" for _, at in _times(until_ms))
    yield "# TYPE bridge_stale_responses counter"
    for source, each in (("rts", 1), ("duckdb", 0)):
        labels = f'job="bridge",source="{source}"'
        yield from (f"bridge_stale_responses_total{{{labels}}} {5 + n * each} {at}" for n, at in _times(until_ms))
