"""A site without some of the stores: one line for each, and everything that would be read from them says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.config import Settings, read_settings, settings_from
from app.errors import ConfigError
from app.main import build_service
from tests.e2e.conftest import client_of

OFF = ("ris", "rtss", "rtrs", "clickhouse", "duckdb", "prometheus")
NOBODY = {"connect": {"kind": "redis", "port": 1}, "policy": {"attempt_timeout_s": 0.5, "total_timeout_s": 0.6}}


def one_redis(**more: Any) -> Settings:
    sources = {"rts": NOBODY} | {name: {"enabled": False} for name in OFF}
    return settings_from({"sources": sources, "agent": {"port": None}, **more}, "test")


@pytest.mark.parametrize(
    "off",
    [
        {"enabled": False},
        {"enabled": "no"},
        {"connect": {"enabled": False}},
        {"connect": {"kind": "clickhouse", "enabled": False}},
        {"enabled": False, "connect": {"kind": "clickhouse", "host": "x"}},
        {"enabled": False, "connect": {"host": "x", "password": "of an environment that others share"}},
        {"enabled": False, "policy": {"fresh_s": 1}},
    ],
)
def test_a_source_is_off_by_one_word(off: dict[str, Any]) -> None:
    source = settings_from({"sources": {"clickhouse": off}}, "test").sources["clickhouse"]
    assert (source.enabled, source.connect.enabled) == (False, False)


def test_a_variable_switches_a_source_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES__CLICKHOUSE__ENABLED", "false")
    connect = read_settings(Path("provisioning/bridge.yaml")).sources["clickhouse"].connect
    assert (connect.kind, connect.enabled) == ("clickhouse", False)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            {"enabled": False, "connect": {"kind": "redis", "enabled": True}},
            "`enabled` and `connect.enabled` say different things",
        ),
        ({"enabeld": False}, "sources.x.enabeld: unknown key; nearest: enabled"),
        ({"enabled": "perhaps", "connect": {"kind": "redis"}}, "sources.x.enabled: Input should be a valid boolean"),
        ({"enabled": True}, "sources.x.connect: Field required"),
        ({"connect": {"host": "x"}}, "sources.x.connect: `kind` is missing; allowed: clickhouse, duckdb, off, prometheus, redis"),
    ],
)
def test_a_source_that_is_neither_off_nor_complete_is_refused(source: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        settings_from({"sources": {"x": source}}, "test")
    assert said in str(wrong.value)


async def test_a_site_with_one_redis_runs_the_whole_catalogue_and_says_what_is_off() -> None:
    async with client_of(build_service(one_redis()).app) as client:
        health = (await client.get("/health/sources")).json()["sources"]
        rows = await client.get("/v1/rows", params={"metric": "slippage"})
    assert {name for name, facts in health.items() if not facts["enabled"]} == set(OFF)
    assert {health[name]["error"] for name in OFF} == {"switched off in the configuration"}
    said = "clickhouse: is switched off in the configuration (enabled: false)"
    assert (rows.status_code, said in rows.text) == (503, True)
