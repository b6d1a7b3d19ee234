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
    │   └── TooBusy             429  the bridge has no room just now
    ├── SourceError             an upstream
    │   ├── SourceTimeout       504
    │   ├── SourceUnavailable   503  refused, reset, not configured
    │   ├── SourceDenied        503  the credentials are wrong
    │   ├── SourceGarbled       502  answered nonsense
    │   ├── SourceBusy          503  our own limit on that source
    │   ├── CircuitOpen         503  not asked: it failed too often just now
    │   ├── SourceOverloaded    502  the source refused the work as too heavy
    │   ├── SourceRejected      502  our statement is wrong
    │   └── SourceCrashed       500  our bug
    ├── BackupError             exit 1, a backup that cannot be taken, trusted or restored
    └── ConfigError             exit 2, every problem listed with its place

What a policy may do about a failure is an attribute of its class, so no policy needs a ladder of `isinstance`.
Messages name source, metric and limit, never credentials or bound values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class BridgeError(Exception):
    """Any failure that the bridge has a designed answer for."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    #: asking again at once may help
    retryable: ClassVar[bool] = False
    #: says something about the health of the source, not of one statement
    trips_breaker: ClassVar[bool] = False
    #: older data may be shown in its place (marked)
    allows_stale: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

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
    """A name that nobody has declared."""

    status = 404
    code = "unknown_name"


class LimitExceeded(RequestError):
    """More than one request may ask for."""

    code = "limit_exceeded"


class BodyTooLarge(RequestError):
    """The request body is over the limit."""

    code = "body_too_large"


class NotAllowed(RequestError):
    """Nobody whom we know."""

    status = 401
    code = "not_allowed"


class HeadTooLarge(RequestError):
    """The request's first line and headers are over the limit."""

    status = 431
    code = "head_too_large"


class TooSlow(RequestError):
    """The request is not there in time."""

    status = 408
    code = "too_slow"


class TooBusy(RequestError):
    """All places are taken; try again in a moment."""

    status = 429
    code = "too_busy"


class SourceError(BridgeError):
    """A source did not give an answer. `source` is its configured name, `kind` the label of the error counter."""

    kind: ClassVar[str] = "error"
    allows_stale = True

    def __init__(self, source: str, message: str) -> None:
        super().__init__(f"{source}: {message}")
        self.source = source
        self.reason = message

    def again(self) -> SourceError:
        """The same failure for another asker (an exception that is raised twice drags the first one's traceback along)."""
        return type(self)(self.source, self.reason)


class SourceTimeout(SourceError):
    """No answer within the time limit."""

    status = 504
    code = kind = "source_timeout"
    retryable = True
    trips_breaker = True


class SourceUnavailable(SourceError):
    """Refused, reset, gone, or not configured."""

    status = 503
    code = kind = "source_unavailable"
    retryable = True
    trips_breaker = True


class SourceDenied(SourceError):
    """The source does not accept our credentials; asking again cannot help."""

    status = 503
    code = kind = "source_denied"
    trips_breaker = True


class SourceGarbled(SourceError):
    """The source answered, but not in its own protocol."""

    status = 502
    code = kind = "source_garbled"
    trips_breaker = True


class SourceBusy(SourceError):
    """All of our connections to this source are taken."""

    status = 503
    code = kind = "source_busy"


class CircuitOpen(SourceError):
    """Not asked: the source, or this kind of question to it, has failed too often just now."""

    status = 503
    code = kind = "circuit_open"


class SourceOverloaded(SourceError):
    """The source gave the statement up as too heavy (memory, rows, its own queue)."""

    status = 502
    code = kind = "source_overloaded"


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
