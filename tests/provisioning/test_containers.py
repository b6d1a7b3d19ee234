"""docker-compose.yml and what it starts: names that resolve, files that are there and where their readers look, known users."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.provisioning.agreements import NOT_MERGED, ROOT, statements
from tests.provisioning.readers import environment, mounts

Services = Mapping[str, Any]
#: What the two commands make, by the name of the file.
MAKERS = ("provisioning/make_secrets.py", "provisioning/tls/make.sh")
#: What Prometheus' configuration names, beside itself.
PROMETHEUS = ("prometheus.yml", "rules", "targets", "secrets/bridge.key")


def unresolved(services: Services, addresses: Iterable[str]) -> list[str]:
    """Addresses of no service."""
    return sorted({address for address in addresses if address.partition(":")[0] not in services})


def absent(root: Path, services: Services) -> list[str]:
    """What is mounted from the repository and is neither there nor made by a command."""
    made = "".join((root / maker).read_text(encoding="utf-8") for maker in MAKERS)
    sources = {source for service in services.values() for source, _ in mounts(service) if source.startswith("./")}
    return sorted(source for source in sources if not _there(root, source, made))


def _there(root: Path, source: str, made: str) -> bool:
    secret = source.startswith("./provisioning/secrets/")
    return re.search(rf"\b{re.escape(Path(source).name)}\b", made) is not None if secret else (root / source).exists()


def unmounted(services: Services) -> list[str]:
    """Files that Prometheus' configuration names and a node of it has not."""
    nodes = [name for name in services if re.fullmatch(r"prometheus-\d", name)]
    return [
        f"{node}: {wanted}"
        for node in nodes
        for wanted in PROMETHEUS
        if f"/etc/prometheus/{wanted}" not in {target for _, target in mounts(services[node])}
    ]


def strangers(services: Services, redis: set[str], clickhouse: set[str]) -> list[str]:
    """Users that a service names and its store does not know."""
    found = set()
    for service in services.values():
        for name, value in environment(service).items():
            if re.search(r"USER(NAME)?$", name) and re.search(r"REDIS|CLICKHOUSE|SOURCES|TIER", name):
                known = clickhouse if "CLICKHOUSE" in name else redis
                found |= {f"{name}={value}"} - {f"{name}={user}" for user in known}
    return sorted(found)


def unset(services: Services, provisioned: Iterable[str]) -> list[str]:
    """Variables that Grafana's provisioned files name and a node of Grafana is not given."""
    nodes = {name: environment(service) for name, service in services.items() if re.fullmatch(r"grafana-\d", name)}
    named = {name for text in provisioned for name in re.findall(r"\$\{?([A-Z][A-Z_]+)", re.sub(r"#.*", "", text))}
    return sorted(f"{node}: {name}" for node, given in nodes.items() for name in named - given.keys())


def test_each_check_finds_what_is_planted(tmp_path: Path) -> None:
    services = {
        "bridge-1": {"environment": {"BRIDGE_SOURCES__RTS__CONNECT__USERNAME": "bridge", "CLICKHOUSE_USER": "bridge"}},
        "prometheus-1": {
            "volumes": ["./rules:/etc/prometheus/rules:ro", "./provisioning/secrets/bridge.key:/k:ro", "data:/data"]
        },
    }
    for maker in MAKERS:
        (tmp_path / maker).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / maker).write_text("ca.crt", encoding="utf-8")
    assert unresolved(services, ["bridge-1:8080", "bridge-2:8080"]) == ["bridge-2:8080"]
    assert absent(tmp_path, services) == ["./provisioning/secrets/bridge.key", "./rules"]
    assert unmounted(services) == [f"prometheus-1: {name}" for name in ("prometheus.yml", "targets", "secrets/bridge.key")]
    assert strangers(services, {"bridge"}, {"backend"}) == ["CLICKHOUSE_USER=bridge"]
    grafana = {"grafana-1": {"environment": {"BRIDGE_URL": "https://haproxy:8443"}}}
    assert unset(grafana, ["url: $BRIDGE_URL/json", "key: ${BRIDGE_KEY} # $NOT_THIS"]) == ["grafana-1: BRIDGE_KEY"]
    assert strangers(services, {"backend"}, {"bridge"}) == ["BRIDGE_SOURCES__RTS__CONNECT__USERNAME=bridge"]


def test_what_compose_starts_finds_its_neighbours_its_files_and_its_users() -> None:
    services: Services = yaml.safe_load(_text("docker-compose.yml"))["services"]
    addresses = {said.value for said in statements(ROOT) if said.topic.startswith("containers: ")}
    redis = set(re.findall(r"^user (\w+)", _text("provisioning/redis/users.acl.template"), re.MULTILINE))
    assert len(addresses) > 10
    assert unresolved(services, addresses) == []
    unbuilt = ["./provisioning/grafana", "./provisioning/grafana/grafana.ini"] if "grafana" in NOT_MERGED else []
    assert absent(ROOT, services) == unbuilt
    assert unmounted(services) == []
    assert strangers(services, redis, set(_clickhouse_users())) == []


def test_grafana_is_given_every_variable_that_its_provisioned_files_name() -> None:
    services: Services = yaml.safe_load(_text("docker-compose.yml"))["services"]
    folder = ROOT / "provisioning" / "grafana"
    files = [*folder.glob("datasources/*.yaml"), *folder.glob("alerting/*.yaml")]
    assert (len(files) > 1) == ("grafana" not in NOT_MERGED)
    assert unset(services, [file.read_text(encoding="utf-8") for file in files]) == []


def test_prometheus_configuration_names_the_files_that_are_looked_for() -> None:
    config = yaml.safe_load(_text("provisioning/prometheus/prometheus.yml"))
    [bridge] = [job for job in config["scrape_configs"] if job["job_name"] == "bridge"]
    assert (bridge["authorization"]["credentials_file"], config["rule_files"]) == ("secrets/bridge.key", ["rules/*.yml"])
    assert all(job["file_sd_configs"][0]["files"][0].startswith("targets/") for job in config["scrape_configs"])


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _clickhouse_users() -> Iterator[str]:
    users = re.search(r"<users>.*</users>", _text("provisioning/clickhouse/users.d/trade_system.xml"), re.DOTALL)
    assert users
    yield from re.findall(r"^        <(\w+)>", users[0], re.MULTILINE)


def test_lines_of_others_in_the_file_of_variables_stay_as_they_are(tmp_path: Path) -> None:
    mine = ["# of the desk", "COMPOSE_PROJECT_NAME=desk", "", "export EDITOR='a b'", "REDIS_ADMIN_PASSWORD=chosen", "# more"]
    file = tmp_path / "env"
    file.write_text("\n".join([*mine, "GRAFANA_SECRET_KEY="]))
    command = [sys.executable, str(ROOT / MAKERS[0]), "--env", str(file), "--folder", str(tmp_path / "secrets")]
    texts = []
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True)
        texts.append(file.read_text())
    lines = texts[0].splitlines()
    assert (texts[1], lines[:6], len(lines[6].removeprefix("GRAFANA_SECRET_KEY=")) > 20) == (texts[0], mine, True)
