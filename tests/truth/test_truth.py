"""A short run of `make truth` (10,000 questions): what holds for generated questions holds for a few hundred of them, too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.world import Stores, running_stores
from tests.truth.asking import RELATIONS_A_QUESTION, ask_many
from tests.truth.relations import RELATIONS

SEED = 1128


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores of this test's own: their streams are trimmed."""
    with running_stores(tmp_path_factory.mktemp("truth")) as running:
        yield running


@pytest.mark.timeout(600)
async def test_every_relation_holds_for_generated_questions(own: Stores, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = await ask_many(own, tmp_path_factory.mktemp("copy"), SEED, 240)
    assert found.wrong == []
    assert (set(found.held), sum(found.held.values())) == (
        {relation.__name__ for relation in RELATIONS},
        240 * RELATIONS_A_QUESTION,
    )
