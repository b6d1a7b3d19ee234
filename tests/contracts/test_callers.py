"""What callers send, from whatever plugin, variable or mistake: the question that was meant, or an error naming the field."""

from __future__ import annotations

import difflib
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from app.contracts.request import pairs_of
from tests.contracts.app_under_test import EMPTY, EVENTS, NOW, Bench, bench
from tests.frames import frame

ALERT = "/alert/v1/rows?metric=equity&by=account&instant=true&from=now-5m"
HOUR_MS = 3_600_000
#: the open one of those in which a sampled figure comes
NOW_BUCKET = NOW // 10_000 * 10_000


def panel(*targets: Any, **more: Any) -> dict[str, Any]:
    named = [{"refId": chr(ord("A") + place), **target} for place, target in enumerate(targets)]
    return {"targets": named, "range": {"from": NOW - HOUR_MS, "to": NOW}, "maxDataPoints": 100, **more}


async def refused(at: Bench, url: str, sent: Any = None) -> str:
    """The message of a 400 or 404; no source was asked."""
    reply = await (
        at.client.get(url)
        if sent is None
        else at.client.post(url, content=sent if isinstance(sent, bytes) else orjson.dumps(sent))
    )
    assert (reply.status_code in (400, 404), at.askings()) == (True, {}), reply.text
    return str(reply.json()["message"])


async def where(at: Bench, url: str, sent: Any = None, source: str = "duckdb") -> list[tuple[str, str, tuple[str, ...]]]:
    """The filters that reach a store."""
    reply = await (
        at.client.get(url)
        if sent is None
        else at.client.post(url, content=sent if isinstance(sent, bytes) else orjson.dumps(sent))
    )
    assert reply.status_code == 200, reply.text
    return [(one.label, one.operator, one.values) for one in at.sources[source].asked[-1].where]


@pytest.mark.parametrize(
    "given",
    [
        "account=$account",
        "account=${account}",
        "account=${account:csv}",
        "account=[[account]]",
        "var-account=$account",
        "where=account=$account",
        "where=account=~$account",
        "where=account!=$account",
        "account=A1,$account",
    ],
)
async def test_a1_a2_an_alert_whose_variable_nobody_filled_in_is_an_error_that_names_it(at: Bench, given: str) -> None:
    assert "is not filled in" in await refused(at, f"{ALERT}&{given}")


@pytest.mark.parametrize(
    "route", ["/v1/rows?metric=equity&", "/v1/frames?metric=equity&", "/v1/values?label=account&", "/v1/events?name=deploys&"]
)
async def test_a1_nor_does_any_other_route_widen_for_a_variable_without_a_value(at: Bench, route: str) -> None:
    assert "the variable $broker is not filled in" in await refused(at, f"{route}broker=$broker")
    assert "the variable $broker is not filled in" in await refused(at, f"{route}where=broker=$broker")


@pytest.mark.parametrize(
    "given",
    [
        "account=",
        "account=[]",
        "where=account=",
        "where=account>",
        "account=,",
        "account={}",
        "account=.*",
        "account=*",
        "account=All",
        "account=XAUUSD+",
        "account=US30,cash",
        "var-acount=A1",
    ],
)
async def test_an_alerts_filter_that_may_mean_something_else_is_an_error(at: Bench, given: str) -> None:
    await refused(at, f"{ALERT}&{given}")


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ('account=["A1","A2"]', ("A1", "A2")),
        ("account=A1&account=A2", ("A1", "A2")),
        ('account=["US30,cash"]', ("US30,cash",)),
        ("account=XAUUSD%2B", ("XAUUSD+",)),
        ('where=account=["$x"]', ("$x",)),
        ('account=[""]', ("",)),
    ],
)
async def test_an_alerts_filter_that_says_exactly_what_it_means_is_taken(at: Bench, given: str, values: tuple[str, ...]) -> None:
    reply = await at.client.get(f"{ALERT}&{given}")
    assert reply.status_code == 200, reply.text
    assert [one.values for one in at.sources["rts"].asked[-1].where] == [values]


OLDER = {"target": "equity", "data": '{"account": "A1"}'}


