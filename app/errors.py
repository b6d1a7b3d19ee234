"""Everything that can go wrong, by who has to act.

    BridgeError
    ├── RequestError            the caller
    │   ├── BadQuery            400  the question is wrong; names the field, the value, what is allowed
    │   ├── UnknownName         404  no such metric, label, route or format; carries the nearest names
    │   ├── LimitExceeded       400  a limit that the caller can stay under
    │   ├── BodyTooLarge        400
    │   ├── NotAllowed          401  a key is missing, wrong or has expired
    │   ├── HeadTooLarge        431
    │   ├── TooSlow             408  the request drips in
    │   ├── TooBusy             429  the bridge has no room just now
    │   └── OutOfTime           504  the bridge has not made the answer in time
    ├── SourceError             an upstream
    │   ├── SourceTimeout       504
    │   ├── SourceUnavailable   503  refused, reset, not configured
    │   │   └── SourceFailed        it answered that it failed at this one
    │   ├── SourceDenied        503  the credentials are wrong
    │   ├── SourceGarbled       502  answered nonsense
    │   ├── SourceForeign       502  answered what was not asked
    │   ├── SourceBusy          503  our own limit on that source
    │   ├── CircuitOpen         503  the circuit is open: it failed too often just now
    │   ├── SourceOverloaded    502  the source refused the work as too heavy
    │   │   └── TooManyRows         more rows than the bridge takes from it: our limit
    │   ├── SourceRejected      502  our statement is wrong
    │   └── SourceCrashed       500  our bug
    ├── BackupError             exit 1, a backup that cannot be taken, trusted or restored
    └── ConfigError             exit 2, every problem listed with its place

What a policy may do about a failure is an attribute of its class: policies read attributes and never ask for the class.
Messages name source, metric and limit, never credentials or bound values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class BridgeError(Exception):
    """Any failure that the bridge has a designed answer for."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    #: a second attempt may succeed, and there is time for it
    retryable: ClassVar[bool] = False
    #: says something about the health of the source, not of one statement
    trips_breaker: ClassVar[bool] = False
    #: older data may be shown in its place (marked)
    allows_stale: ClassVar[bool] = False
    #: one question may cause it: it says something about the source only where several questions meet it
    of_question: ClassVar[bool] = False
    #: the work was too much for the source: less of it may be answered
    heavy: ClassVar[bool] = False
    #: a limit of ours on the rows of one statement; fewer points may be within it
    too_many_rows: ClassVar[bool] = False
    #: the work was not done in time
    timed_out: ClassVar[bool] = False
    #: the source refuses our credentials, which does not change by itself
    denied: ClassVar[bool] = False
    #: when to ask again; None where the status says it
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        #: the message without the source's name
        self.reason = message

    def __str__(self) -> str:
        return self.message


class RequestError(BridgeError):
    """The caller has to change something."""

    status = 400
    code = "bad_request"


class BadQuery(RequestError):
    """The question itself is wrong."""

    code = "bad_query"


class UnknownName(RequestError):
    """A name that is not declared."""

    status = 404
    code = "unknown_name"


class LimitExceeded(RequestError):
    """More than one request may ask for."""

    code = "limit_exceeded"


class BodyTooLarge(RequestError):
    """The request body is over the limit."""

    code = "body_too_large"


class NotAllowed(RequestError):
    """The caller's key is missing, wrong, or has expired."""

    status = 401
    code = "not_allowed"


class HeadTooLarge(RequestError):
    """The request's first line and headers are over the limit."""

    status = 431
    code = "head_too_large"


class TooSlow(RequestError):
    """The request did not arrive in time."""

    status = 408
    code = "too_slow"


class TooBusy(RequestError):
    """Too many requests are under way, or too much work; try again in a moment."""

    status = 429
    code = "too_busy"

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutOfTime(RequestError):
    """The answer was not ready within the request's time limit. Every source had answered, or had its own error."""

    status = 504
    code = "out_of_time"


class SourceError(BridgeError):
    """A source did not give an answer. `source` is its configured name, `kind` the label of the error counter."""

    kind: ClassVar[str] = "error"
    allows_stale = True

    def __init__(self, source: str, message: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source
        self.reason = message

    def again(self) -> SourceError:
        """The same failure for another caller: an exception that is raised twice keeps the first one's traceback alive."""
        return type(self)(self.source, self.reason)


class SourceTimeout(SourceError):
    """No answer within the time limit. A second attempt has no time left."""

    status = 504
    code = kind = "source_timeout"
    timed_out = True
    trips_breaker = True
    of_question = True


class SourceUnavailable(SourceError):
    """Refused, reset, gone, or not configured."""

    status = 503
    code = kind = "source_unavailable"
    retryable = True
    trips_breaker = True


class SourceFailed(SourceUnavailable):
    """The source is there and says that it failed at this statement."""

    of_question = True


class SourceDenied(SourceError):
    """The source does not accept our credentials; asking again cannot help."""

    status = 503
    code = kind = "source_denied"
    trips_breaker = True
    denied = True


class SourceGarbled(SourceError):
    """The source answered, but not in its protocol."""

    status = 502
    code = kind = "source_garbled"
    trips_breaker = True
    of_question = True


class SourceForeign(SourceError):
    """The answer does not fit its question: rows of another question, or columns that the statement should not return.

    The whole answer is dropped. One statement of the catalogue may be the cause, so it says nothing about the source's health.
    """

    status = 502
    code = kind = "source_foreign"
    retryable = True


class SourceBusy(SourceError):
    """All of our connections to this source are taken."""

    status = 503
    code = kind = "source_busy"


class CircuitOpen(SourceError):
    """Not asked: the source, or this kind of question to it, has failed too often just now."""

    status = 503
    code = kind = "circuit_open"


class SourceOverloaded(SourceError):
    """The source refused the statement as too heavy (memory, rows, its own queue)."""

    status = 502
    code = kind = "source_overloaded"
    of_question = True
    heavy = True


class TooManyRows(SourceOverloaded):
    """The answer has more rows than the bridge takes from this source. That is our limit, so the store is not to blame."""

    of_question = False
    too_many_rows = True


class SourceRejected(SourceError):
    """The source says that our statement is wrong. Stale data would hide it."""

    status = 502
    code = kind = "source_rejected"
    allows_stale = False


class SourceCrashed(SourceError):
    """A bug of ours in a source. Stale data would hide it."""

    status = 500
    code = kind = "source_crashed"
    allows_stale = False


class BackupError(BridgeError):
    """A backup cannot be taken, cannot be trusted, or would overwrite something."""

    code = "backup"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with the configuration, and where."""

    file: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"


class ConfigError(BridgeError):
    """The configuration is wrong; every problem found is listed."""

    code = "config"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
