"""The names that the `/v1` routes give to parameters and columns. A label is both, so that none may have one of these names.

The routes read them from here: they accept exactly these, and the labels of the catalogue.
"""

from __future__ import annotations

#: What is asked of metrics.
QUERY = (
    *("metric", "from", "to", "step", "by", "where", "instant", "sort", "top", "top_by", "least"),
    *("maxDataPoints", "refId", "timeout"),
)
#: Which rows of an answer are sent, and in which form.
PAGE = ("format", "time", "limit", "cursor")
ROWS = ("shape", "marks", *PAGE)
EVENTS = ("name", "from", "to", "where", "timeout", "refId", "reaching", *PAGE)
VALUES = ("label", "where", "from", "to", "timeout", "refId")
_COLUMNS = ("time", "metric", "value", "status", "age_s", "reason", "summary", "metrics")

RESERVED = frozenset((*QUERY, *ROWS, *EVENTS, *VALUES, *_COLUMNS))
