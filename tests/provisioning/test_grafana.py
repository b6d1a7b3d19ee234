"""Grafana's configuration, data sources, contact point and policies, and the form of the rules that test_alert_rules.py asks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.telemetry import Telemetry
from dashboards.__main__ import RULES as RULES_FILE
from dashboards.__main__ import made, rules
from tests.e2e.conftest import client_of
from tests.provisioning.agreements import ROOT
from tests.provisioning.alerting import ENVIRONMENT, FOLDER, ON_PROMETHEUS, RULES, SOURCES
from tests.provisioning.readers import ini
from tests.servers.alerting import expanded
from tests.servers.world import Stores

KEYS = json.loads((Path(__file__).parent / "grafana_keys.json").read_text(encoding="utf-8"))
INI = (FOLDER / "grafana.ini").read_text(encoding="utf-8")
PANELS: dict[Any, Any] = {
    (one["uid"], str(panel["id"])): panel
    for one in (json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("dashboards/*.json")))
    for panel in one["panels"]
    if panel["type"] != "row"
}
#: Keys that an older Grafana does not have, and ignores; the file says so beside each.
IGNORED_BY_OLDER = {
    "database.wal",
    "plugins.disable_plugins",
    "plugins.preinstall_auto_update",
    "unified_alerting.rule_version_record_limit",
}


def unknown(text: str) -> list[str]:
    """Keys of an ini file that not every Grafana has."""
    known = {f"{section}.{key}".lower() for section, keys in KEYS["both"].items() for key in keys}
    parsed = ini(text)
    return [f"{section}.{key}" for section in parsed for key in parsed[section] if f"{section}.{key}" not in known]


def test_every_key_of_the_configuration_is_one_of_grafanas_and_none_is_obsolete() -> None:
    assert set(unknown(INI)) == IGNORED_BY_OLDER
    assert {f"{section}.{key}" for section, keys in KEYS["newer"].items() for key in keys} >= IGNORED_BY_OLDER
    assert unknown("[session]\nprovider = file\n[alerting]\nenabled = true\n[server]\nhttp_prot = 1\n") == [
        "session.provider",
        "alerting.enabled",
        "server.http_prot",
    ]


def unknown_variables(text: str) -> set[str]:
    """`GF_...` variables that are no key of any Grafana."""
    every = [*KEYS["both"].items(), *KEYS["newer"].items()]
    known = {f"GF_{section}_{key}".replace(".", "_").upper() for section, keys in every for key in keys}
    return {name for name in re.findall(r"\bGF_[A-Z][A-Z_]+[A-Z]", text) if name.removesuffix("__FILE") not in known}


@pytest.mark.parametrize("name", ["provisioning/grafana/grafana.ini", "docker-compose.yml"])
def test_every_variable_for_grafana_is_a_key_of_its(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "GF_SECURITY_SECRET_KEY__FILE" in text
    assert unknown_variables(text) - {"GF_SECTION_KEY", "GF_SECTION_KEY__FILE"} == set()
    assert unknown_variables("GF_SESSION_PROVIDER=file GF_DATABASE_HOTS: a") == {"GF_SESSION_PROVIDER", "GF_DATABASE_HOTS"}


def test_no_secret_stands_in_the_configuration() -> None:
    secret = {"admin_password", "password", "secret_key", "basic_auth_password", "url"}
    assert [key for section in ini(INI).values() for key in section if key in secret] == []


def test_the_configuration_says_every_variable_that_the_files_take_from_the_environment() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["x-grafana-environment"]
    used = set()
    for name in ("datasources/bridge.yaml", "alerting/contacts.yaml"):
        lines = [line.partition("#")[0] for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]
        used |= {found for line in lines for found in re.findall(r"\$\{?(\w+)", line)}
    assert used == {"BRIDGE_URL", "BRIDGE_KEY", "PROMETHEUS_URL", "ALERT_WEBHOOK_URL"}
    assert {name for name in used if name not in INI or name not in compose} == set()


def sources() -> list[dict[str, Any]]:
    """The data sources of every file, the optional ones among them."""
    files = (*FOLDER.glob("datasources/*.yaml"), *FOLDER.glob("optional/*.yaml"))
    return [source for file in files for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]]


def complaints(found: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with data sources."""
    for key in ("uid", "name"):
        names = [source.get(key) for source in found]
        yield from (f"{key} {name} is there twice" for name in {name for name in names if names.count(name) > 1})
    for source in found:
        yield from (f"{source.get('uid')}: {complaint}" for complaint in _complaints(source))


def _complaints(source: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"no {key}" for key in ("name", "uid", "type", "access", "jsonData") if not source.get(key))
    if source.get("access") != "proxy":
        yield "asked by the browser"
    for name, value in source.get("secureJsonData", {}).items():
        if not re.search(r"\$\w+$", value):
            yield f"{name} is a literal"
    if ":-" in json.dumps(source) or source.get("url", "").endswith("/"):
        yield "its address has a default, which Grafana does not know, or a slash at its end"
    options = source.get("jsonData", {})
    limits = [options[key] for key in ("timeout", "timeoutInSeconds") if key in options]
    if not source.get("type", "").startswith(("grafana-clickhouse", "redis")) and set(limits) != {10}:
        yield "its time is not the ladder's 10 s"
    if source.get("type", "").startswith("yesoreyeram") and not {"timeoutInSeconds", "allowedHosts"} <= options.keys():
        yield "Infinity knows `timeoutInSeconds` only, and sends a key to `allowedHosts` only"


