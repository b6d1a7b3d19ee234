"""What the provisioned files say about the same things, and what disagrees.

A statement is (topic, value, file): two files that give one topic two values disagree. What is compared is data:
`readers.py` says which file speaks of which topic.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.provisioning.readers import READERS

ROOT = Path(os.environ.get("BRIDGE_TEST_PROVISIONED", Path(__file__).parents[2]))
#: Groups of files that are being built in branches of their own. Take a group out when it is merged; in the end none is left.
NOT_MERGED: frozenset[str] = frozenset()
MERGED = READERS.keys() - NOT_MERGED


@dataclass(frozen=True)
class Said:
    """One file's word on one thing."""

    topic: str
    value: str
    where: str


def missing(root: Path, groups: Iterable[str]) -> list[str]:
    """The files of these groups that are not there."""
    return [pattern for group in groups for pattern in READERS[group] if not any(root.glob(pattern))]


def statements(root: Path) -> list[Said]:
    """All that the files that are there say."""
    found = []
    for readers in READERS.values():
        for pattern, reader in readers.items():
            for file in sorted(root.glob(pattern)):
                where = file.relative_to(root).as_posix()
                found += [Said(topic, str(value), where) for topic, value in reader(file.read_text(encoding="utf-8"))]
    return found


def disagreements(said: Iterable[Said]) -> list[str]:
    """Each topic that has more than one value, with who says what."""
    by_topic: dict[str, dict[str, list[str]]] = {}
    for one in said:
        by_topic.setdefault(one.topic, {}).setdefault(one.value, []).append(one.where)
    return [
        f"{topic}: " + "; ".join(f"{value} in {', '.join(sorted(set(files)))}" for value, files in values.items())
        for topic, values in sorted(by_topic.items())
        if len(values) > 1
    ]


def lonely(said: Iterable[Said]) -> list[str]:
    """Topics of which is spoken once only: nothing is compared there."""
    times = Counter(one.topic for one in said)
    return sorted(topic for topic, spoken in times.items() if spoken < 2)


def out_of_order(ladder: Iterable[tuple[str, float]]) -> list[str]:
    """The steps of a ladder that are not above the one before."""
    pairs = pairwise(ladder)
    return [
        f"{name} ({value:g} s) must be above {below} ({least:g} s)" for (below, least), (name, value) in pairs if value <= least
    ]
