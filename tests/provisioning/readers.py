"""What each provisioned file says about things of which another one speaks too: (topic, value), read from its text.

A key that is missing where a reader looks for it is a failure of the reader, and so of the test.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

STORES = ("rts", "ris", "rtss", "rtrs", "tier")


Reader = Callable[[str], Iterable[tuple[str, object]]]


def _bridge(text: str) -> Iterator[tuple[str, object]]:
    settings = yaml.safe_load(text)
    sources = {name: source["connect"] for name, source in settings["sources"].items()}
    yield "bridge port", settings["http"]["port"]
    yield "agent port", settings["agent"]["port"]
    for name, source in sources.items():
        if source["kind"] == "redis":
            yield f"redis {name} port", source["port"]
            yield f"one host: redis {name}", f"{source['host']}:{source['port']}"
    yield "clickhouse HTTP port", sources["clickhouse"]["port"]
    yield "clickhouse database", sources["clickhouse"]["database"]
    yield "one host: HAProxy for Prometheus", sources["prometheus"]["url"].removeprefix("http://")


def presets(text: str) -> dict[str, str]:
    """The variables of haproxy.cfg and their defaults."""
    return dict(re.findall(r"^\s*presetenv\s+(\w+)\s+(\S+)", text, re.MULTILINE))


def _behind(where: str, variables: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    """Who is behind HAProxy, as its variables say."""
    for kind in ("bridge", "grafana", "prometheus"):
        for number in (1, 2):
            yield f"{where}: {kind} {number}", variables[f"LB_{kind.upper()}_{number}"]
    yield "bridge port", _port(variables["LB_BRIDGE_1"])
    yield "agent port", variables["LB_BRIDGE_1_AGENT"]
    for name, topic in (("BRIDGE", "the bridge"), ("GRAFANA", "Grafana"), ("PROMETHEUS", "Prometheus"), ("STATS", "its metrics")):
        yield f"HAProxy's port for {topic}", _port(variables[f"LB_{name}_LISTEN"])


def _haproxy(text: str) -> Iterator[tuple[str, object]]:
    variables = presets(text)
    yield from _behind("one host", variables)
    yield "one host: HAProxy for Prometheus", variables["LB_PROMETHEUS_LISTEN"]
    yield "one host: HAProxy's metrics", variables["LB_STATS_LISTEN"]
    yield "where HAProxy finds its certificate", variables["LB_CERTIFICATE"]
    yield "where HAProxy finds its clients' authority", variables["LB_CLIENT_CA"]
    yield "HAProxy's certificate", Path(variables["LB_CERTIFICATE"]).name
    yield "HAProxy's backend", _found(r"default_backend (be_bridge)\b", text)


def _targets(where: str, topic: str) -> Reader:
    def read(text: str) -> Iterator[tuple[str, object]]:
        found = [target for group in yaml.safe_load(text) for target in group["targets"]]
        if topic in ("bridge", "grafana", "prometheus"):
            yield from ((f"{where}: {topic} {number}", target) for number, target in enumerate(found, 1))
        elif topic == "clickhouse":
            yield from (("clickhouse metrics port", _port(target)) for target in found)
        else:
            yield from ((f"{where}: {topic}", target) for target in found)

    return read


def _redis_targets(where: str) -> Reader:
    def read(text: str) -> Iterator[tuple[str, object]]:
        for group in yaml.safe_load(text):
            yield f"{where}: redis exporter", group["targets"][0]
            address = group["labels"]["__param_target"].removeprefix("redis://")
            yield f"{where}: redis {group['labels']['instance']}", address
            yield f"redis {group['labels']['instance']} port", _port(address)

    return read


def _default(text: str) -> Iterator[tuple[str, object]]:
    yield "one host: prometheus 1", _option(text, "--web.listen-address")
    yield "Prometheus' folder", _option(text, "--storage.tsdb.path")
    yield "Prometheus' time for a query", _option(text, "--query.timeout")


def _sidecar(text: str) -> Iterator[tuple[str, object]]:
    yield "one host: prometheus 1", _option(text, "--prometheus.url").removeprefix("http://")
    yield "Prometheus' folder", _option(text, "--tsdb.path")
    yield "one host: Thanos' endpoints", _option(text, "--grpc-address")


def _second_sidecar(text: str) -> Iterator[tuple[str, object]]:
    yield "one host: prometheus 2", _option(text, "--prometheus.url").removeprefix("http://")
    yield "the second Prometheus' folder", Path(_option(text, "--tsdb.path")).name
    yield "one host: Thanos' second sidecar", _option(text, "--grpc-address")


def _guide_to_thanos(text: str) -> Iterator[tuple[str, object]]:
    yield "one host: Thanos' second sidecar", _found(r"&--endpoint=(\S+) ", text)


def _guide(text: str) -> Iterator[tuple[str, object]]:
    yield "the second Prometheus' folder", _found(r"s/metrics2/([\w-]+)/", text)


def _querier(text: str) -> Iterator[tuple[str, object]]:
    sidecar, store = re.findall(r"--endpoint=(\S+)", text)
    yield "one host: Thanos' endpoints", sidecar
    yield "one host: Thanos' store", store
    yield "Prometheus' time for a query", _option(text, "--query.timeout")
    yield "Thanos' replica label", _option(text, "--query.replica-label")


def _store(text: str) -> Iterator[tuple[str, object]]:
    yield "one host: Thanos' store", _option(text, "--grpc-address")


def _prometheus(text: str) -> Iterator[tuple[str, object]]:
    [label] = [name for name, value in yaml.safe_load(text)["global"]["external_labels"].items() if "REPLICA" in value]
    yield "Thanos' replica label", label


def _make_tls(text: str) -> Iterator[tuple[str, object]]:
    yield "HAProxy's certificate", _found(r"^  (\S+\.pem) ", text)


def _commands(text: str) -> Iterator[tuple[str, object]]:
    yield "HAProxy's backend", _found(r'"--backend", default="(\w+)"', text)


def _redis(name: str) -> Reader:
    def read(text: str) -> Iterator[tuple[str, object]]:
        port = _found(r"^port (\d+)", text)
        yield f"redis {name} port", port
        yield f"one host: redis {name}", f"127.0.0.1:{port}"

    return read


def _schema(text: str) -> Iterator[tuple[str, object]]:
    yield "clickhouse database", _found(r"CREATE DATABASE IF NOT EXISTS (\w+)", text)


def _clickhouse(text: str) -> Iterator[tuple[str, object]]:
    yield "clickhouse metrics port", _found(r"(?s)<prometheus>.*?<port>(\d+)</port>", text)
    yield "ClickHouse's folder of backups", _found(r"<path>(\S+?)/?</path>", text)


def _dockerfile(text: str) -> Iterator[tuple[str, object]]:
    yield "bridge port", _found(r"^EXPOSE (\d+) \d+", text)
    yield "agent port", _found(r"^EXPOSE \d+ (\d+)", text)
    yield "bridge port", _found(r"http://127\.0\.0\.1:(\d+)/readyz", text)


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    """A compose service's variables, defaults filled in."""
    given = {
        name: value for name, value in service.get("environment", {}).items() if value is not None
    }  # else only what .env says
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in given.items()}