def test_data_sources_are_whole_and_have_no_secret_and_the_ladders_time() -> None:
    assert list(complaints(sources())) == []
    assert len(sources()) == 6
    assert [source["uid"] for source in sources() if source.get("isDefault")] == ["bridge-json"]
    for file in FOLDER.glob("**/*.yaml"):
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["apiVersion"] == 1


SPOILT: dict[str, Callable[[Any], object]] = {
    "bearerToken is a literal": lambda one: one["secureJsonData"].update(bearerToken="hunter2"),
    "no uid": lambda one: one.pop("uid"),
    "asked by the browser": lambda one: one.update(access="direct"),
    "its time": lambda one: one["jsonData"].update(timeoutInSeconds=60),
    "its address": lambda one: one.update(url="${BRIDGE_URL:-http://127.0.0.1:8080}"),
    "Infinity knows": lambda one: one["jsonData"].pop("allowedHosts"),
    "uid bridge-json is there twice": lambda one: one.update(uid="bridge-json"),
}


@pytest.mark.parametrize("said", SPOILT)
def test_a_spoilt_data_source_is_complained_about(said: str) -> None:
    found = sources()
    SPOILT[said](next(source for source in found if source["uid"] == "bridge-infinity"))
    assert [complaint for complaint in complaints(found) if said in complaint] != []


@pytest.mark.parametrize("uid", ["bridge-infinity", "bridge-infinity-alerts"])
def test_save_and_test_asks_something_that_is_answered(stores: Stores, uid: str) -> None:
    options = SOURCES[uid]["jsonData"]
    assert options["customHealthCheckEnabled"]
    url = expanded(SOURCES[uid]["url"], ENVIRONMENT) + options["customHealthCheckUrl"]

    async def answer() -> httpx.Response:
        async with client_of(stores.app()) as client:
            return await client.get(url)

    answered = asyncio.run(answer())
    assert (answered.status_code, bool(answered.json())) == (200, True)


def test_the_alert_rules_are_those_of_the_code() -> None:
    assert RULES_FILE.read_text(encoding="utf-8") == rules(made()), "run `make dashboards`"


def faults(rule: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a rule's form."""
    yield from _wrong_queries(rule)
    yield from _wrong_texts(rule)
    yield from _wrong_link(rule)
    if rule["execErrState"] != "Error" or rule["noDataState"] not in {"OK", "NoData", "Alerting"}:
        yield "its states"
    if not re.fullmatch(r"[a-z0-9-]{1,40}", rule["uid"]):
        yield "its uid"


def _wrong_queries(rule: Mapping[str, Any]) -> Iterator[str]:
    refs = [query["refId"] for query in rule["data"]]
    kinds = {query["refId"]: query["model"].get("type") for query in rule["data"]}
    if len(set(refs)) != len(refs) or kinds.get(rule["condition"]) != "threshold":
        yield "its condition is no comparison of its own"
    for query in rule["data"]:
        if query["datasourceUid"] not in {*SOURCES, "__expr__"} or query["model"]["datasource"]["uid"] != query["datasourceUid"]:
            yield f"{query['refId']} asks a data source that is not there"
        if query["datasourceUid"] == "__expr__" and query["model"]["expression"] not in refs[: refs.index(query["refId"])]:
            yield f"{query['refId']} takes what is not there before it"


def _wrong_texts(rule: Mapping[str, Any]) -> Iterator[str]:
    if "$" in json.dumps(rule):
        yield "a dollar sign, which Grafana may take for its environment's"
    if rule["labels"].get("severity") not in {"warning", "critical"} or not {"summary", "description", "runbook"} <= {
        *rule["annotations"]
    }:
        yield "its labels or texts"
    labels = set(re.findall(r"\.Labels\.(\w+)", rule["annotations"]["summary"]))
    given = rule["data"][0]["model"].get("columns") or [{"text": "source"}]
    if labels != {column["text"] for column in given} - {"time", "value"}:
        yield "its summary names other labels than its series have"


def _wrong_link(rule: Mapping[str, Any]) -> Iterator[str]:
    annotations = rule["annotations"]
    link = annotations.get("__dashboardUid__"), annotations.get("__panelId__")
    if link != (rule["dashboardUid"], str(rule["panelId"])):
        yield "its two links differ"
    panel = PANELS.get(link)
    if panel is None:
        yield "a link to a panel that is not there"
    elif not any(_shows(target, rule["data"][0]["model"]) for target in panel["targets"]):
        yield "a link to a panel of something else"
    elif "expr" not in rule["data"][0]["model"] and not _limit_is_shown(rule, _limits(panel)):
        yield "a limit that its panel does not show"


def _shows(target: Mapping[str, Any], model: Mapping[str, Any]) -> bool:
    """Whether a panel's target asks for what the rule asks for, by the same labels."""
    if "expr" in model:
        return set(re.findall(r"bridge_\w+", model["expr"])) <= set(re.findall(r"bridge_\w+", target["expr"]))
    asked = {param["key"]: param["value"] for param in model["url_options"]["params"]}
    by: list[str] = json.loads(target["payload"]).get("by", [])
    return bool(target["target"] == asked["metric"]) and by == asked["by"].split(",")


def _limit_is_shown(rule: Mapping[str, Any], steps: set[Any]) -> bool:
    """Whether the colour changes at the limit, or was the worst one long before."""
    return _limit(rule) in steps or _limit(rule) >= 2 * max(steps - {None})


def _limit(rule: Mapping[str, Any]) -> float:
    found: float = rule["data"][-1]["model"]["conditions"][0]["evaluator"]["params"][0]
    return found


def _limits(panel: Mapping[str, Any]) -> set[float]:
    return {step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]}


