"""When hashes were last written: a terminal that hangs leaves its last figures behind, and no other field tells."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from app.model import Flags, Notice, Severity, age_text
from app.sources.base import Strict
from app.sources.redis_parse import Cell, instants
from app.sources.redis_reads import Placed, unparsed

_INFO: Severity = "info"
_WARNING: Severity = "warning"
_NONE = "there is no value of now"
_LAST = "figures of now hold their last values"


class AsOf(Strict):
    """The field that says when a hash was last written, and for how long it counts as the present after that."""

    field: str
    current_s: int = Field(60, ge=1)

    def outdated(self, what: str, written: Sequence[Cell], where: Placed, now_ms: int) -> tuple[Flags, tuple[Notice, ...]]:
        """Of the rows that passed the filters: which show nothing of now, and what to say of those that are old.

        A figure that old hashes alone are behind has no value of now. One that others are behind, too, keeps their last values,
        and is called partial by its warning. A hash that does not say when it was written is taken for the present.
        """
        at_ms, bad = instants([written[row] for row in where.keep])
        notices = list(unparsed(what, self.field, bad))
        old = now_ms - at_ms > self.current_s * 1000
        alone = where.alone(old)
        for severity, some, means in ((_INFO, alone, _NONE), (_WARNING, old & ~alone, _LAST)):
            if count := int(some.sum()):
                longest = age_text(now_ms - round(at_ms[some].min()))
                text = f"{what}: {count} not written for {self.current_s}s, the longest for {longest}; {means}"
                notices.append(Notice(severity, text))
        return alone, tuple(notices)