@pytest.mark.parametrize("payload", [{}, "", None, {"by": ["account"]}, {"account": "A1"}])
@pytest.mark.parametrize("data", ['{"account": "A1"}', {"account": "A1"}])
async def test_j1_the_older_plugins_filter_counts_beside_the_newer_ones_payload(at: Bench, payload: Any, data: Any) -> None:
    assert await where(at, "/json/query", panel({"target": "equity", "payload": payload, "data": data})) == [
        ("account", "=", ("A1",))
    ]


async def test_j1_two_payloads_that_contradict_each_other_are_an_error(at: Bench) -> None:
    message = await refused(at, "/json/query", panel(OLDER | {"payload": {"account": "A2"}}))
    assert message.startswith("payload: 'account' differs from the one in `data`")


@pytest.mark.parametrize(
    "value", ["US30,cash", "EURUSD|ecn", "{x}", "(a|b)", "[DAX]", '"quoted"', " two ", "a=b", "All", ".*", "__all"]
)
@pytest.mark.parametrize("operator", ["=", "!=", "=|", "!=|", "<", ">="])
async def test_j2_an_ad_hoc_filters_value_is_itself(at: Bench, value: str, operator: str) -> None:
    several = {"values": [value]} if "|" in operator else {}
    sent = panel({"target": "equity"}, filters=[{"key": "account", "operator": operator, "value": value, **several}])
    assert await where(at, "/json/query", sent) == [("account", operator, (value,))]


async def test_j2_a_value_that_looks_like_a_variable_is_offered_in_a_form_that_can_be_sent_back(at: Bench) -> None:
    at.say(rts=frame({f"account={name}": {NOW_BUCKET: 1} for name in ("$x", "__all", "A1")}), duckdb=EMPTY)
    offered = (await at.client.post("/json/tag-values", json={"key": "account"})).json()
    assert offered == [{"text": "$x", "value": '["$x"]'}, {"text": "A1"}, {"text": "__all", "value": '["__all"]'}]
    for option in offered:
        chosen = option.get("value", option["text"])
        for sent in (
            {"key": "account", "operator": "=", "value": chosen},
            {"key": "account", "operator": "=|", "values": [chosen]},
        ):
            assert [one[2] for one in await where(at, "/json/query", panel({"target": "equity"}, filters=[sent]))] == [
                (option["text"],)
            ]
    pairs = (await at.client.get("/v1/values?label=account")).json()
    for pair in pairs:
        assert [one[2] for one in await where(at, f"/v1/rows?metric=equity&account={quote(pair['__value'])}")] == [
            (pair["__text"],)
        ]


async def test_j2_a_variable_with_several_values_is_told_by_the_body_whatever_its_format(at: Bench) -> None:
    scoped = {"symbol": {"text": "x", "value": ["US30,cash", "EURUSD"]}}
    for text in ("US30,cash,EURUSD", "{US30,cash,EURUSD}", "(US30,cash|EURUSD)"):
        for payload in ({"account": text}, {"where": {"account": text}}):
            sent = panel({"target": "equity", "payload": payload}, scopedVars=scoped)
            assert await where(at, "/json/query", sent) == [("account", "=|", ("US30,cash", "EURUSD"))]


@pytest.mark.parametrize("path", ["//json/query", "/json//query", "/json/query/", "//json//query//"])
async def test_j3_a_slash_too_many_means_nothing(at: Bench, path: str) -> None:
    sent = panel({"target": "equity"})
    plain, doubled = [await at.client.post(f"http://bridge{one}", json=sent) for one in ("/json/query", path)]
    assert (doubled.status_code, doubled.content) == (200, plain.content)


@pytest.mark.parametrize(
    "path", ["//json", "/json//metrics", "//v1/metrics", "//readyz", "//v1//values?label=state", "//alert/v1/rows?metric=equity"]
)
async def test_j3_on_every_route_that_plugins_use(at: Bench, path: str) -> None:
    method = "POST" if path.endswith("//metrics") and "json" in path else "GET"
    assert (await at.client.request(method, f"http://bridge{path}")).status_code in (200, 503)


