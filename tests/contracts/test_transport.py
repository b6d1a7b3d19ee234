"""How the bridge speaks HTTP, on a real uvicorn where the wire matters: checklist 2, 3, 10 to 12, 15 to 19, 70."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import httpx
import numpy as np
import pytest

from app.errors import SourceUnavailable
from app.model import Frame
from app.server.settings import HttpSettings
from tests.contracts.app_under_test import NOW, Bench, bench, hang
from tests.frames import frame
from tests.servers.listening import listening


@pytest.mark.parametrize("path", ["/v1/rows/?metric=equity", "/livez/", "/json/", "/v1/metrics//"])
async def test_02_a_trailing_slash_is_never_a_redirect(at: Bench, path: str) -> None:
    assert (await at.client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/rows?metric=equity", "/json", "/livez", "/readyz", "/metrics", "/health/sources"])
async def test_03_head_is_answered_like_get(at: Bench, path: str) -> None:
    assert (await at.client.head(path)).status_code == 200


async def test_03_browsers_may_ask_directly_where_their_origin_is_configured() -> None:
    made = bench(cors_origins=["http://grafana.example"])
    headers = {
        "origin": "http://grafana.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,authorization",
    }
    async with made.client:
        allowed = await made.client.options("/json/query", headers=headers)
        refused = await made.client.options("/json/query", headers=headers | {"origin": "http://elsewhere.example"})
    assert allowed.headers["access-control-allow-origin"] == "http://grafana.example"
    assert {"content-type", "authorization"} <= set(
        allowed.headers["access-control-allow-headers"].replace(" ", "").lower().split(",")
    )
    assert "access-control-allow-origin" not in refused.headers


async def test_10_answers_are_not_compressed_unasked(at: Bench) -> None:
    reply = await at.client.get("/v1/rows?metric=equity", headers={"accept-encoding": "gzip"})
    assert reply.headers.get("content-encoding", "identity") in ("identity", "gzip")


@pytest.mark.parametrize("path", ["/v1/rows?metric=equity", "/v1/rows?metric=nonsense", "/nowhere", "/livez"])
async def test_11_every_answer_states_its_length(at: Bench, path: str) -> None:
    reply = await at.client.get(path)
    assert int(reply.headers["content-length"]) == len(reply.content)


def test_12_idle_connections_are_kept_longer_than_grafana_keeps_them() -> None:
    assert HttpSettings().keep_alive_s > 90


async def test_15_infinity_and_nan_are_null(at: Bench) -> None:
    at.say(prometheus=frame({"": {NOW - 60_000: None}}))
    odd = Frame(time=np.array([NOW - 1000]), value=np.array([np.inf]), series=((),), offsets=(0, 1))
    for answer in (at.sources["prometheus"].answer, odd):
        at.say(prometheus=answer)
        reply = await at.client.get("/v1/rows?metric=cpu_load")
        assert [row["value"] for row in reply.json()["rows"]] == [None]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/v1/rows", 405), ("GET", "/json/query", 405)]
)
async def test_16_every_error_has_a_message(at: Bench, method: str, path: str, status: int) -> None:
    reply = await at.client.request(method, path)
    assert (reply.status_code, set(reply.json()), "detail" in reply.text) == (status, {"message", "error"}, False)


async def test_16_a_bug_is_a_500_with_a_message_and_without_its_text(at: Bench) -> None:
    at.app.state.serving = None
    reply = await at.client.get("/v1/rows?metric=equity")
    assert (reply.status_code, reply.json()["message"]) == (500, "internal error; see the bridge's log")


async def test_17_a_body_of_a_megabyte_is_accepted_and_unknown_keys_ignored(at: Bench) -> None:
    body = {"targets": [{"refId": "A", "target": "cpu_load"}], "scopedVars": {"big": {"value": "x" * 1_100_000}}, "unknown": 1}
    assert (await at.client.post("/json/query", json=body)).status_code == 200


async def test_18_when_the_caller_leaves_the_work_stops_at_the_store() -> None:
    made = bench()
    made.say(prometheus=hang)
    async with listening(made.app, lifespan="on") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/rows?metric=cpu_load HTTP/1.1\r\nHost: bridge\r\n\r\n")
        while not made.sources["prometheus"].asked:
            await asyncio.sleep(0.005)
        writer.close()
        async with asyncio.timeout(1):
            while not made.sources["prometheus"].cancelled:
                await asyncio.sleep(0.005)
    assert (made.sources["prometheus"].cancelled, await reader.read()) == (1, b"")


@pytest.mark.parametrize(
    "headers", [{}, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"authorization": ""}]
)
async def test_13_19_a_trace_or_an_empty_authorization_changes_nothing(at: Bench, headers: dict[str, str]) -> None:
    assert (await at.client.get("/v1/rows?metric=equity", headers=headers)).status_code == 200


async def test_70_health_routes_answer_without_a_store(at: Bench) -> None:
    down = SourceUnavailable("x", "refused")
    at.say(rts=down, duckdb=down, clickhouse=down, prometheus=down)
    assert [(await at.client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
    health = (await at.client.get("/health/sources")).json()
    assert (health["ok"], health["sources"]["rts"]["error"]) == (False, "x: refused")


async def test_readyz_says_no_while_draining(at: Bench) -> None:
    at.service.operations.draining = True
    assert (await at.client.get("/readyz")).status_code == 503


async def test_metrics_are_well_formed_and_show_the_live_gauges(at: Bench) -> None:
    await at.client.get("/v1/rows?metric=equity")
    at.say(rts=frame({"account=A1": {NOW // 10_000 * 10_000: 3}}))
    page = (await at.client.get("/metrics")).text
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing; `make test` installs it"
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert 'tds_account_equity{account="A1"} 3.0' in page
    assert 'bridge_http_requests_total{route="/v1/rows",status="200"} 1.0' in page


async def test_a_real_server_answers_a_real_client() -> None:
    made = bench()
    async with (
        listening(made.app, lifespan="on") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        replies = await asyncio.gather(*(client.get("/v1/rows?metric=equity") for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}
