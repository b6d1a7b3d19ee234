"""What Prometheus and its kin (Thanos, Mimir, VictoriaMetrics) answer: data, data with remarks, or a refusal.

Everything here is a pure function of a status and a body. A body that cannot be read is SourceGarbled and says what was expected
and what came. A refusal becomes the error of the person who must act. A remark on missing data makes the answer partial.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
import orjson

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
from app.model import Notice, Remarks
from app.sources.prometheus.matrix import OddPoints, show_bytes

#: The beginning of a body that is no refusal.
_SUCCESS = b'{"status":"success"'
#: The beginning of an informative remark. Prometheus before 2.54 put these among the warnings.
_INFORMATIVE = "PromQL info:"
#: Parts of informative remarks that say that samples were left out of the figure.
_LEFT_OUT = ("ignored histogram", "incompatible sample types")
_MOST_REMARKS = 5
_OK = 200

_BY_TYPE: Mapping[str, type[SourceError]] = {
    "timeout": SourceTimeout,
    "canceled": SourceTimeout,
    "bad_data": SourceRejected,
    "execution": SourceRejected,
    "not_acceptable": SourceRejected,
    "not_found": SourceRejected,
    "unavailable": SourceUnavailable,
    "internal": SourceFailed,
    "too_many_requests": SourceOverloaded,
    "too_large_entry": SourceOverloaded,
}
_BY_STATUS: Mapping[int, type[SourceError]] = {
    401: SourceDenied,
    403: SourceDenied,
    404: SourceGarbled,
    407: SourceDenied,
    408: SourceTimeout,
    410: SourceGarbled,
    413: SourceOverloaded,
    429: SourceOverloaded,
    499: SourceTimeout,
    500: SourceFailed,
    504: SourceTimeout,
}
#: Types that say only that it did not work; the text says why. The text of `bad_data` quotes the query, so it is not looked at.
_VAGUE = ("execution", "internal")
_BY_TEXT: tuple[tuple[re.Pattern[str], type[SourceError]], ...] = (
    (re.compile(r"too many samples|err-mimir-max-|-search\.max|exceeded (chunks|series) limit"), SourceOverloaded),
    (re.compile(r"(query )?timed out|timeout exceeded|deadline exceeded|query was canceled", re.IGNORECASE), SourceTimeout),
    # Thanos and Mimir: one of the stores behind them did not answer.
    (re.compile(r"^(expanding series|fetch(ing)? series|proxy series|remote.read|rpc error)", re.IGNORECASE), SourceFailed),
)

_T = TypeVar("_T")


class ApiReply(msgspec.Struct, Generic[_T]):
    """The body of a reply that is no refusal."""

    status: str
    data: _T
    warnings: list[str] | None = None
    infos: list[str] | None = None
    isPartial: bool = False
    error: str | None = None


class MatrixSeries(msgspec.Struct):
    """One series; its points are read later (see `matrix`)."""

    metric: dict[str, str]
    values: msgspec.Raw = msgspec.Raw(b"")
    histograms: msgspec.Raw = msgspec.Raw(b"")


class Sample(msgspec.Struct):
    """One series at one instant."""

    metric: dict[str, str]
    value: tuple[float, str] | None = None
    histogram: msgspec.Raw = msgspec.Raw(b"")


class Matrix(msgspec.Struct):
    """The data of a range query."""

    resultType: str
    result: list[MatrixSeries]


class TypedResult(msgspec.Struct):
    """The data of any query; `resultType` says how to read `result`."""

    resultType: str
    result: msgspec.Raw


class Build(msgspec.Struct):
    """A server's build information. VictoriaMetrics may leave all of it out."""

    version: str = ""
    application: str = ""


_MATRIX = msgspec.json.Decoder(ApiReply[Matrix]).decode
_RESULT = msgspec.json.Decoder(ApiReply[TypedResult]).decode
_SAMPLES = msgspec.json.Decoder(list[Sample]).decode
_SCALAR = msgspec.json.Decoder(tuple[float, str]).decode

decode_values = msgspec.json.Decoder(ApiReply[list[str]]).decode
decode_build = msgspec.json.Decoder(ApiReply[Build]).decode


def read_reply(source: str, status: int, body: bytes, decode: Callable[[bytes], ApiReply[_T]]) -> ApiReply[_T]:
    """The reply, decoded. Raises SourceError for a refusal, and for anything that is no reply of this API."""
    if status == _OK and body.startswith(_SUCCESS):
        return _decode(source, body, decode)
    refusal = _read_refusal(source, status, body)
    if refusal is not None:
        raise refusal
    if status != _OK:
        raise _by_status(status)(source, f"answered with status {status}")
    return _decode(source, body, decode)


