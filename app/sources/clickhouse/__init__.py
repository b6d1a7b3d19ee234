"""ClickHouse as a source: over HTTP, or the embedded engine in this process."""
