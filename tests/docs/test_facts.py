"""What the pages state as facts is what the code and the provisioned files have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from app import errors
from app.catalog import load_folder
from app.catalog.entries import CacheEntry
from app.config import Settings, read_settings, settings_from
from app.contracts import ROUTERS
from app.main import build_operations
from app.operations.routes import operations_router
from dashboards.alerts import RULES, TWINS
from dashboards.rule import Rule, promql_span
from dashboards.wording import span_words
from manual.__main__ import catalogue, main, pages
from manual.metrics_page import cache_text
from manual.settings_page import SECTIONS, model_of, rows
from tests.docs.pages import ROOT, fences_of

DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_generated_pages_are_current() -> None:
    assert {name: (ROOT / name).read_text(encoding="utf-8") for name in pages()} == pages()


def test_the_command_writes_what_is_not_current_and_only_names_it_when_it_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manual.__main__.TARGET", tmp_path)
    assert (main(["--check"]), list(tmp_path.iterdir())) == (1, [])
    assert "docs/metrics.md: not current; run `make docs`" in capsys.readouterr().out
    assert (main([]), main(["--check"])) == (0, 0)


def settings_models(model: type[BaseModel] = Settings) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        inner = model_of(field.annotation)
        found += settings_models(inner) if inner is not None else []
    return found


@pytest.mark.parametrize("model", {*settings_models(), *(section[1] for section in SECTIONS)}, ids=lambda model: model.__name__)
def test_every_key_of_the_configuration_says_what_it_means(model: type[BaseModel]) -> None:
    assert [name for name, meaning, *_ in rows(model, "x") if not meaning] == []


SOURCE_MODELS = [section[1] for section in SECTIONS if section[0] == "sources.NAME.connect"]


_SENTINEL_KEYS = ("SENTINELS", "SERVICE", "SENTINEL_USERNAME", "SENTINEL_PASSWORD", "REPLICA_READS")
#: The ways to reach a source that exclude each other: for each the keys that belong to the others.
WAYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "RedisConfig": ((*_SENTINEL_KEYS, "NODES"), ("HOST", "PORT", "CLUSTER", "NODES"), ("HOST", "PORT", *_SENTINEL_KEYS)),
    "ClickHouseConfig": (("HOSTS",), ("HOST", "PORT")),
    "PrometheusConfig": (("BEARER_TOKEN",), ("USERNAME", "PASSWORD")),
}
TOGETHER = [(model, left_out) for model in SOURCE_MODELS for left_out in WAYS.get(model.__name__, ((),))]


@pytest.mark.parametrize(("model", "left_out"), TOGETHER, ids=str)
def test_all_examples_of_the_page_of_settings_together_are_a_valid_configuration(
    monkeypatch: pytest.MonkeyPatch, model: type[BaseModel], left_out: tuple[str, ...]
) -> None:
    sections = [(place, other) for place, other, *_ in SECTIONS if other not in SOURCE_MODELS or other is model]
    found = [row for place, other in sections for row in rows(other, place)]
    for name, inner in settings_places("", Settings):
        found += rows(inner, name)
    for *_, example in found:
        variable, _, value = example.strip("`").partition("=")
        if variable in {f"BRIDGE_SOURCES__NAME__CONNECT__{key}" for key in left_out}:
            continue
        monkeypatch.setenv(variable, value.strip("'"))
    kind = model.model_fields["kind"].default
    settings = settings_from(
        {"sources": {"name": {"connect": {"kind": kind}}, "clickhouse": CLICKHOUSE, "duckdb": DUCKDB}}, "test"
    )
    assert len(found) > 80
    assert (settings.sources["name"].connect.kind, settings.http.host) == (kind, "10.0.0.5")


CLICKHOUSE = {"connect": {"kind": "clickhouse"}}
DUCKDB = {"connect": {"kind": "duckdb", "snapshots": "data/snapshots"}}


def settings_places(place: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each model of the settings with the place of its keys."""
    yield place, model
    for name, field in model.model_fields.items():
        inner = model_of(field.annotation)
        if inner is not None:
            yield from settings_places(f"{place}.{name}" if place else name, inner)


def test_every_metric_event_and_label_is_in_the_page_of_metrics() -> None:
    known, text = catalogue(), page("metrics.md")
    names = [*known.metrics, *known.aliases, *known.events, *known.labels]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_page_of_metrics_says_which_cache_times_a_metric_has_of_its_own() -> None:
    cpu_load = catalogue().metrics["cpu_load"].entry
    own = cpu_load.model_copy(update={"cache": CacheEntry(fresh_s=2, stale_s=3600)})
    assert (cache_text(own), cache_text(cpu_load)) == (" Cache times of its own: `fresh_s` 2 s, `stale_s` 3600 s.", "")


def failures(kind: type[errors.BridgeError]) -> list[type[errors.BridgeError]]:
    return [kind, *(found for below in kind.__subclasses__() if below.__module__ == errors.__name__ for found in failures(below))]


