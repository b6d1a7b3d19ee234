"""Variables: each sets the key that it names, or is refused with the nearest right name; no value is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import read_settings
from app.errors import ConfigError

FILE = Path("provisioning/bridge.yaml")


def problems(secrets: Path | None = None) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as wrong:
        read_settings(FILE, secrets)
    return [(problem.file, problem.key, problem.message) for problem in wrong.value.problems]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("BRIDGE_LOGLEVEL", "BRIDGE_LOG_LEVEL"),
        ("bridge_loglevel", "BRIDGE_LOG_LEVEL"),
        ("BRIDGE__LOG_LEVEL", "BRIDGE_LOG_LEVEL"),
        ("BRIDGE_HTTP_PORT", "BRIDGE_HTTP__PORT"),
        ("BRIDGE_HTTP__PORT__X", "BRIDGE_HTTP__PORT"),
        ("BRIGDE_HTTP__PORT", "BRIDGE_HTTP__PORT"),
        ("BRIDGE_REQUEST__BUDGETS", "BRIDGE_REQUEST__BUDGET_S"),
        ("BRIDGE_SOURCES__RTS__CONECT__PASSWORD", "BRIDGE_SOURCES__RTS__CONNECT__PASSWORD"),
        ("BRIDGE_SOURCE__RTS__CONNECT__PASSWORD", "BRIDGE_SOURCES__RTS__CONNECT__PASSWORD"),
        ("BRIDGE_AUTH__KEYS__GRAFANA__SHA", "BRIDGE_AUTH__KEYS__GRAFANA__SHA256"),
        ("BRIDGE_CONFG", "BRIDGE_CONFIG"),
        ("bridge_config", "BRIDGE_CONFIG"),
    ],
)
def test_a_variable_that_sets_no_key_is_refused_with_the_nearest_that_does(
    name: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "s3cret")
    assert problems() == [("the environment", name, f"sets no key; nearest: {nearest}")]


def test_a_variable_that_is_like_no_other_is_told_how_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_QQQQQQQQQQQQQQQQQQQQQQ", "s3cret")
    [(_, _, message)] = problems()
    assert message == "sets no key; allowed: BRIDGE_SECTION__KEY, as in BRIDGE_HTTP__PORT"


@pytest.mark.parametrize("name", ["BRIDGE_CONFIG", "BRIDGE_KEY", "BRIDGE_URL", "BRIDGE_TEST_X", "BRIDGE_KEY_GRAFANA", "BRIDGES"])
def test_a_variable_that_others_read_is_left_to_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    assert read_settings(FILE).log_level == "info"


def test_a_source_that_only_a_variable_names_is_a_misspelt_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES__CLICKHOSE__CONNECT__PASSWORD", "s3cret")
    [(file, key, message)] = problems()
    assert (file, key) == ("the environment", "BRIDGE_SOURCES__CLICKHOSE__CONNECT__PASSWORD")
    assert message == f"{FILE} has no source clickhose; nearest: clickhouse"


def test_a_source_that_variables_describe_in_full_is_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES__OTHER__CONNECT__KIND", "redis")
    assert read_settings(FILE).kinds["other"] == "redis"


def test_a_free_name_of_the_file_is_found_in_any_capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text("sources: {Rts: {connect: {kind: redis}}}")
    monkeypatch.setenv("BRIDGE_SOURCES__RTS__CONNECT__PORT", "7")
    sources = read_settings(file).sources
    assert {name: getattr(source.connect, "port", None) for name, source in sources.items()} == {"Rts": 7}


@pytest.mark.parametrize("text", ["007", "1e5", "true", "[1]", "${HOME}", "null", "no", "pa#ss'w\"ord"])
def test_a_password_is_taken_as_it_stands(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES__RTS__CONNECT__PASSWORD", text)
    connect = read_settings(FILE).sources["rts"].connect
    assert getattr(connect, "password", None).get_secret_value() == text  # type: ignore[union-attr]  # set above


def test_a_password_of_the_secrets_file_is_not_filled_in_from_other_variables(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text("BRIDGE_SOURCES__RTS__CONNECT__PASSWORD=a${HOME}b\n")
    connect = read_settings(FILE, secrets).sources["rts"].connect
    assert getattr(connect, "password", None).get_secret_value() == "a${HOME}b"  # type: ignore[union-attr]  # set above


def test_json_is_laid_over_the_file_key_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES", '{"rts": {"connect": {"port": 7}}}')
    monkeypatch.setenv("BRIDGE_HTTP__CORS_ORIGINS", '["https://a"]')
    settings = read_settings(FILE)
    assert (len(settings.sources), getattr(settings.sources["rts"].connect, "port", None)) == (7, 7)
    assert settings.http.cors_origins == ("https://a",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("BRIDGE_HTTP__PORT", "s3cret", "http.port: Input should be a valid integer, unable to parse string as an integer"),
        ("BRIDGE_LOG_LEVEL", "s3cret", "log_level: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("BRIDGE_HTTP", '{"port": 1, "port": 2}', "is not JSON; allowed: JSON, or BRIDGE_HTTP__KEY=... for one key"),
        ("BRIDGE_HTTP", "[" * 5000, "is not JSON; allowed: JSON, or BRIDGE_HTTP__KEY=... for one key"),
        ("BRIDGE_HTTP__CORS_ORIGINS", "s3cret", 'is not JSON; allowed: a JSON list, ["..."]'),
        ("BRIDGE_SOURCES", '{"rts": {"connect": {"prt": 1}}}', "sources.rts.connect.prt: unknown key; nearest: port"),
        ("BRIDGE_AUTH__KEYS__X__EXPIRES", "2030-01-01T00:00:00Z", "auth.keys.x.sha256: Field required"),
        ("BRIDGE_SYNC__TIMEOUT_S", "nan", "sync.timeout_s: Input should be a finite number"),
        ("BRIDGE_SOURCES__RTS__POLICY__FRESH_S", "inf", "sources.rts.policy.fresh_s: Input should be a finite number"),
    ],
)
def test_a_wrong_value_is_said_of_its_variable_and_not_shown(
    name: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    assert problems() == [("the environment", name, message)]


def test_two_variables_for_one_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_LOG_LEVEL", "info")
    monkeypatch.setenv("Bridge_Log_Level", "debug")
    assert problems() == [("the environment", "Bridge_Log_Level", "is given twice, also as BRIDGE_LOG_LEVEL")]


def test_every_line_of_the_secrets_file_must_set_a_key(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.env"
    lines = ("# fine", "export BRIDGE_LOG_LEVEL=info", "BRIDGE_LOGLEVEL=s3cret", "BRIDGE_KEY=s3cret", "BRIDGE_LOG_LEVEL=s3cret")
    secrets.write_text("\n".join((*lines, "= s3cret", "BRIDGE_STATE")))
    assert problems(secrets) == [
        (str(secrets), "BRIDGE_KEY", "is read from the environment only"),
        (str(secrets), "BRIDGE_LOGLEVEL", "sets no key; nearest: BRIDGE_LOG_LEVEL"),
        (str(secrets), "BRIDGE_LOG_LEVEL", "is given twice"),
        (str(secrets), "line 6", "is no BRIDGE_SECTION__KEY=value"),
        (str(secrets), "line 7", "is no BRIDGE_SECTION__KEY=value"),
    ]
