"""`bridge metrics`: list the catalogue."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from app.catalog import load_folder
from app.cli.tables import print_metrics
from app.config import chosen_file, read_settings, sample_file
from app.documents.environment import FILE_VARIABLE


def metrics(config: Path | None) -> int:
    """List the catalogue. Without a configuration, the sample says which sources there are."""
    file = chosen_file(config)
    unconfigured = config is None and not os.environ.get(FILE_VARIABLE) and not file.exists()
    settings = read_settings(sample_file() if unconfigured else file)
    catalogue = load_folder(settings.catalog_folder, settings.kinds)
    print_metrics(catalogue.metrics.values(), Console())
    return 0
