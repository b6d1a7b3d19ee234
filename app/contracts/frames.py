"""`/v1/frames`: Grafana frames with labels, units and notices (Infinity, parser frontend, format as-is)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.contracts import values
from app.contracts.budget import Asked, Work, answer_in_time, writing_ms
from app.contracts.params import budget_s, one, params_of, queries
from app.contracts.request import json_array, reject_when_all_failed, serving
from app.responses.frames import frame_elements
from app.responses.headers import result_headers

router = APIRouter()


@router.api_route("/v1/frames", methods=["GET", "HEAD", "POST"])
async def list_frames(request: Request) -> Response:
    """One frame per series, with the refId of the caller; with `marks` its status, age and reason are fields, too."""
    bridge = serving(request).bridge
    params = await params_of(request)
    asked, marks = queries(bridge, params, ("marks",)), values.flag(one(params, "marks"), "marks")

    async def answer(work: Work) -> Response:
        results = await work.run(bridge, asked)
        reject_when_all_failed(results)
        several = len(results) > 1
        elements = (element for result in results for element in frame_elements(bridge.catalogue, result, several, marks))
        return await json_array(elements, result_headers(results), writing_ms(results))

    return await answer_in_time(request, Asked(asked, budget_s(request, params)), answer)