def _compose(text: str) -> Iterator[tuple[str, object]]:
    services = yaml.safe_load(text)["services"]
    balancer, bridge = environment(services["haproxy"]), environment(services["bridge-1"])
    yield from _behind("containers", balancer)
    yield "containers: HAProxy for Prometheus", f"haproxy:{_port(balancer['LB_PROMETHEUS_LISTEN'])}"
    yield "containers: HAProxy for Prometheus", bridge["BRIDGE_SOURCES__PROMETHEUS__CONNECT__URL"].removeprefix("http://")
    grafana = environment(services["grafana-1"])
    yield "HAProxy's port for the bridge", _port(grafana["BRIDGE_URL"])
    yield "containers: HAProxy for Prometheus", grafana["PROMETHEUS_URL"].removeprefix("http://")
    yield "containers: HAProxy's metrics", f"haproxy:{_port(balancer['LB_STATS_LISTEN'])}"
    yield "redis tier port", bridge["BRIDGE_TIER__PORT"]
    yield from _compose_stores(services)
    yield from _compose_thanos(services)


def _compose_stores(services: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name in STORES:
        port = _found(r"-p (\d+)", " ".join(services[f"redis-{name}"]["healthcheck"]["test"]))
        yield f"redis {name} port", port
        yield f"containers: redis {name}", f"redis-{name}:{port}"
    for name in ("rts", "ris", "rtss", "rtrs"):
        yield f"redis {name} port", services[f"redis-{name}"]["ports"][0].rpartition(":")[2]
    yield "clickhouse HTTP port", _found(r":(\d+)/ping", str(services["clickhouse"]["healthcheck"]))
    folders = dict((*mounts(services["haproxy"]), *mounts(services["clickhouse"])))
    yield "where HAProxy finds its certificate", folders["./provisioning/secrets/tls/haproxy.pem"]
    yield "where HAProxy finds its clients' authority", folders["./provisioning/secrets/tls/ca.crt"]
    yield "ClickHouse's folder of backups", folders["clickhouse-backups"]


def _compose_thanos(services: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for number in (1, 2):
        sidecar = " ".join(services[f"thanos-sidecar-{number}"]["command"])
        yield f"containers: prometheus {number}", _option(sidecar, "--prometheus.url").removeprefix("http://")
    querier = " ".join(services["thanos-querier"]["command"])
    yield "Thanos' replica label", _option(querier, "--query.replica-label")
    yield "Prometheus' time for a query", _option(querier, "--query.timeout")
    yield "Prometheus' time for a query", _option(" ".join(services["prometheus-1"]["command"]), "--query.timeout")


def mounts(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of a compose service is mounted where; a variable's default in its place."""
    found = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", one).split(":") for one in service.get("volumes", [])]
    return [(source, target) for source, target, *_ in found]


def _grafana(text: str) -> Iterator[tuple[str, object]]:
    yield "Grafana's time for a data source", f"{ini(text)['dataproxy']['timeout']} s"
    yield "Grafana's own port", ini(text)["server"]["http_port"]


def ini(text: str) -> configparser.ConfigParser:
    """An ini file as Grafana writes it."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=(";", "#"))
    parser.read_string(text)
    return parser


def _sources(text: str) -> Iterator[tuple[str, object]]:
    for source in yaml.safe_load(text).get("datasources", []):
        timeout = source.get("jsonData", {}).get("timeout")
        if timeout is not None:
            yield "Grafana's time for a data source", f"{timeout} s"


def _services(text: str) -> Iterator[tuple[str, object]]:
    yield "Windows' services", " ".join(sorted(set(re.findall(r"\bTDS[A-Z]\w+", text))))
    ports = re.findall(r"'GF_SERVER_HTTP_PORT' '(\d+)'", text)
    yield from (("Grafana's own port", port) for port in ports)


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _option(text: str, name: str) -> str:
    return _found(rf'{re.escape(name)}=([^\s"\\]+)', text)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match, f"nothing like {pattern}"
    return match[1]


P = "provisioning/prometheus"
#: Every file that says something that another one says too: who builds it, and its reader. `*` is one file or more.
READERS: Mapping[str, Mapping[str, Reader]] = {
    "proxies": {
        "app/__main__.py": _commands,
        "provisioning/bridge.yaml": _bridge,
        "provisioning/haproxy/haproxy.cfg": _haproxy,
        "provisioning/tls/make.sh": _make_tls,
        f"{P}/prometheus.yml": _prometheus,
        f"{P}/prometheus.default": _default,
        **{f"{P}/targets/{name}.yml": _targets("one host", name) for name in ("bridge", "grafana", "prometheus", "clickhouse")},
        **{
            f"{P}/targets-compose/{name}.yml": _targets("containers", name)
            for name in ("bridge", "grafana", "prometheus", "clickhouse")
        },
        f"{P}/targets/haproxy.yml": _targets("one host", "HAProxy's metrics"),
        f"{P}/targets-compose/haproxy.yml": _targets("containers", "HAProxy's metrics"),
        f"{P}/targets/redis.yml": _redis_targets("one host"),
        f"{P}/targets-compose/redis.yml": _redis_targets("containers"),
        "provisioning/thanos/sidecar.service": _sidecar,
        "provisioning/thanos/sidecar-2.conf": _second_sidecar,
        "provisioning/thanos/README.md": _guide_to_thanos,
        "docs/install.md": _guide,
        "provisioning/thanos/query.service": _querier,
        "provisioning/thanos/store.service": _store,
    },
    "stores": {
        "docker-compose.yml": _compose,
        "Dockerfile": _dockerfile,
        **{f"provisioning/redis/redis-{name}.conf": _redis(name) for name in STORES},
        "provisioning/clickhouse/schema.sql": _schema,
        "provisioning/clickhouse/config.d/trade_system.xml": _clickhouse,
    },
    "grafana": {
        "provisioning/grafana/grafana.ini": _grafana,
        "provisioning/grafana/datasources/*.yaml": _sources,
        "provisioning/grafana/dashboards/*.json": lambda _: (),
        "provisioning/grafana/alerting/*.yaml": lambda _: (),
    },
    "winsvc": {
        "winsvc/plan.py": _services,
        "winsvc/install.ps1": _services,
        "winsvc/uninstall.ps1": _services,
    },
}
