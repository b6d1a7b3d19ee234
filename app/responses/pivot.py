"""One table of present values: a row for each label set, a column for each metric, and the marks of the row.

No transformation has to put metrics side by side, so nothing is lost on the way: a row has the worst status and the oldest age of
its figures, and the reason for each metric that is not fresh. A metric without an answer is an empty column, and each row says
why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.model import Labels, Notice, Ranked, Ranking, Result, Times, Values
from app.query.ranking import cut_text, sort_keys
from app.responses.marks import STATUSES, Mark, empty_mark, newest_marks, result_mark, short_reason, worst_status
from app.responses.table import Coded, Column, SeriesKey, Table, mark_columns


@dataclass(frozen=True, slots=True)
class _Cell:
    """A figure of a row, when it is of, and its mark."""

    value: float
    time_ms: int
    mark: Mark


#: the cells of one result by label set
_Cells = dict[Labels, _Cell]


def pivot_table(
    results: Sequence[Result], by: Sequence[str], ranking: Ranking, decides: int = 0
) -> tuple[Table, Sequence[Result]]:
    """The table, and the results with a remark on the rows that are left out.

    Columns: time (of the newest figure), the labels, a column for each metric, status, age_s, reason. The metric at the index
    `decides` decides on the order of the rows. Without any row there is one of nulls, whose reason says why.
    """
    cells = [_cells_of(result) for result in results]
    labels = sorted({found for one in cells for found in one})
    keys = _order_keys(cells[decides], labels, ranking)
    order = np.argsort(keys, kind="stable")
    kept = order[: ranking.top]
    rows = [labels[place] for place in kept.tolist()]
    table = _table_of(results, cells, rows or [()], by, keys[kept])
    if ranking.order is None:
        return table, results
    return table, _with_order(results, decides, ranking, Ranked(keys[kept], len(labels)))


def column_names(results: Sequence[Result]) -> list[str]:
    """The name of each metric's column; where a metric is asked for twice, with its refId."""
    several = Counter(result.query.metric for result in results)
    return [
        f"{result.query.metric}_{result.query.ref_id}" if several[result.query.metric] > 1 else result.query.metric
        for result in results
    ]


def _cells_of(result: Result) -> _Cells:
    if result.error is not None:
        return {}
    marks = newest_marks(result)
    return {labels: _Cell(float(values[-1]), int(times[-1]), marks[labels]) for labels, times, values in result.frame.runs()}


def _order_keys(first: _Cells, labels: Sequence[Labels], ranking: Ranking) -> Values:
    if ranking.order in (None, "label"):
        return np.zeros(len(labels))
    figures = np.array([first[found].value if found in first else np.nan for found in labels])
    return sort_keys(figures, descending=ranking.order == "-value")


def _with_order(results: Sequence[Result], decides: int, ranking: Ranking, ranked: Ranked) -> list[Result]:
    """The results; the first one that is no error says what is left out, and whether the order is sure."""
    metric, status, shown = results[decides].query.metric, results[decides].status, len(ranked.keys)
    notices = []
    if shown < ranked.total:
        notices.append(Notice("info", f"{metric}: {cut_text(ranking, shown, ranked.total, 'rows')}"))
    if status in ("partial", "error") and ranking.order != "label":
        text = f"{metric} decides on the order of the rows, and it is not complete: the order may be wrong"
        notices.append(Notice("warning", text))
    first = next((place for place, result in enumerate(results) if result.error is None), None)
    found = list(results)
    if first is not None:
        one = found[first]
        query = replace(one.query, ranking=ranking)
        found[first] = replace(one, query=query, ranked=ranked, frame=one.frame.remark(*notices))
    return found


def _table_of(
    results: Sequence[Result], cells: Sequence[_Cells], rows: Sequence[Labels], by: Sequence[str], keys: Values
) -> Table:
    each = np.arange(len(rows))
    known = [dict(row) for row in rows]
    columns: list[tuple[str, Column]] = [("time", _times_of(results[0], cells, rows))]
    columns += [(label, Coded(each, [row.get(label) for row in known])) for label in by]
    for name, one in zip(column_names(results), cells, strict=True):
        columns.append((name, np.array([one[row].value if row in one else np.nan for row in rows])))
    columns += mark_columns(_marks_of_rows(results, cells, rows), each)
    padded = keys if len(keys) else np.zeros(len(rows))
    series = tuple(SeriesKey(0, key, row) for key, row in zip(padded.tolist(), rows, strict=True))
    return Table(tuple(columns), owner=each, series=series, by_series=True)


def _times_of(result: Result, cells: Sequence[_Cells], rows: Sequence[Labels]) -> Times:
    newest = [max((one[row].time_ms for one in cells if row in one), default=result.query.to_ms) for row in rows]
    return np.array(newest, dtype=np.int64)


def _marks_of_rows(results: Sequence[Result], cells: Sequence[_Cells], rows: Sequence[Labels]) -> list[Mark]:
    """The mark of each row. Most rows have the same marks in their cells, so these are put together once."""
    metrics = [result.query.metric for result in results]
    missing = [_missing_mark(result, one) for result, one in zip(results, cells, strict=True)]
    known: dict[tuple[int, ...], Mark] = {}
    found = []
    for row in rows:
        marks = [one[row].mark if row in one else absent for one, absent in zip(cells, missing, strict=True)]
        key = tuple(map(id, marks))
        if key not in known:
            known[key] = _joined_mark(metrics, marks)
        found.append(known[key])
    return found


def _joined_mark(metrics: Sequence[str], marks: Sequence[Mark]) -> Mark:
    """The worst status, the oldest age, and the reasons, the gravest first; one reason for all metrics that have the same."""
    ages_s = [mark.age_s for mark in marks if mark.age_s is not None]
    reasons = list(_reasons(zip(metrics, marks, strict=True)))
    return Mark(worst_status(mark.status for mark in marks), max(ages_s, default=None), short_reason(reasons))


def _missing_mark(result: Result, cells: _Cells) -> Mark:
    """The mark of a row in which a result has no figure."""
    whole = result_mark(result)
    if whole.reason:
        return whole
    if not cells:
        return empty_mark(result)
    # What happens now and then may not have happened; a quantity has a value, unless nobody has written it.
    return Mark("partial", None, "no value of now") if result.sampled else whole._replace(age_s=None)


def _reasons(marks: Iterable[tuple[str, Mark]]) -> Iterator[str]:
    grave = sorted((one for one in marks if one[1].reason), key=lambda one: -STATUSES.index(one[1].status))
    names: dict[str, list[str]] = {}
    for metric, mark in grave:
        names.setdefault(mark.reason, []).append(metric)
    for reason, metrics in names.items():
        yield f"{', '.join(metrics)}: {reason.removeprefix(f'{metrics[0]}: ')}"