async def test_j3_what_a_balancer_hides_by_its_path_is_not_reached_by_another(at: Bench) -> None:
    found = [
        (await at.client.get(f"http://bridge{path}")).status_code
        for path in ("/metrics", "/metrics/", "//metrics", "//metrics/", "/metrics//")
    ]
    assert found == [200, 200, 404, 404, 404]


async def test_j4_every_value_is_listed_everywhere(at: Bench) -> None:
    names = [f"A{place:04}" for place in range(2500)]
    at.say(rts=frame({f"account={name}": {NOW_BUCKET: 1} for name in names}), duckdb=EMPTY)
    variable = (await at.client.post("/json/variable", json={"payload": {"target": "account"}})).json()
    tags = (await at.client.post("/json/tag-values", json={"key": "account"})).json()
    search = (await at.client.post("/json/search", json={"target": "account"})).json()
    options = (await at.client.post("/json/metric-payload-options", json={"metric": "equity", "name": "account"})).json()
    values = (await at.client.get("/v1/values?label=account")).json()
    lists = [[one["__value"] for one in variable], [one["text"] for one in tags], search, [one["value"] for one in options]]
    assert lists == [names] * 4
    assert [one["__value"] for one in values] == names


@pytest.mark.parametrize(
    ("sent", "begins"),
    [
        ({"range": {"from": NOW - 7 * 24 * HOUR_MS, "to": NOW}}, NOW - 7 * 24 * HOUR_MS),
        ({"range": {"from": NOW - HOUR_MS, "to": NOW}}, NOW - 24 * HOUR_MS),
        ({}, NOW - 24 * HOUR_MS),
    ],
)
async def test_j5_the_values_are_those_of_the_asked_range_and_at_least_of_a_day(at: Bench, sent: Any, begins: int) -> None:
    await at.client.post("/json/variable", json={"payload": {"target": "account"}, **sent})
    await at.client.post("/json/tag-values", json={"key": "account", "timeRange": sent.get("range")})
    span = sent.get("range", {"from": "", "to": ""})
    await at.client.get("/v1/values", params={"label": "account", **span})
    # The range begins on the grid, which is up to a few steps before.
    asked = [statement.range for statement in at.sources["duckdb"].asked]
    assert [0 <= (begins - one.from_ms) * 2 < NOW - begins for one in asked] == [True] * 3


async def test_j5_an_ended_range_is_not_answered_with_todays_values(at: Bench) -> None:
    await at.client.get(f"/v1/values?label=account&from={NOW - 50 * HOUR_MS}&to={NOW - 48 * HOUR_MS}")
    assert (at.askings(), at.sources["duckdb"].asked[0].range.to_ms <= NOW - 46 * HOUR_MS) == ({"duckdb": 1}, True)


@pytest.mark.parametrize("word", [".*", ".+", "*", "All"])
async def test_j6_a_word_for_everything_that_is_no_value_is_told_so(at: Bench, word: str) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    reply = await at.client.get("/v1/rows", params={"metric": "equity", "account": word})
    assert reply.json()["meta"]["metrics"]["equity"]["notices"] == [
        {
            "severity": "info",
            "text": f"equity: no series with account={word} in this range; everything is __all, or =~ and an expression",
        }
    ]


@pytest.mark.parametrize("points", [0, -5, 1, 2, 10**9, 1e9, "0", "100000"])
async def test_j8_points_beyond_a_bound_are_taken_for_it(at: Bench, points: Any) -> None:
    reply = await at.client.post("/json/query", json=panel({"target": "equity"}, {"target": "pnl"}, maxDataPoints=points))
    rows = await at.client.get(f"/v1/rows?metric=equity,pnl&maxDataPoints={points}")
    assert (reply.status_code, rows.status_code) == (200, 200)


async def test_j8_an_interval_beyond_all_bounds_is_no_error(at: Bench) -> None:
    for interval in (0, -1, 1e15):
        assert (await at.client.post("/json/query", json=panel({"target": "pnl"}, intervalMs=interval))).status_code in (200, 400)


