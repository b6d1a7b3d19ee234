"""What it costs to add a kind of source: one file (`sqlite_source`), and one line in each of the two lists of `app.sources`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

import app.sources
from app.catalog import load
from app.config import SourceSettings, settings_from
from app.errors import ConfigError
from app.main import build_operations, build_sources, compose_service
from tests.e2e.conftest import client_of
from tests.sources.conformance.kind import BEGIN, END, STEP
from tests.sources.conformance.sqlite_kind import SqliteKind
from tests.sources.conformance.sqlite_source import SqliteConfig, SqliteRead

#: The two lines, in a registry of the test's own.
AnySource = Annotated[app.sources.AnySource | SqliteConfig, Field(discriminator="kind")]
READS = {**app.sources.READS, "sqlite": SqliteRead}

CATALOGUE = """
group: books
title: Books
labels: {account: {title: Account, metric: amount}}
metrics:
  amount:
    title: Amount
    description: What the books say
    unit: none
    aggregate: sum
    over_time: sum
    labels: [account]
    history:
      source: books
      sql: |
        SELECT at / $step_ms * $step_ms AS time, {by} amount AS value FROM figures
        WHERE at >= $from_ms AND at < $to_ms {where} -- the books
"""


class Registered(SourceSettings):
    """Settings of a source of any kind, the fifth among them."""

    connect: AnySource  # type: ignore[assignment]  # one kind more


async def test_a_running_bridge_answers_from_the_fifth_kind(tmp_path: Path) -> None:
    SqliteKind(tmp_path / "rows.sqlite")
    books = Registered.model_validate({"connect": {"kind": "sqlite", "file": tmp_path / "rows.sqlite"}})
    settings = settings_from({"agent": {"port": None}}, "test").model_copy(update={"sources": {"books": books}})
    catalogue = load({"books.yaml": CATALOGUE}, settings.kinds, READS)
    bridge = compose_service(settings, build_operations(settings, catalogue, build_sources(settings))).app
    asked = f"metric=amount&by=account&from={BEGIN}&to={END}&step={STEP // 1000}s&where=account=B2"
    async with client_of(bridge) as client:
        answer = (await client.get(f"/v1/rows?{asked}")).json()
    assert [(row["time"], row["value"]) for row in answer["rows"]] == [(BEGIN, 2.0), (BEGIN + 2 * STEP, 4.25)]


def test_a_misspelt_kind_is_refused_with_the_kinds_that_there_are() -> None:
    with pytest.raises(ValidationError, match="'redis', 'clickhouse', 'duckdb', 'prometheus', 'off', 'sqlite'"):
        Registered.model_validate({"connect": {"kind": "sqlit", "file": "x"}})


def test_a_wrong_read_of_the_fifth_kind_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"books\.yaml: metrics\.amount\.history\.sql: unknown placeholder \{were\}"):
        load({"books.yaml": CATALOGUE.replace("{where}", "{where} {were}")}, {"books": "sqlite"}, READS)
