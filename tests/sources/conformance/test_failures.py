"""Every kind: what goes wrong has its name, what is cancelled ends at the store, and the source goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.errors import SourceOverloaded, SourceRejected, SourceUnavailable
from app.sources.base import Explains, Source
from tests.sources.conformance.fetching import accounts_of, fetch, series_of, statement_of, where
from tests.sources.conformance.kind import BEGIN, STEP, WORDS, Kind

B2 = {BEGIN: 2.0, BEGIN + 2 * STEP: 4.25}


async def _fetch_b2(kind: Kind, source: Source) -> dict[int, float | None]:
    return series_of(await fetch(source, kind.read("figures"), where=where("account", "=", "B2")))[()]


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.01)


async def test_more_rows_than_allowed_are_an_error_or_a_marked_cut(kind: Kind) -> None:
    source = kind.build(max_rows=3)
    gap = kind.gaps.get("limit")
    if gap is None:
        with pytest.raises(SourceOverloaded, match="max_rows"):
            await fetch(source, kind.read("figures"), ("account",))
    else:
        found = await fetch(source, kind.read("figures"), ("account",))
        assert gap.reason == "a stream's newest entries are answered, and from when on they are complete"
        assert found.covers_from_ms is not None
        assert BEGIN < found.covers_from_ms <= found.time.min() + STEP
    await source.close()


async def test_as_many_rows_as_allowed_are_a_whole_answer(kind: Kind) -> None:
    source = kind.build(max_rows=6)
    found = await fetch(source, kind.read("figures"), ("account",))
    assert (len(found), found.covers_from_ms, found.partial) == (5, None, False)
    await source.close()


async def test_a_wrong_statement_is_rejected_and_the_next_one_answered(kind: Kind, source: Source) -> None:
    for _ in range(3):
        with pytest.raises(SourceRejected, match=r"^store: "):
            await fetch(source, kind.wrong_read())
    assert await _fetch_b2(kind, source) == B2


async def test_the_check_finds_nothing_in_a_right_read_and_lets_the_store_look_at_it(kind: Kind, source: Source) -> None:
    read = kind.read("figures").model_copy(update={"labels": {"account": "account", "firm": "broker"}})
    assert list(read.problems()) == []
    gap = kind.gaps.get("explain")
    if gap is not None:
        assert gap.reason in ("Redis plans nothing", "it was not written: the check of the catalogue does without")
        assert not isinstance(source, Explains)
        return
    assert isinstance(source, Explains)
    await source.explain(statement_of(read, ("account", "firm"), where("firm", "=", "Y")))
    with pytest.raises(SourceRejected, match=r"^store: "):
        await source.explain(statement_of(kind.wrong_read()))


async def test_a_store_that_is_not_there_is_unavailable(kind: Kind) -> None:
    source = kind.unreachable()
    await source.open()
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match=r"^store: "):
            await fetch(source, kind.read("figures"))
    with pytest.raises(SourceUnavailable, match=r"^store: "):
        await source.ping()
    await source.close()


async def test_ping_says_which_version_answers(source: Source) -> None:
    assert any(sign.isdigit() for sign in await source.ping())


async def test_a_hanging_fetch_ends_with_its_cancellation_and_nothing_of_it_goes_on(kind: Kind) -> None:
    source = kind.build(pool_size=1)
    assert await _fetch_b2(kind, source) == B2
    async with kind.hanging() as read:
        asking = asyncio.create_task(fetch(source, read))
        if kind.tells_while_hanging:
            await _until(lambda: kind.running(source) > 0)
        else:
            await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await asking
    await _until(lambda: kind.running(source) == 0)
    assert await _fetch_b2(kind, source) == B2
    await source.close()


async def test_fetches_at_once_get_their_own_rows_whichever_of_them_are_cancelled(kind: Kind, source: Source) -> None:
    async def fetch_word(word: str) -> list[str]:
        return accounts_of(await fetch(source, kind.read("words"), ("account",), where("account", "=", word)))

    for turn in range(3):
        asked = [(word, asyncio.create_task(fetch_word(word))) for word in WORDS]
        for number, (_, task) in enumerate(asked):
            if number % 3 == turn:
                await asyncio.sleep(0.001 * (number % 4))
                task.cancel()
        await asyncio.wait([task for _, task in asked])
        answered = {word: task.result() for word, task in asked if not task.cancelled()}
        assert answered == {word: [word] for word in answered}
        assert len(answered) >= len(WORDS) // 2
    assert await _fetch_b2(kind, source) == B2


async def test_a_source_connects_again_after_its_connections_were_let_go(kind: Kind, source: Source) -> None:
    for _ in range(2):
        assert await _fetch_b2(kind, source) == B2
        await source.reconnect()
    assert await _fetch_b2(kind, source) == B2


async def test_a_source_can_be_closed_twice_and_before_it_was_asked(kind: Kind) -> None:
    asked, unasked = kind.build(), kind.build()
    assert await _fetch_b2(kind, asked) == B2
    for source in (asked, unasked):
        await source.close()
        await source.close()
