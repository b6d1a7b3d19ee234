"""What reads `/v1/rows` by its address: libraries that look with HEAD first, and tables that are loaded by name and type."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pyarrow.csv
import pytest
import pytest_asyncio

from app.cli import query as questions
from app.errors import SourceUnavailable
from tests.contracts.app_under_test import MINUTE, OPEN, TEXT, Bench, bench
from tests.frames import frame
from tests.servers.listening import listening

ASKED = "/v1/rows?metric=equity&by=account&from=now-3m&step=1m"


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client on the wire: HEAD means nothing where no bytes are counted."""
    made = bench()
    async with listening(made.app, lifespan="off") as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as one:
        yield one


def steady(reply: httpx.Response) -> dict[str, str]:
    """The headers but for what is another each time."""
    return {name: re.sub(r"dur=[\d.]+|age_s=[\d.]+", "", value) for name, value in reply.headers.items() if name != "date"}


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_the_command_line_says_beside_the_rows_what_is_wrong_with_them(
    form: str, capfd: pytest.CaptureFixture[str]
) -> None:
    made = bench()
    made.say(rts=SourceUnavailable("rts", "refused"))
    asked: dict[str, Any] = {
        "metric": "equity",
        "from_": "now-3m",
        "to": "now",
        "step": "1m",
        "by": "account",
        "where": [],
        "format": form,
    }
    asked |= dict.fromkeys(("sort", "top", "top_by"))
    async with listening(made.app, lifespan="off") as port:
        given = argparse.Namespace(url=f"http://127.0.0.1:{port}", **asked)
        assert await asyncio.to_thread(questions.query, given) == 0
    written = capfd.readouterr()
    assert len(written.out.splitlines()) == (4 if form == "csv" else 3)
    assert written.err.splitlines() == [
        "warning: rts: refused; the live edge is missing, the newest point is 2023-11-14 22:12:00Z",
        'not everything is fresh: "A";status=partial;age_s=0.0;missing="rts"',
    ]


@pytest.mark.parametrize("form", ["csv", "ndjson", "arrow"])
@pytest.mark.parametrize("question", [ASKED, f"{ASKED}&limit=2", "/v1/events?name=deploys"])
async def test_head_says_what_get_says_and_sends_nothing(client: httpx.AsyncClient, question: str, form: str) -> None:
    got, looked = await client.get(f"{question}&format={form}"), await client.head(f"{question}&format={form}")
    assert (looked.status_code, looked.content, steady(looked)) == (200, b"", steady(got))
    assert (int(looked.headers["content-length"]), looked.headers["accept-ranges"]) == (len(got.content), "none")


@pytest.mark.parametrize("question", [f"{ASKED}&shape=tall", "/v1/rows?metric=equitty", "/v1/events"])
async def test_head_of_what_is_wrong_has_the_same_status_and_no_body(client: httpx.AsyncClient, question: str) -> None:
    got, looked = await client.get(question), await client.head(question)
    assert (looked.status_code, looked.content, steady(looked)) == (got.status_code, b"", steady(got))


async def test_a_range_of_bytes_is_the_whole(client: httpx.AsyncClient) -> None:
    part, whole = [await client.get(f"{ASKED}&format=csv", headers=more) for more in ({"range": "bytes=0-9"}, {})]
    assert (part.status_code, part.content) == (200, whole.content)


async def test_duckdb_reads_instants_numbers_and_texts(at: Bench, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes((await at.client.get(f"{ASKED}&format=csv&time=iso")).content)
    with duckdb.connect() as base:
        rows = base.sql(f"SELECT * FROM read_csv('{tmp_path / 'rows.csv'}')")
        kinds, found = list(map(str, rows.types)), base.sql("SELECT epoch_ms(time), account, value FROM rows").fetchall()
    assert kinds == ["TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR", "DOUBLE"]
    assert found[:3] == [
        (OPEN - 2 * MINUTE, "A1", 1.0),
        (OPEN - MINUTE, "A1", 2.0),
        (OPEN - MINUTE, "A2", None),
    ]


async def test_arrow_has_types_even_where_a_column_is_empty(at: Bench) -> None:
    nothing = frame({})
    at.say(rts=nothing, duckdb=nothing)
    for question in (ASKED, f"{ASKED}&time=iso"):
        schema = pa.ipc.open_stream((await at.client.get(f"{question}&marks=1&format=arrow")).content).schema
        assert dict(zip(schema.names, map(str, schema.types), strict=True)) == {
            "time": "timestamp[ms, tz=UTC]",
            "metric": "string",
            "account": "string",
            "value": "double",
            "status": "string",
            "age_s": "double",
            "reason": "string",
        }


async def test_pyarrow_reads_the_csv_as_the_arrow_stream_is(at: Bench) -> None:
    lines = await at.client.get(f"{ASKED}&format=csv&time=iso")
    stream = await at.client.get(f"{ASKED}&format=arrow")
    wanted = pa.ipc.open_stream(stream.content).read_all()
    options = pyarrow.csv.ConvertOptions(column_types=wanted.schema)
    assert pyarrow.csv.read_csv(pa.py_buffer(lines.content), convert_options=options).to_pylist() == wanted.to_pylist()


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
@pytest.mark.parametrize("shape", ["long", "wide"])
async def test_a_figure_has_no_noise_in_any_format(at: Bench, form: str, shape: str) -> None:
    at.say(rts=frame({"account=A1": {OPEN: 206910.88840000003}}))
    text = (await at.client.get(f"{ASKED}&shape={shape}&format={form}")).text
    assert ("206910.8884" in text, "206910.88840" in text) == (True, False)


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
async def test_instants_are_iso_texts_on_request(at: Bench, form: str) -> None:
    text = (await at.client.get(f"{ASKED}&time=iso&format={form}")).text
    assert re.findall(r"2023-[^,\"]+", text.split('"meta"')[0]) == [
        "2023-11-14T22:11:00.000Z",
        *["2023-11-14T22:12:00.000Z"] * 2,
        *["2023-11-14T22:13:00.000Z"] * 2,
    ]


async def test_both_sides_of_a_figure_with_two_scales_say_so() -> None:
    made = bench(TEXT.replace("by: [account]}", "by: [account], scale: 0.01}"))
    async with made.client:
        page = (await made.client.get("/metrics")).text
        described = (await made.client.get("/v1/metrics")).json()["metrics"][0]["description"]
    assert "# HELP tds_account_equity Equity (the bridge's equity, unit currencyUSD, times 0.01)\n" in page
    assert described == (
        "What an account is worth In /metrics it is tds_account_equity: the bridge's equity, unit currencyUSD, times 0.01."
    )


async def test_of_several_answers_each_says_its_metric_in_the_header(at: Bench) -> None:
    at.say(prometheus=SourceUnavailable("prometheus", "refused"))
    reply = await at.client.get("/v1/rows?metric=equity,cpu_load&format=csv")
    assert reply.headers["bridge-result"] == (
        '"A";metric="equity";status=fresh;age_s=0.0, "A";metric="cpu_load";status=error;code=source_unavailable'
    )
    assert reply.headers["bridge-notice"] == '"prometheus: refused";severity=error'
