"""The time and the work of one request: its budget counts from its arrival, and it is let in by what its questions will cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from app.contracts.request import Serving, serving, unless_left
from app.errors import OutOfTime, TooBusy
from app.model import Lane, Query, Result
from app.query.admission import Caller
from app.query.bridge import Bridge
from app.query.costs import Cost
from app.responses.cache import RequestKey, ResponseCache, entry_key

#: where the server leaves the name of the caller's API key in the ASGI scope
KEY_NAME = "bridge.key_name"
#: what is left for writing a large answer when the sources' time is up
_WRITING_S = 0.25
#: A source that hangs is named when the time is up: what cuts the answer off comes a moment later.
_LAST_MOMENT_S = 0.1
_LONGEST_NAME = 80
#: what writing takes for each row and for each series
_ROW_MS = 0.0001
_SERIES_MS = 0.02


class Work:
    """A request that was let in: how its sources are to be asked, and what its answer cost in the end."""

    def __init__(self, lane: Lane, deadline_s: float) -> None:
        #: who goes first at the sources
        self.lane = lane
        self._deadline_s = deadline_s
        self._results: Sequence[Result] = ()

    @property
    def left_s(self) -> float:
        """The time for the sources."""
        return max(self._deadline_s - asyncio.get_running_loop().time(), 0.0)

    async def run(self, bridge: Bridge, queries: Sequence[Query]) -> list[Result]:
        """The results of these queries. Raises LimitExceeded for too many of them."""
        results = await bridge.run([replace(query, lane=self.lane) for query in queries], self.left_s)
        self.note(results)
        return results

    def note(self, results: Sequence[Result]) -> None:
        """These are the results whose cost is to be learnt."""
        self._results = results

    @property
    def results(self) -> Sequence[Result]:
        """What was noted."""
        return self._results


def writing_ms(results: Sequence[Result]) -> float:
    """About how long it will take to write the results as JSON."""
    return sum(len(result.frame) * _ROW_MS + len(result.frame.series) * _SERIES_MS for result in results)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request wants: its questions, the time that it has left, and the key of its response where that may be kept."""

    queries: Sequence[Query]
    left_s: float
    key: RequestKey | None = None
    #: whether an alert rule asks
    is_strict: bool = False


async def answer_in_time(request: Request, asked: Asked, answer: Callable[[Work], Awaitable[Response]]) -> Response:
    """The response of `answer`, which is called once the request is let in, within the time that it has left.

    A caller who leaves ends the waiting and the work. Raises TooBusy where the work would not be done in time, OutOfTime where it
    was not, and ClientDisconnect.
    """
    deadline_s = asyncio.get_running_loop().time() + asked.left_s
    try:
        async with asyncio.timeout_at(deadline_s + _LAST_MOMENT_S):
            return await unless_left(request, _let_in(request, asked, answer, deadline_s))
    except TimeoutError:
        raise OutOfTime(
            f"the answer was not ready within {serving(request).budget_s:g}s: it is large, or the bridge is busy; "
            "ask for fewer series, a coarser step or a shorter range"
        ) from None


async def _let_in(request: Request, asked: Asked, answer: Callable[[Work], Awaitable[Response]], deadline_s: float) -> Response:
    given = serving(request)
    cost = given.costs.expect(asked.queries) if given.costs is not None else Cost(0)
    if given.admission is None or not given.admission.is_heavy(cost):
        return await _answer_and_learn(given, Work("alert" if asked.is_strict else "interactive", deadline_s), answer)
    lane: Lane = "alert" if asked.is_strict else "background"
    async with AsyncExitStack() as stack:
        if asked.key is not None and given.responses is not None:
            await stack.enter_async_context(given.responses.make_once(asked.key))
            if (kept := _kept_response(given.responses, asked.key)) is not None:
                return kept
        await stack.enter_async_context(given.admission.let_in(caller_of(request, lane), cost, deadline_s - _WRITING_S))
        async with asyncio.timeout_at(deadline_s - _LAST_MOMENT_S):
            response = await _answer_and_learn(given, Work(lane, deadline_s - _WRITING_S), answer)
        if asked.key is not None and given.costs is not None:
            given.costs.note_request(entry_key(asked.key), asked.queries)
        return response


def _kept_response(responses: ResponseCache, key: RequestKey) -> Response | None:
    """The response that another request has made in the meantime."""
    now_ms = responses.clock()
    found = responses.find(key, now_ms)
    return found.answer(key, now_ms) if found is not None else None


async def _answer_and_learn(given: Serving, work: Work, answer: Callable[[Work], Awaitable[Response]]) -> Response:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    response = await answer(work)
    if given.costs is not None and work.results:
        given.costs.learn(work.results, len(response.body), loop.time() - begun_s)
    return response


def find_refusal(given: Serving, key: RequestKey, caller: Caller) -> TooBusy | None:
    """The refusal of a heavy request that would not be done in time, found by its key before it is parsed; None for any other.

    When many come at once, each that is refused here costs the others a tenth of what it would cost them further on.
    """
    if given.costs is None or given.admission is None or (given.responses is not None and given.responses.is_being_made(key)):
        return None
    cost = given.costs.find_request(entry_key(key))
    if cost is None or not given.admission.is_heavy(cost):
        return None
    return given.admission.find_refusal(caller, cost, given.budget_s - _WRITING_S)


def caller_of(request: Request, lane: Lane) -> Caller:
    """Who asks. The dashboard is a hint that Grafana sends along where a data source lets it through."""
    dashboard = request.headers.get("x-dashboard-uid", "")[:_LONGEST_NAME]
    return Caller(request.scope.get(KEY_NAME, ""), dashboard, lane)
