"""The Grafana dashboards as code (`make dashboards` writes their JSON); no part of the running bridge."""
