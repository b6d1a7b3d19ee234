"""A real Prometheus on samples that a test writes down as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.demo.stores import backfill, free_port, prometheus_store


@contextmanager
def prometheus_with(folder: Path, openmetrics: str) -> Iterator[int]:
    """A running Prometheus that holds these samples (OpenMetrics text): its port. It scrapes nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "samples.txt"
    text.write_text(openmetrics, encoding="utf-8")
    backfill(text, folder / "data")
    with prometheus_store(folder, free_port()) as port:
        yield port
