"""`bridge check`: everything that is wrong with configuration, catalogue, dashboards and statements, in one run."""
