"""Grafana's configuration, data sources, contact point and alert rules: known keys, no secret, and rules that get an answer."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import pytest
import yaml

from app.main import create_app
from app.telemetry import Telemetry
from dashboards.__main__ import RULES, rules
from dashboards.alerts import as_grafana
from tests.e2e.conftest import client_of
from tests.provisioning.agreements import ROOT
from tests.provisioning.readers import ini
from tests.servers.world import Stores

FOLDER = ROOT / "provisioning" / "grafana"
#: conf/defaults.ini of grafana/grafana, the sections that are used here; `wal` since 9.0, the others in 9 to 13
KNOWN = {
    "server": "protocol http_addr http_port domain enforce_domain root_url serve_from_sub_path router_logging enable_gzip "
    "cert_file cert_key socket read_timeout",
    "security": "disable_initial_admin_creation admin_user admin_password admin_email secret_key disable_gravatar cookie_secure "
    "data_source_proxy_whitelist disable_brute_force_login_protection cookie_samesite allow_embedding strict_transport_security "
    "strict_transport_security_max_age_seconds x_content_type_options content_security_policy",
    "users": "allow_sign_up allow_org_create auto_assign_org auto_assign_org_id auto_assign_org_role viewers_can_edit",
    "auth.anonymous": "enabled org_name org_role hide_version",
    "database": "type host name user password url max_idle_conn max_open_conn conn_max_lifetime ssl_mode path cache_mode wal",
    "dataproxy": "logging timeout dialTimeout keep_alive_seconds tls_handshake_timeout_seconds max_conns_per_host "
    "max_idle_connections idle_conn_timeout_seconds send_user_header response_limit row_limit",
    "dashboards": "versions_to_keep min_refresh_interval default_home_dashboard_path",
    "unified_alerting": "enabled execute_alerts evaluation_timeout min_interval max_attempts ha_listen_address "
    "ha_advertise_address ha_peers",
    "log": "mode level filters",
    "log.file": "level format log_rotate max_lines max_size_shift daily_rotate max_days",
    "metrics": "enabled interval_seconds disable_total_stats basic_auth_username basic_auth_password",
    "analytics": "reporting_enabled check_for_updates check_for_plugin_updates feedback_links_enabled",
    "snapshots": "external_enabled external_snapshot_url external_snapshot_name public_mode",
    "feature_toggles": "enable",
}


def unknown(text: str) -> list[str]:
    """Keys of an ini file that Grafana does not have."""
    parsed = ini(text)
    return [f"{section}.{key}" for section in parsed for key in parsed[section] if key not in _small(KNOWN.get(section, ""))]


def _small(names: str) -> set[str]:
    return set(names.lower().split())


def test_every_key_of_the_configuration_is_one_of_grafanas_and_none_is_obsolete() -> None:
    text = (FOLDER / "grafana.ini").read_text(encoding="utf-8")
    assert unknown(text) == []
    assert unknown("[session]\nprovider = file\n[alerting]\nenabled = true\n[server]\nhttp_prot = 1\n") == [
        "session.provider",
        "alerting.enabled",
        "server.http_prot",
    ]


def test_the_configuration_says_every_variable_that_the_files_take_from_the_environment() -> None:
    said = (FOLDER / "grafana.ini").read_text(encoding="utf-8")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["x-grafana-environment"]
    used = set()
    for name in ("datasources/bridge.yaml", "alerting/contacts.yaml"):
        used |= set(re.findall(r"\$(\w+)", (FOLDER / name).read_text(encoding="utf-8")))
    assert used == {"BRIDGE_URL", "BRIDGE_KEY", "PROMETHEUS_URL", "ALERT_WEBHOOK_URL"}
    assert {name for name in used if name not in said or name not in compose} == set()


def sources() -> list[Mapping[str, Any]]:
    files = (*FOLDER.glob("datasources/*.yaml"), *FOLDER.glob("optional/*.yaml"))
    return [source for file in files for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]]


def literal_secrets(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Secrets that stand in a file."""
    return [
        f"{source['uid']}.{name}"
        for source in found
        for name, value in source.get("secureJsonData", {}).items()
        if "$" not in value
    ]


def test_data_sources_have_a_name_of_their_own_and_no_secret() -> None:
    found = sources()
    assert len({source["uid"] for source in found}) == len({source["name"] for source in found}) == len(found) == 6
    assert literal_secrets(found) == []
    assert literal_secrets([{"uid": "a", "secureJsonData": {"password": "hunter2"}}]) == ["a.password"]
    assert [source["uid"] for source in found if source.get("isDefault")] == ["bridge-json"]


def test_the_alert_rules_are_those_of_the_code() -> None:
    assert RULES.read_text(encoding="utf-8") == rules(), "run `make dashboards`"


def _all_rules() -> Iterator[Mapping[str, Any]]:
    for group in as_grafana()["groups"]:
        yield from group["rules"]


