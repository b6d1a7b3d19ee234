"""Folding and bucketing against the same thing done slowly, one row at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.model import Statement, TimeRange
from app.sources.redis.aggregation import Aggregate, Aggregation, Rows, aggregate_rows
from app.sources.redis.history import SampleBuckets, read_samples

STEP = 1000
NULL = math.nan

rows = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from([1.0, 2.0, 5.0, NULL]),
        st.sampled_from([1.0, 4.0, 0.0, NULL]),
    ),
    max_size=30,
)


def slowly(aggregate: Aggregate, cell: list[tuple[float, float]]) -> float:
    values = [above / below for above, below in cell if below and not math.isnan(above / below)]
    if aggregate == "count":
        return len(values)
    if aggregate == "rate":
        return len(values) / (STEP / 1000)
    if aggregate == "ratio":
        both = [(above, below) for above, below in cell if not math.isnan(above + below)]
        total = sum(below for _, below in both)
        return sum(above for above, _ in both) / total if total else NULL
    if not values:
        return NULL
    figures = {"sum": sum(values), "avg": sum(values) / len(values), "min": min(values), "max": max(values)}
    return figures.get(aggregate, float(np.quantile(values, 0.5)))


@given(rows, st.sampled_from(["sum", "avg", "min", "max", "count", "quantile", "ratio", "rate"]))
def test_each_label_set_and_bucket_is_folded_on_its_own(found: list[tuple[int, int, float, float]], aggregate: Aggregate) -> None:
    cells = defaultdict(list)
    for bucket, place, above, below in found:
        cells[place, bucket * STEP].append((above, below))
    columns = [np.array(column) for column in zip(*found, strict=True)] or [np.empty(0)] * 4
    table = Rows(columns[0].astype(np.int64) * STEP, columns[1].astype(np.intp), columns[2], columns[3])
    rule = Aggregation(aggregate, 0.5, lambda buckets: np.full(len(buckets), STEP / 1000))
    frame = aggregate_rows(table, [(("place", str(place)),) for place in range(3)], rule)
    folded = {
        (int(labels[0][1]), int(at)): value
        for labels, times, values in frame.runs()
        for at, value in zip(times, values, strict=True)
    }
    assert folded.keys() == cells.keys()
    for cell, value in folded.items():
        np.testing.assert_allclose(value, slowly(aggregate, cells[cell]))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=20), st.integers(1, 4))
def test_a_counters_growth_is_all_there_whatever_the_buckets(counts: list[int], per_bucket: int) -> None:
    grown = sum(now - before if now >= before else now for before, now in pairwise(counts))
    step_ms = per_bucket * 10_000
    members = [f"{place * 10_000}:{count}".encode() for place, count in enumerate(counts)]
    end_ms = -(-len(counts) * 10_000 // step_ms) * step_ms
    asked = Statement("r", "m", "", (), TimeRange(0, end_ms, step_ms))
    buckets = SampleBuckets(asked, "increase", np.empty(0))
    for first in range(0, len(members), 3):
        buckets.add_piece(read_samples([0], [members[first : first + 3]])[0])
    found = buckets.finish_buckets()
    assert found.value.sum() == grown
    assert len(found.time) == len(set(found.time.tolist()))
