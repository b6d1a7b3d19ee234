"""The request metrics read as prometheus-client's own counter and histogram would."""

from __future__ import annotations

import random
import re

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.telemetry import SECONDS, RequestMetrics


def test_the_exposition_is_that_of_a_counter_and_a_histogram() -> None:
    chance, own, reference = random.Random(7), CollectorRegistry(), CollectorRegistry()
    metrics = RequestMetrics()
    own.register(metrics)
    requests = Counter("bridge_http_requests", "Requests answered", ("route", "status"), registry=reference)
    seconds = Histogram(
        "bridge_http_request_seconds", "Time to answer a request", ("route",), registry=reference, buckets=SECONDS
    )
    metrics.count("other", "429", 0)
    requests.labels("other", "429")
    for _ in range(300):
        route, took_s = chance.choice(("/v1/rows", "/json/query")), chance.choice((*SECONDS, 0.0, 20.0, chance.random()))
        metrics.record(route, "200", took_s)
        requests.labels(route, "200").inc()
        seconds.labels(route).observe(took_s)
    found, expected = (re.sub(rb"(_created\S*) .*", rb"\1", generate_latest(one)) for one in (own, reference))
    assert found == expected
