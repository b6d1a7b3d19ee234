"""Finished answers: the bytes of a panel's answer, sent again for as long as every part of it is fresh.

Nothing is decided here that the bridge has not decided before: an answer is kept only when it is whole and fresh, only until the
first of its parts is not fresh any more or its plan would be another one, and only for the very same question and window. All
else goes the whole way. So an answer from here differs from one that goes the whole way in nothing but its ages, which are
counted anew.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from app.contracts.telling import header_lines, result_headers, result_pattern
from app.contracts.zipped import Zipped, compressed
from app.model import Clock, Frame, Result
from app.telemetry import Telemetry

#: what an entry costs beside its bytes
_ENTRY_BYTES = 2000
#: of all room, what one answer may take
_MOST_SHARE = 0.25
#: Smaller bodies fit a packet as they are.
_WORTH_ZIPPING = 1400


#: The last piece of a body, which tells ages or the window: written anew for each asker from (from_ms, to_ms, results).
Tail = Callable[[int, int, Sequence[Result]], bytes]


@dataclass(slots=True)
class Question:
    """A request as far as its answer depends on it: everything but the window (`shape`), and the window, epoch ms."""

    shape: Hashable
    from_ms: int
    to_ms: int


@dataclass(slots=True)
class Answer:
    """One finished answer. `results` are its facts, without their rows; their ages are those of `as_of_ms`.

    `sent` is how often it was sent again since that was last added to the metrics.
    """

    window: tuple[int, ...]
    results: tuple[Result, ...]
    as_of_ms: int
    good_to_ms: int
    headers: tuple[tuple[bytes, bytes], ...]
    #: the same on the wire, the status line before them
    lines: bytes
    #: `Bridge-Result` with gaps for the ages, and the instants (s) from which these count
    pattern: bytes
    born_s: tuple[float, ...]
    start: bytes
    tail: Tail | None
    sent: int = 0
    #: `start` compressed, once somebody has asked for that
    zipped: Zipped | None = None
    zipping: bool = False

    def body(self, question: Question, now_ms: int, zipped: Zipped | None = None) -> bytes:
        """The body, compressed where its compressed first piece is given."""
        tail = b"" if self.tail is None else self.tail(question.from_ms, question.to_ms, self._aged(now_ms))
        return zipped.followed(tail) if zipped is not None else self.start + tail if tail else self.start

    def wire_head(self, now_ms: int, length: int, zipped: Zipped | None = None) -> bytes:
        """The status line and the headers, as HTTP/1.1 has them."""
        encoding = b"content-encoding: gzip\r\n" if zipped is not None else b""
        result = self.pattern % self._ages_s(now_ms)
        return b"%b%bcontent-length: %d\r\nbridge-result: %b\r\n" % (self.lines, encoding, length, result)

    def head(self, now_ms: int, length: int, zipped: Zipped | None = None) -> list[tuple[bytes, bytes]]:
        """The headers, with the ages as of now."""
        encoding = [(b"content-encoding", b"gzip")] if zipped is not None else []
        result = self.pattern % self._ages_s(now_ms)
        return [*self.headers, *encoding, (b"content-length", b"%d" % length), (b"bridge-result", result)]

    def _ages_s(self, now_ms: int) -> tuple[float, ...]:
        now_s = now_ms / 1000
        return tuple([max(now_s - born_s, 0.0) for born_s in self.born_s])

    def _aged(self, now_ms: int) -> list[Result]:
        """The facts as of now: nothing was asked, and all is older by the time that has passed."""
        more_s = max(now_ms - self.as_of_ms, 0) / 1000
        return [
            replace(
                result,
                age_s=result.age_s + more_s,
                asked=tuple(replace(asked, seconds=0.0, age_s=asked.age_s + more_s) for asked in result.asked),
            )
            for result in self.results
        ]


@dataclass(slots=True)
class _Slot:
    """The newest answer to questions of one shape and length, and the grids on which their windows are the same."""

    grids: tuple[tuple[int, int], ...]
    answer: Answer
    size_bytes: int


class Ready:
    """The answers asked for longest ago go first when there are more than `most_bytes`."""

    def __init__(self, most_bytes: int, telemetry: Telemetry, clock: Clock, zips: bool = True) -> None:
        self._most_bytes = most_bytes
        self._zips = zips
        self._telemetry = telemetry
        self.clock = clock
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self.size_bytes = 0
        telemetry.settlers.append(self._settle)

    def find(self, question: Question, now_ms: int) -> Answer | None:
        """The answer, if there is one that is still true."""
        key = _key(question)
        slot = self._slots.get(key)
        if slot is None:
            return None
        answer = slot.answer
        if not answer.as_of_ms <= now_ms < answer.good_to_ms or _window(slot.grids, question) != answer.window:
            return None
        self._slots.move_to_end(key)
        return answer

    def zipped(self, question: Question, answer: Answer) -> Zipped | None:
        """The answer's first piece, compressed: made once, beside the event loop, when somebody asks for it. None until it is
        there, and for what is not worth it."""
        if answer.zipped is None and not answer.zipping and self._zips and len(answer.start) >= _WORTH_ZIPPING:
            answer.zipping = True
            made = asyncio.get_running_loop().run_in_executor(None, compressed, answer.start)
            made.add_done_callback(lambda done: self._zipped(question, answer, done))
        return answer.zipped

    def _zipped(self, question: Question, answer: Answer, made: asyncio.Future[Zipped]) -> None:
        if made.cancelled():
            return
        answer.zipped = made.result()
        slot = self._slots.get(_key(question))
        if slot is not None and slot.answer is answer:
            slot.size_bytes += len(answer.zipped.start)
            self.size_bytes += len(answer.zipped.start)
            self._shrink()

    def keep(self, shape: Hashable, results: Sequence[Result], content_type: str, start: bytes, tail: Tail | None = None) -> None:
        """Keep an answer to a question of that shape, if it is whole and fresh and will be for a while.

        Its window is the one that was answered, which a relative time may have moved since the question was looked at.
        """
        size_bytes = len(start) + len(repr(shape)) + _ENTRY_BYTES
        goods = [result.good_to_ms for result in results if result.status == "fresh" and result.good_to_ms is not None]
        now_ms = self.clock()
        if not results or len(goods) < len(results) or min(goods) <= now_ms or size_bytes > self._most_bytes * _MOST_SHARE:
            return
        question = Question(shape, results[0].query.from_ms, results[0].query.to_ms)
        grids = tuple(dict.fromkeys((result.grid_ms, result.range.step_ms) for result in results))
        headers = _fixed_headers(results, content_type)
        answer = Answer(
            window=_window(grids, question),
            results=tuple(replace(result, frame=Frame(notices=result.frame.notices)) for result in results),
            as_of_ms=now_ms,
            good_to_ms=min(goods),
            headers=headers,
            lines=b"HTTP/1.1 200 OK\r\n" + header_lines(headers),
            pattern=result_pattern(results),
            born_s=tuple(now_ms / 1000 - result.age_s for result in results),
            start=start,
            tail=tail,
        )
        self._put(_key(question), _Slot(grids, answer, size_bytes))

    def _put(self, key: Hashable, slot: _Slot) -> None:
        older = self._slots.pop(key, None)
        if older is not None:
            self._gone(older)
        self.size_bytes += slot.size_bytes
        self._slots[key] = slot
        self._shrink()

    def _shrink(self) -> None:
        while self.size_bytes > self._most_bytes:
            self._gone(self._slots.popitem(last=False)[1])

    def _gone(self, slot: _Slot) -> None:
        self.size_bytes -= slot.size_bytes
        self._count(slot.answer)

    def _settle(self) -> None:
        for slot in self._slots.values():
            self._count(slot.answer)

    def _count(self, answer: Answer) -> None:
        sent, answer.sent = answer.sent, 0
        if not sent:
            return
        self._telemetry.queries.labels("fresh").inc(sent * len(answer.results))
        for result in answer.results:
            for asked in result.asked:
                self._telemetry.cache_hits.labels(asked.source, "ready").inc(sent)


def _key(question: Question) -> Hashable:
    return (question.shape, question.to_ms - question.from_ms)


def _window(grids: tuple[tuple[int, int], ...], question: Question) -> tuple[int, ...]:
    """Equal for windows that give the same buckets (as `plan_query` aligns them)."""
    return tuple([part for grid_ms, step_ms in grids for part in (question.from_ms // grid_ms, -(-question.to_ms // step_ms))])


def _fixed_headers(results: Sequence[Result], content_type: str) -> tuple[tuple[bytes, bytes], ...]:
    unasked = [replace(result, asked=tuple(replace(asked, seconds=0.0) for asked in result.asked)) for result in results]
    told = result_headers(unasked)
    told["Content-Type"], told["Cache-Control"] = content_type, "no-store"
    return tuple((name.lower().encode(), value.encode("latin-1")) for name, value in told.items() if name != "Bridge-Result")
