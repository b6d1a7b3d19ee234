"""Many generated questions put to a bridge over real stores, whose live part keeps less from round to round."""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.catalog import Catalogue, load_folder
from app.config import settings_from
from tests.e2e.conftest import client_of
from tests.e2e.reference import Reference
from tests.e2e.reference import Stores as RawRows
from tests.servers.world import Stores
from tests.truth.questions import Question, draw
from tests.truth.relations import RELATIONS, Relation, Subject

_KINDS = dict.fromkeys(("rts", "ris", "rtss", "rtrs"), "redis") | {name: name for name in ("clickhouse", "duckdb", "prometheus")}
#: what the live stores keep: all that they were given, an hour, ten minutes
KEEPS_S = (None, 3600, 600)
#: each question is put to as many relations, drawn anew: more questions tell more than more relations of one
RELATIONS_A_QUESTION = 4


@dataclass
class Found:
    """How many questions were asked, and each relation that did not hold with the question that shows it."""

    asked: int = 0
    held: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def catalogue() -> Catalogue:
    """The provisioned one."""
    return load_folder(settings_from({}, "test").catalog_folder, _KINDS)


@contextmanager
def raw_rows(stores: Stores, folder: Path) -> Iterator[Reference]:
    """The same stores read by other means. The snapshot is a copy: the bridge holds the file open with settings of its own."""
    newest = shutil.copy(max(stores.snapshots.glob("snap-*.duckdb")), folder)
    read = RawRows(stores.rows, str(newest), stores.redis.port, f"http://127.0.0.1:{stores.prometheus_port}")
    yield Reference(read)
    read.close()


def keep_only(stores: Stores, keeps_s: int | None) -> None:
    """Trim the streams of the live stores."""
    if keeps_s is None:
        return
    for stream in ("trade_results", "trade_signals"):
        stores.redis.client.xtrim(stream, minid=stores.until_ms - keeps_s * 1000, approximate=False)


class Subjects:
    """One bridge for each clock that questions ask at."""

    def __init__(self, stores: Stores, catalogue: Catalogue, reference: Reference, stack: AsyncExitStack) -> None:
        self.catalogue = catalogue
        self._stores, self._reference, self._stack = stores, reference, stack
        self._known: dict[int, Subject] = {}

    async def at(self, now_ms: int) -> Subject:
        """The bridge whose clock stands there. Its answers are kept for ten seconds, which never pass."""
        if now_ms not in self._known:
            app = self._stores.app(now_ms=now_ms)
            client = await self._stack.enter_async_context(client_of(app))
            self._known[now_ms] = Subject(client, self.catalogue, self._reference)
        return self._known[now_ms]


@asynccontextmanager
async def subjects(stores: Stores, folder: Path) -> AsyncIterator[Subjects]:
    """Bridges over these stores."""
    with raw_rows(stores, folder) as reference:
        async with AsyncExitStack() as stack:
            yield Subjects(stores, catalogue(), reference, stack)


async def ask_many(stores: Stores, folder: Path, seed: int, count: int) -> Found:
    """So many generated questions, each put to some relations; a third of them for each length of what live stores keep."""
    found, chance = Found(), random.Random(seed)
    for keeps_s in KEEPS_S:
        keep_only(stores, keeps_s)
        async with subjects(stores, folder) as bridges:
            for _ in range(count // len(KEEPS_S)):
                question = draw(chance, bridges.catalogue, stores.until_ms)
                chosen = chance.sample(RELATIONS, RELATIONS_A_QUESTION)
                await _put(await bridges.at(question.now_ms), question, keeps_s, chosen, found)
    return found


async def _put(subject: Subject, question: Question, keeps_s: int | None, relations: Sequence[Relation], found: Found) -> None:
    found.asked += 1
    for relation in relations:
        try:
            wrong = await relation(subject, question)
        except AssertionError as failed:
            wrong = [str(failed)]
        if wrong:
            found.wrong.append(
                f"{relation.__name__}, live stores keep {keeps_s}s: {question}: {len(wrong)}: {'; '.join(wrong[:3])}"
            )
        else:
            found.held[relation.__name__] = found.held.get(relation.__name__, 0) + 1
