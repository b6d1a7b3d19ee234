"""Pages: which rows of a result are sent, in which form, and how omitted rows are reported. For every route with rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request

from app.clock import instant_text
from app.contracts import values
from app.contracts.cursors import Cursor, write_cursor
from app.contracts.params import Params, one
from app.cooperative import run_in_slices
from app.errors import LimitExceeded
from app.model import Notice, Query, Result
from app.responses.encoding import ENCODERS, TYPES, accepted_format
from app.responses.headers import notice_headers, page_headers
from app.responses.series import all_notices
from app.responses.table import Position, Table, with_iso_times

#: what writing a cell takes
_CELL_MS = 0.0002
_NARROWER = "a coarser step, fewer labels in by, a filter or a shorter range"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The form of the rows, and which of them. `limit` None means all, up to `most`. `mark` is the fingerprint of the request."""

    format: str
    iso: bool
    limit: int | None
    most: int
    mark: str
    after: Position | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows `first` to `first + count` of `total_rows`. `cut_by_us`: rows are left out although the caller set no limit."""

    first: int
    count: int
    #: None if it is not known.
    total_rows: int | None
    next_cursor: str = ""
    cut_by_us: bool = False
    #: The instant of the last row if rows follow, epoch ms.
    ends_ms: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the page has all rows."""
        return not self.first and not self.next_cursor


def page_request(params: Params, accept: str, most: int, mark: str) -> PageRequest:
    """The parameters of a page but for the cursor. Raises BadQuery."""
    limit = None if values.unset(one(params, "limit")) else values.whole_number(one(params, "limit"), "limit", 1, most, most)
    return PageRequest(
        values.choice(one(params, "format"), "format", tuple(TYPES), accepted_format(accept)),
        values.choice(one(params, "time"), "time", ("ms", "iso"), "ms") == "iso",
        limit,
        most,
        mark,
    )


def page_of(table: Table, asked: PageRequest, window: Query, strict: bool = False) -> Page:
    """The requested page. Raises LimitExceeded if rows would be left out for an alert rule (`strict`)."""
    first = table.row_after(asked.after) if asked.after is not None else 0
    left, limit = len(table) - first, asked.limit or asked.most
    if left <= limit:
        return Page(first, left, len(table))
    if strict:
        raise LimitExceeded(
            f"limit: {left} rows in this answer; at most {limit} are allowed, and an alert rule gets all or an error; "
            f"allowed: {_NARROWER}"
        )
    last = table.position(first + limit - 1)
    cursor = write_cursor(asked.mark, Cursor(window.from_ms, window.to_ms, last))
    return Page(first, limit, len(table), cursor, asked.limit is None, last.time_ms)


def mark_as_cut(results: Sequence[Result], page: Page) -> list[Result]:
    """The results marked as partial, because they have more rows than one answer may have."""
    text = (
        f"{page.total_rows} rows are more than one answer may have (request.most_cells): "
        f"it ends at {instant_text(page.ends_ms)}; "
        f"go on with next_cursor, or ask for {_NARROWER}"
    )
    return [
        replace(result, status="partial", frame=result.frame.remark(Notice("warning", text))) if result.error is None else result
        for result in results
    ]


async def render_page(
    request: Request, table: Table, page: Page, asked: PageRequest, results: Sequence[Result]
) -> tuple[bytes, dict[str, str]]:
    """The rows of the page (in JSON the beginning of an object), and headers for what the format cannot hold."""
    rows = table.page(page.first, page.count)
    shown = with_iso_times(rows) if asked.iso and asked.format != "arrow" else rows
    pieces = await run_in_slices(ENCODERS[asked.format](shown), len(shown) * len(shown.columns) * _CELL_MS)
    query = request.url.query if request.method != "POST" else ""
    headers = {"Accept-Ranges": "none", **page_headers(query, page.total_rows, page.next_cursor)}
    if asked.format == "json":
        return b"".join((b'{"rows":', *pieces)), headers
    return b"".join(pieces), headers | notice_headers(notice for result in results for notice in all_notices(result))
