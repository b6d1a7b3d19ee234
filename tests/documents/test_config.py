"""Settings: one file, the environment over it, every mistake listed, no secret shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.__main__ import main
from app.config import read_settings, settings_from
from app.errors import ConfigError

PASSWORD = "BRIDGE_SOURCES__RTS__CONNECT__PASSWORD"


def test_one_environment_variable_overrides_one_nested_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "s3cret")
    settings = read_settings(Path("provisioning/bridge.yaml"))
    rts = settings.sources["rts"].connect
    assert (rts.kind, getattr(rts, "port", None), settings.sources["ris"].connect.kind) == ("redis", 6379, "redis")
    assert getattr(rts, "password", None).get_secret_value() == "s3cret"  # type: ignore[union-attr]  # set above


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "s3cret")
    settings = read_settings(Path("provisioning/bridge.yaml"))
    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_secrets_file_comes_between_the_configuration_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text(f"\ufeff{PASSWORD}='of #the file'\nBRIDGE_SOURCES__RTS__CONNECT__PORT=1\n", encoding="utf-8")
    monkeypatch.setenv("BRIDGE_SECRETS", str(secrets))
    monkeypatch.setenv("BRIDGE_SOURCES__RTS__CONNECT__PORT", "2")
    rts = read_settings(Path("provisioning/bridge.yaml")).sources["rts"].connect
    assert getattr(rts, "port", None) == 2
    assert getattr(rts, "password", None).get_secret_value() == "of #the file"  # type: ignore[union-attr]  # set above


def test_a_secrets_file_that_is_missing_or_has_an_unknown_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets.env"
    monkeypatch.setenv("BRIDGE_SECRETS", str(secrets))
    with pytest.raises(ConfigError) as missing:
        read_settings(Path("provisioning/bridge.yaml"))
    assert str(missing.value).startswith(f"{secrets}: ")
    assert str(missing.value).endswith("cannot be read: No such file or directory")
    secrets.write_text("PASSWORD=s3cret\n")
    with pytest.raises(ConfigError) as unknown:
        read_settings(Path("provisioning/bridge.yaml"))
    assert str(unknown.value).startswith(f"{secrets}: PASSWORD: sets no key; ")


def test_every_mistake_is_listed_by_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(
        """
http: {prot: 8080, port: 99999}
request: {budget_s: -1}
sources:
  rts: {connect: {kind: reddis}}
  duckdb: {connect: {kind: duckdb}}
  prometheus: {connect: {kind: prometheus, url: "ftp://x"}, policy: {attempt_timeout_s: 9, total_timeout_s: 1}}
"""
    )
    status = main(["check", "--config", str(file)])
    lines = capsys.readouterr().err.splitlines()
    keys = (
        "http.prot: unknown key; nearest: port",
        "http.port: Input should be less than or equal to 65535; found '99999'",
        "request.budget_s: Input should be greater than 0",
        "sources.rts.connect: Input tag 'reddis' found using 'kind' does not match any",
        "sources.duckdb.connect.snapshots: Field required",
        "sources.prometheus.connect.url: URL scheme should be 'http' or 'https'",
        "sources.prometheus.policy: attempt_timeout_s must not be above total_timeout_s",
    )
    assert (status, [key for key in keys if not any(line.startswith(f"{file}: {key}") for line in lines)]) == (2, [])


@pytest.mark.parametrize(("text", "part"), [("[1", "not YAML"), ("- 1", "expected a mapping with the keys http, request")])
def test_a_file_that_is_no_configuration_says_so(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_settings(file)


def test_a_variable_of_the_environment_that_is_no_json_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES", "s3cret")
    with pytest.raises(ConfigError, match=r"the environment: BRIDGE_SOURCES: is not JSON; .*BRIDGE_SOURCES__KEY=") as refused:
        settings_from({}, "test")
    assert "s3cret" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file or directory"):
        read_settings(tmp_path / "nowhere.yaml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings_from({}, "test").http, "port", 1)  # noqa: B010  what a type checker would refuse anyway


def test_a_request_limit_below_a_sources_total_is_refused_at_the_start() -> None:
    source = {"connect": {"kind": "redis"}, "policy": {"attempt_timeout_s": 2, "total_timeout_s": 3}}
    with pytest.raises(
        ConfigError, match=r"request.budget_s \(2.5\) must be above policy.total_timeout_s of every source; see rts"
    ):
        settings_from({"sources": {"rts": source}, "request": {"budget_s": 2.5}}, "test")


@pytest.mark.parametrize(
    ("sync", "problem"),
    [
        ({"url": "http://x/y"}, "is required when url is set"),
        ({"url": "http://x/y", "secret": "short"}, "at least 16 characters"),
        ({"url": "ftp://x", "secret": "a-secret-of-the-backends"}, "must be http:// or https://"),
    ],
)
def test_a_backend_sync_that_could_not_work_is_refused_and_its_secret_not_shown(sync: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        settings_from({"sync": sync}, "test")
    assert "short" not in str(refused.value)
