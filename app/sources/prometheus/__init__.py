"""Prometheus and its kin as a source, over the HTTP API."""