@pytest.mark.parametrize("step", ["200ms", "200", "60", "0.5s", "0.001ms"])
async def test_j9_a_step_below_the_resolution_is_raised_and_said(at: Bench, step: str) -> None:
    facts = (await at.client.get(f"/v1/rows?metric=equity&step={step}")).json()["meta"]["metrics"]["equity"]
    assert "raised to 10s: equity comes every 10s" in facts["notices"][0]["text"]
    reply = await at.client.post("/json/query", json=panel({"target": "equity", "payload": {"step": step}}))
    assert "raised to 10s" in reply.json()[0]["meta"]["notices"][0]["text"]


@pytest.mark.parametrize("step", ["0", "0s", "-1s", "x", "1M", "9" * 100])
async def test_j9_a_step_that_is_none_is_an_error(at: Bench, step: str) -> None:
    assert (await refused(at, f"/v1/rows?metric=equity&step={step}")).startswith("step: ")


async def test_j10_all_of_two_thousand_accounts_are_one_filter(at: Bench) -> None:
    names = tuple(f"ACC{place}" for place in range(2000))
    for payload in ({"account": ",".join(names)}, {"account": list(names)}, {"where": {"account": "|".join(names)}}):
        assert (await where(at, "/json/query", panel({"target": "equity", "payload": payload})))[0][2] == names
    form = "&".join(["metric=equity", *(f"account={name}" for name in names)]).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    reply = await at.client.post("/v1/rows", content=form, headers=headers)
    assert (reply.status_code, at.sources["duckdb"].asked[-1].where[0].values) == (200, names)


async def test_n12_a_lost_plus_never_answers_for_another_value(at: Bench) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    for url in ("account=XAUUSD+", "where=account=XAUUSD+"):
        assert await where(at, f"/v1/rows?metric=equity&{url}") == [("account", "=", ("XAUUSD ",))]
    reply = await at.client.get("/v1/rows?metric=equity&account=XAUUSD+")
    [notice] = reply.json()["meta"]["metrics"]["equity"]["notices"]
    assert notice["text"].endswith("a value begins or ends with a blank: write %2B for a + in a URL")
    at.sources["duckdb"].asked.clear()
    at.sources["rts"].asked.clear()
    assert "allowed: %2B for +" in await refused(at, "/v1/rows?metric=equity&account=XAUUSD+,EURUSD+")


async def test_t5_an_offset_whose_plus_became_a_blank_is_understood(at: Bench) -> None:
    escaped, lost = [
        (
            await at.client.get(
                f"/v1/rows?metric=equity&from=2023-11-14T22:00+0{one}:00&to=2023-11-14T22:10%2B01:00".replace("+", sign)
            )
        ).json()
        for one, sign in ((1, "%2B"), (1, "+"))
    ]
    assert (escaped["meta"]["from"], escaped["meta"]) == (
        1_699_995_600_000,
        lost["meta"] | {"metrics": escaped["meta"]["metrics"]},
    )


@pytest.mark.parametrize("text", ["now/d", "now/w", "now-1M/M", "now/fQ"])
async def test_t1_t2_the_end_of_a_window_is_rounded_up_on_every_route(at: Bench, text: str) -> None:
    meta = (await at.client.get("/v1/rows", params={"metric": "equity", "from": text, "to": text})).json()["meta"]
    assert (meta["to"] + 1 - meta["from"]) % (24 * HOUR_MS) == 0
    reply = await at.client.post("/json/query", json=panel({"target": "equity"}, range={"from": text, "to": text}))
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"metric": "equity", "where": {"account": "A\0"}}, "body.where.account"),
        ({"metric": "equity", "account": ["A1", "\0"]}, "body.account[1]"),
        ({"metric": "equity", "refId": "\0"}, "body.refId"),
        ({"metric": "equity", "\0": 1}, "body, a key"),
    ],
)
async def test_x2_a_nul_is_refused_wherever_it_stands(at: Bench, sent: Any, place: str) -> None:
    assert await refused(at, "/v1/rows", sent) == f"{place}: a NUL character; allowed: text without it"
    assert "a NUL character" in await refused(at, "/json/query", panel({"target": "equity", "payload": sent}))
    assert "a NUL character" in await refused(at, "/v1/rows?metric=equity&account=A%00")


