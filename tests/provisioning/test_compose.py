"""docker-compose.yml by the tool that reads it, and what is promised of every service in it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import read_settings
from tests.provisioning.composing import FILE, PROFILES, ROOT, SERVICES, TEXT, WRITTEN, config, understood
from tests.servers.clickhouse_users import hashes
from tests.servers.redis_provisioned import PROVISIONING, make_secrets

ONCE = {name for name, service in SERVICES.items() if service["restart"] == "on-failure"}
LASTING = sorted(SERVICES.keys() - ONCE)
#: who needs to be root, for one thing each
ROOTS = {"clickhouse-volume": ["CHOWN"], "backup": ["DAC_OVERRIDE"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that make_secrets.py makes."""
    folder = tmp_path_factory.mktemp("secrets")
    make_secrets(folder)
    return folder


def environment(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items() if value is not None}


@pytest.mark.parametrize("profiles", [[], *([profile] for profile in PROFILES), PROFILES], ids="+".join)
def test_the_tool_accepts_the_file_with_every_profile(made: Path, profiles: list[str]) -> None:
    said = config(made / "env", profiles)
    assert (said.returncode, said.stderr) == (0, "")


def test_without_secrets_nothing_starts_and_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("")
    said = config(tmp_path / "env", [])
    assert said.returncode != 0
    assert "run provisioning/make_secrets.py" in said.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    pids_limit: 16\n", "    pid_limit: 16\n"),
        ("mem_limit: 64m", "mem_limit: [64m]"),
        ("      clickhouse: {condition: service_healthy}", "      clickhause: {condition: service_healthy}"),
        ("    image: haproxy:", "    imagine: haproxy:"),
        ("interval: 5m", "interval: five minutes"),
        ('"127.0.0.1:8404:8404"', '"127.0.0.1:8404:none"'),
    ],
)
def test_the_tool_refuses_a_mistake(made: Path, tmp_path: Path, right: str, wrong: str) -> None:
    assert right in TEXT
    (tmp_path / "docker-compose.yml").write_text(TEXT.replace(right, wrong, 1))
    assert config(made / "env", PROFILES, tmp_path / "docker-compose.yml").returncode != 0


def test_every_image_is_one_version() -> None:
    loose = {name: service["image"] for name, service in SERVICES.items() if not re.search(r":v?\d+\.\d+\.\d+", service["image"])}
    # postgres counts its releases by two numbers
    assert {name for name, image in loose.items() if not re.fullmatch(r"postgres:\d+\.\d+-alpine", image)} == set()


