"""One Grafana data source over Redis, ClickHouse, DuckDB and Prometheus."""

__version__ = "0.1.0"