@pytest.mark.parametrize("value", ['["\\ud800"]', '["a\\udfff"]', '["\\u0000"]'])
@pytest.mark.parametrize("route", ["/v1/rows", "/alert/v1/rows", "/v1/frames", "/v1/values"])
async def test_x2_half_a_surrogate_pair_reaches_no_store(at: Bench, route: str, value: str) -> None:
    subject = "label=broker" if route == "/v1/values" else "metric=equity"
    for name in ("account=", "where=account="):
        assert "where: account: a value has a NUL or half a surrogate pair" in await refused(
            at, f"{route}?{subject}&{name}{quote(value)}"
        )


@pytest.mark.parametrize("url", ["account=%FF", "account=%ED%A0%80", "where=account=%C3", "%FF=1", "account=%C0%80"])
@pytest.mark.parametrize("route", ["/v1/rows", "/alert/v1/rows"])
async def test_x2_a_lost_encoding_is_an_error_that_names_the_parameter(at: Bench, route: str, url: str) -> None:
    message = await refused(at, f"{route}?metric=equity&{url}")
    assert message == f"parameter {url.partition('=')[0]!r}: not UTF-8; allowed: UTF-8, percent-encoded"


@pytest.mark.parametrize("written", ["Zürich", quote("Zürich"), "Z%C3%BCrich", "Zürich%20".removesuffix("%20")])
def test_unencoded_utf8_is_read_as_what_it_is(written: str) -> None:
    assert pairs_of(f"account={written}".encode()) == [("account", "Zürich")]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"metric": "equity", "account": "A1", "account": "A2"}',
        b'{"metric": "equity", "where": {"account": "A1", "account": "A2"}}',
        b'{"metric": "equity", "where": "account=A1", "wher\\u0065": ""}',
    ],
)
async def test_a_key_that_stands_there_twice_is_an_error(at: Bench, raw: bytes) -> None:
    assert (await refused(at, "/v1/rows", raw)).endswith("stands in one object twice; allowed: once")


@pytest.mark.parametrize("twice", [b'"filters":[],', b'"filter\\u0073":[],', b'"targets":[{"refId":"A","target":"equity"}],'])
async def test_a_key_twice_is_an_error_also_where_an_answer_is_ready(twice: bytes) -> None:
    made = bench(fresh_s=10)
    filtered = b'{"range":{"from":%d,"to":%d},"filters":[{"key":"account","operator":"=","value":"A1"}],' % (NOW - HOUR_MS, NOW)
    plain = b'"filters":[],"targets":[{"refId":"A","target":"equity","payload":{}}]}'
    async with made.client:
        kept = b'{"range":{"from":%d,"to":%d},' % (NOW - HOUR_MS, NOW) + plain
        assert [(await made.client.post("/json/query", content=kept)).status_code for _ in range(2)] == [200, 200]
        sent = filtered + twice + plain
        assert (await made.client.post("/json/query", content=sent)).status_code == 400