def test_every_rule_is_whole() -> None:
    assert {uid: list(faults(rule)) for uid, rule in RULES.items()} == {uid: [] for uid in RULES}
    titles = [rule["title"] for rule in RULES.values()]
    assert (len(set(titles)), len(titles)) == (19, 19)


def _linked(uid: str, panel: int) -> Callable[[Any], object]:
    def link(rule: Any) -> None:
        rule.update(dashboardUid=uid, panelId=panel)
        rule["annotations"].update(__dashboardUid__=uid, __panelId__=str(panel))

    return link


WRONG_RULES: dict[str, Callable[[Any], object]] = {
    "no comparison": lambda rule: rule.update(condition="B"),
    "data source": lambda rule: rule["data"][0].update(datasourceUid="bridge"),
    "before it": lambda rule: rule["data"][1]["model"].update(expression="X"),
    "dollar": lambda rule: rule["annotations"].update(description="{{ $labels.account }}"),
    "states": lambda rule: rule.update(execErrState="OK"),
    "texts": lambda rule: rule["labels"].pop("severity"),
    "other labels": lambda rule: rule["annotations"].update(summary="{{ .Labels.acount }}"),
    "uid": lambda rule: rule.update(uid="x" * 41),
    "links differ": lambda rule: rule.update(panelId=1),
    "panel that is not there": _linked("tds-account", 999),
    "panel of something else": _linked("tds-account", 1),
    "limit that its panel": lambda rule: rule["data"][2]["model"]["conditions"][0]["evaluator"].update(params=[170]),
}


@pytest.mark.parametrize("said", WRONG_RULES)
def test_a_wrong_rule_is_complained_about(said: str) -> None:
    rule = deepcopy(dict(RULES["tds-margin-level-low"]))
    WRONG_RULES[said](rule)
    assert any(said in fault for fault in faults(rule))


def test_no_data_is_told_by_one_rule_of_a_metric() -> None:
    told: dict[str, list[str]] = {}
    for rule in RULES.values():
        model = rule["data"][0]["model"]
        asks = model["expr"] if "expr" in model else model["url_options"]["params"][0]["value"]
        told.setdefault(asks, []).append(rule["noDataState"])
    assert all(sum(state != "OK" for state in states) <= 1 for states in told.values()), told
    assert sum(state != "OK" for states in told.values() for state in states) == 6


def test_alerts_reach_the_contact_point_and_failed_evaluations_are_one_message() -> None:
    contacts = yaml.safe_load((FOLDER / "alerting" / "contacts.yaml").read_text(encoding="utf-8"))
    [point], [policy] = contacts["contactPoints"], contacts["policies"]
    assert [receiver["settings"]["url"] for receiver in point["receivers"]] == ["$ALERT_WEBHOOK_URL"]
    assert {policy["receiver"], *(route["receiver"] for route in policy["routes"])} == {point["name"]}
    assert {"account", "instance"} <= set(policy["group_by"])
    failed, critical = policy["routes"]
    assert failed["object_matchers"] == [["alertname", "=~", "DatasourceError|DatasourceNoData"]]
    assert failed["group_by"] == ["alertname"]
    assert critical["object_matchers"] == [["severity", "=", "critical"]]


def test_rules_on_prometheus_name_metrics_that_the_bridge_has() -> None:
    known = set(re.findall(r"^# TYPE (\w+)", Telemetry().exposition().decode(), re.MULTILINE))
    named = {name for uid in ON_PROMETHEUS for name in re.findall(r"bridge_\w+", RULES[uid]["data"][0]["model"]["expr"])}
    assert (named <= known, len(named)) == (True, 2), named - known


@pytest.mark.parametrize(
    ("text", "is_then"),
    [("$A/json", "x/json"), ("Bearer ${A}", "Bearer x"), ("$$A", "$A"), ("$NONE.", "."), ("${A:-y}", "")],
)
def test_a_file_is_filled_in_as_grafana_does_it(text: str, is_then: str) -> None:
    assert expanded(text, {"A": "x"}) == is_then
