"""Windows services: the bridge, and programs such as Grafana that do not talk to the service control manager themselves."""