def test_the_guides_command_writes_a_digest_behind_every_version_that_is_not_built_here(made: Path, tmp_path: Path) -> None:
    """The command as it stands in the guide, with a `docker` that knows every image."""
    guide = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(docker compose [^`]* pull .*?)```", guide, re.DOTALL)
    assert block
    images = {service["image"] for service in SERVICES.values()}
    digest = "sha256:" + "0" * 64
    docker = tmp_path / "docker"
    listed = "\\n".join(sorted(images))
    docker.write_text(f'#!/bin/sh\ncase "$*" in *--images) printf "{listed}\\n";; image*) echo "name@{digest}";; esac\n')
    docker.chmod(0o755)
    (tmp_path / "docker-compose.yml").write_text(TEXT, encoding="utf-8")
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-e", "-c", block[1]], cwd=tmp_path, env={"PATH": path}, check=True)
    said = config(made / "env", PROFILES, tmp_path / "docker-compose.yml")
    assert said.returncode == 0, said.stderr
    found = {service["image"] for service in yaml.safe_load(said.stdout)["services"].values()}
    assert found == {image if image.startswith("tds-bridge:") else f"{image}@{digest}" for image in images}


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_service_is_limited_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert (service["restart"], service["init"], service["read_only"]) == ("unless-stopped", True, True)
    assert {"mem_limit", "cpus", "pids_limit", "logging"} <= service.keys()
    of_the_image = service.get("build") == "." and "entrypoint" not in service
    assert of_the_image or {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_nobodys_root_and_gains_nothing(name: str) -> None:
    service = SERVICES[name]
    user = "10001:10001" if service.get("build") == "." and "user" not in service else service["user"]
    assert (user.startswith("0:"), service["cap_drop"]) == (name in ROOTS, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    if name in ROOTS:
        assert service["cap_add"] == ROOTS[name]


def test_what_runs_once_is_waited_for() -> None:
    waited = {
        name
        for service in SERVICES.values()
        for name, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert {"schema", "clickhouse-volume"} == waited == ONCE


def test_nobody_waits_for_a_service_that_its_own_profile_does_not_start() -> None:
    for name, service in SERVICES.items():
        for other in service.get("depends_on", {}):
            its = SERVICES[other].get("profiles")
            assert its is None or set(service.get("profiles", ["(always)"])) <= set(its), f"{name} waits for {other}"


def test_a_second_grafana_waits_for_the_first_and_for_all_that_the_first_waits_for() -> None:
    """Two that start at the same moment both try the database's lock, and one of them ends."""
    first, second = (SERVICES[name]["depends_on"] for name in ("grafana-1", "grafana-2"))
    assert second == {**first, "grafana-1": {"condition": "service_healthy"}}


def test_every_port_is_this_machines_own(made: Path) -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)] == []
    assert len(set(ports)) == len(ports) > 5
    assert all(service.get("network_mode", "none") == "none" for service in understood(made / "env")["services"].values())


def test_every_mounted_file_is_in_the_repository_or_made(made: Path) -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", ())]
    mounts += [secret["file"] for secret in WRITTEN["secrets"].values()]
    files = {re.sub(r"^\$\{\w+:-(.*?)\}", r"\1", mount).partition(":")[0] for mount in mounts}
    ours = {file.removeprefix("./") for file in files if file.startswith("./")}
    secrets = {file.removeprefix("provisioning/secrets/") for file in ours if file.startswith("provisioning/secrets/")}
    assert {file for file in ours if not file.startswith("provisioning/secrets/") and not (ROOT / file).exists()} == set()
    # tls is what provisioning/tls/make.sh makes
    assert {file for file in secrets if not (made / file).exists()} == {"tls/ca.crt", "tls/haproxy.pem"}


def test_no_file_is_mounted_into_a_mounted_folder_that_lacks_it() -> None:
    # The engine could not make the place for it: the folder is mounted read-only.
    for name, service in SERVICES.items():
        places = {mount.split(":")[-2]: mount for mount in service.get("volumes", ()) if ":" in mount}
        for place in places:
            for folder, mount in places.items():
                if place.startswith(folder + "/") and mount.startswith("./"):
                    assert (ROOT / mount.partition(":")[0] / place.removeprefix(folder + "/")).exists(), f"{name}: {place}"


def test_every_volume_network_and_secret_is_used_and_declared() -> None:
    used = {
        mount.partition(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", ())
        if re.match(r"[a-z]", mount)
    }
    networks, secrets = (
        {name for service in SERVICES.values() for name in service.get(kind, ())} for kind in ("networks", "secrets")
    )
    declared = [set(WRITTEN[kind]) for kind in ("volumes", "networks", "secrets")]
    assert [used, networks, secrets] == declared


def test_no_secret_stands_in_the_file_and_none_has_a_default(made: Path) -> None:
    variables = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert variables <= make_secrets(made).keys()
    for name, service in SERVICES.items():
        for variable, value in environment(service).items():
            if re.search(r"PASSWORD|SECRET|KEY|TOKEN|SHA256", variable) or variable == "REDISCLI_AUTH":
                required = re.fullmatch(r"\$\{\w+:\?run provisioning/make_secrets\.py\}|/run/secrets/\w+", value)
                assert required, f"{name}: {variable}"
    kinds = {re.match(r"\$\{\w+(:[?-]|\})", found[0])[1] for found in re.finditer(r"\$\{[^}]*\}?", TEXT)}  # type: ignore[index]
    assert kinds == {":?", ":-"}


def test_the_bridges_settings_are_those_that_the_file_names(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = understood(made / "env")["services"]
    for variable, value in environment(services["bridge-1"]).items():
        monkeypatch.setenv(variable, value)
    settings = read_settings(PROVISIONING / "bridge.yaml").model_dump()
    assert services["bridge-1"]["environment"] == services["bridge-2"]["environment"]
    connects = {name: source["connect"] for name, source in settings["sources"].items()}
    for name in ("rts", "ris", "rtss", "rtrs"):
        host, port = f"redis-{name}", connects[name]["port"]
        assert (connects[name]["host"], connects[name]["username"]) == (host, "bridge")
        assert f"port {port}" in (PROVISIONING / "redis" / f"{host}.conf").read_text().splitlines()
        assert services[host]["command"][1] == f"/etc/redis/{host}.conf"
        assert f"-p {port} " in services[host]["healthcheck"]["test"][1]
    assert (settings["tier"]["host"], settings["tier"]["port"], settings["tier"]["username"]) == ("redis-tier", 6389, "tier")
    assert (connects["clickhouse"]["host"], connects["clickhouse"]["username"]) == ("clickhouse", "bridge")
    assert str(connects["prometheus"]["url"]).rstrip("/") == "http://haproxy:9090"
    assert set(settings["auth"]["keys"]) == {"grafana", "prometheus", "operator"}


def test_the_bridges_tell_the_backend_of_an_outage_only_where_env_says_whom(made: Path, tmp_path: Path) -> None:
    told = tmp_path / "env"
    told.write_text((made / "env").read_text() + "BRIDGE_SYNC__URL=https://backend.example/redis-events\n")
    found = [understood(file)["services"]["bridge-1"]["environment"]["BRIDGE_SYNC__URL"] for file in (made / "env", told)]
    assert found == [None, "https://backend.example/redis-events"]


def test_the_backups_settings_are_those_that_the_file_names(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = understood(made / "env")["services"]["backup"]
    for variable, value in environment(backup).items():
        monkeypatch.setenv(variable, value)
    saved = read_settings(PROVISIONING / "bridge.yaml").model_dump()["backup"]
    places = {mount.split(":")[-1] if mount.count(":") == 1 else mount.split(":")[1] for mount in SERVICES["backup"]["volumes"]}
    assert {str(saved["folder"]), str(saved["clickhouse"]["files"]), str(saved["prometheus"]["data"])} <= places
    assert saved["clickhouse"]["username"] == "backup"


def test_clickhouse_is_given_every_hash_that_its_users_want() -> None:
    given = environment(SERVICES["clickhouse"])
    optional = {"CLICKHOUSE_GRAFANA_SHA256", "CLICKHOUSE_SHARD", "CLICKHOUSE_REPLICA", "CLICKHOUSE_CLUSTER_SECRET"}
    assert hashes().keys() - given.keys() == optional


def test_haproxy_knows_every_variable_and_every_address_is_a_service() -> None:
    text = (PROVISIONING / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    given = environment(SERVICES["haproxy"])
    assert [name for name in given if not re.search(rf"presetenv {name}\s", text)] == []
    behind = {value.partition(":")[0] for name, value in given.items() if re.fullmatch(r"LB_[A-Z]+_\d", name)}
    assert behind <= SERVICES.keys()
    published = {port.rpartition(":")[2] for port in SERVICES["haproxy"]["ports"]}
    assert {value.rpartition(":")[2] for name, value in given.items() if name.endswith("_LISTEN")} == published


def test_haproxy_takes_its_file_with_these_variables(tmp_path: Path) -> None:
    subprocess.run([PROVISIONING / "tls" / "make.sh", tmp_path / "tls"], check=True, capture_output=True)
    own = {"LB_CERTIFICATE": f"{tmp_path}/tls/haproxy.pem", "LB_CLIENT_CA": f"{tmp_path}/tls/ca.crt"}
    # Services have names in their own network only.
    given = {name: re.sub(r"^[a-z]+-\d:", "127.0.0.1:", value) for name, value in environment(SERVICES["haproxy"]).items()}
    command: list[str | Path] = ["haproxy", "-c", "-dW", "-f", PROVISIONING / "haproxy" / "haproxy.cfg"]
    variables = os.environ | given | own
    said = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (said.returncode, re.findall(r"\[(?:WARNING|ALERT)\].*", said.stderr)) == (0, [])


def test_every_scraped_target_is_a_service() -> None:
    folder = PROVISIONING / "prometheus" / "targets-compose"
    texts = [file.read_text(encoding="utf-8") for file in (*folder.glob("*.yml"), *(PROVISIONING / "compose").glob("*.yml"))]
    named = {
        host for text in texts for line in text.splitlines() if line[:1] == "-" for host in re.findall(r"([a-z][\w-]+):\d", line)
    }
    assert named - SERVICES.keys() == set()
    assert {"bridge-1", "bridge-2", "redis-exporter", "clickhouse", "feed", "node-exporter", "haproxy"} <= named


@pytest.mark.parametrize("works", [True, False])
def test_the_daily_backup_notes_success_and_tries_again_after_a_failure(tmp_path: Path, works: bool) -> None:
    said = run_script("backup.sh", tmp_path, python=f"exit {0 if works else 1}")
    assert said == ("python -m app backup all --keep 2\n" + ("sleep 86400\n" if works else "sleep 3600\n"))
    assert (tmp_path / "last-success").exists() is works


@pytest.mark.parametrize("works", [True, False])
def test_the_daily_dump_of_grafana_has_its_name_only_once_it_can_be_read(tmp_path: Path, works: bool) -> None:
    for day in (1, 2, 3):
        (tmp_path / f"grafana-2026010{day}T000000Z.dump").write_text("old")
    dump = 'while [ "$1" != -f ]; do shift; done; echo new > "$2"'
    run_script("grafana-backup.sh", tmp_path, pg_dump=dump, pg_restore=f"exit {0 if works else 1}")
    kept = sorted(file.name[8:16] for file in tmp_path.glob("*.dump"))
    assert not list(tmp_path.glob("*.part"))
    assert (kept[0], len(kept)) == (("20260103", 2) if works else ("20260101", 3))
    assert (tmp_path / "last-success").exists() is works


def run_script(name: str, folder: Path, **stubs: str) -> str:
    """Run one of the loops up to its first sleep, with these commands in the place of the real ones; what it called."""
    binaries, log = folder / "bin", folder / "log"
    binaries.mkdir()
    for command, body in {"sleep": "kill $PPID", **stubs}.items():
        stub = binaries / command
        stub.write_text(f'#!/bin/sh\necho "{command} $*" >> {log}\n{body}\n')
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    text = (PROVISIONING / "compose" / name).read_text().replace("/run/secrets/postgres_password", str(log))
    log.touch()
    path = f"{binaries}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", text], env={"PATH": path, "KEEP": "2", "FOLDER": str(folder)}, check=False, capture_output=True)
    return log.read_text()


def test_secrets_are_made_once_kept_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    first = make_secrets(tmp_path)
    assert make_secrets(tmp_path) == first
    assert min(len(value) for value in first.values()) >= 43
    assert len(set(first.values())) == len(first)
    assert (stat.S_IMODE((tmp_path / "env").stat().st_mode), stat.S_IMODE(tmp_path.stat().st_mode)) == (0o600, 0o700)
    changed = (tmp_path / "env").read_text().replace(f"REDIS_TIER_PASSWORD={first['REDIS_TIER_PASSWORD']}\n", "")
    (tmp_path / "env").write_text(changed)
    again = make_secrets(tmp_path)
    assert {name for name in first if again[name] != first[name]} == {"REDIS_TIER_PASSWORD"}


def test_what_is_made_is_never_committed() -> None:
    for made in (".env", "provisioning/secrets/users.acl", "provisioning/secrets/tls/haproxy.pem"):
        assert subprocess.run(["git", "check-ignore", "-q", made], cwd=FILE.parent, check=False).returncode == 0, made
