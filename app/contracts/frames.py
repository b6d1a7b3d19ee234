"""`/v1/frames`: Grafana frames with labels, units and notices (Infinity, parser frontend, format as-is)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.contracts.params import budget_s, params_of, queries
from app.contracts.request import json_array, reject_when_all_failed, serving, unless_left
from app.responses.headers import result_headers
from app.responses.series import frame_elements

router = APIRouter()


@router.api_route("/v1/frames", methods=["GET", "HEAD", "POST"])
async def list_frames(request: Request) -> Response:
    """One frame per series, with the refId of the caller."""
    bridge = serving(request).bridge
    params = await params_of(request)
    results = await unless_left(request, bridge.run(queries(bridge, params), budget_s(request, params)))
    reject_when_all_failed(results)
    several = len(results) > 1
    elements = (element for result in results for element in frame_elements(bridge.catalogue, result, several))
    return await json_array(elements, result_headers(results))
