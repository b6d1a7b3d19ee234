"""Every alert rule is asked on the alert path of a bridge over real stores, and judged as Grafana judges it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.e2e.conftest import client_of
from tests.provisioning.alerting import (
    ON_PROMETHEUS,
    ON_THE_BRIDGE,
    RULES,
    SOURCES,
    asked,
    asked_prometheus,
    signals,
    verdict,
    wrong_redis,
    wrong_samples,
)
from tests.servers.alerting import figures, infinity_request, judged, named
from tests.servers.faulty import FaultProxy
from tests.servers.prometheus import prometheus_with
from tests.servers.world import Stores, running_stores

#: Which label of each rule's series the planted figure is over the limit for. Everything else in the same world is not.
FIRES = {
    "tds-margin-level-low": {"ACC1001", "ACC1002"},
    "tds-margin-level-critical": {"ACC1002"},
    "tds-drawdown-high": {"ACC1001", "ACC1002"},
    "tds-drawdown-critical": {"ACC1002"},
    "tds-account-silent": {"ACC1005"},
    "tds-heartbeat-late": {"mt5-001", "mt5-002"},
    "tds-heartbeat-lost": {"mt5-002"},
    "tds-sync-slow": {"rtrs"},
    "tds-sync-fails": {"rtrs"},
    "tds-results-wait": {"sync"},
    "tds-signals-wait": {"executors"},
    "tds-signals-pile-up": {"executors"},
    "tds-rejects-many": {"poor", "broken"},
    "tds-rejects-most": {"broken"},
    "tds-rejects-half": {"gone"},
    "tds-disk-fills": {"host-1", "host-2"},
    "tds-disk-full": {"host-2"},
    "tds-source-down": {"rts"},
    "tds-stale-served": {"rts"},
}
_LABEL = {"account": "account", "instance": "instance", "performance": "broker", "system_health": "host", "bridge": "source"}


def _label(uid: str) -> str:
    by = "group" if "wait" in uid or "pile" in uid else "source"
    return _LABEL.get(RULES[uid]["labels"]["group"], by)


@pytest.fixture(scope="module")
def well(stores: Stores) -> Mapping[str, httpx.Response]:
    """What the rules are told of a world in which all is well."""
    return asyncio.run(_all(stores, stores.until_ms))


async def _all(stores: Stores, now_ms: int, **ports: int) -> Mapping[str, httpx.Response]:
    async with client_of(stores.app(now_ms=now_ms, **ports)) as client:
        return {uid: await asked(client, uid) for uid in ON_THE_BRIDGE}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, httpx.Response]:
    """What they are told of one in which every rule has something to find: with 150 signals waiting, and then with 210."""
    folder = tmp_path_factory.mktemp("wrong")
    with running_stores(folder, hours=1, instances=4) as stores:
        now_ms = stores.until_ms + 1000
        with prometheus_with(folder / "samples", wrong_samples(now_ms)) as port:
            wrong_redis(stores)
            signals(stores, 150)
            found = dict(asyncio.run(_all(stores, now_ms, prometheus=port)))
            found["150 signals"] = found["tds-signals-pile-up"]
            signals(stores, 60)
            found["tds-signals-pile-up"] = asyncio.run(_all(stores, now_ms, prometheus=port))["tds-signals-pile-up"]
            return found | {uid: asked_prometheus(port, uid, now_ms) for uid in ON_PROMETHEUS}


def test_there_is_a_planted_figure_for_every_rule() -> None:
    assert FIRES.keys() == RULES.keys()
    assert len(ON_PROMETHEUS) == 2


@pytest.mark.parametrize("uid", ON_THE_BRIDGE)
def test_a_rule_has_figures_and_is_silent_where_all_is_well(well: Mapping[str, httpx.Response], uid: str) -> None:
    says = verdict(uid, well[uid])
    # A share of too few orders is a row without a figure; this desk is small.
    figures_ = well[uid].json()["rows"] if "least" in well[uid].url.params else says.newest
    assert (len(figures_) > 0, says.firing) == (True, frozenset())


@pytest.mark.parametrize("uid", FIRES)
def test_a_rule_speaks_up_for_what_is_wrong_and_for_nothing_else(wrong: Mapping[str, httpx.Response], uid: str) -> None:
    says = verdict(uid, wrong[uid])
    assert named(says.firing, _label(uid)) == FIRES[uid]
    others = named(says.newest, _label(uid)) - FIRES[uid]
    assert others or _label(uid) == "group", "nothing is there that could be well"


def test_some_waiting_signals_are_not_yet_a_pile(wrong: Mapping[str, httpx.Response]) -> None:
    says = verdict("tds-signals-pile-up", wrong["150 signals"])
    assert (list(says.newest.values()), says.firing) == ([150.0], frozenset())


def test_an_account_without_margin_has_no_margin_level_to_be_warned_of(wrong: Mapping[str, httpx.Response]) -> None:
    now = verdict("tds-margin-level-low", wrong["tds-margin-level-low"])
    assert named(now.newest, "account") >= {"ACC1001", "ACC1002", "ACC1004"}
    assert "ACC1003" not in named(now.newest, "account")
    assert "ACC1003" in named(verdict("tds-drawdown-high", wrong["tds-drawdown-high"]).newest, "account")


def test_an_account_that_nobody_writes_any_more_is_told_of_and_not_judged_by_old_figures(
    wrong: Mapping[str, httpx.Response],
) -> None:
    for uid in ("tds-margin-level-critical", "tds-drawdown-critical"):
        judged_ = named(verdict(uid, wrong[uid]).newest, "account")
        assert ("ACC1005" in judged_, "ACC1004" in judged_) == (False, True)


def test_a_store_that_has_just_failed_makes_the_rule_an_error_and_not_an_old_answer(stores: Stores) -> None:
    before, after = asyncio.run(_around_a_failure(stores))
    assert {uid: answer.status_code for uid, answer in before.items()} == dict.fromkeys(ON_THE_BRIDGE, 200)
    for uid, answer in after.items():
        assert answer.status_code in {502, 503, 504}, (uid, answer.status_code)
        assert "rows" not in answer.json()


async def _around_a_failure(stores: Stores) -> tuple[Mapping[str, httpx.Response], Mapping[str, httpx.Response]]:
    """The same bridge is asked twice; in between its stores begin to refuse."""
    async with AsyncExitStack() as stack:
        targets = {"redis": stores.redis.port, "clickhouse": stores.clickhouse.port, "prometheus": stores.prometheus_port}
        proxies = {name: await stack.enter_async_context(FaultProxy(port)) for name, port in targets.items()}
        app = stores.app(**{name: proxy.port for name, proxy in proxies.items()})
        client = await stack.enter_async_context(client_of(app))
        before = {uid: await asked(client, uid) for uid in ON_THE_BRIDGE}
        for proxy in proxies.values():
            await proxy.set("refuse")
        return before, {uid: await asked(client, uid) for uid in ON_THE_BRIDGE}


def test_a_rule_that_grafana_could_not_evaluate_is_refused_here_too() -> None:
    rule = RULES["tds-margin-level-low"]
    model = rule["data"][0]["model"]
    twice = {"rows": [{"account": "a", "value": 1.0}, {"account": "a", "value": 2.0}]}
    with pytest.raises(AssertionError, match="duplicate results"):
        figures(model, twice)
    with pytest.raises(AssertionError, match="backend parser"):
        infinity_request(SOURCES["bridge-infinity-alerts"], {**model, "parser": "simple"}, {})
    series = {**model, "format": "timeseries", "columns": [{"selector": "time", "text": "time", "type": "timestamp_epoch"}]}
    with pytest.raises(AssertionError, match="ascend"):
        figures(series, {"rows": [{"time": 2}, {"time": 1}]})
    with pytest.raises(AssertionError, match="must be a comparison"):
        judged({**rule, "condition": "A"}, {})
    with pytest.raises(KeyError):
        figures({**model, "columns": [{"selector": "acount", "text": "account", "type": "string"}]}, twice)
