"""Prometheus: three metrics with a sample for each row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from app.sources.base import Read, Source
from app.sources.prometheus.source import PrometheusConfig, PrometheusRead
from demo.stores import free_port
from tests.servers.prometheus import prometheus_with
from tests.sources.conformance.kind import BEGIN, ROWS, STEP, Case, Gap, Row, Table, in_order


def _openmetrics() -> str:
    lines = list[str]()
    for table, rows in ROWS.items():
        lines.append(f"# TYPE {table} gauge")
        by_labels: dict[str, list[Row]] = {}
        for row in in_order(rows):
            by_labels.setdefault(_labels(row), []).append(row)
        for labels, some in by_labels.items():
            amounts = (("NaN" if row.amount is None else row.amount, row.at_ms / 1000) for row in some)
            lines += [f"{table}{labels} {amount} {at_s:.3f}" for amount, at_s in amounts]
    return "\n".join([*lines, "# EOF", ""])


def _labels(row: Row) -> str:
    account = row.account.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{account="{account}",broker="{row.broker}"}}'


class PrometheusKind:
    """See Kind."""

    gaps: Mapping[Case, Gap] = {
        "half_open": Gap("a bucket is evaluated at its end, so it holds the sample of that very instant", BEGIN + 2 * STEP),
        "partial": Gap("one server has all of its data; a Thanos that lacks a part says so (test_shapes)"),
    }
    tells_while_hanging = True
    covers_to_ms: int | None = None

    def __init__(self, port: int) -> None:
        self._port = port

    def build(self, **options: Any) -> Source:
        return self._source(self._port, **options)

    def unreachable(self) -> Source:
        return self._source(free_port())

    def _source(self, port: int, **options: Any) -> Source:
        return PrometheusConfig.model_validate({"url": f"http://127.0.0.1:{port}", **options}).build("store")

    def read(self, table: Table) -> Read:
        return PrometheusRead(source="store", query=f"sum by ({{by}}) (sum_over_time({table}{{where}}[{{window}}]))")

    def wrong_read(self) -> Read:
        return PrometheusRead(source="store", query="sum(")

    def partial_read(self) -> Read:
        return self.read("figures")

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[Read]:
        # Much work in small steps: Prometheus looks for a cancellation between them.
        inner = "sum_over_time(figures[1m:1ms])"
        yield PrometheusRead(source="store", query=" + ".join([f"sum(max_over_time({inner}[30m:1s]))"] * 20))

    def running(self, source: Source) -> int:
        page = httpx.get(f"http://127.0.0.1:{self._port}/metrics", trust_env=False).text
        [line] = [line for line in page.splitlines() if line.startswith("prometheus_engine_queries ")]
        return int(line.split()[1])


@contextmanager
def prometheus_kind(folder: Path) -> Iterator[PrometheusKind]:
    """A server of its own."""
    with prometheus_with(folder, _openmetrics()) as port:
        yield PrometheusKind(port)
