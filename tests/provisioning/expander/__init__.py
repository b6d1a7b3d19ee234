"""Recording what the real expander makes of alert texts (`main.go`), for `tests/servers/go_templates.py`."""
