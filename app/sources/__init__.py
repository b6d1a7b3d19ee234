"""The kinds of source there are. A new kind is one file and one line in each of the two lists.

`tests/sources/conformance` has the cases that every kind must pass, and a fifth kind as an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from app.sources.clickhouse.source import ClickHouseConfig, ClickHouseRead
from app.sources.duckdb.source import DuckDBConfig, DuckDBRead, DuckDBSource
from app.sources.off import OffConfig, OffRead
from app.sources.prometheus.source import PrometheusConfig, PrometheusRead
from app.sources.redis.source import RedisConfig, RedisRead, RedisSource

__all__ = ["READS", "AnySource", "DuckDBSource", "RedisSource"]

#: The connection of any source, told apart by its `kind`.
AnySource = Annotated[RedisConfig | ClickHouseConfig | DuckDBConfig | PrometheusConfig | OffConfig, Field(discriminator="kind")]

#: Kind -> how the catalogue may read from it.
READS: Mapping[str, Any] = {
    "redis": RedisRead,
    "clickhouse": ClickHouseRead,
    "duckdb": DuckDBRead,
    "prometheus": PrometheusRead,
    "off": OffRead,
}
