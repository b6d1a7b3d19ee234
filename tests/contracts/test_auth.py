"""Without a key only the probes answer."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from app.contracts import ROUTERS
from app.operations.routes import operations_router
from tests.contracts.app_under_test import Bench, bench

ROWS = "/v1/rows?metric=equity&by=account&from=now-1h"
KEY = "tdsb_test"
KEYED = {"Authorization": f"Bearer {KEY}"}
AUTH = {"keys": {"grafana": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}}}
PATHS = sorted({route.path for router in (*ROUTERS, operations_router(bench().service.operations)) for route in router.routes})  # type: ignore[attr-defined]


@pytest.fixture
def closed() -> Bench:
    return bench(auth=AUTH)


@pytest.mark.parametrize("path", PATHS)
async def test_14_without_a_key_only_the_probes_answer(closed: Bench, path: str) -> None:
    async with closed.client as client:
        found = [(await client.request(method, path)).status_code for method in ("GET", "POST", "HEAD")]
    refused = {403} if path.startswith("/json") else {401}
    assert (set(found) == refused) is (path not in ("/livez", "/readyz"))


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": KEY}])
async def test_a_refusal_says_what_is_needed_and_is_counted(closed: Bench, given: dict[str, str]) -> None:
    async with closed.client as client:
        refused = await client.get(ROWS, headers=given)
        told = (await client.get("/metrics", headers=KEYED)).text
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["error"]["code"] == "not_allowed"
    assert "allowed: Bearer <key>" in refused.json()["message"]
    assert KEY not in refused.text
    assert "bridge_unauthenticated_total 1.0" in told


@pytest.mark.parametrize("auth", [httpx.BasicAuth("anybody", KEY), None])
async def test_with_the_key_everything_answers(closed: Bench, auth: httpx.Auth | None) -> None:
    async with closed.client as client:
        answer = await client.get(ROWS, auth=auth) if auth else await client.get(ROWS, headers=KEYED)
    assert answer.status_code == 200