def test_the_table_of_errors_has_every_code_with_its_status() -> None:
    table = page("ask.md").partition("\n## Errors\n")[2].partition("\n## ")[0]
    told = {
        code: int(line.split("|")[2])
        for line in table.splitlines()
        if line.startswith("| `")
        for code in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    # These two never answer a request.
    inside = ("backup", "config", "source_error")
    real = {
        one.code: one.status for one in failures(errors.BridgeError) if one.code not in inside and one is not errors.SourceError
    }
    assert told == real


def test_every_route_is_named() -> None:
    text = page("ask.md")
    operations = operations_router(build_operations(settings_from({}, "test"), catalogue(), {}))
    paths = {getattr(route, "path", "") for router in (*ROUTERS, operations) for route in router.routes}
    assert [path for path in paths if not path.startswith("/json/") and f"`{path}" not in text] == []


def _row_of(rule: Rule) -> str:
    """A rule as the page's first table has it."""
    window = f", of the last {span_words(rule.window_s).removeprefix('1 ')}" if rule.window_s else ""
    least = f", of at least {rule.least} orders" if rule.least else ""
    figure = f"`{rule.metric}` by {' and '.join(rule.by)}{window}{least}" if rule.metric else f"`{rule.expression}`"
    twin = f"`{rule.alert}`" if rule.alert else ""
    return f"| {rule.full_title} | {figure} | {promql_span(rule.held_s)} | {twin} |"


def test_the_tables_of_alert_rules_are_what_grafana_and_prometheus_get() -> None:
    told = [line for line in page("alert-rules.md").splitlines() if re.match(r"\| .*\((warning|critical)\)", line)]
    ours = [_row_of(rule) for group in RULES.values() for rule in group]
    alone = [rule for group in TWINS.values() for rule in group if not rule.uid]
    assert told == ours + [f"| `{rule.alert}` | {rule.full_title} | {promql_span(rule.held_s)} |" for rule in alone]


def default_of(key: str) -> Any:
    """The default of a key as the page of sizes writes it: `policy.x` and `connect.x` are those of any source."""
    models = {
        "policy": [SECTIONS[-1][1]],
        "connect": [section[1] for section in SECTIONS if section[0] == "sources.NAME.connect"],
    }
    section, _, name = key.partition(".")
    found = models.get(section) or [type(getattr(Settings(), section))]
    return next(model.model_fields[name].default for model in found if name in model.model_fields)


def test_the_limits_in_the_page_of_sizes_are_the_defaults() -> None:
    found = 0
    for line in page("sizes.md").splitlines():
        keys = re.findall(r"`((?:request|http|policy|connect)\.\w+)`", line.split("|")[-2]) if line.count("|") >= 4 else []
        for key in keys:
            value, shown = default_of(key), line.split("|")[2]
            forms = (
                [str(value)[:3] + " MB"]
                if isinstance(value, str)
                else [f"{value:,}", f"{value:g}", f"{value / 86400:g} days", f"{value / (1 << 20):g} MiB"]
            )
            assert any(form in shown for form in forms), (key, value, shown)
            found += 1
    assert found > 15


def test_the_writers_contract_names_all_that_the_catalogue_reads() -> None:
    text, names = page("writers-contract.md"), set[str]()
    for file in (ROOT / "provisioning" / "catalog").glob("*.yaml"):
        whole = file.read_text(encoding="utf-8")
        names |= set(re.findall(r"\b(?:tds|redis)_[a-z_]+\b(?=[\[{)])", whole))
        names |= set(re.findall(r"\bFROM (\w+)", whole))
        names |= {key.partition("{")[0].rstrip(":") for key in re.findall(r'(?:index|hash|stream): "?([\w:{}]+)', whole)}
        names |= set(re.findall(r"\bfield: (\w+)", whole)) | set(re.findall(r'"(instance:state:\w+)"', whole))
    assert len(names) > 40
    assert [name for name in sorted(names) if name not in text] == []


def test_the_metric_that_the_page_adds_is_one(tmp_path: Path) -> None:
    [fence, *_] = [fence for fence in fences_of("yaml") if fence.page.name == "add-a-metric.md"]
    for file in (ROOT / "provisioning" / "catalog").glob("*.yaml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "exposure.yaml").write_text(fence.text, encoding="utf-8")
    found = load_folder(tmp_path, read_settings(ROOT / "provisioning" / "bridge.yaml").kinds)
    assert found.metrics["exposure"].entry.labels == ("account", "symbol")


def test_the_configuration_that_the_pages_show_is_accepted() -> None:
    found = {fence.page.name: fence for fence in fences_of("yaml") if fence.page.name in ("operate.md", "settings.md")}
    assert settings_from(yaml.safe_load(found["operate.md"].text), "operate.md").backup.grafana is not None
    assert settings_from(yaml.safe_load(found["settings.md"].text), "settings.md").sources["rts"].policy.fresh_s == 5
