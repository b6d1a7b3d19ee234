"""Windows services: the bridge, and beside it programs that do not speak to the service control manager themselves (Grafana)."""
