"""What Prometheus 2.42 to 3.x, Thanos, Mimir, VictoriaMetrics and what stands before them answer, in one table.

Each answer is whole, whole with a remark, partial (a warning, and an error for alert rules), or refused by the class of who has
to act; whether the refusal counts against the source's health is an attribute of that class.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import pytest

from app.errors import (
    SourceDenied,
    SourceError,
    SourceFailed,
    SourceGarbled,
    SourceOverloaded,
    SourceRejected,
    SourceTimeout,
    SourceUnavailable,
)
from app.model import Frame, Matcher, TimeRange
from app.sources.base import Ask
from app.sources.prometheus.source import PrometheusConfig, PrometheusRead
from tests.frames import shown
from tests.sources.prometheus.answering import answering, failing, reply

#: Two closed buckets: evaluated at 660 and 720.
CLOSED = TimeRange(600_000, 720_000, 60_000)
#: The open bucket alone: evaluated now, at 690.
OPEN = TimeRange(660_000, 720_000, 60_000)
NOW_MS = 690_000


@dataclass(frozen=True)
class Whole:
    """Believed: the values by label set and time."""

    values: dict[str, dict[int, float | None]]
    remark: str = ""


@dataclass(frozen=True)
class Partial:
    """Shown with this warning; no alert rule takes it."""

    warning: str


@dataclass(frozen=True)
class Refused:
    """Not believed. `says` is in the message; `trips`: counts against the source where several questions meet it."""

    error: type[SourceError]
    says: str
    trips: bool


Verdict = Whole | Partial | Refused

POINTS = '[[660,"1"],[720,"2"]]'
BOTH = Whole({"": {600_000: 1, 660_000: 2}})
NOTHING = Whole({})


def success(data: str, more: str = "", before: str = "") -> bytes:
    return reply("200 OK", f'{{"status":"success",{before}"data":{data}{more}}}')


def matrix(result: str, more: str = "", before: str = "") -> bytes:
    return success(f'{{"resultType":"matrix","result":{result}}}', more, before)


def points(text: str) -> bytes:
    return matrix(f'[{{"metric":{{}},"values":{text}}}]')


def one(more: str = "", before: str = "") -> bytes:
    return matrix(f'[{{"metric":{{}},"values":{POINTS}}}]', more, before)


def odd(says: str = "") -> Refused:
    return Refused(SourceGarbled, says, trips=True)


def ill(error: type[SourceError], says: str = "because") -> Refused:
    return Refused(error, says, trips=True)


def heavy(says: str = "because") -> Refused:
    return Refused(SourceOverloaded, says, trips=False)


def ours(says: str = "because") -> Refused:
    return Refused(SourceRejected, says, trips=False)


HISTOGRAM = '[660,{"count":"3","sum":"1.5","buckets":[[0,"0.5","1","3"]]}]'
NATIVE = ours("yields native histograms, which have no one value")

MATRICES: dict[str, tuple[bytes, Verdict]] = {
    # whole
    "Prometheus 2.42 and 3": (one(), BOTH),
    "Thanos, with its analysis": (matrix(f'[{{"metric":{{}},"values":{POINTS}}}]', ',"analysis":{}'), BOTH),
    "VictoriaMetrics single node, with statistics": (one(',"stats":{"seriesFetched":"1","executionTimeMsec":2}'), BOTH),
    "VictoriaMetrics cluster": (one(before='"isPartial":false,'), BOTH),
    "Mimir, null for no warnings": (one(',"warnings":null,"infos":null,"error":"","errorType":""'), BOTH),
    "blanks between the tokens": (
        reply(
            "200 OK", '{ "status" : "success", "data": {"resultType":"matrix","result":[{"metric":{},"values":[[660, "1"]]}]}}'
        ),
        Whole({"": {600_000: 1}}),
    ),
    "no series": (matrix("[]"), NOTHING),
    "labels that nobody keeps": (matrix(f'[{{"metric":{{"__name__":"up","job":"x"}},"values":{POINTS}}}]'), BOTH),
    "a label that is null-like text": (matrix(f'[{{"metric":{{"host":""}},"values":{POINTS}}}]'), BOTH),
    "one label set that another series goes on with": (
        matrix('[{"metric":{"job":"a"},"values":[[660,"1"]]},{"metric":{"job":"b"},"values":[[720,"2"]]}]'),
        BOTH,
    ),
    "NaN and the infinities are no value": (points('[[660,"NaN"],[720,"+Inf"]]'), Whole({"": {600_000: None, 660_000: None}})),
    "packed though it was not to be": (
        reply("200 OK", gzip.compress(one().partition(b"\r\n\r\n")[2]), more="Content-Encoding: gzip\r\n"),
        BOTH,
    ),
    # whole, with a remark
    "Prometheus 3, infos": (
        one(',"infos":["PromQL info: metric might not be a counter"]'),
        Whole(BOTH.values, "prom: PromQL info: metric"),
    ),
    "Prometheus 2.48, an info among the warnings": (
        one(',"warnings":["PromQL info: input to histogram_quantile needed to be fixed for monotonicity"]'),
        Whole(BOTH.values, "prom: PromQL info: input"),
    ),
    # partial
    "VictoriaMetrics, isPartial": (one(before='"isPartial":true,'), Partial("prom: says that its answer is partial")),
    "VictoriaMetrics, isPartial and empty": (matrix("[]", before='"isPartial":true,'), Partial("prom: says that its answer")),
    "Thanos, a store is missing": (
        one(',"warnings":["No StoreAPIs matched for this query"]'),
        Partial("prom: No StoreAPIs matched"),
    ),
    "Thanos, a receiver is missing": (
        one(',"warnings":["receive series from Addr: 10.0.0.1:10901: rpc error: code = Unavailable"]'),
        Partial("prom: receive series from"),
    ),
    "Cortex": (one(',"warnings":["Query result may contain partial data."]'), Partial("prom: Query result may contain")),
    "Prometheus, floats mixed with histograms": (
        one(',"warnings":["PromQL warning: encountered a mix of histograms and floats"]'),
        Partial("prom: PromQL warning: encountered"),
    ),
    "Prometheus 3, an info that samples were left out": (
        one(',"infos":["PromQL info: ignored histogram in sum aggregation"]'),
        Partial("prom: PromQL info: ignored histogram in sum"),
    ),
    "an info before a warning": (one(',"warnings":["half"],"infos":["PromQL info: fine"]'), Partial("prom: half")),
    "more remarks than fit": (one(f',"infos":{["fine"] * 9},"warnings":["half"]'.replace("'", '"')), Partial("prom: half")),
    "success that names an error": (
        one(',"errorType":"internal","error":"half"'),
        Partial("prom: answered, and yet names an error"),
    ),
    # refused: the expression is ours to mend
    "native histograms only": (matrix(f'[{{"metric":{{"__name__":"latency"}},"histograms":[{HISTOGRAM}]}}]'), NATIVE),
    "floats and native histograms": (matrix(f'[{{"metric":{{}},"values":{POINTS},"histograms":[{HISTOGRAM}]}}]'), NATIVE),
    "one series of several is a native histogram": (
        matrix(f'[{{"metric":{{"a":"1"}},"values":{POINTS}}},{{"metric":{{"a":"2"}},"histograms":[{HISTOGRAM}]}}]'),
        NATIVE,
    ),
    "a scalar": (success('{"resultType":"scalar","result":[660,"1"]}'), ours("the expression yields a scalar, not a matrix")),
    "a string": (success('{"resultType":"string","result":[660,"x"]}'), ours("the expression yields a string, not a matrix")),
    "a vector": (success('{"resultType":"vector","result":[]}'), ours("the expression yields a vector, not a matrix")),
    "several series for what is kept of their labels": (
        matrix(f'[{{"metric":{{"job":"a"}},"values":{POINTS}}},{{"metric":{{"job":"b"}},"values":{POINTS}}}]'),
        ours("several series at once for no labels"),
    ),
    "the same series twice": (
        matrix(f'[{{"metric":{{}},"values":{POINTS}}},{{"metric":{{}},"values":{POINTS}}}]'),
        ours("several"),
    ),
    # refused: no answer
    "no data": (reply("200 OK", '{"status":"success"}'), odd("missing required field `data`")),
    "null data": (success("null"), odd("got `null` - at `$.data`")),
    "null result": (success('{"resultType":"matrix","result":null}'), odd("got `null` - at `$.data.result`")),
    "no type": (success("{}"), odd("missing required field `resultType`")),
    "null metric": (matrix(f'[{{"metric":null,"values":{POINTS}}}]'), odd("got `null`")),
    "a label that is a number": (matrix(f'[{{"metric":{{"a":1}},"values":{POINTS}}}]'), odd("got `int`")),
    "neither values nor histograms": (matrix('[{"metric":{}}]'), odd("before the values")),
    "a status of its own": (reply("200 OK", '{"status":"ok","data":[]}'), odd("")),
    "no status": (reply("200 OK", '{"data":{"resultType":"matrix","result":[]}}'), odd("missing required field `status`")),
    "a list": (reply("200 OK", "[]"), odd("got `array`")),
    "nothing": (reply("200 OK", ""), odd("no JSON, or only a part of it: ''")),
    "a page": (
        reply("200 OK", "<html>Sign in</html>", "text/html"),
        odd("no JSON, or only a part of it: '<html>Sign in</html>'"),
    ),
    "half of the JSON": (reply("200 OK", '{"status":"success","data":{"resultType":"ma'), odd("only a part of it")),
    "more than JSON": (reply("200 OK", '{"status":"success","data":{"resultType":"matrix","result":[]}}{}'), odd("no JSON")),
    "bytes that are no text": (
        reply(
            "200 OK",
            b'{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"\xff"},"values":[[660,"1"]]}]}}',
        ),
        odd("no JSON"),
    ),
    "half of a surrogate pair": (matrix(f'[{{"metric":{{"a":"\\ud800"}},"values":{POINTS}}}]'), odd("no JSON")),
    "packed without saying so": (reply("200 OK", gzip.compress(b"{}")), odd("no JSON")),
    "packed, it says": (
        reply("200 OK", "{}", more="Content-Encoding: gzip\r\n"),
        odd("ends too soon, or is not packed as it says"),
    ),
    "packed, and cut": (
        reply("200 OK", gzip.compress(one().partition(b"\r\n\r\n")[2])[:-30], more="Content-Encoding: gzip\r\n"),
        odd("only a part of it"),
    ),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", odd("ends too soon")),
    "no HTTP": (b"garbage\r\n\r\n", odd("expected an HTTP answer")),
    "closed": (b"", ill(SourceUnavailable, "")),
    # refused: points that cannot be
    "points that go back": (points('[[720,"2"],[660,"1"]]'), odd("points that do not ascend in time")),
    "a point twice": (points('[[660,"1"],[660,"2"]]'), odd("points that do not ascend in time")),
    "a point before the range": (points('[[600,"1"]]'), odd("a point at 600 s, an instant that was not asked for")),
    "a point after the range": (points('[[660,"1"],[780,"1"]]'), odd("a point at 780 s")),
    "a point between the steps": (points('[[660,"1"],[700,"1"]]'), odd("a point at 700 s")),
    "a point milliseconds off": (points('[[660.25,"1"]]'), odd("a point at 660.25 s")),
    "a number without quotes": (points("[[660,1]]"), odd("before the values")),
    "a number that no float holds": (points('[[660,"1e999"]]'), odd("a value that is no number, or beyond any")),
    "a number as Python writes it": (points('[[660,"1_000"]]'), odd("a value that is no number")),
    "an empty number": (points('[[660,""]]'), odd("a value that is no number")),
    "a word": (points('[[660,"null"]]'), odd("a value that is no number")),
    "an infinity of another language": (points('[[660,"Infinity"]]'), odd("a value that is no number")),
}

REFUSALS: dict[str, tuple[bytes, Verdict]] = {
    "bad_data": (reply("400 Bad Request", failing("bad_data")), ours()),
    "bad_data that quotes a word of another kind": (
        reply("400 Bad Request", failing("bad_data", "parse error near rpc error, deadline exceeded")),
        ours("parse error"),
    ),
    "execution": (reply("422 Unprocessable Entity", failing("execution")), ours()),
    "not_acceptable": (reply("406 Not Acceptable", failing("not_acceptable")), ours()),
    "not_found": (reply("404 Not Found", failing("not_found")), ours()),
    "timeout": (reply("503 Service Unavailable", failing("timeout")), ill(SourceTimeout)),
    "canceled": (reply("499 Client Closed Request", failing("canceled")), ill(SourceTimeout)),
    "unavailable": (reply("503 Service Unavailable", failing("unavailable")), ill(SourceUnavailable)),
    "internal": (reply("500 Internal Server Error", failing("internal")), ill(SourceFailed)),
    "too_many_requests": (
        reply("429 Too Many Requests", failing("too_many_requests")),
        heavy("because"),
    ),
    "an error with status 200": (reply("200 OK", failing("execution")), ours()),
    "an error of no type with status 200": (reply("200 OK", '{"status":"error"}'), odd("answered with status 200 and no reason")),
    "Prometheus, too many samples": (
        reply("422 Unprocessable Entity", failing("execution", "query processing would load too many samples into memory")),
        heavy("too many samples"),
    ),
    "Thanos, one of its stores, without partial answers": (
        reply("422 Unprocessable Entity", failing("execution", "expanding series: proxy Series(): rpc error: code = Aborted")),
        ill(SourceFailed, "expanding series"),
    ),
    "Mimir, too much for one question": (
        reply("422 Unprocessable Entity", failing("execution", "the query exceeded ... (err-mimir-max-chunks-per-query)")),
        heavy("err-mimir"),
    ),
    "Mimir, too large": (reply("413 Content Too Large", failing("too_large_entry")), heavy("because")),
    "Mimir, no tenant": (reply("401 Unauthorized", "no org id", "text/plain"), ill(SourceDenied, "status 401")),
    "VictoriaMetrics, a wrong expression": (
        reply("422 Unprocessable Entity", failing("422", "cannot parse")),
        ours("cannot parse"),
    ),
    "VictoriaMetrics, too much": (
        reply("422 Unprocessable Entity", failing("422", "cannot select more than -search.maxSamplesPerQuery=1 samples")),
        heavy("maxSamplesPerQuery"),
    ),
    "VictoriaMetrics, a queue": (reply("429 Too Many Requests", failing("429")), heavy("because")),
    "VictoriaMetrics, out of time": (
        reply("503 Service Unavailable", failing("503", "timeout exceeded during query execution: 4.000 seconds")),
        ill(SourceTimeout, "timeout exceeded"),
    ),
    "VictoriaMetrics, no storage": (reply("503 Service Unavailable", failing("503")), ill(SourceUnavailable)),
    "JSON of a gateway": (reply("403 Forbidden", '{"message":"no"}'), ill(SourceDenied, "status 403")),
    "an error of Prometheus behind a closed door": (reply("403 Forbidden", failing("bad_data")), ill(SourceDenied)),
    "starting": (reply("503 Service Unavailable", "starting", "text/plain"), ill(SourceUnavailable, "status 503")),
    "a gateway without a server": (
        reply("502 Bad Gateway", "<html>", "text/html"),
        ill(SourceUnavailable, "status 502"),
    ),
    "a gateway that waited": (reply("504 Gateway Timeout", "", "text/html"), ill(SourceTimeout, "status 504")),
    "a gateway's word on our request": (reply("400 Bad Request", "<html>", "text/html"), ours("status 400")),
    "our request is too long": (reply("414 URI Too Long", "", "text/plain"), ours("status 414")),
    "no such path": (reply("404 Not Found", "404 page not found", "text/plain"), odd("status 404")),
    "elsewhere": (reply("302 Found", "", "text/plain", "Location: http://127.0.0.1:1/\r\n"), odd("status 302")),
    "a part of the content": (one().replace(b"200 OK", b"206 Partial Content"), odd("status 206")),
    "no content": (reply("204 No Content", ""), odd("status 204")),
}


def vector(result: str, more: str = "") -> bytes:
    return success(f'{{"resultType":"vector","result":{result}}}', more)


NOW = Whole({"": {660_000: 1.5}})

VECTORS: dict[str, tuple[bytes, Verdict]] = {
    "a value now": (vector('[{"metric":{},"value":[690,"1.5"]}]'), NOW),
    "with milliseconds": (vector('[{"metric":{},"value":[690.000,"1.5"]}]'), NOW),
    "a scalar": (success('{"resultType":"scalar","result":[690,"1.5"]}'), NOW),
    "no series": (vector("[]"), NOTHING),
    "isPartial": (vector("[]", ',"isPartial":true'), Partial("prom: says that its answer is partial")),
    "a matrix": (success('{"resultType":"matrix","result":[]}'), ours("the expression yields a matrix, not a vector")),
    "a string": (success('{"resultType":"string","result":[690,"x"]}'), ours("the expression yields a string, not a vector")),
    "a native histogram": (vector('[{"metric":{},"histogram":[690,{"count":"3","sum":"1"}]}]'), NATIVE),
    "two series": (
        vector('[{"metric":{"a":"1"},"value":[690,"1"]},{"metric":{"a":"2"},"value":[690,"2"]}]'),
        ours("several series"),
    ),
    "an older value": (vector('[{"metric":{},"value":[630,"1.5"]}]'), odd("found a value of 630 s, asked was 690 s")),
    "no value": (vector('[{"metric":{}}]'), odd("found a series without a value")),
    "a value that is no pair": (vector('[{"metric":{},"value":[690]}]'), odd("length")),
    "a value without quotes": (vector('[{"metric":{},"value":[690,1.5]}]'), odd("got `float`")),
    "a value that is no number": (vector('[{"metric":{},"value":[690,"x"]}]'), odd("a value that is no number")),
    "two numbers in one": (vector('[{"metric":{},"value":[690,"1,2"]}]'), odd("a value that is no number")),
}


async def answer_to(payload: bytes, span: TimeRange, now_ms: int) -> Frame:
    async with answering(payload) as port:
        source = PrometheusConfig.model_validate({"url": f"http://127.0.0.1:{port}"}).build("prom")
        try:
            return await source.fetch(PrometheusRead(source="prom", query="up").statement(Ask("m", span, (), (), now_ms)))
        finally:
            await source.close()


async def judge(payload: bytes, verdict: Verdict, span: TimeRange, now_ms: int = 0) -> None:
    if isinstance(verdict, Refused):
        with pytest.raises(verdict.error) as refused:
            await answer_to(payload, span, now_ms)
        failure = refused.value
        assert (type(failure), failure.trips_breaker, verdict.says in str(failure)) == (verdict.error, verdict.trips, True), (
            failure
        )
        return
    found = await answer_to(payload, span, now_ms)
    if isinstance(verdict, Partial):
        assert (found.partial, found.notices[0].severity) == (True, "warning")
        assert found.notices[0].text.startswith(verdict.warning)
        return
    remarks = [(notice.severity, notice.text[: len(verdict.remark)]) for notice in found.notices]
    assert (shown(found), found.partial) == (verdict.values, False)
    assert remarks == ([("info", verdict.remark)] if verdict.remark else [])


@pytest.mark.parametrize(("payload", "verdict"), MATRICES.values(), ids=MATRICES)
async def test_a_range_is_believed_as_far_as_the_server_says(payload: bytes, verdict: Verdict) -> None:
    await judge(payload, verdict, CLOSED)


@pytest.mark.parametrize(("payload", "verdict"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_goes_to_whoever_has_to_act(payload: bytes, verdict: Verdict) -> None:
    await judge(payload, verdict, CLOSED)


@pytest.mark.parametrize(("payload", "verdict"), VECTORS.values(), ids=VECTORS)
async def test_a_value_of_now_is_believed_as_far_as_the_server_says(payload: bytes, verdict: Verdict) -> None:
    await judge(payload, verdict, OPEN, NOW_MS)


async def test_more_remarks_than_fit_are_counted_and_the_warning_is_among_those_that_are_shown() -> None:
    found = await answer_to(MATRICES["more remarks than fit"][0], CLOSED, 0)
    assert [notice.text for notice in found.notices] == ["prom: half", "prom: fine", "prom: and 5 remarks more"]


async def test_a_list_of_values_that_is_partial_makes_the_answer_partial() -> None:
    read = PrometheusRead(source="prom", query="sum by ({by}) (up{where})", labels={"host": "host"})
    payload = success("[]", ',"warnings":["a store is missing"]')
    async with answering(payload) as port:
        source = PrometheusConfig.model_validate({"url": f"http://127.0.0.1:{port}"}).build("prom")
        found = await source.fetch(read.statement(Ask("m", CLOSED, (), (Matcher("host", ">", ("5",)),))))
        await source.close()
    assert (found.partial, [notice.text for notice in found.notices]) == (True, ["prom: a store is missing"])


@pytest.mark.parametrize(
    ("payload", "says"), [(success("null"), "got `null`"), (success("[1]"), "got `array`"), (reply("200 OK", "<html>"), "<html>")]
)
async def test_a_version_or_a_list_of_values_of_another_shape_says_so(payload: bytes, says: str) -> None:
    async with answering(payload) as port:
        source = PrometheusConfig.model_validate({"url": f"http://127.0.0.1:{port}"}).build("prom")
        try:
            with pytest.raises(SourceGarbled, match=says):
                await source.ping()
        finally:
            await source.close()