EXPRESSIONS = [
    "\\Q",
    "\\Qa\\E",
    "\\C",
    "a\\C",
    "(?P<n>a)",
    "(?<n>a)",
    "a++",
    "\\Z",
    "a{1001}",
    "(a{100}){11}",
    "(?=a)",
    "\\1",
    "\\p{Braille}",
    "\\pC",
    "(",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("operator", ["=~", "!~"])
async def test_x5_an_expression_that_not_every_store_reads_alike_is_refused(at: Bench, expression: str, operator: str) -> None:
    message = await refused(at, f"/v1/rows?metric=equity&where={quote(f'account{operator}{expression}')}")
    assert message.startswith("filter: ")
    sent = panel({"target": "equity"}, filters=[{"key": "account", "operator": operator, "value": expression}])
    assert (await refused(at, "/json/query", sent)).startswith("filter: ")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("metrics=equity", "parameter 'metrics' is not known; nearest: metric"),
        ("metric=equity&sort=desc", "sort: 'desc' is not allowed; allowed: value, -value, label"),
        ("metric=equity&order=desc", "parameter 'order' is not known; allowed: metric, "),
        ("metric=equity&Account=A1", "parameter 'Account' is not known; nearest: account"),
        ("metric=EQUITY", "metric: metric 'EQUITY' is not known; nearest: equity"),
        ("metric=Equity ", "metric: metric 'Equity' is not known; nearest: equity"),
        ("metric=cpu-load", "metric: metric 'cpu-load' is not known; nearest: cpu_load"),
        ("metric=CPU load", "metric: metric 'CPU load' is not known; nearest: cpu_load"),
        ("metric=realised", "metric: metric 'realised' is not known; nearest: pnl"),
        ("metric=account is worth", "metric: metric 'account is worth' is not known; nearest: equity"),
        ("metric=equity&by=ACCOUNT", "by: metric equity: label 'ACCOUNT' is not known; nearest: account"),
    ],
)
async def test_p4_a_name_that_is_not_known_names_the_nearest(at: Bench, url: str, told: str) -> None:
    assert (await refused(at, f"/v1/rows?{url}")).startswith(told)


