"""DuckDB as a source: published, read-only snapshots."""
