"""Every kind of source on its real store, one after the other; and a source on it, asked as the bridge asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app.sources.base import Source
from tests.sources.conformance.clickhouse_kind import clickhouse_embedded_kind, clickhouse_http_kind, clickhouse_nodes_kind
from tests.sources.conformance.duckdb_kind import duckdb_kind
from tests.sources.conformance.kind import Kind
from tests.sources.conformance.prometheus_kind import prometheus_kind
from tests.sources.conformance.redis_kind import redis_cluster_kind, redis_kind, redis_sentinel_kind
from tests.sources.conformance.sqlite_kind import sqlite_kind

KINDS: Mapping[str, Callable[[Path], AbstractContextManager[Kind]]] = {
    "redis": redis_kind,
    "redis-sentinel": redis_sentinel_kind,
    "redis-cluster": redis_cluster_kind,
    "clickhouse-http": clickhouse_http_kind,
    "clickhouse-nodes": clickhouse_nodes_kind,
    "clickhouse-embedded": clickhouse_embedded_kind,
    "duckdb": duckdb_kind,
    "prometheus": prometheus_kind,
    "sqlite": sqlite_kind,
}


@pytest.fixture(scope="package", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
async def source(kind: Kind) -> AsyncIterator[Source]:
    found = kind.build()
    await found.open()
    yield found
    await found.close()