async def test_p4_an_answer_without_a_row_names_the_filters_that_nothing_matches(at: Bench) -> None:
    at.say(rts=EMPTY, duckdb=EMPTY)
    found = [
        {"key": "account", "operator": "=|", "values": ["A7", "A8", "A9", "A10"]},
        {"key": "broker", "operator": "=", "value": "x"},
    ]
    reply = await at.client.post("/json/query", json=panel({"target": "equity"}, filters=found))
    text = "equity: no series with account=A7, A8, A9 and 1 more and broker=x in this range"
    assert reply.json()[0]["meta"]["notices"][-1] == {"severity": "info", "text": text}
    unfiltered = await at.client.post("/json/query", json=panel({"target": "equity"}))
    assert all("no series" not in one["text"] for one in unfiltered.json()[0]["meta"]["notices"])


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were compared with those that there are."""
    names: list[str] = []
    whole: Any = difflib.get_close_matches

    def noting(name: str, *rest: Any, **more: Any) -> Any:
        names.append(name)
        return whole(name, *rest, **more)

    monkeypatch.setattr(difflib, "get_close_matches", noting)
    return names


def short(value: object) -> str:
    """A name for a case that is no megabyte long."""
    return str(value)[:40]


MANY = ",".join(str(place) for place in range(20_000))


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/rows", {"metric": MANY}),
        ("/alert/v1/rows", {"metric": MANY.split(",")}),
        ("/v1/frames", {"metric": ["equity", MANY]}),
        ("/v1/rows", {"metric": "equity", "by": MANY}),
        ("/v1/rows", {"metric": "equity", "where": [f"account=A{place}" for place in range(20_000)]}),
        ("/v1/rows", {"metric": "equity", "where": {f"l{place}": "x" for place in range(20_000)}}),
        ("/v1/rows", {"metric": "equity", "account": ["x"] * 20_001}),
        ("/v1/rows", {"metric": "equity", "refId": "x" * 20_000}),
        ("/v1/rows", {f"p{place}": 1 for place in range(20_000)}),
        ("/v1/values", {"label": "broker", "where": [f"account=A{place}" for place in range(20_000)]}),
        ("/v1/values", {f"p{place}": 1 for place in range(20_000)}),
        ("/json/query", panel({"target": MANY})),
        ("/json/query", panel({"target": "equity", "payload": {"by": MANY}})),
        ("/json/query", panel(*[{"target": "x"}] * 51)),
        (
            "/json/query",
            panel({"target": "equity"}, filters=[{"key": f"l{place}", "operator": "=", "value": "x"} for place in range(20_000)]),
        ),
        ("/json/query", panel({"target": "equity", "refId": "x" * 20_000})),
        ("/json/variable", {"payload": {"label": "account", "where": {f"l{place}": "x" for place in range(20_000)}}}),
        ("/json/tag-values", {"key": "account", "filters": [{"key": "x", "operator": "=", "value": "x"}] * 20_000}),
    ],
    ids=short,
)
async def test_x1_what_is_too_much_is_refused_by_its_count_before_any_name_is_looked_up(
    at: Bench, looked: list[str], path: str, sent: Any
) -> None:
    message = await refused(at, path, sent)
    assert ("at most" in message, len(message) < 300, looked) == (True, True, [])


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/rows", {"metric": "x" * 1_000_000}),
        ("/v1/rows", {"metric": "equity", "by": "x" * 1_000_000}),
        ("/v1/rows", {"metric": "equity", "x" * 1_000_000: 1}),
        ("/v1/rows", {"metric": "equity", "where": {"x" * 64: "y"}}),
        ("/v1/values", {"label": "x" * 1_000_000}),
        ("/v1/events", {"name": "x" * 1_000_000}),
        ("/json/query", panel({"target": "x" * 1_000_000})),
        ("/json/query", panel({"target": "equity", "payload": {"by": "x" * 1_000_000}})),
    ],
    ids=short,
)
async def test_x1_one_name_is_looked_up_once_and_by_its_beginning(at: Bench, looked: list[str], path: str, sent: Any) -> None:
    message = await refused(at, path, sent)
    assert ([len(name) for name in looked], len(message) < 600) == ([64], True)


@pytest.mark.parametrize("field", ["from", "step", "instant", "maxDataPoints", "timeout", "shape", "format", "limit"])
@pytest.mark.parametrize("value", ["9" * 1_000_000, [["x"] * 100_000], [{"a": "x" * 100_000}], [True], [None, [1]]], ids=short)
async def test_x1_a_value_of_any_size_or_type_is_refused_in_a_line(at: Bench, field: str, value: Any) -> None:
    reply = await at.client.post("/v1/rows", content=orjson.dumps({"metric": "equity", field: value}))
    assert (reply.status_code in (200, 400), len(reply.json().get("message", "")) < 400) == (True, True)


async def test_x1_json_of_any_depth_is_refused(at: Bench) -> None:
    for depth in (500, 900, 1020, 100_000):
        raw = b'{"metric": "equity", "x": ' + b"[" * depth + b"]" * depth + b"}"
        assert (await at.client.post("/v1/rows", content=raw)).status_code == 400
    deep = "[" * 100_000 + "]" * 100_000
    assert (await at.client.post("/v1/rows", content=orjson.dumps({"metric": "equity", "account": deep}))).status_code in (
        200,
        400,
    )


async def test_a_form_of_too_many_fields_is_refused(at: Bench) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    reply = await at.client.post("/v1/rows", content=b"metric=equity" + b"&a=1" * 30_000, headers=headers)
    assert (reply.status_code, "at most 25000" in reply.json()["message"]) == (400, True)


async def test_a_label_that_a_kind_of_event_does_not_have_is_an_error(at: Bench) -> None:
    assert "parameter 'account' is not known" in await refused(at, "/v1/events?name=deploys&account=A1")
    assert "label 'account' is not known" in await refused(
        at, "/json/query", panel({"target": "deploys", "payload": {"where": {"account": "A1"}}})
    )
    assert "'acount' is not known to deploys" in await refused(
        at, "/json/query", panel({"target": "deploys", "payload": {"acount": "A1"}})
    )


async def test_ad_hoc_filters_apply_to_events_or_are_said_not_to(at: Bench) -> None:
    at.say(clickhouse=EVENTS)
    filters = [{"key": "broker", "operator": "=", "value": "x"}, {"key": "account", "operator": "=", "value": "A1"}]
    reply = await at.client.post("/json/query", json=panel({"target": "deploys"}, filters=filters))
    [statement] = at.sources["clickhouse"].asked
    assert [(one.label, one.values) for one in statement.where] == [("broker", ("x",))]
    assert [one["text"] for one in reply.json()[0]["meta"]["notices"]] == ["the filter on account does not apply to deploys"]


async def test_values_are_not_narrowed_by_a_label_that_nobody_knows(at: Bench) -> None:
    assert "where: label 'acount' is not known; nearest: account" in await refused(at, "/v1/values?label=broker&where=acount=1")