ALL_RULES = {rule["uid"]: rule for rule in _all_rules()}
ON_THE_BRIDGE = [uid for uid, rule in ALL_RULES.items() if rule["data"][0]["datasourceUid"] == "bridge-infinity-alerts"]


def test_every_rule_is_whole() -> None:
    assert len(ALL_RULES) == 13
    titles = [rule["title"] for rule in ALL_RULES.values()]
    assert len(set(titles)) == len(titles)
    for rule in ALL_RULES.values():
        queried, reduced, compared = rule["data"]
        assert [one["refId"] for one in rule["data"]] == ["A", "B", "C"]
        assert (reduced["model"]["expression"], compared["model"]["expression"], rule["condition"]) == ("A", "B", "C")
        assert queried["datasourceUid"] in {source["uid"] for source in sources()}
        assert rule["execErrState"] == "Error"
        assert len(rule["uid"]) <= 40


def crossed(rule: Mapping[str, Any], newest: float) -> bool:
    """What the rule's condition says of the newest value."""
    [condition] = rule["data"][2]["model"]["conditions"]
    than, [limit] = condition["evaluator"]["type"], condition["evaluator"]["params"]
    return bool(newest > limit if than == "gt" else newest < limit)


@pytest.mark.parametrize(
    ("uid", "good", "bad"),
    [
        ("tds-margin-level-low", 200, 199.9),
        ("tds-margin-level-critical", 150, 149.9),
        ("tds-drawdown-high", 10, 10.1),
        ("tds-drawdown-critical", 20, 20.1),
        ("tds-heartbeat-late", 10, 21),
        ("tds-heartbeat-lost", 20, 31),
        ("tds-sync-slow", 0.15, 0.25),
        ("tds-signals-wait", 100, 101),
        ("tds-signals-pile-up", 200, 201),
        ("tds-rejects-many", 2, 2.1),
        ("tds-rejects-most", 5, 5.1),
        ("tds-source-down", 1, 0),
        ("tds-stale-served", 0, 0.01),
    ],
)
def test_a_rule_speaks_up_for_a_bad_value_and_not_for_a_good_one(uid: str, good: float, bad: float) -> None:
    assert (crossed(ALL_RULES[uid], good), crossed(ALL_RULES[uid], bad)) == (False, True)


@pytest.fixture(scope="module")
def asked(stores: Stores) -> Mapping[str, httpx.Response]:
    """The answer to every rule's query, as the plugin's server side would send it."""
    return asyncio.run(_asked(stores))


async def _asked(stores: Stores) -> Mapping[str, httpx.Response]:
    clock = stores.until_ms
    async with client_of(create_app(stores.settings(), lambda: clock)) as client:
        return {uid: await client.get("/alert/v1/rows", params=_params(ALL_RULES[uid], clock)) for uid in ON_THE_BRIDGE}


def _params(rule: Mapping[str, Any], now_ms: int) -> dict[str, str]:
    """Parameters with the macros that the plugin fills in for a rule; any other is left as it is."""
    query = rule["data"][0]
    macros = {"${__timeFrom}": now_ms - query["relativeTimeRange"]["from"] * 1000, "${__timeTo}": now_ms}
    given = {param["key"]: str(macros.get(param["value"], param["value"])) for param in query["model"]["url_options"]["params"]}
    assert not any("$" in value for value in given.values()), given
    return given


@pytest.mark.parametrize("uid", ON_THE_BRIDGE)
def test_a_rules_query_is_answered_on_the_alert_path_with_the_columns_that_it_names(
    uid: str, asked: Mapping[str, httpx.Response]
) -> None:
    answer, columns = asked[uid], ALL_RULES[uid]["data"][0]["model"]["columns"]
    assert answer.status_code == 200, answer.text
    rows = answer.json()["rows"]
    assert rows, uid
    kinds: Mapping[str, tuple[type, ...]] = {"timestamp_epoch": (int,), "string": (str,), "number": (int, float, type(None))}
    for column in columns:
        assert all(isinstance(row[column["selector"]], kinds[column["type"]]) for row in rows), column
    newest = {tuple(row[name["selector"]] for name in columns[1:-1]): row["value"] for row in rows if row["value"] is not None}
    assert newest, uid
    assert all(isinstance(crossed(ALL_RULES[uid], value), bool) and math.isfinite(value) for value in newest.values())


def test_rules_on_prometheus_name_metrics_that_the_bridge_has() -> None:
    exposed = Telemetry().exposition().decode()
    known = set(re.findall(r"^# TYPE (\w+)", exposed, re.MULTILINE))
    named = {name for rule in ALL_RULES.values() for name in re.findall(r"bridge_\w+", rule["data"][0]["model"].get("expr", ""))}
    assert (named <= known, len(named)) == (True, 2), named - known
