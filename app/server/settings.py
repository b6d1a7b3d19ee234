"""The settings of the HTTP side: where it listens, and the limits of one request."""

from __future__ import annotations

from pydantic import Field

from app.documents.schema import Strict

MOST_WORKERS = 64


class HttpSettings(Strict):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="the address to listen on; any address but this machine's own requires a key")
    port: int = Field(8080, ge=0, le=65535, description="the HTTP port; 0 takes a free one")
    workers: int = Field(
        1, ge=1, le=MOST_WORKERS, description="processes behind the port, for a machine with more cores; not on Windows"
    )
    worker_hang_s: float = Field(
        15.0,
        ge=2,
        le=300,
        description="a worker whose event loop stands still for so long is replaced; only with several workers",
    )
    keep_alive_s: int = Field(
        120, ge=1, le=3600, description="how long an idle connection stays open; Grafana's proxy keeps its own for 90 s"
    )
    graceful_stop_s: int = Field(5, ge=0, le=300, description="time for requests to finish when the bridge stops")
    lame_duck_s: float = Field(
        3.0, ge=0, le=60, description="after a stop signal: go on answering, but not ready, so that HAProxy sends no more"
    )
    max_body_bytes: int = Field(4 << 20, ge=1024, le=64 << 20, description="the largest request body")
    cors_origins: tuple[str, ...] = Field(
        (), description="origins that browsers may call from; only for Grafana data sources with `access: direct`"
    )
    gzip: bool = Field(True, description="gzip cached responses for clients that accept it")
    unsent_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        description="answers that wait for slow readers; above it large requests are refused, at twice of it readers are cut off",
    )
    reader_s: float = Field(
        20.0,
        ge=1,
        le=3600,
        description="a connection whose reader takes nothing for so long is closed while an answer waits for it",
    )


class RequestSettings(Strict):
    """The limits of one request."""

    budget_s: float = Field(
        4.8, gt=0, le=60, description="time limit of an answer; above every total_timeout_s, below those of HAProxy and Grafana"
    )
    concurrent: int = Field(
        20, ge=1, le=1000, description="fetches from all sources at the same time; a fetch counts for its first 0.25 s"
    )
    under_way: int = Field(
        256,
        ge=1,
        le=100_000,
        description="requests at the same time, the last tenth for alert rules only; more are refused with 429",
    )
    light_bytes: int = Field(
        1 << 20,
        ge=0,
        description="a request that reads and writes at most this much never waits for heavier ones; learnt per question",
    )
    heavy_bytes: int = Field(
        12 << 20,
        ge=0,
        description="what heavier requests read and write at the same time; others wait in turn by key and dashboard, or get 429",
    )
    max_targets: int = Field(50, ge=1, le=1000, description="metrics (targets) in one request")
    max_points: int = Field(1000, ge=2, le=10_000, description="points of one series; a longer one is thinned")
    max_filter_values: int = Field(20_000, ge=1, le=1_000_000, description="values in one filter, as of a variable's All")
    most_series: int = Field(20_000, ge=1, le=1_000_000, description="series of one metric in one answer; more are refused")
    most_cells: int = Field(
        2_000_000,
        ge=1000,
        le=50_000_000,
        description="points in one answer; with more series each has fewer points, and a remark says so",
    )
    max_range_s: int = Field(400 * 86400, ge=60, description="the longest time range of one request")
    ready_bytes: int = Field(
        32 << 20, ge=0, description="memory for finished responses, kept while every part is fresh; 0 keeps none"
    )


class AgentSettings(Strict):
    """HAProxy's agent-check: a port that reports the weight of this replica. Off without a port."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int | None = Field(8081, ge=0, le=65535, description="the agent-check's port; null switches it off")
