"""The use case: plan a query, fetch from the sources, assemble their answers into one result."""
