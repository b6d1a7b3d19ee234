"""A wire contract in one file, as somebody would add it: `/plain` answers in Graphite's plain text.

    equity;account=A1 3.0 1700000000

A contract has three parts. *Parsing* turns the request into Queries; `app.contracts.params` reads the parameters that all `/v1`
routes share, and refuses those that nobody reads. *Asking* is `work.run`: each Query has a Result with a frame or an error.
`answer_in_time` lets the request in, limits its time, and cancels the work when the caller leaves. *Rendering* is a pure function
of the Results. The headers say what is stale or missing, for a format without remarks. Errors have one shape for all routes: a
contract raises.

What registers it is one line in `ROUTERS` of `app.contracts`. `test_a_new_contract` registers it on an application of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.contracts.budget import Asked, Work, answer_in_time
from app.contracts.params import budget_s, params_of, queries
from app.contracts.request import reject_when_all_failed, serving
from app.model import Result
from app.responses.headers import notice_headers, result_headers
from app.responses.series import all_notices

router = APIRouter()


@router.get("/plain")
async def plain(request: Request) -> Response:
    """The points of every series, a line each."""
    bridge, params = serving(request).bridge, await params_of(request)
    asked = Asked(queries(bridge, params), budget_s(request, params))

    async def answer(work: Work) -> Response:
        results = await work.run(bridge, asked.queries)
        reject_when_all_failed(results)
        notices = [notice for result in results for notice in all_notices(result)]
        return PlainTextResponse("".join(render_lines(results)), headers=result_headers(results) | notice_headers(notices))

    return await answer_in_time(request, asked, answer)


def render_lines(results: Sequence[Result]) -> Iterator[str]:
    """Graphite has no null: such a point has no line."""
    for result in results:
        for labels, times, values in result.frame.runs():
            path = ";".join((result.query.metric, *(f"{name}={value}" for name, value in labels)))
            points = zip(times.tolist(), values.tolist(), strict=True)
            yield from (f"{path} {value} {at // 1000}\n" for at, value in points if not math.isnan(value))