def read_matrix(source: str, status: int, body: bytes) -> ApiReply[Matrix]:
    """The series of a range query. Raises SourceError, SourceRejected for an expression that yields no floats over time."""
    try:
        answer = read_reply(source, status, body, _MATRIX)
    except SourceGarbled:
        # This is rare, so the second look comes only now: the reply may be right and of another type.
        found = read_reply(source, status, body, _RESULT).data.resultType
        if found == "matrix":
            raise
        raise _wrong_type(source, found, "a matrix") from None
    if answer.data.resultType != "matrix":
        raise _wrong_type(source, answer.data.resultType, "a matrix")
    _expect_floats(source, (one.metric for one in answer.data.result if one.histograms))
    return answer


def read_vector(source: str, status: int, body: bytes) -> ApiReply[list[Sample]]:
    """The series of an instant query. A scalar is a series without labels, as it is over a range.

    Raises SourceError, SourceRejected for an expression that yields no floats.
    """
    answer = read_reply(source, status, body, _RESULT)
    samples = _read_samples(source, answer.data)
    _expect_floats(source, (one.metric for one in samples if one.histogram))
    return ApiReply(answer.status, samples, answer.warnings, answer.infos, answer.isPartial, answer.error)


def _read_samples(source: str, found: TypedResult) -> list[Sample]:
    if found.resultType == "scalar":
        return [Sample({}, _decode(source, bytes(found.result), _SCALAR))]
    if found.resultType != "vector":
        raise _wrong_type(source, found.resultType, "a vector")
    return _decode(source, bytes(found.result), _SAMPLES)


def read_remarks(source: str, answer: ApiReply[Any]) -> Remarks:
    """What the server says about its answer. A warning says that something is missing or wrong in it, an info does not."""
    said = [(_is_gap(text), text) for text in answer.warnings or ()]
    said += [(_is_incomplete(text), text) for text in answer.infos or ()]
    if answer.isPartial:
        said.append((True, "says that its answer is partial: not all of its storage nodes answered"))
    if answer.error:
        said.append((True, f"answered, and yet names an error: {answer.error}"))
    # Those that make the answer partial come first: they are not to be among the ones that are only counted.
    said.sort(key=lambda remark: not remark[0])
    notices = [Notice("warning" if missing else "info", f"{source}: {text[:200]}") for missing, text in said]
    if len(said) > _MOST_REMARKS:
        more = Notice(notices[_MOST_REMARKS].severity, f"{source}: and {len(said) - _MOST_REMARKS} remarks more")
        notices = [*notices[:_MOST_REMARKS], more]
    return Remarks(tuple(notices), partial=any(missing for missing, _ in said))


def _is_gap(text: str) -> bool:
    """Whether one of the `warnings` says that something is missing: a store that was not reached (Thanos, promxy), data left out
    (Cortex). Before 2.54 Prometheus put its informative remarks among them."""
    return _is_incomplete(text) or not text.startswith(_INFORMATIVE)


def _is_incomplete(text: str) -> bool:
    return any(part in text for part in _LEFT_OUT)


def _wrong_type(source: str, found: str, expected: str) -> SourceRejected:
    return SourceRejected(source, f"the expression yields a {found[:40]}, not {expected}; write one that gives numbers over time")


def _expect_floats(source: str, of_histograms: Iterable[Mapping[str, str]]) -> None:
    for metric in of_histograms:
        name = metric.get("__name__") or "the expression"
        raise SourceRejected(
            source,
            f"{name} yields native histograms, which have no one value; ask for histogram_quantile(), histogram_count(), "
            "histogram_sum() or histogram_avg() of them",
        )


def _decode(source: str, body: bytes, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(body)
    except msgspec.ValidationError as problem:
        raise SourceGarbled(source, f"answered with JSON of another shape than its API's: {problem}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise SourceGarbled(source, f"answered with what is no JSON, or only a part of it: {show_bytes(body)}") from None


def _read_refusal(source: str, status: int, body: bytes) -> SourceError | None:
    """The refusal that the body states in the API's own form; None where it states none."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("status") != "error":
        return None
    text = str(said.get("error") or f"answered with status {status} and no reason")[:300]
    return _class_of(str(said.get("errorType")), status, text)(source, text)


def _class_of(kind: str, status: int, text: str) -> type[SourceError]:
    if _by_status(status) is SourceDenied:
        return SourceDenied
    if kind in _VAGUE or kind not in _BY_TYPE:
        for pattern, failure in _BY_TEXT:
            if pattern.search(text):
                return failure
    return _BY_TYPE.get(kind) or _by_status(status)


def _by_status(status: int) -> type[SourceError]:
    """For a reply of which only the status says anything. A 4xx means that our request is wrong, 404 that no API is there."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status // 100 == 4:
        return SourceRejected
    return SourceUnavailable if status // 100 == 5 else SourceGarbled


def sample_text(sample: Sample, at_ms: int) -> bytes:
    """The text of the value. Raises OddPoints for a sample without a value or of another time."""
    if sample.value is None:
        raise OddPoints("a series without a value")
    at_s, text = sample.value
    if abs(at_s - at_ms // 1000) >= 1:
        raise OddPoints(f"a value of {at_s:.15g} s, asked was {at_ms // 1000} s")
    return text.encode()
