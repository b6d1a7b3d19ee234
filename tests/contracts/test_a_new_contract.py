"""What it costs to add a wire contract: one file (`plain_contract`) and one line; everything else of the bridge is there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.errors import SourceUnavailable
from tests.contracts import plain_contract
from tests.contracts.app_under_test import OPEN, Bench, bench

ASKED = "/plain?by=account&from=now-3m&step=1m&metric="


@pytest_asyncio.fixture
async def at() -> AsyncIterator[Bench]:
    made = bench()
    made.app.include_router(plain_contract.router)  # the one line
    async with made.app.router.lifespan_context(made.app), made.client:
        yield made


async def test_a_running_bridge_answers_in_the_new_contract(at: Bench) -> None:
    reply = await at.client.get(f"{ASKED}equity")
    minute = OPEN // 1000
    assert reply.text.splitlines() == [
        f"equity;account=A1 1.0 {minute - 120}",
        f"equity;account=A1 2.0 {minute - 60}",
        f"equity;account=A1 3.0 {minute}",
        f"equity;account=A2 30.0 {minute}",
    ]


async def test_what_is_missing_is_in_the_headers_as_everywhere(at: Bench) -> None:
    at.say(rts=SourceUnavailable("rts", "refused"))
    reply = await at.client.get(f"{ASKED}equity")
    assert reply.status_code == 200
    assert "status=partial" in reply.headers["Bridge-Result"]
    assert "rts: refused" in reply.headers["Bridge-Notice"]


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        (f"{ASKED}equit", 404, "equity"),
        (f"{ASKED}equity&acount=A1", 400, "acount"),
        (f"{ASKED}equity&from=tomorrow", 400, "from"),
    ],
)
async def test_a_wrong_question_is_refused_in_the_shape_of_all_errors(at: Bench, url: str, status: int, said: str) -> None:
    reply = await at.client.get(url)
    assert (reply.status_code, reply.json()["error"]["message"]) == (status, reply.json()["message"])
    assert said in reply.json()["message"]


async def test_an_answer_of_failures_alone_is_the_first_failure(at: Bench) -> None:
    at.say(prometheus=SourceUnavailable("prometheus", "refused"))
    reply = await at.client.get("/plain?metric=cpu_load&from=now-3m")
    assert (reply.status_code, "prometheus: refused" in reply.json()["message"]) == (503, True)
