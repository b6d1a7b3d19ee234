"""Which node of a cluster has which keys: slots, the commands' keys, and what becomes of those that are not answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from app.errors import SourceError
from app.sources.redis.connections import Command, Reply
from app.sources.redis.link import Loss, node_failure

SLOTS: int = REDIS_CLUSTER_HASH_SLOTS

#: Where the key of a command stands; 1 for all others, 0 for a command without a key.
_KEY_PLACES: Mapping[str, int] = {"TIME": 0, "PING": 0, "INFO": 0, "ZUNION": 2, "XINFO": 2}
#: Commands that ask for one of many ids, and what they ask for. The answer goes on without those of a node that is down.
_OF_MANY: Mapping[str, str] = {
    "HMGET": "hashes",
    "EXISTS": "hashes",
    "ZRANGEBYSCORE": "sample lists",
    "TS.RANGE": "time series",
}


def slot_of(command: Command) -> int | None:
    """The slot of the command's key; None for a command without a key, which any node answers."""
    place = _KEY_PLACES.get(str(command[0]), 1)
    if not place:
        return None
    key = command[place]
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def slot_ranges(reply: Reply, asked_host: str) -> Iterator[tuple[int, int, str, int]]:
    """First and last slot, host and port of each master, from the reply to CLUSTER SLOTS. A node that does not know its own
    address is at the host that was asked."""
    for first, last, master, *_ in reply:
        host, port = master[0], master[1]
        yield int(first), int(last), host.decode() if host else asked_host, int(port)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Commands (by their places) that got no reply, from which node, and why."""

    address: str
    failure: SourceError
    places: Sequence[int]


def fill_unanswered(
    source: str, commands: Sequence[Command], replies: list[Reply], unanswered: Sequence[Unanswered]
) -> Iterator[Loss]:
    """Put replies as of missing keys where there were none. Raises the failure for a command that is no one of many."""
    for part in unanswered:
        lost = count_kinds([commands[place] for place in part.places])
        for place in part.places:
            if str(commands[place][0]) not in _OF_MANY:
                raise node_failure(source, part.address, part.failure)
            replies[place] = _missing_reply(commands[place])
        yield from (Loss(part.address, part.failure, what, count) for what, count in lost.items())


def count_kinds(commands: Sequence[Command]) -> Counter[str]:
    """How many of many are asked for, by their kind."""
    return Counter(_OF_MANY[name] for command in commands if (name := str(command[0])) in _OF_MANY)


def _missing_reply(command: Command) -> Reply:
    return {"HMGET": [None] * (len(command) - 2), "EXISTS": 0, "ZRANGEBYSCORE": []}.get(str(command[0]))
