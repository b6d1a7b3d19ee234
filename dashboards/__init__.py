"""The Grafana dashboards as code. `make dashboards` writes their JSON; the running bridge does not use it."""
