"""/v1/rows and /alert/v1/rows: checklist 53 to 69, 72, 74 to 76, 80, 81, and what Infinity and alerting need of a reply."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import httpx
import pyarrow.ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contracts.cursors import Cursor, request_fingerprint, write_cursor
from app.errors import SourceTimeout, SourceUnavailable
from app.responses.table import Position
from tests.contracts.app_under_test import EMPTY, LIVE, MINUTE, NOW, OPEN, Bench, bench, hang
from tests.frames import frame

ROUTES = ["/v1/rows", "/alert/v1/rows"]
ASKED = "metric=equity&by=account&from=now-3m&step=1m"
ROWS = [
    {"time": OPEN - 2 * MINUTE, "metric": "equity", "account": "A1", "value": 1.0},
    {"time": OPEN - MINUTE, "metric": "equity", "account": "A1", "value": 2.0},
    {"time": OPEN - MINUTE, "metric": "equity", "account": "A2", "value": None},
    {"time": OPEN, "metric": "equity", "account": "A1", "value": 3.0},
    {"time": OPEN, "metric": "equity", "account": "A2", "value": 30.0},
]


async def rows_of(at: Bench, query: str, route: str = "/v1/rows") -> list[dict[str, Any]]:
    reply = await at.client.get(f"{route}?{query}")
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["rows"]
    return found


def assert_satisfies_backend_parser(body: dict[str, Any], long: bool) -> None:
    """What Infinity's backend parser and Grafana's alerting need of a reply."""
    assert set(body) == {"rows", "meta", "next_cursor"}
    assert isinstance(body["next_cursor"], str)
    rows = body["rows"]
    assert isinstance(rows, list)
    times = [row["time"] for row in rows]
    assert times == sorted(times)
    assert all(isinstance(time, int) for time in times)
    for row in rows:
        assert set(row) == set(rows[0])
        assert all(re.fullmatch(r"[A-Za-z0-9_]+", key) for key in row)
    for key in rows[0] if rows else ():
        kinds = {type(row[key]) for row in rows if row[key] is not None} - {int}
        assert len(kinds) <= 1
        assert key in ("time", "value") or kinds <= ({str} if long else {float})
    identities = [tuple(value for key, value in row.items() if key != "value") for row in rows]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("more", ["", "&shape=wide", "&instant=1"])
@pytest.mark.parametrize("empty", [False, True])
async def test_53_57_60_61_every_shape_satisfies_the_backend_parser(at: Bench, route: str, more: str, empty: bool) -> None:
    if empty:
        at.say(rts=EMPTY, duckdb=EMPTY, prometheus=EMPTY)
    reply = await at.client.get(f"{route}?{ASKED}{more}")
    assert reply.status_code == 200, reply.text
    assert_satisfies_backend_parser(reply.json(), long="wide" not in more)
    assert bool(reply.json()["rows"]) != empty


@pytest.mark.parametrize("route", ROUTES)
async def test_58_59_rows_are_points_in_the_order_of_time_metric_labels(at: Bench, route: str) -> None:
    assert await rows_of(at, ASKED, route) == ROWS


async def test_54_nothing_found_is_a_200_with_an_empty_list(at: Bench) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    reply = await at.client.get(f"/v1/rows?{ASKED}")
    assert (reply.status_code, reply.json()["rows"], reply.json()["next_cursor"]) == (200, [], "")


async def test_55_56_each_row_has_each_key_and_each_key_one_type(at: Bench) -> None:
    found = await rows_of(at, "metric=equity,cpu_load&from=now-3m&step=1m")
    assert {tuple(row) for row in found} == {("time", "metric", "value")}
    assert {type(row["metric"]) for row in found} == {str}


async def test_61_wide_rows_have_a_column_of_numbers_for_each_series(at: Bench) -> None:
    assert await rows_of(at, f"{ASKED}&shape=wide") == [
        {"time": OPEN - 2 * MINUTE, "equity_A1": 1.0, "equity_A2": None},
        {"time": OPEN - MINUTE, "equity_A1": 2.0, "equity_A2": None},
        {"time": OPEN, "equity_A1": 3.0, "equity_A2": 30.0},
    ]


async def test_62_an_instant_answer_has_one_row_for_each_label_set(at: Bench) -> None:
    assert await rows_of(at, f"{ASKED}&instant=1") == ROWS[-2:]


@pytest.mark.parametrize(
    "span",
    [
        "from=now-3m&to=now",
        f"from={NOW - 180_000}&to={NOW}",
        f"from={(NOW - 180_000) / 1000}&to={NOW / 1000}",
        "from=2023-11-14T22:10:25.500Z&to=2023-11-14T22:13:25.500%2B00:00",
        "from=2023-11-14T22:10:25.5&to=${__to}",
        "from=now-3m&to=",
        "from=now-3m&to=$__timeTo",
    ],
)
async def test_63_times_may_be_written_in_any_way(at: Bench, span: str) -> None:
    reply = await at.client.get(f"/v1/rows?metric=equity&step=1m&{span}")
    assert reply.status_code == 200, reply.text
    assert (reply.json()["meta"]["from"], reply.json()["meta"]["to"]) == (NOW - 180_000, NOW)


@pytest.mark.parametrize("interval", ["", "auto", "${__interval_ms}", "$__interval"])
async def test_72_an_alert_query_without_an_interval_is_answered(at: Bench, interval: str) -> None:
    at.say(rts=frame({"account=A1": {NOW // 10_000 * 10_000: 30}}))
    found = await rows_of(at, f"metric=equity&by=account&from=now-5m&step={interval}", "/alert/v1/rows")
    assert [row["value"] for row in found][-1] == 30.0


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ("account={A1,A2}", "{A1,A2}"),
        ("account=A1,A2", "A1,A2"),
        ("account=(A1|A2)", "(A1|A2)"),
        ("account=A1|A2", "A1|A2"),
        ('account=["A1","A2"]', None),
        ("account=A1&account=A2", None),
        ("var-account=A1&var-account=A2", None),
        ("where=account=A1,A2", "A1,A2"),
        ("where=account%3D|A1,A2", "A1,A2"),
    ],
)
async def test_64_a_list_in_any_form_is_its_values_and_where_it_may_be_one_the_value_of_that_name(
    at: Bench, filters: str, text: str | None
) -> None:
    await rows_of(at, f"metric=equity&{filters}")
    [statement] = at.sources["rts"].asked
    values = ("A1", "A2") if text is None else ("A1", "A2", text)
    assert [(one.label, one.operator, one.values) for one in statement.where] == [("account", "=|", values)]


@pytest.mark.parametrize("everything", ["account=$__all", "account=", "where=account=$__all", "var-account=$__all"])
async def test_64_all_is_no_filter(at: Bench, everything: str) -> None:
    await rows_of(at, f"metric=equity&{everything}")
    assert at.sources["rts"].asked[0].where == ()


async def test_64_plus_and_percent_twenty_are_spaces(at: Bench) -> None:
    await rows_of(at, "metric=equity&account=A+1&where=broker=B%202")
    assert [one.values for one in at.sources["rts"].asked[0].where] == [("B 2",), ("A 1",)]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_65_post_is_get(at: Bench, kind: str) -> None:
    sent: dict[str, Any] = {"metric": ["equity"], "by": "account", "from": "now-3m", "step": "1m"}
    content = ASKED if "form" in kind else json.dumps(sent)
    reply = await at.client.post("/v1/rows", content=content, headers={"content-type": kind})
    assert reply.json()["rows"] == ROWS


@pytest.mark.parametrize(
    "where", [{"account": "A1"}, ["account=A1"], "account=A1", [{"key": "account", "operator": "=", "value": "A1"}]]
)
async def test_65_filters_in_a_json_body_take_any_form(at: Bench, where: Any) -> None:
    await at.client.post("/v1/rows", json={"metric": "equity", "where": where})
    assert [(one.label, one.values) for one in at.sources["rts"].asked[0].where] == [("account", ("A1",))]


async def test_66_a_multipart_body_is_refused_with_what_to_use(at: Bench) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    reply = await at.client.post("/v1/rows", content=b"--y\r\n\r\n1\r\n--y--", headers=headers)
    assert (reply.status_code, "use body type raw (JSON) or x-www-form-urlencoded" in reply.json()["message"]) == (400, True)


async def test_67_68_pages_put_together_are_the_whole(at: Bench) -> None:
    found: list[dict[str, Any]] = []
    cursor = ""
    for page in range(3):
        reply = (await at.client.get(f"/v1/rows?{ASKED}&limit=2&cursor={cursor}")).json()
        assert 1 <= len(reply["rows"]) <= 2
        found += reply["rows"]
        cursor = reply["next_cursor"]
        assert bool(cursor) == (page < 2)
    assert found == ROWS


async def test_67_a_page_whose_rows_are_all_gone_is_empty_and_the_last(at: Bench) -> None:
    first = (await at.client.get(f"/v1/rows?{ASKED}&limit=2")).json()
    at.say(rts=EMPTY, duckdb=EMPTY)
    reply = await at.client.get(f"/v1/rows?{ASKED}&limit=2&cursor={first['next_cursor']}")
    assert (reply.status_code, reply.json()["rows"], reply.json()["next_cursor"]) == (200, [], "")


async def test_69_one_metric_of_two_failing_is_a_200_that_says_so(at: Bench) -> None:
    at.say(prometheus=SourceTimeout("prometheus", "slow"))
    reply = (await at.client.get("/v1/rows?metric=equity,cpu_load")).json()
    facts = reply["meta"]["metrics"]
    assert (reply["meta"]["partial"], facts["equity"]["status"], facts["cpu_load"]["status"]) == (True, "fresh", "error")
    assert facts["cpu_load"]["notices"] == [{"severity": "error", "text": "prometheus: slow"}]


async def test_69_only_when_nothing_can_be_shown_is_the_status_an_error(at: Bench) -> None:
    at.say(prometheus=SourceTimeout("prometheus", "slow"))
    reply = await at.client.get("/v1/rows?metric=cpu_load")
    assert (reply.status_code, reply.json()["error"]) == (504, {"code": "source_timeout", "message": "prometheus: slow"})


DOWN = SourceUnavailable("x", "refused")


@pytest.mark.parametrize("down", [{"rts": DOWN}, {"duckdb": DOWN}, {"clickhouse": DOWN}])
async def test_an_alert_gets_an_error_where_a_panel_gets_a_part(at: Bench, down: dict[str, Any]) -> None:
    at.say(**down)
    metric = "pnl" if "clickhouse" in down else "equity"
    panel = await at.client.get(f"/v1/rows?metric={metric}")
    alert = await at.client.get(f"/alert/v1/rows?metric={metric}")
    assert (panel.status_code, panel.json()["meta"]["partial"]) == (200, True)
    assert (alert.status_code, alert.json()["message"]) == (503, "x: refused")


async def test_an_alert_does_not_see_the_bucket_that_is_still_growing(at: Bench) -> None:
    await rows_of(at, "metric=pnl&step=1m", "/alert/v1/rows")
    await rows_of(at, "metric=pnl&step=1m", "/v1/rows")
    assert [statement.range.to_ms for statement in at.sources["clickhouse"].asked] == [OPEN, OPEN + MINUTE]


async def test_74_csv_has_a_header_one_column_count_and_no_trailing_blank_line(at: Bench) -> None:
    reply = await at.client.get(f"/v1/rows?{ASKED}&format=csv")
    table = list(csv.reader(io.StringIO(reply.text)))
    assert reply.text.endswith("30.0\n")
    assert table[0] == ["time", "metric", "account", "value"]
    assert [[row[0], row[2], row[3]] for row in table[1:]] == [
        [str(row["time"]), row["account"], "" if row["value"] is None else str(row["value"])] for row in ROWS
    ]


async def test_a_column_of_wide_rows_has_the_same_name_whatever_else_there_is(at: Bench) -> None:
    both = {"account=XAUUSD+": {OPEN: 1}, "account=XAUUSD-": {OPEN: 2}}
    names = []
    for there in (both, {"account=XAUUSD-": {OPEN: 2}}):
        at.say(rts=frame(there), duckdb=EMPTY)
        names.append((await rows_of(at, f"{ASKED}&shape=wide"))[0])
    assert names == [
        {"time": OPEN, "equity_XAUUSD__2B": 1.0, "equity_XAUUSD__2D": 2.0},
        {"time": OPEN, "equity_XAUUSD__2D": 2.0},
    ]


async def test_ndjson_and_arrow_hold_the_same_rows(at: Bench) -> None:
    lines = await at.client.get(f"/v1/rows?{ASKED}&format=ndjson")
    stream = await at.client.get(f"/v1/rows?{ASKED}&format=arrow")
    assert [json.loads(line) for line in lines.text.splitlines()] == ROWS
    held = pyarrow.ipc.open_stream(stream.content).read_all()
    assert held.set_column(0, "time", held["time"].cast("int64")).to_pylist() == ROWS


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json;q=0.9,text/plain", "application/json"),
        ("*/*", "application/json"),
        ("text/csv; charset=utf-8", "text/csv; charset=utf-8"),
        ("text/xml;q=0.9,text/plain", "application/json"),
    ],
)
async def test_07_08_09_the_accept_header_is_honoured_and_never_refused(at: Bench, accept: str, kind: str) -> None:
    reply = await at.client.get(f"/v1/rows?{ASKED}", headers={"accept": accept})
    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)


async def test_75_76_equal_questions_at_once_ask_once_whatever_their_order() -> None:
    made = bench(fresh_s=10)
    parts = ASKED.split("&")
    urls = [f"/v1/rows?{'&'.join(parts[shift:] + parts[:shift])}" for shift in range(4)] * 3
    async with made.client:
        replies = await asyncio.gather(*(made.client.get(url) for url in urls))
    assert {len(reply.json()["rows"]) for reply in replies} == {5}
    assert made.askings() == {"rts": 1, "duckdb": 1}


async def test_80_a_caller_may_ask_for_less_time(at: Bench) -> None:
    at.say(prometheus=hang)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reply = await at.client.get("/v1/rows?metric=cpu_load&timeout=0.05")
    assert (loop.time() - begun < 1.5, reply.status_code) == (True, 504)


FORMATS = ["json", "csv", "ndjson", "arrow"]


def allow_rows(at: Bench, most: int) -> None:
    """From now on an answer may have so many rows."""
    at.app.state.serving = replace(at.app.state.serving, max_rows=most)


def records(reply: httpx.Response) -> list[dict[str, Any]]:
    """The rows of an answer in any format."""
    kind = reply.headers["content-type"]
    if "arrow" in kind:
        found: list[dict[str, Any]] = pyarrow.ipc.open_stream(reply.content).read_all().to_pylist()
        return found
    if "csv" in kind:
        return list(csv.DictReader(io.StringIO(reply.text)))
    return [json.loads(line) for line in reply.text.splitlines()] if "ndjson" in kind else reply.json()["rows"]


@pytest.mark.parametrize("shape", ["long", "wide"])
@pytest.mark.parametrize("form", FORMATS)
async def test_81_rows_over_the_limit_are_partial_in_every_format_and_lead_to_the_rest(at: Bench, form: str, shape: str) -> None:
    question = f"/v1/rows?{ASKED}&format={form}&shape={shape}"
    whole = await at.client.get(question)
    allow_rows(at, 2)
    reply = await at.client.get(question)
    found = records(reply)
    assert "status=partial" in reply.headers["bridge-result"]
    assert reply.headers["bridge-total-rows"] == str(len(records(whole)))
    while following := re.fullmatch(r'<(\?.*)>; rel="next"', reply.headers.get("link", "")):
        assert parse_qs(following[1][1:])["cursor"] == [reply.headers["bridge-next-cursor"]]
        reply = await at.client.get(f"/v1/rows{following[1]}")
        found += records(reply)
    assert (found, "bridge-next-cursor" in reply.headers) == (records(whole), False)


async def test_81_what_is_cut_is_said_where_a_format_has_a_place_for_it_and_in_a_header_where_not(at: Bench) -> None:
    allow_rows(at, 3)
    told = (
        "5 rows are more than one answer may have (request.most_cells): it ends at 2023-11-14 22:12:00Z; go on with "
        "next_cursor, or ask for a coarser step, fewer labels in by, a filter or a shorter range"
    )
    reply = await at.client.get(f"/v1/rows?{ASKED}")
    body = reply.json()
    facts = body["meta"]["metrics"]["equity"]
    assert (body["meta"]["partial"], facts["status"], facts["notices"]) == (
        True,
        "partial",
        [{"severity": "warning", "text": told}],
    )
    assert (body["next_cursor"], "bridge-notice" in reply.headers) == (reply.headers["bridge-next-cursor"], False)
    lines = await at.client.get(f"/v1/rows?{ASKED}&format=csv&marks=1")
    assert lines.headers["bridge-notice"] == f'"{told}";severity=warning'
    assert {row["status"] for row in records(lines)} == {"partial"}


@pytest.mark.parametrize("more", ["", "&limit=2", "&limit=2&format=csv", "&shape=wide&limit=1"])
async def test_an_alert_gets_all_rows_or_an_error(at: Bench, more: str) -> None:
    allow_rows(at, 3)
    reply = await at.client.get(f"/alert/v1/rows?{ASKED}{more}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "limit_exceeded")
    assert re.match(r"limit: [35] rows in this answer; at most [123] are allowed", reply.json()["message"])


async def test_an_alert_gets_no_page(at: Bench) -> None:
    cursor = (await at.client.get(f"/v1/rows?{ASKED}&limit=2")).json()["next_cursor"]
    reply = await at.client.get(f"/alert/v1/rows?{ASKED}&cursor={cursor}")
    assert (reply.status_code, reply.json()["message"].split(":")[0]) == (400, "cursor")


async def test_a_page_that_was_asked_for_is_no_partial_answer(at: Bench) -> None:
    reply = await at.client.get(f"/v1/rows?{ASKED}&limit=2&format=csv")
    assert reply.headers["bridge-result"] == '"A";status=fresh;age_s=0.0'
    assert ("bridge-next-cursor" in reply.headers, reply.headers["bridge-total-rows"]) == (True, "5")


async def test_an_answer_in_pages_is_not_kept_for_the_next_asker_of_the_whole() -> None:
    made = bench(fresh_s=10)
    async with made.client:
        allow_rows(made, 3)
        cut = [await made.client.get(f"/v1/rows?{ASKED}&format=csv") for _ in range(2)]
        allow_rows(made, 5)
        whole = [await made.client.get(f"/v1/rows?{ASKED}&format=csv") for _ in range(2)]
    assert [("bridge-next-cursor" in reply.headers, len(records(reply))) for reply in cut] == [(True, 3)] * 2
    assert [(reply.headers["bridge-total-rows"], len(records(reply))) for reply in whole] == [("5", 5)] * 2


@pytest.mark.parametrize(
    "other",
    [
        "metric=equity&by=account&from=now-3m&step=2m",
        "metric=equity&from=now-3m&step=1m",
        f"{ASKED}&where=account=A1",
        f"{ASKED}&shape=wide",
    ],
)
async def test_a_cursor_is_of_no_use_to_another_question(at: Bench, other: str) -> None:
    cursor = (await at.client.get(f"/v1/rows?{ASKED}&limit=2")).json()["next_cursor"]
    asked_before = at.askings()
    reply = await at.client.get(f"/v1/rows?{other}&limit=2&cursor={cursor}")
    assert (reply.status_code, at.askings()) == (400, asked_before)
    assert reply.json()["message"].startswith("cursor: it is of another question")


async def test_the_size_and_the_form_of_a_page_may_change(at: Bench) -> None:
    cursor = (await at.client.get(f"/v1/rows?{ASKED}&limit=2")).json()["next_cursor"]
    reply = await at.client.get(f"/v1/rows?{ASKED}&limit=5&format=ndjson&cursor={cursor}")
    assert records(reply) == ROWS[2:]


async def test_rows_that_come_between_two_pages_make_none_appear_twice_and_lose_none(at: Bench) -> None:
    first = (await at.client.get(f"/v1/rows?{ASKED}&limit=3")).json()
    late = {"account=A0": {OPEN - 2 * MINUTE: 7, OPEN - MINUTE: 8}, "account=A1": {OPEN - 2 * MINUTE: 1, OPEN - MINUTE: 2}}
    at.say(duckdb=frame({**late, "account=A2": {OPEN - MINUTE: None}, "account=A3": {OPEN - MINUTE: 9}}))
    rest = (await at.client.get(f"/v1/rows?{ASKED}&cursor={first['next_cursor']}")).json()
    came = {"time": OPEN - MINUTE, "metric": "equity", "account": "A3", "value": 9.0}
    assert first["rows"] + rest["rows"] == [*ROWS[:3], came, *ROWS[3:]]


async def test_all_rows_are_the_default(at: Bench) -> None:
    minutes = {OPEN - place * MINUTE: 1 for place in range(1, 401)}
    at.say(duckdb=frame({f"account=A{place}": minutes for place in range(300)}), rts=EMPTY)
    reply = await at.client.get("/v1/rows?metric=equity&by=account&from=now-401m&step=1m&format=csv")
    assert (len(reply.text.splitlines()) - 1, "bridge-next-cursor" in reply.headers) == (120_000, False)


async def test_81_thinning_is_said(at: Bench) -> None:
    reply = (await at.client.get("/v1/rows?metric=equity&from=now-6h&step=10s&maxDataPoints=100")).json()
    assert reply["meta"]["metrics"]["equity"]["notices"][0]["text"].startswith("thinned to 100 points a series")


async def test_headers_say_how_the_answer_came_about(at: Bench) -> None:
    at.say(rts=DOWN)
    reply = await at.client.get("/v1/rows?metric=equity&refId=Q")
    assert reply.headers["bridge-result"] == '"Q";status=partial;age_s=0.0;missing="rts"'
    assert re.fullmatch(r'duckdb;dur=[\d.]+;desc="Q history", rts;dur=[\d.]+;desc="Q live"', reply.headers["server-timing"])


WRONG = [
    ("metric=equitty", 404, ("metric", "'equitty'", "nearest: equity")),
    ("", 400, ("metric", "is missing")),
    ("metric=equity&by=acount", 404, ("by", "'acount'", "nearest: account")),
    ("metric=equity&where=acount=1", 404, ("where", "'acount'", "nearest: account")),
    ("metric=equity&setp=60s", 400, ("'setp'", "nearest: step")),
    ("metric=equity&from=now&to=now-1h", 400, ("from", "allowed: from < to")),
    ("metric=equity&from=0", 400, ("from, to", "at most 400 days")),
    ("metric=equity&from=yesterday", 400, ("from", "'yesterday'", "now-6h")),
    (f"metric=equity&from=2023-{'0' * 1000}", 400, ("from", "now-6h")),
    ("metric=equity&step=0", 400, ("step", "'0'", "allowed: 1s or more")),
    ("metric=equity&step=1x", 400, ("step", "'1x'", "allowed: 30s")),
    ("metric=equity&from=now-30d&step=10s", 400, ("step: 10s", "at most 11000")),
    (f"metric={','.join(f'm{place}' for place in range(51))}", 400, ("targets", "51", "at most 50")),
    ("metric=equity&where=account~A1", 400, ("where", "'account~A1'", "operators = !=")),
    ("metric=equity&where=account=~(", 400, ("'('", "RE2")),
    ("metric=equity&instant=perhaps", 400, ("instant", "'perhaps'", "allowed: true or false")),
    ("metric=equity&shape=tall", 400, ("shape", "'tall'", "allowed: long, wide")),
    ("metric=equity&format=xml", 400, ("format", "'xml'", "allowed: json, csv")),
    ("metric=equity&limit=0", 400, ("limit", "'0'", "from 1 to")),
    ("metric=equity&maxDataPoints=x", 400, ("maxDataPoints", "'x'", "a whole number")),
    (f"metric={'x' * 1000}", 404, (f"'{'x' * 60}' is not known",)),
    ("metric=equity&step=401d", 400, ("step: 401 days", "at most 400 days")),
    ("metric=equity&from=now%2B9999998w&to=now%2B9999999w", 400, ("to", "'now+9999999w'", "now-6h")),
    (
        f"metric=equity&cursor={write_cursor(request_fingerprint(), Cursor(0, 10**18, Position(0, 0)))}",
        400,
        ("cursor", "next_cursor"),
    ),
    ("metric=equity&cursor=nonsense", 400, ("cursor", "'nonsense'", "next_cursor")),
    ("metric=equity&timeout=-1", 400, ("timeout", "'-1'", "seconds above 0")),
]


@pytest.mark.parametrize("route", [*ROUTES, "/v1/frames"])
@pytest.mark.parametrize(("query", "status", "parts"), WRONG)
async def test_bad_input_is_refused_by_field_value_and_what_is_allowed(
    at: Bench, route: str, query: str, status: int, parts: tuple[str, ...]
) -> None:
    own = ("shape", "format", "limit", "cursor")
    if route == "/v1/frames" and any(f"&{name}=" in query for name in own):
        parts = ("is not known",)
    reply = await at.client.get(f"{route}?{query}")
    answer = reply.json()
    assert (reply.status_code, answer["error"]["message"]) == (status, answer["message"])
    assert [part for part in parts if part not in answer["message"]] == []
    assert at.askings() == {}


@pytest.mark.parametrize("content", [b"{", b"[1]", b"5", b'{"metric": 5}', b'{"query": "{x}", "variables": null}'])
async def test_a_wrong_body_is_refused_with_a_message(at: Bench, content: bytes) -> None:
    reply = await at.client.post("/v1/rows", content=content, headers={"content-type": "application/json"})
    assert (reply.status_code in (400, 404), bool(reply.json()["message"])) == (True, True)


async def test_a_body_over_the_limit_is_refused() -> None:
    made = bench(max_body_bytes=1024)
    async with made.client:
        reply = await made.client.post("/v1/rows", content=b'{"metric": "' + b"x" * 2000)
    assert (reply.status_code, reply.json()["message"]) == (400, "body: over 1024 bytes; at most 1024 bytes are allowed")


_NAMES = st.sampled_from(
    ["metric", "from", "to", "step", "by", "where", "instant", "shape", "limit", "cursor", "account", "timeout", "maxDataPoints"]
)
_TEXTS = st.one_of(
    st.sampled_from(["equity", "now-1h", "1m", "account", "account=A1", "account=~.*", "1", "wide"]), st.text(max_size=12)
)


@settings(max_examples=200)
@given(st.lists(st.tuples(_NAMES, _TEXTS), max_size=5))
async def test_no_query_string_makes_the_bridge_stumble(pairs: list[tuple[str, str]]) -> None:
    made = bench()
    async with made.client:
        for route in ROUTES:
            reply = await made.client.get(route, params=[("metric", "equity"), *pairs])
            assert reply.status_code in (200, 400, 404), reply.text
            assert reply.status_code == 200 or reply.json()["message"]


STALE = LIVE.with_provenance(stale="refused", asked_ms=NOW - 31_000)


async def test_on_request_each_row_says_its_status_and_age(at: Bench) -> None:
    at.say(rts=STALE)
    found = await rows_of(at, f"{ASKED}&marks=1")
    assert {(row["status"], row["age_s"]) for row in found} == {("stale", 31.0)}
    assert {row["reason"] for row in found} == {"rts: STALE, 31s old, as of 2023-11-14 22:12:54Z: refused"}
    assert [{name: row[name] for name in row if name not in ("status", "age_s", "reason")} for row in found] == ROWS


async def test_on_request_a_metric_without_a_point_says_so_too(at: Bench) -> None:
    at.say(clickhouse=EMPTY, prometheus=SourceUnavailable("prometheus", "refused"))
    found = await rows_of(at, "metric=equity,pnl,cpu_load&instant=1&marks=1&from=now-3m")
    nothing = {"time": NOW, "value": None}
    assert found[-2:] == [
        nothing | {"metric": "pnl", "status": "fresh", "age_s": 0.0, "reason": "no data in this window"},
        nothing | {"metric": "cpu_load", "status": "error", "age_s": None, "reason": "prometheus: refused"},
    ]
    assert {row["metric"] for row in found[:-2]} == {"equity"}


async def test_marks_are_refused_where_a_row_holds_several_answers(at: Bench) -> None:
    reply = await at.client.get(f"/v1/rows?{ASKED}&marks=1&shape=wide")
    assert (reply.status_code, reply.json()["message"]) == (
        400,
        "marks: not with shape=wide, whose rows hold several answers; allowed: shape=long",
    )


async def test_an_older_answer_is_marked_in_meta_and_header_and_refused_to_an_alert(at: Bench) -> None:
    at.say(rts=STALE)
    reply = await at.client.get(f"/v1/rows?{ASKED}")
    facts = reply.json()["meta"]["metrics"]["equity"]
    assert (facts["status"], facts["age_s"], reply.json()["meta"]["partial"]) == ("stale", 31.0, True)
    assert facts["notices"][-1]["text"].startswith("rts: STALE, 31s old, as of ")
    assert [(source["name"], source["stale"], source["age_s"]) for source in facts["sources"]] == [
        ("duckdb", None, 0.0),
        ("rts", "refused", 31.0),
    ]
    assert reply.headers["bridge-result"] == '"A";status=stale;age_s=31.0;stale="rts"'
    alert = await at.client.get(f"/alert/v1/rows?{ASKED}")
    assert (alert.status_code, alert.json()["message"]) == (503, "rts: refused")
