"""Grafana's configuration and data sources: known keys, no secret, and the variables that they need. Rules: test_alert_rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from app.telemetry import Telemetry
from dashboards.__main__ import RULES, rules
from dashboards.alerts import as_grafana
from tests.provisioning.agreements import ROOT
from tests.provisioning.readers import ini

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
        used |= set(re.findall(r"^[^#\n]*\$([A-Z]\w+)", (FOLDER / name).read_text(encoding="utf-8"), re.MULTILINE))
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


def test_rules_on_prometheus_name_metrics_that_the_bridge_has() -> None:
    exposed = Telemetry().exposition().decode()
    known = set(re.findall(r"^# TYPE (\w+)", exposed, re.MULTILINE))
    expressions = [rule["data"][0]["model"].get("expr", "") for group in as_grafana()["groups"] for rule in group["rules"]]
    named = {name for expression in expressions for name in re.findall(r"bridge_\w+", expression)}
    assert (named <= known, len(named)) == (True, 2), named - known
